from pathlib import Path

import numpy as np
import pytest
from noise_image import write_noise
from PIL import Image

from rga_timm.data import (
    IdentityBatchSampler,
    ReidDataset,
    ReidImage,
    ReidSplits,
    create_train_loader,
    join_train,
    train_transform,
)

FIRST = [ReidImage("a.png", 7, 3), ReidImage("b.png", 2, 5), ReidImage("c.png", 7, 5)]
SECOND = [ReidImage("a.png", 2, 3), ReidImage("d.png", 9, 1, box=(0, 0, 8, 8))]


def data_set(root: Path, images: list[ReidImage], name: str = "mine", seed: int = 0) -> ReidSplits:
    for i, image in enumerate(images):
        write_noise(root / image.path, seed=seed + i)
    return ReidSplits.from_images(name, root, train=images)


@pytest.fixture
def sources(tmp_path: Path) -> list[ReidSplits]:
    return [
        data_set(tmp_path / "1", FIRST, "first"),
        data_set(tmp_path / "2", SECOND, "second:split=1", seed=10),
    ]


def test_identities_and_cameras_of_different_sets_are_kept_apart(sources):
    joined = join_train(sources)
    assert joined.labels.tolist() == [1, 0, 1, 2, 3]
    assert joined.camids.tolist() == [0, 1, 1, 3, 2]
    assert joined.label_of == {0: 0, 1: 1, 2: 2, 3: 3}
    assert [image.path for image in joined.images[2:4]] == ["first/c.png", "second:split=1/a.png"]


def test_every_image_is_the_one_of_its_source(sources, tmp_path):
    joined = join_train(sources)
    data = ReidDataset(joined)
    parts = [ReidDataset(splits.train) for splits in sources]
    apart = [image for part in parts for image, _ in (part[i] for i in range(len(part)))]
    for i, expected in enumerate(apart):
        image, target = data[i]
        assert np.array_equal(np.asarray(image), np.asarray(expected))
        assert target.tolist() == [joined.labels[i], joined.camids[i]]
    assert apart[4].size == (8, 8)
    assert joined.filename(3, absolute=True) == str(tmp_path / "2" / "a.png")
    assert joined.filename(3, basename=True) == "a.png"
    assert np.array_equal(np.asarray(data[-1][0]), np.asarray(apart[4]))
    with pytest.raises(IndexError):
        joined.open(5)


def test_an_error_names_the_file_where_it_lies(sources, tmp_path):
    (tmp_path / "2" / "a.png").write_bytes(b"text")
    with pytest.raises(RuntimeError, match=str(tmp_path / "2" / "a.png")):
        ReidDataset(join_train(sources))[3]


def test_one_source_is_its_own_split(sources):
    assert join_train(sources[:1]) is sources[0].train


def test_images_can_be_left_out_and_labels_stay(sources):
    joined = join_train(sources).without([1, 3])
    assert joined.labels.tolist() == [1, 1, 3]
    assert joined.label_of == {0: 0, 1: 1, 2: 2, 3: 3}
    assert np.array_equal(
        np.asarray(ReidDataset(joined)[2][0]), np.asarray(ReidDataset(sources[1].train)[1][0])
    )


def test_two_sets_of_one_name_have_paths_of_their_own(tmp_path):
    sources = [data_set(tmp_path / str(i), FIRST, "hf:repo=me/mine") for i in range(2)]
    assert [join_train(sources).images[i].path for i in (0, 3)] == [
        "hf:repo=me-mine/a.png",
        "hf:repo=me-mine-2/a.png",
    ]


def test_a_set_without_images_to_train_on_is_refused(sources):
    empty = ReidSplits.from_images("test only", Path(), query=FIRST, gallery=FIRST)
    for several in ([empty], [*sources, empty]):
        with pytest.raises(ValueError, match="test only has no images to train on"):
            join_train(several)


def test_a_set_is_not_joined_with_itself(sources):
    again = ReidSplits.from_images("again", sources[0].root / ".." / "1", train=FIRST[:1])
    with pytest.raises(ValueError, match=r"first and again both train on .*1/a\.png"):
        join_train([*sources, again])


def test_batches_mix_the_sources_in_loader_processes(sources):
    joined = join_train(sources)
    loader = create_train_loader(
        joined,
        train_transform((32, 16)),
        IdentityBatchSampler(joined.labels, 4, 1),
        num_workers=1,
        persistent_workers=False,
    )
    (batch,) = [targets[:, 0].sort().values.tolist() for _, targets in loader]
    assert batch == [0, 1, 2, 3]


def test_pictures_of_both_sources_differ(sources):
    # What the other tests compare with would say nothing if the sources were alike.
    first, second = (Image.open(splits.root / "a.png") for splits in sources)
    assert not np.array_equal(np.asarray(first), np.asarray(second))
