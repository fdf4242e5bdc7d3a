import random
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from noise_image import write_noise
from torchvision import transforms as T

from rga_timm.data import (
    IdentityBatchSampler,
    ReidImage,
    ReidReader,
    create_eval_loader,
    create_train_loader,
    eval_transform,
    train_transform,
)

SIZE = (32, 16)
IDS, PER_ID = 8, 3


def numpy_noise(tensor: torch.Tensor) -> torch.Tensor:
    return tensor + np.random.normal()  # noqa: NPY002 - as people's own transforms do


# Draws from torch (crop, flip), from Python (erasing) and from numpy.
TRANSFORM = T.Compose([*train_transform(SIZE).transforms, numpy_noise])


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> ReidReader:
    root = tmp_path_factory.mktemp("images")
    images = [ReidImage(f"{pid}_{i}.png", pid * 10, i) for pid in range(IDS) for i in range(PER_ID)]
    for seed, image in enumerate(images):
        write_noise(root / image.path, seed=seed)
    return ReidReader(root, images, {pid * 10: pid for pid in range(IDS)})


def train_batches(reader, epochs, *, num_workers=0, seed=0, rank=0, world_size=1, **options):
    """Per epoch and batch (images, targets), all from one loader."""
    sampler = IdentityBatchSampler(reader.labels, 4, 2, rank=rank, world_size=world_size)
    loader = create_train_loader(
        reader, TRANSFORM, sampler, num_workers=num_workers, seed=seed, **options
    )
    result = []
    for epoch in epochs:
        sampler.set_epoch(epoch)
        batches = list(loader)
        assert len(batches) == len(loader)
        result.append(batches)
    return result


def assert_same(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_train_batches_hold_images_labels_and_cameras(reader):
    (((images, targets), _),) = train_batches(reader, [0])
    assert images.shape == (8, 3, *SIZE)
    assert images.dtype == torch.float32
    assert targets.shape == (8, 2)
    assert targets.dtype == torch.int64
    sampler = IdentityBatchSampler(reader.labels, 4, 2)
    first = next(iter(sampler))
    assert targets.tolist() == [[reader.labels[i], reader.camids[i]] for i in first]


@pytest.mark.parametrize("persistent_workers", [False, True])
def test_the_number_of_workers_changes_nothing(reader, persistent_workers):
    expected = train_batches(reader, [0, 1])
    options = {"num_workers": 2, "persistent_workers": persistent_workers}
    assert_same(train_batches(reader, [0, 1], **options), expected)


def test_a_resumed_run_sees_what_an_unbroken_one_sees(reader):
    assert_same(train_batches(reader, [2]), train_batches(reader, [0, 1, 2])[2:])


def test_rank_after_rank_the_images_are_those_of_one_process(reader):
    (whole,) = train_batches(reader, [1])
    ranks = [train_batches(reader, [1], rank=rank, world_size=2)[0] for rank in range(2)]
    for expected, *parts in zip(whole, *ranks, strict=True):
        images, targets = zip(*parts, strict=True)
        assert_same([torch.cat(images), torch.cat(targets)], expected)


def test_an_image_is_augmented_anew_at_every_place_epoch_and_seed(reader):
    one_image = ReidReader(reader.root, reader.images[:1], reader.label_of)
    seen = []
    for seed in (0, 1):
        sampler = IdentityBatchSampler(one_image.labels, 1, 4)
        loader = create_train_loader(one_image, TRANSFORM, sampler, num_workers=0, seed=seed)
        for epoch in range(3):
            sampler.set_epoch(epoch)
            ((images, _),) = loader
            seen += list(images)
    differences = torch.cdist(torch.stack(seen).flatten(1), torch.stack(seen).flatten(1))
    differences.fill_diagonal_(1)
    assert len(seen) == 24
    assert differences.min() > 0


def random_states():
    return random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002


@pytest.mark.parametrize("num_workers", [0, 1])
def test_loading_leaves_the_random_numbers_of_this_process_alone(reader, num_workers):
    before = random_states()
    train_batches(reader, [0], num_workers=num_workers)
    list(create_eval_loader(reader, eval_transform(SIZE), 4, num_workers=num_workers))
    after = random_states()
    assert after[0] == before[0]
    np.testing.assert_equal(after[1], before[1])
    assert torch.equal(after[2], before[2])


def test_negative_seeds_are_refused(reader):
    with pytest.raises(ValueError, match="at least 0, not -1"):
        train_batches(reader, [0], seed=-1)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_eval_batches_hold_every_image_once_in_order(reader, num_workers):
    loader = create_eval_loader(reader, eval_transform(SIZE), 7, num_workers=num_workers)
    images, targets = zip(*loader, strict=True)
    assert [len(batch) for batch in images] == [7, 7, 7, 3]
    assert torch.cat(targets).tolist() == np.stack([reader.labels, reader.camids], 1).tolist()
    plain = [loader.dataset[i][0] for i in range(len(reader))]
    assert_same(torch.cat(images), torch.stack(plain))


@pytest.mark.parametrize("world_size", [1, 5, 30])  # 30 is more than there are images
def test_eval_ranks_share_the_images_in_order_without_repeats(reader, world_size):
    targets = []
    for rank in range(world_size):
        loader = create_eval_loader(
            reader, eval_transform(SIZE), 2, num_workers=0, rank=rank, world_size=world_size
        )
        batches = [batch.tolist() for _, batch in loader]
        assert len(batches) == len(loader)
        targets += chain(*batches)
    assert targets == np.stack([reader.labels, reader.camids], 1).tolist()


def test_eval_ranks_beyond_the_world_are_refused(reader):
    with pytest.raises(ValueError, match="rank 2 is not one of the 2"):
        create_eval_loader(reader, eval_transform(SIZE), rank=2, world_size=2)


def test_a_corrupt_image_stops_the_loader_with_its_name(tmp_path: Path):
    (tmp_path / "broken.png").write_bytes(b"not an image")
    broken = ReidReader(tmp_path, [ReidImage("broken.png", 0, 0)])
    sampler = IdentityBatchSampler(broken.labels, 1, 2)
    before = random.getstate()
    with pytest.raises(RuntimeError, match=r"broken\.png"):
        list(create_train_loader(broken, TRANSFORM, sampler, num_workers=0))
    assert random.getstate() == before
    # From another process too. One worker: torch waits 5 s for each to end after an error.
    with pytest.raises(RuntimeError, match=r"broken\.png"):
        list(create_eval_loader(broken, eval_transform(SIZE), num_workers=1))
