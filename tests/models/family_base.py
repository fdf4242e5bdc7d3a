"""What the tests of every model family start from."""

from typing import ClassVar

import timm
import torch
from random_weights import scramble, settle
from torch import Tensor, nn

import rga_timm  # noqa: F401 - registers the models


class FamilyBase:
    """Subclass as ``Test<Family>``; override what is below."""

    tiny: str  # the family's small model, which is built and run
    size: tuple[int, int] = (64, 32)  # its image size, (height, width)
    small: ClassVar[dict] = {}  # what makes timm's model of its backbone as small
    variants: tuple[str, ...]  # the real ones, built without memory
    stages: tuple[str, ...]  # modules whose outputs are the features that have passed an RGA
    inside = ""  # where in them the RGA stands
    widened = 2  # how much wider pooling by average and maximum side by side makes the feature
    # First embedding values and logits of the small model, with the weights of random_weights.py,
    # on a ramp of pixels. They change only when the network itself does, and then so does every
    # checkpoint's output.
    golden_embedding: tuple[float, ...]
    golden_logits: tuple[float, ...]

    def pooled(self, model: nn.Module, maps: Tensor) -> Tensor:
        """The feature before the neck, by plain formulas."""
        return maps.mean((2, 3))

    def assert_same_maps(self, actual: Tensor, expected: Tensor) -> None:
        """Of this model and of timm's own backbone."""
        assert torch.equal(actual, expected)

    def unpooled(self, model: nn.Module, maps: Tensor) -> Tensor:
        """What a model without pooling gives."""
        return maps

    def grid(self, size: tuple[int, int], reduction: int) -> tuple[int, int]:
        return -(-size[0] // reduction), -(-size[1] // reduction)

    @property
    def rga_names(self) -> list[str]:
        return [f"{stage}{self.inside}.rga" for stage in self.stages]

    def make(self, **kwargs) -> nn.Module:
        model = scramble(timm.create_model(self.tiny, **kwargs))
        return settle(model, self.images(8, model.in_chans, model.img_size))

    def images(self, batch: int = 2, chans: int = 3, size: tuple[int, int] | None = None) -> Tensor:
        generator = torch.Generator().manual_seed(2)
        return torch.randn(batch, chans, *(size or self.size), generator=generator)
