"""The features that a run learns from another network: computed on line, or stored before."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from rga_timm.data import ReidReader
from rga_timm.evaluation import Embedder, hash_weights, read_embeddings, read_metadata
from rga_timm.evaluation.embedding.scales import resized
from rga_timm.evaluation.embedding.store import DECISIVE
from rga_timm.evaluation.protocol import Protocol as TestProtocol
from rga_timm.hub import model_source
from rga_timm.training.config import ConfigError, TrainConfig

# What tells one teacher from another; the other metadata are about the images.
_TEACHER = tuple(
    name for name in DECISIVE[1:]
    if name not in ("splits", "fingerprint", "count", "shard_format", "shard_size")
)  # fmt: skip


class Teacher(Protocol):
    """Knows the features of another network for the images of a batch."""

    records: list[dict[str, Any]]  # what the trained model records of its teachers

    @property
    def width(self) -> int:
        """The width of the features."""

    def __call__(self, images: Tensor, indices: Sequence[int]) -> Tensor:
        """Return features (B, width), L2-normalised, on the images' device.

        `images` (B, 3, H, W) are augmented and normalised as for the network in training,
        `indices` their places in the data to train on.
        """


@dataclass
class StoredTeacher:
    """Features that were stored before: of the images as they are, not as they are augmented."""

    features: Tensor  # (n, D) of the n images to train on, L2-normalised
    records: list[dict[str, Any]]

    @property
    def width(self) -> int:
        """The width of the features."""
        return self.features.shape[1]

    def __call__(self, images: Tensor, indices: Sequence[int]) -> Tensor:
        """As `Teacher`."""
        return self.features[torch.as_tensor(indices)].to(images.device)


class OnlineTeacher:
    """A network that sees each image as the network in training does: augmented.

    Args:
        model: The network.
        protocol: Its preprocessing.
        mean: Of the preprocessing for the network in training.
        std: As `mean`.
        records: As `Teacher`.
        amp_dtype: Autocast to this type; None for full precision.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        protocol: TestProtocol,
        mean: Sequence[float],
        std: Sequence[float],
        records: list[dict[str, Any]],
        amp_dtype: torch.dtype | None = None,
    ) -> None:
        self.embedder = Embedder(model.requires_grad_(False), protocol.feature)
        self.img_size, self.amp_dtype, self.records = protocol.img_size, amp_dtype, records
        own, theirs = (
            torch.tensor(pair)[..., None, None]
            for pair in ((mean, std), (protocol.mean, protocol.std))
        )
        # One step from one normalisation to the other.
        self.scale, self.shift = own[1] / theirs[1], (own[0] - theirs[0]) / theirs[1]
        # On the CPU, where the model still is.
        self.width = self(torch.zeros(1, 3, *self.img_size), [0]).shape[1]

    @torch.no_grad()
    def __call__(self, images: Tensor, indices: Sequence[int]) -> Tensor:
        """As `Teacher`."""
        images = images * self.scale.to(images.device) + self.shift.to(images.device)
        images = resized(images, self.img_size)
        autocast = (
            torch.autocast(images.device.type, self.amp_dtype) if self.amp_dtype else nullcontext()
        )
        with autocast:
            return self.embedder(images).float()


def create_teacher(
    config: TrainConfig, readers: Sequence[tuple[str, ReidReader]], protocol: TestProtocol,
    device: torch.device,
) -> Teacher | None:  # fmt: skip
    """Make the run's teacher; None if the config names none.

    Args:
        config: Of the run.
        readers: Name and images of each data set to train on, in the order of training.
        protocol: The preprocessing for the network in training.
        device: Where batches are.

    Raises:
        ConfigError: There is no such teacher, or it has no features for some images.
    """
    try:
        if config.teacher_embeddings:
            return read_stored_teacher(config.teacher_embeddings, readers)
        return _online_teacher(config, protocol, device) if config.teacher else None
    except (ValueError, OSError, ImportError) as error:
        option = (
            "--teacher-embeddings" if config.teacher_embeddings else f"--teacher {config.teacher}"
        )
        raise ConfigError(f"{option}: {error}") from error


def _online_teacher(config: TrainConfig, own: TestProtocol, device: torch.device) -> OnlineTeacher:
    name = model_source.check_model(str(config.teacher))
    wanted: dict[str, Any] = {"mean": config.teacher_mean, "std": config.teacher_std}
    of_file: dict[str, Any] = {}
    if model_source.is_model_file(name):
        of_file = {**wanted, "channel_order": config.teacher_channel_order}
    elif config.teacher_channel_order:
        raise ValueError("timm models take RGB: no --teacher-channel-order")
    img_size = config.teacher_img_size
    model: Any = model_source.create_model(name, img_size=img_size, **of_file)
    protocol = TestProtocol.of_data_config(
        model_source.data_config(model, img_size=img_size, **wanted)
    )
    record = {"name": model_source.public_name(name), "weights_sha256": hash_weights(model)}
    amp_dtype = getattr(torch, config.amp_dtype) if config.amp_dtype else None
    teacher = OnlineTeacher(model, protocol, own.mean, own.std, [record], amp_dtype)
    teacher.embedder.to(device)
    return teacher


def read_stored_teacher(
    folders: Sequence[str | Path], readers: Sequence[tuple[str, ReidReader]]
) -> StoredTeacher:
    """Read the features that ``rga-timm embed`` has stored for the images of some readers.

    A folder is of one data set, or of a plain folder of images, and of one network. Images are
    found by the data set's name and their path in it; or, of a plain folder, by their file. The
    features of several networks are normalised and joined, which makes their cosine the mean of
    theirs.

    Raises:
        FileNotFoundError, ImportError, ValueError: As `read_embeddings`; or an image has no feature
            of a network, or two different ones.
    """
    keys = [
        (name, image.path, str((reader.root / image.path).resolve()))
        for name, reader in readers
        for image in reader.images
    ]
    networks: dict[str, tuple[dict[str, Any], dict[Any, Tensor]]] = {}
    for folder in folders:
        metadata = read_metadata(folder)
        identity = repr([metadata.get(name) for name in _TEACHER])
        _, found = networks.setdefault(identity, (metadata, {}))
        stored = read_embeddings(folder)
        features = F.normalize(torch.from_numpy(stored.features))
        dataset, root = metadata["dataset"], Path(metadata["root"])
        for path, feature in zip(stored.paths, features, strict=True):
            key = (dataset["name"], path) if dataset else str((root / path).resolve())
            if key in found and not torch.equal(found[key], feature):
                raise ValueError(f"{folder}: a second, other feature of {path} by one network")
            found[key] = feature
    joined = []
    for metadata, found in networks.values():
        rows = [found.get((name, path), found.get(file)) for name, path, file in keys]
        missing = [key[2] for key, row in zip(keys, rows, strict=True) if row is None]
        if missing:
            raise ValueError(
                f"{len(missing)} of {len(keys)} images have no stored feature of "
                f"{model_source.public_name(metadata['model'])}, such as {missing[0]}: rga-timm "
                "embed --splits train makes them"
            )
        joined.append(torch.stack([row for row in rows if row is not None]))
    records = [
        {
            "name": model_source.public_name(metadata["model"]),
            **{name: metadata[name] for name in ("weights_sha256", "img_size", "flip")},
        }
        for metadata, _ in networks.values()
    ]
    return StoredTeacher(torch.cat(joined, dim=1) / len(joined) ** 0.5, records)
