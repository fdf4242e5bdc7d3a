"""`pedestrians`: a small re-identification data set that is drawn instead of downloaded.

It is for trying things out, tests and examples, and has Market-1501's layout. No real person is in
it. It has what makes re-identification hard: cameras with different colours, people seen from other
sides, occlusion, backgrounds in the colours of clothes, people who differ in cut and not in colour.
A score on it shows that training works, and says nothing about real pedestrians.
"""

import contextlib
import dataclasses
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from ..registry import register_dataset
from ..splits import ReidSplits
from .market1501 import FOLDERS, read_market1501
from .pedestrian_camera import NUM_CAMERAS, Camera
from .pedestrian_figure import Person

_logger = logging.getLogger(__name__)

# Goes up with every change to what is drawn: scores are comparable within a version only.
VERSION = 1


class _Shot(NamedTuple):
    """One image to be drawn."""

    folder: str
    pid: int
    camid: int
    number: int  # of this person in front of this camera, from 0
    person: Person | None


@register_dataset("pedestrians")
def pedestrians(root: Path | None) -> ReidSplits:
    """The drawn data set, in ``root/pedestrians-<version>``; drawn there on first use.

    Args:
        root: Folder to keep it in; the user's cache by default.
    """
    if root is None:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "rga_timm")
    folder = f"pedestrians-{VERSION}"
    if root.name != folder:
        root = root / folder
    with contextlib.suppress(FileExistsError):
        draw(root)
    return read_market1501(root, "pedestrians")


def draw(
    root: str | Path,
    *,
    seed: int = 0,
    train_ids: int = 180,
    train_images: int = 8,
    test_ids: int = 60,
    gallery_images: int = 2,
    distractors: int = 60,
    junk: int = 20,
    progress: bool = True,
) -> Path:
    """Draw a data set in Market-1501's layout.

    The same arguments give the same files, byte for byte, with the same Pillow and numpy. ``root``
    is complete or does not exist. Several processes may draw it at the same time.

    Args:
        root: The folder to make, which is returned.
        seed: Decides about people and cameras.
        train_ids: Number of people to train on.
        train_images: Images of each of them, spread over the cameras.
        test_ids: Number of other people to test on. Each passes 4 to 6 cameras.
        gallery_images: Gallery images of each person and camera; there is one query of each.
        distractors: Gallery images with pid 0: people and clutter that match no query.
        junk: Gallery images with pid -1, which readers have to drop.
        progress: Whether to show a progress bar, if there is a terminal.

    Raises:
        FileExistsError: ``root`` exists already.
    """
    root = Path(root)
    if root.exists():
        raise FileExistsError(f"{root} exists already: delete it, or draw to another folder")
    root.parent.mkdir(parents=True, exist_ok=True)
    # Beside it, so that the rename at the end stays on one file system, where it is atomic.
    unfinished = root.with_name(f".{root.name}-{uuid.uuid4().hex}")
    try:
        for folder in FOLDERS:
            (unfinished / folder).mkdir(parents=True)
        camids = range(1, NUM_CAMERAS + 1)
        cameras = [Camera.random(camid, _rng(seed, "camera", camid)) for camid in camids]
        shots = list(_plan(seed, train_ids, train_images, test_ids, gallery_images))
        shots += _plan_clutter(seed, distractors, junk)
        _logger.info("drawing %d images to %s", len(shots), root)
        for shot in tqdm(shots, desc=f"drawing {root.name}", disable=None if progress else True):
            _draw_one(unfinished, shot, cameras[shot.camid - 1], seed)
        unfinished.rename(root)
    except OSError:
        # A rename does not replace a folder with files in it: another process was faster.
        if not all((root / folder).is_dir() for folder in FOLDERS):
            raise
        _logger.info("%s was drawn by another process in the meantime: using that", root)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return root


def _plan(
    seed: int, train_ids: int, train_images: int, test_ids: int, gallery_images: int
) -> Iterator[_Shot]:
    """The images of all people, each under 4 to 6 of the cameras."""
    rng = _rng(seed, "plan")
    people = _people(train_ids + test_ids, rng)
    # Train and test people are mixed in the numbering, as in Market-1501.
    pids = rng.permutation(len(people)) + 1
    for index, (pid, person) in enumerate(zip(pids.tolist(), people, strict=True)):
        camids = rng.permutation(NUM_CAMERAS)[: int(rng.integers(4, NUM_CAMERAS + 1))] + 1
        if index < train_ids:
            for i in range(train_images):
                number, camera = divmod(i, len(camids))
                yield _Shot("bounding_box_train", pid, int(camids[camera]), number, person)
        else:
            for camid in camids.tolist():
                yield _Shot("query", pid, camid, 0, person)
                for number in range(1, gallery_images + 1):
                    yield _Shot("bounding_box_test", pid, camid, number, person)


def _plan_clutter(seed: int, distractors: int, junk: int) -> Iterator[_Shot]:
    rng = _rng(seed, "clutter")
    for pid, count in ((0, distractors), (-1, junk)):
        for number in range(count):
            # Two in three distractors are strangers, the others false alarms of a detector.
            person = Person.random(rng) if pid == 0 and number % 3 else None
            camid = 1 + number % NUM_CAMERAS
            yield _Shot("bounding_box_test", pid, camid, number // NUM_CAMERAS, person)


def _people(count: int, rng: np.random.Generator) -> list[Person]:
    """People who all differ in more than their height, which an image does not show."""
    people: dict[Person, Person] = {}
    while len(people) < count:
        person = Person.random(rng)
        people.setdefault(dataclasses.replace(person, height=1.0), person)
    return list(people.values())


def _draw_one(root: Path, shot: _Shot, camera: Camera, seed: int) -> None:
    # A random generator for each image, so that the order of drawing does not matter.
    rng = _rng(seed, "image", shot.pid + 1, shot.camid, shot.number)
    # A camera mostly sees a person from one side.
    view = camera.usual_view(_rng(seed, "view", shot.pid + 1, shot.camid))
    image = camera.shoot(shot.person, view if rng.random() < 0.6 else None, rng)
    pid = f"{shot.pid:04d}" if shot.pid >= 0 else "-1"
    frame = int(rng.integers(1, 100_000))
    name = f"{pid}_c{shot.camid}s1_{frame:06d}_{shot.number:02d}.jpg"
    image.save(root / shot.folder / name, quality=camera.quality)


def _rng(seed: int, purpose: str, *key: int) -> np.random.Generator:
    """An independent stream of random numbers for each purpose and key."""
    return np.random.default_rng([seed, *purpose.encode(), *key])
