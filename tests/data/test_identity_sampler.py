from collections import Counter
from itertools import chain

import numpy as np
import pytest

from rga_timm.data import IdentityBatchSampler

# Identity 10 + i has SIZES[i] images: fewer than K, exactly K, not a multiple of K, many.
SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 12, 30, 4]
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(10, 10 + len(SIZES)), SIZES))
K = 4

every_kind_of_epoch = pytest.mark.parametrize("epoch_images", ["identity", "all"])
any_end = pytest.mark.parametrize("drop_last", [False, True])
any_batch = pytest.mark.parametrize("P", [1, 2, 4, 5, 11])


def epoch_of(P: int, epoch: int = 0, **options) -> list[list[int]]:
    sampler = IdentityBatchSampler(LABELS, P, K, **options)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert {len(batch) for batch in batches} == {sampler.batch_size}
    return batches


def groups_of(batches: list[list[int]]) -> list[tuple[int, list[int]]]:
    """(identity, its K images) for every group of every batch."""
    groups = []
    for batch in batches:
        for i in range(0, len(batch), K):
            images = batch[i : i + K]
            (identity,) = set(LABELS[images].tolist())  # one identity a group
            groups.append((identity, images))
    return groups


@every_kind_of_epoch
@any_end
@any_batch
def test_a_batch_is_different_identities_with_as_many_images_each(P, drop_last, epoch_images):
    for batch in epoch_of(P, epoch_images=epoch_images, drop_last=drop_last):
        assert sorted(Counter(LABELS[batch].tolist()).values()) == [K] * P


@every_kind_of_epoch
@any_batch
def test_images_repeat_within_a_group_only_where_an_identity_has_too_few(P, epoch_images):
    for identity, images in groups_of(epoch_of(P, epoch_images=epoch_images)):
        assert len(set(images)) == min(K, SIZES[identity - 10])


@any_batch
def test_an_epoch_of_identities_has_each_once_and_fills_up_the_last_places(P):
    counts = Counter(identity for identity, _ in groups_of(epoch_of(P)))
    batches = -(-len(SIZES) // P)
    assert sum(counts.values()) == batches * P
    assert set(counts) == set(LABELS.tolist())
    assert max(counts.values()) <= 2
    assert sum(count - 1 for count in counts.values()) == batches * P - len(SIZES)


@any_batch
def test_drop_last_leaves_out_identities_instead_of_repeating_them(P):
    counts = Counter(identity for identity, _ in groups_of(epoch_of(P, drop_last=True)))
    assert set(counts.values()) == {1}
    assert len(counts) == len(SIZES) // P * P


@any_batch
def test_an_epoch_of_all_images_has_every_image(P):
    batches = epoch_of(P, epoch_images="all")
    assert {image for batch in batches for image in batch} == set(range(len(LABELS)))
    needed = [-(-size // K) for size in SIZES]
    # No fewer batches can do: these many groups, and those of one identity in different batches.
    assert len(batches) == max(-(-sum(needed) // P), max(needed))


def test_more_images_come_up_more_often_in_an_epoch_of_all_images():
    counts = Counter(identity for identity, _ in groups_of(epoch_of(1, epoch_images="all")))
    assert counts == {10 + i: -(-size // K) for i, size in enumerate(SIZES)}


def test_drop_last_makes_full_batches_of_all_images_without_repeating_a_group():
    for P in (2, 4, 5):
        counts = Counter(
            identity for identity, _ in groups_of(epoch_of(P, epoch_images="all", drop_last=True))
        )
        assert all(count <= -(-SIZES[identity - 10] // K) for identity, count in counts.items())


@every_kind_of_epoch
@pytest.mark.parametrize("world_size", [2, 3, 6])
def test_rank_after_rank_the_batches_are_those_of_one_process(world_size, epoch_images):
    whole = epoch_of(6, epoch=3, epoch_images=epoch_images)
    ranks = [
        epoch_of(6, epoch=3, epoch_images=epoch_images, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    assert [list(chain(*parts)) for parts in zip(*ranks, strict=True)] == whole


@every_kind_of_epoch
def test_an_epoch_depends_on_seed_and_epoch_alone(epoch_images):
    expected = epoch_of(4, epoch=2, seed=5, epoch_images=epoch_images)
    sampler = IdentityBatchSampler(LABELS, 4, K, seed=5, epoch_images=epoch_images)
    np.random.random()  # noqa: NPY002 - whatever the global generator is at
    first = list(sampler)
    sampler.set_epoch(2)
    assert list(sampler) == list(sampler) == expected
    assert first != expected
    assert epoch_of(4, epoch=2, seed=6, epoch_images=epoch_images) != expected


def test_over_many_epochs_identities_meet_and_images_come_up_equally_often():
    meetings = np.zeros((len(SIZES), len(SIZES)))
    images = np.zeros(len(LABELS))
    epochs = 1000
    for epoch in range(epochs):
        for batch in epoch_of(2, epoch, drop_last=True):
            first, second = LABELS[batch[0]] - 10, LABELS[batch[K]] - 10
            meetings[first, second] += 1
            np.add.at(images, batch, 1)
    # 5 batches of 110 ordered pairs; 5 standard deviations of a Poisson count.
    expected = epochs * 5 / 110
    off_diagonal = ~np.eye(len(SIZES), dtype=bool)
    assert np.abs(meetings[off_diagonal] - expected).max() < 5 * expected**0.5
    for identity, size in enumerate(SIZES):
        expected = epochs * (10 / 11) * K / size
        found = images[identity + 10 == LABELS]
        assert np.abs(found - expected).max() < 5 * expected**0.5


def test_an_iteration_that_has_begun_is_not_changed_by_set_epoch():
    sampler = IdentityBatchSampler(LABELS, 4, K)
    batches = iter(sampler)
    sampler.set_epoch(1)
    assert list(batches) == epoch_of(4, epoch=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_identities": 12}, "12 identities cannot be made of 11: lower num_identities"),
        ({"num_identities": 0}, "P=0"),
        ({"num_identities": 2, "num_instances": 0}, "K=0"),
        ({"num_identities": 4, "world_size": 3}, "multiple of world_size"),
        ({"num_identities": 4, "world_size": 2, "rank": 2}, "rank 2 is not one of the 2"),
        ({"num_identities": 4, "seed": -1}, "at least 0"),
        ({"num_identities": 4, "epoch_images": "some"}, "'identity' or 'all', not 'some'"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        IdentityBatchSampler(LABELS, **options)


LABELS_AND_OTHERS = [*np.repeat(np.arange(8), 5).tolist(), *[-1] * 7]


def test_images_without_an_identity_follow_those_of_the_batches():
    without = IdentityBatchSampler(LABELS_AND_OTHERS, 4, 2, epoch_images="all")
    sampler = IdentityBatchSampler(LABELS_AND_OTHERS, 4, 2, epoch_images="all", num_unlabelled=3)
    assert (sampler.num_labelled, sampler.batch_size) == (8, 11)
    batches = list(sampler)
    assert [batch[:8] for batch in batches] == list(without)
    others = [image for batch in batches for image in batch[8:]]
    assert set(others[:7]) == set(others[7:14]) == set(range(40, 47))  # all before one again
    sampler.set_epoch(1)
    assert [image for batch in sampler for image in batch[8:]] != others


def test_ranks_share_the_images_without_an_identity():
    whole, *ranks = (
        list(IdentityBatchSampler(LABELS_AND_OTHERS, 4, 2, num_unlabelled=4, **rank))
        for rank in ({}, *({"rank": r, "world_size": 2} for r in range(2)))
    )
    for batch, first, second in zip(whole, *ranks, strict=True):
        assert batch == first[:4] + second[:4] + first[4:] + second[4:]


@pytest.mark.parametrize(("labels", "count"), [([0, 0, 1, 1], 2), (LABELS_AND_OTHERS, 3)])
def test_numbers_of_images_without_identity_must_fit(labels, count):
    with pytest.raises(ValueError, match=r"without an identity|multiple of world_size"):
        IdentityBatchSampler(labels, 2, 2, num_unlabelled=count, world_size=2)
