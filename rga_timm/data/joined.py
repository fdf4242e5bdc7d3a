"""Train on several data sets as one, with separate identities and cameras."""

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .reader import ReidImage, ReidReader
from .splits import ReidSplits


class JoinedReader(ReidReader):
    """Training splits one after another.

    Pids are the labels, which count on from source to source, and so do the cameras.

    Sources are names, without slashes, and training splits, or a ValueError. A path begins with the
    name of its source.
    """

    def __init__(self, sources: Sequence[tuple[str, ReidReader]]) -> None:
        images: list[ReidImage] = []
        pids = cameras = 0
        for name, source in sources:
            if not len(source) or source.label_of is None:
                raise ValueError(f"{name} has no images to train on")
            camids, numbers = np.unique(source.camids, return_inverse=True)
            for image, pid, camid in zip(
                source.images, source.labels + pids, numbers + cameras, strict=True
            ):
                path = f"{name}/{image.path}"
                images.append(image._replace(path=path, pid=int(pid), camid=int(camid)))
            pids += len(source.label_of)
            cameras += len(camids)
        self._sources = dict(sources)
        labels = {pid: pid for pid in range(pids)}
        super().__init__(sources[0][1].root, images, labels, self._open)

    def _open(self, path: str) -> BinaryIO:
        name, _, path = path.partition("/")
        source = self._sources[name]
        return source.opener(path) if source.opener else (source.root / path).open("rb")

    def _filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        name, _, path = self.images[index].path.partition("/")
        source = self._sources[name]
        return str(source.root / path) if absolute else super()._filename(index, basename)


def join_train(datasets: Sequence[ReidSplits]) -> ReidReader:
    """Return the training split of a data set, or those of several, without shared images, as one.

    A data set without images to train on, and an image that is in two, are a ValueError.
    """
    names: list[str] = []
    owner: dict[tuple[Path, str], str] = {}  # of each image: shared ones would be of two classes
    for i, splits in enumerate(datasets):
        if not len(splits.train):
            raise ValueError(f"{splits.name} has no images to train on: it can be tested on only")
        root = splits.root.resolve()
        images = {(root, image.path) for image in splits.train.images}
        for image in images & owner.keys():
            text = f"{owner[image]} and {splits.name} both train on {root / image[1]}"
            raise ValueError(f"{text}: its person would be taken for two people")
        owner.update(dict.fromkeys(images, splits.name))
        name = splits.name.replace("/", "-")
        names.append(f"{name}-{i + 1}" if name in names else name)
    if len(datasets) == 1:
        return datasets[0].train
    return JoinedReader(list(zip(names, (splits.train for splits in datasets), strict=True)))
