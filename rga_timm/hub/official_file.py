"""Read checkpoints of the paper's own code, and say what is wrong with other files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from rga_timm.models._checkpoint import differences
from rga_timm.models._official import official_shapes
from rga_timm.weights import sha256_of
from rga_timm.weights_file import not_finite, read_weights_and_epoch, some

# Blocks of the four stages. The paper's code has ResNet-50 only; others have extended it.
_BY_BLOCKS = {(3, 4, 23, 3): "rga_resnet101", (3, 8, 36, 3): "rga_resnet152"}
_BY_RELATION = {"s": "rgas_resnet50", "c": "rgac_resnet50"}


@dataclass(frozen=True)
class OfficialFile:
    """A checkpoint of the paper's code: the file, its SHA-256, its weights by name, its epoch."""

    path: Path
    sha256: str
    weights: Mapping[str, Tensor]
    epoch: int | None

    @property
    def relation(self) -> str:
        """``'sc'``, ``'s'``, ``'c'``, or ``'none'`` without attention."""
        used = {kind for _, kind, _ in self._attention()}
        return "".join(kind[0] for kind in ("spatial", "channel") if kind in used) or "none"

    @property
    def model(self) -> str:
        """The name of its model."""
        names = [re.match(r"backbone\.layer([1-4])\.(\d+)\.", key) for key in self.weights]
        blocks = Counter(stage for stage, _ in {match.groups() for match in names if match})
        model = _BY_BLOCKS.get((blocks["1"], blocks["2"], blocks["3"], blocks["4"]))
        return model or _BY_RELATION.get(self.relation, "rga_resnet50")

    @property
    def num_identities(self) -> int:
        """Identities of its classifier; 0 without one."""
        return len(self.weights["cls.weight"]) if "cls.weight" in self.weights else 0

    @property
    def positions(self) -> dict[int, int]:
        """Number of positions of each stage's maps, from the shapes of the attention's weights."""
        found = {}
        for stage, _, key in self._attention():
            for name, grids in (("gg_spatial.0.weight", 2), ("theta_channel.0.weight", 1)):
                if key.endswith(name) and self.weights[key].ndim > 1:
                    found[stage] = self.weights[key].shape[1] // grids
        return found

    def _attention(self) -> Iterable[tuple[int, str, str]]:
        for key in self.weights:
            if match := re.match(r"backbone\.rga_att([1-4])\.\w+_(spatial|channel)\.", key):
                yield int(match[1]), match[2], key

    def differences(self, state: Mapping[str, Tensor]) -> list[str]:
        """List how it differs from the model with this state dict."""
        optional = ("num_batches_tracked", "feat_bn.bias")
        shapes = official_shapes(dict(state))
        return differences(self.weights, shapes, lambda key: key.endswith(optional))


def read_official_file(path: Path) -> OfficialFile:
    """Read a checkpoint of the paper's code; only tensors and plain values are unpickled.

    Raises:
        ValueError: The file is something else; the message says what.
        OSError: It cannot be read.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    weights, epoch = read_weights_and_epoch(path)
    _check_names(path, weights)
    if broken := not_finite(weights):
        raise ValueError(f"{path} is not usable: {broken}")
    return OfficialFile(path, sha256_of(path), weights, epoch)


def _check_names(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Refuse weights that are not of the paper's code, and say what they are."""
    if any(key.startswith("backbone.") for key in weights):
        return
    if any(".rga." in key or key.startswith("neck.") for key in weights):
        raise ValueError(
            f"{path} is a checkpoint of this project already: load it by "
            "pretrained_cfg_overlay=dict(file=...) or --checkpoint"
        )
    if {"conv1.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight"} <= weights.keys():
        raise ValueError(
            f"{path} is a plain ResNet, as torchvision's: a backbone only, without attention and "
            "neck. A model can be trained from it: rga-timm finetune --pretrained-path"
        )
    raise ValueError(
        f"{path} is not of the paper's code, whose weights are backbone.…, feat_bn.… and "
        f"cls.weight: it has {some(list(weights))}"
    )
