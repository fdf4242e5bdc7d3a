import random

import numpy as np
import pytest
import torch
from noise_image import write_noise

from rga_timm.data import (
    IdentityBatchSampler,
    ImageCache,
    ReidImage,
    ReidReader,
    create_cached_train_loader,
    create_train_loader,
    train_transform,
)
from rga_timm.data.transforms import IMAGENET_STD

OWN_SIZE = (32, 16)  # of the images themselves
IDS, PER_ID = 8, 3
LEVEL = 1 / 255 / torch.tensor(IMAGENET_STD)[:, None, None]  # of a byte, in normalised images


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> ReidReader:
    root = tmp_path_factory.mktemp("images")
    images = [ReidImage(f"{pid}_{i}.png", pid * 10, i) for pid in range(IDS) for i in range(PER_ID)]
    for seed, image in enumerate(images):
        write_noise(root / image.path, seed=seed)
    return ReidReader(root, images, {pid * 10: pid for pid in range(IDS)})


@pytest.fixture(scope="module")
def cache(reader) -> ImageCache:
    return ImageCache.fill(reader, OWN_SIZE, num_workers=0)


def targets_of(reader: ReidReader) -> np.ndarray:
    return np.stack([reader.labels, reader.camids], axis=1)


def batches(reader, cache, epochs, *, size=OWN_SIZE, rank=0, world_size=1, seed=3, **options):
    """Per epoch and batch (images, targets), all from one loader: the plain one if no cache."""
    enlarge_prob = options.pop("enlarge_prob", 0.5)
    transform = train_transform(size, enlarge_prob=enlarge_prob)
    sampler = IdentityBatchSampler(reader.labels, 4, 2, rank=rank, world_size=world_size)
    options = {"num_workers": 0, "seed": seed, **options}
    if cache is None:
        loader = create_train_loader(reader, transform, sampler, **options)
    else:
        loader = create_cached_train_loader(
            cache, transform, sampler, targets=targets_of(reader), **options
        )
    result = []
    for epoch in epochs:
        sampler.set_epoch(epoch)
        result.append(list(loader))
        assert len(result[-1]) == len(loader) == 2
    return result


def assert_same(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(("rank", "world_size"), [(0, 1), (0, 2), (1, 2)])
def test_batches_are_the_plain_loaders(reader, cache, num_workers, rank, world_size):
    share = {"rank": rank, "world_size": world_size}
    expected = batches(reader, None, [0, 1, 5], **share)
    found = batches(reader, cache, [0, 1, 5], num_workers=num_workers, **share)
    exact = 0
    for images, targets, wanted, wanted_targets in (
        (*pair, *wanted_pair)
        for epoch, wanted_epoch in zip(found, expected, strict=True)
        for pair, wanted_pair in zip(epoch, wanted_epoch, strict=True)
    ):
        assert_same(targets, wanted_targets)
        assert images.dtype == torch.float32
        # Only of what is enlarged Pillow's rounding is another. On noise anything else would show.
        assert ((images - wanted).abs() / LEVEL).max() < 1.001
        exact += sum(map(torch.equal, images, wanted))
    count = 3 * 2 * 8 // world_size
    assert 0.2 < exact / count < 0.8


def test_without_enlarging_they_are_exactly_those_whatever_the_originals_size(reader):
    size = (24, 20)
    cache = ImageCache.fill(reader, size, num_workers=0)
    options = {"size": size, "enlarge_prob": 0.0}
    assert_same(batches(reader, cache, [0, 1], **options), batches(reader, None, [0, 1], **options))


@pytest.mark.parametrize("persistent_workers", [False, True])
def test_the_number_of_workers_changes_nothing(reader, cache, persistent_workers):
    options = {"num_workers": 2, "persistent_workers": persistent_workers}
    assert_same(batches(reader, cache, [0, 1], **options), batches(reader, cache, [0, 1]))


def test_a_resumed_run_sees_what_an_unbroken_one_sees(reader, cache):
    assert_same(batches(reader, cache, [2]), batches(reader, cache, [0, 1, 2])[2:])


def test_rank_after_rank_the_images_are_those_of_one_process(reader, cache):
    (whole,) = batches(reader, cache, [1])
    ranks = [batches(reader, cache, [1], rank=rank, world_size=2)[0] for rank in range(2)]
    for expected, *parts in zip(whole, *ranks, strict=True):
        images, targets = zip(*parts, strict=True)
        assert_same([torch.cat(images), torch.cat(targets)], list(expected))


def test_epochs_and_seeds_draw_anew(reader, cache):
    epochs = batches(reader, cache, [0, 1]) + batches(reader, cache, [0], seed=4)
    first = [epoch[0][0] for epoch in epochs]
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_epoch_is_the_one_in_which_the_iteration_was_begun(reader, cache, num_workers):
    sampler = IdentityBatchSampler(reader.labels, 4, 2)
    loader = create_cached_train_loader(
        cache, train_transform(OWN_SIZE), sampler,
        targets=targets_of(reader), num_workers=num_workers, seed=3,
    )  # fmt: skip
    iterator = iter(loader)
    sampler.set_epoch(1)
    assert_same(list(iterator), batches(reader, cache, [0])[0])


@pytest.mark.parametrize("num_workers", [0, 1])
def test_loading_leaves_the_random_numbers_of_this_process_alone(reader, cache, num_workers):
    def states():
        return random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002

    random.seed(11)  # or an earlier test may have left what loading leaves
    np.random.seed(11)  # noqa: NPY002
    torch.manual_seed(11)
    before = states()
    batches(reader, cache, [0], num_workers=num_workers)
    after = states()
    assert after[0] == before[0]
    np.testing.assert_equal(after[1], before[1])
    assert torch.equal(after[2], before[2])


def test_batches_come_to_the_device_that_is_asked_for(reader, cache):
    transform = train_transform(OWN_SIZE)
    seen = []

    def apply_batch(images, drawn):
        seen.append((images.device.type, images.dtype, drawn.device.type))
        return images.float()

    transform.apply_batch = apply_batch  # nothing can be looked at on torch's device for shapes
    ((images, targets), _) = create_cached_train_loader(
        cache, transform, IdentityBatchSampler(reader.labels, 4, 2),
        targets=targets_of(reader), device="meta", num_workers=0,
    )  # fmt: skip
    # Augmented there, as bytes; the plan stays here.
    assert seen == [("meta", torch.uint8, "cpu")] * 2
    assert images.device.type == targets.device.type == "meta"
    assert (images.shape, targets.shape) == ((8, 3, *OWN_SIZE), (8, 2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": np.zeros((5, 2), dtype=int)}, r"each of the 24 .*, not \(5, 2\)"),
        ({"targets": np.zeros(24, dtype=int)}, r"not \(24,\)"),
        ({"transform": train_transform((16, 32))}, r"\(32, 16\) .* for \(16, 32\)"),
        (
            {"transform": train_transform(OWN_SIZE, interpolation="bicubic")},
            "by 'bilinear', the transform's interpolation is 'bicubic'",
        ),
        ({"seed": -1}, "at least 0, not -1"),
    ],
)
def test_what_does_not_fit_is_refused(reader, cache, changes, message):
    options = {"transform": train_transform(OWN_SIZE), "targets": targets_of(reader), **changes}
    sampler = IdentityBatchSampler(reader.labels, 4, 2)
    with pytest.raises(ValueError, match=message):
        create_cached_train_loader(cache, batch_sampler=sampler, num_workers=0, **options)
