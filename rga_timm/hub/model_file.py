"""Models in files of other runtimes, ONNX and OpenVINO, run like timm models."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from rga_timm.weights import sha256_of

ChannelOrder = Literal["rgb", "bgr"]

_PARTS = {".onnx": (), ".xml": (".bin",)}  # files of weights beside the one that is named

_Run = Callable[[Tensor], Tensor]


class ModelFile(nn.Module):
    """A network in an ONNX file or an OpenVINO IR, with the interface of a timm model.

    It runs on the CPU, and can be tested, embedded with and distilled from, but not trained. Its
    preprocessing is what the metadata of a file of `rga-timm export` say; those of other files say
    nothing, and the caller must know it.

    Args:
        file: `FILE.onnx`, or `FILE.xml` with `FILE.bin` beside it. The network has one input,
            images (B, 3, H, W) float32, and its first output is (B, D), or has further dimensions
            of size one.
        img_size: (height, width) in pixels, for a file that takes images of any size.
        mean: Of each channel in the order RGB, for pixels in 0 ... 1; by default 0.
        std: As `mean`; by default 1. A network that takes pixels in 0 ... 255 has 1 / 255.
        channel_order: The order in which the network takes the channels.

    Raises:
        ImportError: The runtime is not installed.
        ValueError: The file is damaged or no such network, or its input size is not known.
    """

    def __init__(
        self,
        file: str | Path,
        *,
        img_size: Sequence[int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        channel_order: ChannelOrder | None = None,
    ) -> None:
        super().__init__()
        self.file = check_model_file(file)
        open_network = _open_onnx if self.file.suffix == ".onnx" else _open_openvino
        try:
            self._run, shape, metadata = open_network(self.file)
        except ImportError:
            raise
        except Exception as error:  # each runtime has its own kinds
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{self.file} cannot be opened: {reason}") from error
        self._batch_size, channels, *own_size = shape
        if len(shape) != 4 or channels not in (3, None):
            raise ValueError(f"{self.file} takes an input of {shape}, not images (B, 3, H, W)")
        known = _own_preprocessing(metadata)
        size = tuple(side for side in own_size if side is not None)
        if len(size) < len(own_size):
            size = tuple(img_size or known["img_size"])
        if not size:
            raise ValueError(f"{self.file} takes images of any size: give one by --img-size")
        if img_size and tuple(img_size) != size:
            raise ValueError(f"{self.file} takes images of {size[0]}x{size[1]} only")
        order = channel_order or known["channel_order"]
        if order not in get_args(ChannelOrder):
            raise ValueError(f"the channel order is rgb or bgr, not {order!r}")
        self._reversed = order == "bgr"
        self.num_classes = 0
        self.pretrained_cfg: dict[str, Any] = {
            "architecture": self.file.stem,
            "input_size": (3, *size),
            "mean": tuple(mean or known["mean"]),
            "std": tuple(std or known["std"]),
            "interpolation": known["interpolation"],
            "crop_pct": 1.0,
        }
        self.num_features = self.forward_features(torch.zeros(1, 3, *size)).shape[1]

    def forward_features(self, images: Tensor) -> Tensor:
        """Run the network on preprocessed images (B, 3, H, W) in RGB; return (B, D) float32."""
        batch = images.detach().float().cpu().contiguous()
        if self._reversed:
            batch = batch.flip(1)
        step = self._batch_size or len(batch)
        rows = []
        for part in batch.split(step):
            padded = torch.cat([part, part[:1].expand(step - len(part), -1, -1, -1)])
            rows.append(self._run(padded.contiguous()).flatten(1)[: len(part)])
        return torch.cat(rows).to(images.device)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Return the features: the file has no classifier, or contains it."""
        return features

    def forward(self, images: Tensor) -> Tensor:
        """As `forward_features`."""
        return self.forward_features(images)

    def get_extra_state(self) -> dict[str, str]:
        """Return the hash of each file, by which `hash_weights` tells networks apart."""
        return {file.suffix: sha256_of(file) for file in _files_of(self.file)}

    def set_extra_state(self, state: Any) -> None:
        """Refuse other weights."""
        raise ValueError(f"{self.file} brings its weights, and takes no others")


def is_model_file(name: str) -> bool:
    """Whether a model's name is a file of another runtime."""
    return Path(name).suffix in _PARTS


def check_model_file(file: str | Path) -> Path:
    """Return the path, or raise a ValueError if the file or a part of it is missing."""
    file = Path(file)
    for part in _files_of(file):
        if not part.is_file():
            raise ValueError(f"there is no file {part}")
    return file


def _files_of(file: Path) -> list[Path]:
    return [file, *(file.with_suffix(suffix) for suffix in _PARTS[file.suffix])]


def _own_preprocessing(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Read what `rga-timm export` has written; the defaults for other files."""
    size = json.loads(metadata.get("input_size", "[]"))[1:]
    return {
        "img_size": size,
        "mean": json.loads(metadata.get("mean", "[0, 0, 0]")),
        "std": json.loads(metadata.get("std", "[1, 1, 1]")),
        "interpolation": metadata.get("interpolation", "bilinear"),
        "channel_order": metadata.get("color_order", "RGB").lower(),
    }


def _open_onnx(file: Path) -> tuple[_Run, list[int | None], Mapping[str, str]]:
    """Return a function that runs the network, the shape of its input and the metadata."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(f"{file} needs onnxruntime: pip install 'rga-timm[export]'") from error
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    images, *others = session.get_inputs()
    if others:
        raise ValueError(f"it has {1 + len(others)} inputs")
    output = session.get_outputs()[0].name
    shape = [side if isinstance(side, int) else None for side in images.shape]

    def run(batch: Tensor) -> Tensor:
        (result,) = session.run([output], {images.name: batch.numpy()})
        return torch.from_numpy(result).float()

    return run, shape, session.get_modelmeta().custom_metadata_map


def _open_openvino(file: Path) -> tuple[_Run, list[int | None], Mapping[str, str]]:
    """As `_open_onnx`."""
    try:
        import openvino
    except ImportError as error:
        raise ImportError(f"{file} needs openvino: pip install 'rga-timm[openvino]'") from error
    core = openvino.Core()
    # Full precision: some processors would compute in bfloat16 by default.
    network = core.compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    if len(network.inputs) != 1:
        raise ValueError(f"it has {len(network.inputs)} inputs")
    sides = network.input(0).partial_shape
    shape = [side.get_length() if side.is_static else None for side in sides]

    def run(batch: Tensor) -> Tensor:
        return torch.from_numpy(network(batch.numpy())[0].copy()).float()

    return run, shape, {}
