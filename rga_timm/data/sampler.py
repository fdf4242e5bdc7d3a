"""P×K batches: P identities with K images each, from which triplet losses mine their triplets.

Hermans et al., "In Defense of the Triplet Loss for Person Re-Identification", 2017.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from torch.utils.data import Sampler


class IdentityBatchSampler(Sampler[list[int]]):
    """Batches of ``num_identities`` different identities with ``num_instances`` images each.

    The batches of an epoch depend on ``seed`` and the epoch alone. With several ranks, each takes
    its share of the identities of every global batch. An identity with fewer than K images gives
    each of them once and then repeats some. Images without an identity may follow those of the
    identities in each batch.

    Args:
        labels: (n,) the identity of each image of the data set; -1 for none.
        num_identities: P, over all ranks.
        num_instances: K.
        seed: Seed of everything random; at least 0.
        rank: This process.
        world_size: How many processes share a batch.
        epoch_images: What makes an epoch. ``"identity"``: K images of each identity, the paper's.
            ``"all"``: every image, so that an identity with more images comes up more often.
        drop_last: Whether to drop the identities that do not fill the last batch of an epoch.
            Otherwise identities that were in the epoch already complete it.
        num_unlabelled: Images without an identity in a batch, over all ranks. All of them come once
            before one comes a second time, from epoch to epoch in another order.

    Raises:
        ValueError: The numbers do not fit each other or the data set.
    """

    def __init__(
        self,
        labels: Sequence[int] | np.ndarray,
        num_identities: int = 16,
        num_instances: int = 4,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        epoch_images: Literal["identity", "all"] = "identity",
        drop_last: bool = False,
        num_unlabelled: int = 0,
    ) -> None:
        labels = np.asarray(labels)
        identities = np.unique(labels[labels >= 0])
        if num_identities < 1 or num_instances < 1:
            raise ValueError(f"P={num_identities} and K={num_instances} must be at least 1")
        if (count := len(identities)) < num_identities:
            text = f"a batch of {num_identities} identities cannot be made of {count}"
            raise ValueError(f"{text}: lower num_identities")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not one of the {world_size} ranks from 0")
        if num_identities % world_size:
            raise ValueError(f"{num_identities=} must be a multiple of world_size={world_size}")
        if seed < 0:
            raise ValueError(f"the seed is at least 0, not {seed}")
        if epoch_images not in ("identity", "all"):
            raise ValueError(f"epoch_images is 'identity' or 'all', not {epoch_images!r}")
        self._unlabelled = np.flatnonzero(labels < 0)
        if num_unlabelled < 0 or num_unlabelled % world_size:
            text = f"{num_unlabelled=} must be a multiple of world_size={world_size}, at least 0"
            raise ValueError(text)
        if num_unlabelled and not len(self._unlabelled):
            raise ValueError("there are no images without an identity")
        self.num_identities, self.num_instances = num_identities, num_instances
        self.num_unlabelled = num_unlabelled
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.epoch = 0
        self._images = [np.flatnonzero(labels == identity) for identity in identities]
        # From here on, an identity's images come in groups of K; an epoch is a number of groups
        # for each identity, and a batch is made of groups of P different identities.
        sizes = np.array([len(images) for images in self._images])
        needed = -(-sizes // num_instances)
        self._groups = needed if epoch_images == "all" else np.ones_like(sizes)
        self._num_batches = _count_batches(self._groups, num_identities, drop_last)

    @property
    def num_labelled(self) -> int:
        """Images with an identity in a batch of this rank; they come first."""
        return self.num_identities // self.world_size * self.num_instances

    @property
    def batch_size(self) -> int:
        """Images in a batch of this rank."""
        return self.num_labelled + self.num_unlabelled // self.world_size

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration goes through."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._num_batches

    def __iter__(self) -> Iterator[list[int]]:
        # Planned here and not at the first next(), so that a set_epoch in between has no effect.
        rng = np.random.default_rng([self.seed, self.epoch])
        B, P, K = self._num_batches, self.num_identities, self.num_instances
        groups = self._fit_groups(rng)  # (identities,), B * P in all, none above B

        # Deal the identities out like cards, all groups of one after another: card j goes to
        # batch j mod B. No identity has more than B cards, so no batch gets one twice.
        order = rng.permutation(len(groups))
        batches = np.repeat(order, groups[order]).reshape(P, B).T  # (B, P)
        batches = rng.permuted(rng.permutation(batches), axis=1)

        hands = {
            identity: iter(_draw_groups(self._images[identity], int(groups[identity]), K, rng))
            for identity in order.tolist()
        }
        share = P // self.world_size
        mine = slice(self.rank * share, (self.rank + 1) * share)
        # Every rank draws for all identities, so that all have the same groups left.
        drawn = [[next(hands[identity]) for identity in batch] for batch in batches.tolist()]
        further = self._draw_unlabelled()
        return iter(
            [
                np.concatenate([*batch[mine], others]).tolist()
                for batch, others in zip(drawn, further, strict=True)
            ]
        )

    def _draw_unlabelled(self) -> np.ndarray:
        """Draw this rank's images without an identity for each batch of the epoch, (B, share)."""
        # Numbers of their own, so that the other images are those of an epoch without these.
        rng = np.random.default_rng([self.seed, self.epoch, 1])
        shape = (self._num_batches, self.num_unlabelled)
        needed, there = math.prod(shape), max(len(self._unlabelled), 1)
        rounds = [rng.permutation(self._unlabelled) for _ in range(-(-needed // there))]
        images = np.concatenate([*rounds, np.empty(0, int)])[:needed].reshape(shape)
        return np.split(images, self.world_size, axis=1)[self.rank]

    def _fit_groups(self, rng: np.random.Generator) -> np.ndarray:
        """Draw how many groups each identity has in this epoch, so that they fill the batches."""
        groups = np.minimum(self._groups, self._num_batches)  # once a batch at most
        surplus = int(groups.sum()) - self._num_batches * self.num_identities
        if surplus > 0:
            return groups - rng.multivariate_hypergeometric(groups, surplus)
        return groups + rng.multivariate_hypergeometric(self._num_batches - groups, -surplus)


def _count_batches(groups: np.ndarray, P: int, drop_last: bool) -> int:
    """Count the batches of P different identities that ``groups`` (identities,) make."""
    if not drop_last:  # an identity needs a batch for each of its groups
        return max(-(-int(groups.sum()) // P), int(groups.max()))
    batches = int(groups.sum()) // P
    while int(np.minimum(groups, batches).sum()) < batches * P:
        batches -= 1
    return batches


def _draw_groups(
    images: np.ndarray, count: int, K: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Draw ``count`` times K of ``images``; all come once before one comes a second time.

    A group that the end of a round cuts is completed by images that are not in it yet.
    """
    groups = []
    deck = rng.permutation(images)
    for _ in range(count):
        if len(deck) < K:
            fresh = rng.permutation(images)
            deck = np.concatenate([deck, fresh[~np.isin(fresh, deck)]])
        if len(deck) < K:  # there are not K different ones
            deck = np.concatenate([deck, rng.choice(images, K - len(deck))])
        groups.append(deck[:K])
        deck = deck[K:]
    return groups
