"""Train on several data sets as one, their identities and cameras kept apart."""

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .reader import ReidImage, ReidReader
from .splits import ReidSplits


class JoinedReader(ReidReader):
    """Training splits one after another.

    Pids are numbered anew: they are the labels, source after source. Cameras are numbered on from
    source to source.

    Args:
        sources: Names, without slashes, and training splits. A path begins with the name of its
            source.

    Raises:
        ValueError: A source has no images, or is not a training split.
    """

    def __init__(self, sources: Sequence[tuple[str, ReidReader]]) -> None:
        images: list[ReidImage] = []
        pids = cameras = 0
        for name, source in sources:
            if not len(source) or source.label_of is None:
                raise ValueError(f"{name} has no images to train on")
            camids, numbers = np.unique(source.camids, return_inverse=True)
            for image, label, number in zip(
                source.images, source.labels.tolist(), numbers.tolist(), strict=True
            ):
                path = f"{name}/{image.path}"
                images.append(image._replace(path=path, pid=pids + label, camid=cameras + number))
            pids += len(source.label_of)
            cameras += len(camids)
        self._sources = dict(sources)
        super().__init__(sources[0][1].root, images, {pid: pid for pid in range(pids)})

    def open(self, index: int) -> BinaryIO:
        """The file of an image, open for reading."""
        source, path = self._locate(index)
        return source.opener(path) if source.opener else (source.root / path).open("rb")

    def _filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        source, path = self._locate(index)
        return str(source.root / path) if absolute else super()._filename(index, basename)

    def _locate(self, index: int) -> tuple[ReidReader, str]:
        """The reader that an image is from, and its path there."""
        name, _, path = self.images[index].path.partition("/")
        return self._sources[name], path


def join_train(datasets: Sequence[ReidSplits]) -> ReidReader:
    """The training split of a data set, or those of several as one.

    Raises:
        ValueError: One of them has nothing to train on, or two of them share images.
    """
    for splits in datasets:
        if not len(splits.train):
            raise ValueError(f"{splits.name} has no images to train on: it can be tested on only")
    if len(datasets) == 1:
        return datasets[0].train
    _check_different(datasets)
    names = [splits.name.replace("/", "-") for splits in datasets]
    for i, name in enumerate(names):  # two folders of one's own, say
        if name in names[:i]:
            names[i] = f"{name}-{i + 1}"
    return JoinedReader(list(zip(names, (splits.train for splits in datasets), strict=True)))


def _check_different(datasets: Sequence[ReidSplits]) -> None:
    """Raise a ValueError if an image is in two of them: its person would be two classes."""
    owner: dict[tuple[Path, str], str] = {}
    for splits in datasets:
        root = splits.root.resolve()
        images = {(root, image.path) for image in splits.train.images}
        for image in images & owner.keys():
            raise ValueError(
                f"{owner[image]} and {splits.name} both train on {root / image[1]}: its person "
                "would be taken for two people"
            )
        owner.update(dict.fromkeys(images, splits.name))
