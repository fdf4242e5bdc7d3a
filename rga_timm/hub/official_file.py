"""Read checkpoints of the paper's own code, and say what is wrong with other files."""

from __future__ import annotations

import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rga_timm.models._checkpoint import differences, some
from rga_timm.models._official import official_shapes
from rga_timm.weights import sha256_of

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
    content = _load(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a checkpoint")
    weights = next(
        (content[name] for name in ("state_dict", "model") if isinstance(content.get(name), dict)),
        content,
    )
    if not any(isinstance(value, Tensor) for value in weights.values()):
        entries = f", only {some(list(map(str, weights)))}" if weights else ""
        raise ValueError(f"{path} holds no weights{entries}")
    if others := [str(key) for key, value in weights.items() if not isinstance(value, Tensor)]:
        raise ValueError(f"{path} is not a state dict, it holds more than tensors: {some(others)}")
    weights = {str(key).removeprefix("module."): value for key, value in weights.items()}
    _check_names(path, weights)
    if broken := [key for key, value in weights.items() if not value.isfinite().all()]:
        raise ValueError(f"{path} has weights that are not finite: {some(broken)}")
    epoch = content.get("epoch")
    return OfficialFile(path, sha256_of(path), weights, epoch if type(epoch) is int else None)


def _load(path: Path) -> Any:
    with path.open("rb") as file:
        is_archive = file.read(2) == b"PK"
    if is_archive and not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is cut short: it begins as a file of torch.save and has no end")
    if is_archive:
        with zipfile.ZipFile(path) as archive:
            is_program = any(Path(name).name == "constants.pkl" for name in archive.namelist())
        if is_program:
            raise ValueError(f"{path} is a TorchScript archive: convert its original checkpoint")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # the readers of archives and pickles raise many kinds
        reason = str(error)
        if wanted := re.search(r"GLOBAL (\S+)", reason):
            raise ValueError(
                f"{path} holds more than tensors and plain values ({wanted[1]}), which is not "
                "read: unpickling it could run any code. If you trust it, save its state dict alone"
            ) from error
        why = reason.partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path} is no checkpoint of torch.save, or is damaged: {why}") from error


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
