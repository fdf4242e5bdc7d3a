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
    name of its source. The images of `unlabelled` sources follow, with the pid and label -1.
    """

    def __init__(
        self,
        sources: Sequence[tuple[str, ReidReader]],
        unlabelled: Sequence[tuple[str, ReidReader]] = (),
    ) -> None:
        images: list[ReidImage] = []
        pids = cameras = 0
        for i, (name, source) in enumerate((*sources, *unlabelled)):
            is_labelled = i < len(sources)
            if not len(source) or (is_labelled and source.label_of is None):
                raise ValueError(f"{name} has no images to train on")
            camids, numbers = np.unique(source.camids, return_inverse=True)
            labels = source.labels + pids if is_labelled else np.full(len(source), -1)
            for image, pid, camid in zip(source.images, labels, numbers + cameras, strict=True):
                path = f"{name}/{image.path}"
                images.append(image._replace(path=path, pid=int(pid), camid=int(camid)))
            pids += len(source.label_of or ()) if is_labelled else 0
            cameras += len(camids)
        self._sources = dict((*sources, *unlabelled))
        label_of = {pid: pid for pid in (*range(pids), *([-1] if unlabelled else []))}
        super().__init__(sources[0][1].root, images, label_of, self._open)

    def _open(self, path: str) -> BinaryIO:
        name, _, path = path.partition("/")
        source = self._sources[name]
        return source.opener(path) if source.opener else (source.root / path).open("rb")

    def _filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        name, _, path = self.images[index].path.partition("/")
        source = self._sources[name]
        return str(source.root / path) if absolute else super()._filename(index, basename)


def join_train(
    datasets: Sequence[ReidSplits], unlabelled: Sequence[tuple[str, ReidReader]] = ()
) -> ReidReader:
    """Return the training images of one or more data sets, without shared images, as one reader.

    Those of `unlabelled`, readers with their names, follow without identities. A data set without
    images to train on, and an image that is in two data sets, are a ValueError.
    """
    owner: dict[tuple[Path, str], str] = {}  # of each image: shared ones would be of two classes
    for splits in datasets:
        if not len(splits.train):
            raise ValueError(f"{splits.name} has no images to train on: it can be tested on only")
        root = splits.root.resolve()
        images = {(root, image.path) for image in splits.train.images}
        for image in images & owner.keys():
            text = f"{owner[image]} and {splits.name} both train on {root / image[1]}"
            raise ValueError(f"{text}: its person would be taken for two people")
        owner.update(dict.fromkeys(images, splits.name))
    if len(datasets) == 1 and not unlabelled:
        return datasets[0].train
    sources: list[tuple[str, ReidReader]] = []
    for name, reader in (*((splits.name, splits.train) for splits in datasets), *unlabelled):
        name = name.replace("/", "-")
        taken = name in [other for other, _ in sources]
        sources.append((f"{name}-{len(sources) + 1}" if taken else name, reader))
    return JoinedReader(sources[: len(datasets)], sources[len(datasets) :])
