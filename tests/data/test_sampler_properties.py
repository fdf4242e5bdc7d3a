"""What a batch sampler promises, for any data set, any batch, any number of processes."""

from collections import Counter
from itertools import chain

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rga_timm.data import IdentityBatchSampler


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, int, int, int, dict[str, object]]:
    """Labels in any order, P, K, a number of processes that divides P, and options."""
    sizes = draw(st.lists(st.integers(1, 12), min_size=1, max_size=16))
    names = draw(st.permutations(range(100, 100 + len(sizes))))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    labels = rng.permutation(np.repeat(names, sizes))
    P = draw(st.integers(1, len(sizes)))
    K = draw(st.integers(1, 6))
    world_size = draw(st.sampled_from([n for n in range(1, P + 1) if P % n == 0]))
    options = {
        "epoch_images": draw(st.sampled_from(["identity", "all"])),
        "drop_last": draw(st.booleans()),
        "seed": draw(st.integers(0, 3)),
    }
    return labels, P, K, world_size, options


def ranks_of(labels, P, K, world_size, options, epoch=0) -> list[list[list[int]]]:
    """The batches of each process."""
    ranks = []
    for rank in range(world_size):
        sampler = IdentityBatchSampler(labels, P, K, rank=rank, world_size=world_size, **options)
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler)
        assert all(len(batch) == sampler.batch_size for batch in batches)
        ranks.append(batches)
    return ranks


@given(cases())
def test_a_batch_over_all_processes_is_as_many_identities_with_as_many_images_as_asked(case):
    labels, P, K, _, _ = case
    for parts in zip(*ranks_of(*case), strict=True):
        batch = list(chain(*parts))
        identities = Counter(labels[batch].tolist())
        assert len(identities) == P
        assert set(identities.values()) == {K}
        for identity in identities:
            images = Counter(image for image in batch if labels[image] == identity)
            size = int((labels == identity).sum())
            assert len(images) == min(size, K)
            # Where an identity has too few, none of its images comes up for lack of another.
            assert size < K or max(images.values()) == 1


@given(cases())
def test_processes_never_share_an_identity_of_a_batch_and_together_are_one_process(case):
    labels, P, K, world_size, options = case
    ranks = ranks_of(*case)
    (whole,) = ranks_of(labels, P, K, 1, options)
    for parts, batch in zip(zip(*ranks, strict=True), whole, strict=True):
        assert list(chain(*parts)) == batch
        identities = [set(labels[part].tolist()) for part in parts]
        assert len(set.union(*identities)) == sum(map(len, identities)) == P
        assert all(len(part) == P // world_size for part in identities)


@given(cases())
def test_an_epoch_sees_every_identity_or_leaves_out_less_than_a_batch(case):
    labels, P, _, _, options = case
    everybody = set(labels.tolist())
    seen = {int(labels[i]) for batches in ranks_of(*case) for batch in batches for i in batch}
    if not options["drop_last"]:
        assert seen == everybody
    elif options["epoch_images"] == "identity":
        assert len(everybody - seen) < P


@given(cases())
def test_an_epoch_of_all_images_sees_every_image(case):
    labels, P, K, world_size, options = case
    options = options | {"epoch_images": "all", "drop_last": False}
    ranks = ranks_of(labels, P, K, world_size, options)
    assert {i for batches in ranks for batch in batches for i in batch} == set(range(len(labels)))


@given(cases(), st.integers(0, 5))
def test_an_epoch_is_the_same_every_time(case, epoch):
    assert ranks_of(*case, epoch=epoch) == ranks_of(*case, epoch=epoch)
