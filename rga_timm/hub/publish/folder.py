"""A checkpoint's folder, exactly as its repository on the Hub: made, and checked.

``config.json`` in timm's form with the section ``reid``, ``model.safetensors``, ``README.md`` (the
model card), and what else tells of the training: recipe, summary.csv, curves.
"""

import copy
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from timm.models import get_arch_pretrained_cfgs
from torch import Tensor

from rga_timm.hub.pretrained import read_config, readable_as, save_pretrained, write_config
from rga_timm.hub.publish.card import format_card
from rga_timm.hub.publish.golden import check_golden, golden_embedding
from rga_timm.hub.publish.push import EXTRA_SUFFIXES
from rga_timm.weights import CONFIG_FILE, WEIGHTS_FILE

# What a repository on the Hub, and a clone, can carry without large-file storage of their own.
MAX_BYTES = 64 * 2**20

CARD_FILE = "README.md"
REQUIRED_FILES = (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE)

# Of the section `reid`. A checkpoint is published with all of these.
REQUIRED_RECORDS = (
    *("name", "version", "repository", "license", "trained_on", "dataset", "protocol", "metrics"),
    *("software", "code_version", "command", "weights_dtype", "golden_embedding"),
)


def halve(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matrices and kernels in float16, to store them in half the space.

    What has one dimension stays as it is: it takes next to no space, and variances of a batch norm
    do not always fit into float16's range.

    Raises:
        ValueError: If a weight does not fit into float16's range.
    """
    halved = {
        name: value.half() if value.is_floating_point() and value.ndim > 1 else value
        for name, value in state.items()
    }
    if large := [name for name, value in halved.items() if not value.isfinite().all()]:
        raise ValueError(f"not finite in float16: {', '.join(large)}")
    return halved


def pack_checkpoint(
    model: Any,
    folder: str | Path,
    *,
    reid: Mapping[str, Any],
    half: bool = False,
    extra_files: Mapping[str, Path] | None = None,
    model_args: Mapping[str, Any] | None = None,
) -> Path:
    """Write a checkpoint's folder.

    Args:
        model: The model to publish. Of its weights those are described that will be read back.
        folder: Replaced once the new one is complete. Of a link, what it leads to is left alone.
        reid: The records of :data:`REQUIRED_RECORDS`, apart from the last two, and others.
        half: Store the weights as :func:`halve` says.
        extra_files: Further files by their names there.
        model_args: As of :func:`save_pretrained`.

    Returns:
        The folder.

    Raises:
        ValueError: If a record is missing, or a weight does not fit into float16's range.
    """
    made_here = REQUIRED_RECORDS[-2:]
    if lacking := [name for name in REQUIRED_RECORDS if not (reid.get(name) or name in made_here)]:
        raise ValueError(f"{folder} cannot be packed: the records lack {', '.join(lacking)}")
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as made_in:
        new = Path(made_in) / folder.name
        records = {**copy.deepcopy(dict(reid)), "weights_dtype": "float16" if half else "float32"}
        save_pretrained(model, new, reid=records, model_args=model_args)
        config = read_config(new)
        if half:
            weights = {k: v.cpu().contiguous() for k, v in halve(model.state_dict()).items()}
            save_file(weights, new / WEIGHTS_FILE, metadata={"format": "pt"})
            readable_as(new / CONFIG_FILE, new / WEIGHTS_FILE)
            config = {"dtype": "float32", **config}  # to compute with, for transformers
        # These were of the weights that the training began with.
        tag = reid["name"].partition(".")[2]
        config["pretrained_cfg"] |= {"tag": tag, "license": reid["license"]}
        config["pretrained_cfg"].pop("origin_url", None)
        write_config(config, new)
        # Of what is read back, not of what was given.
        config["reid"]["golden_embedding"] = golden_embedding(_load(new))
        _write_described(config, new)
        for name, source in (extra_files or {}).items():
            shutil.copyfile(source, new / name)
        # Renamed, not removed, so that at no time for long there is neither.
        if folder.exists() or folder.is_symlink():
            folder.rename(Path(made_in) / "old")
        new.rename(folder)
    return folder


def copy_for_repository(folder: str | Path, copy: str | Path, repository: str) -> Path:
    """Copy a packed folder, so that config and card of ``copy`` name another repository."""
    copy = Path(shutil.copytree(folder, copy))
    config = read_config(copy)
    config["reid"]["repository"] = repository
    _write_described(config, copy)
    return copy


def check_checkpoint(folder: str | Path) -> None:
    """Check that a folder may be published: complete, harmless, and working as recorded.

    Raises:
        ValueError: With all that is wrong.
    """
    folder = Path(folder)
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    if missing := [name for name in REQUIRED_FILES if name not in found]:
        raise ValueError(f"{folder} is no checkpoint to publish: it lacks {', '.join(missing)}")
    problems = [
        f"{name}: not a kind of file that is published ({', '.join(EXTRA_SUFFIXES)})"
        for name in sorted(found - {*REQUIRED_FILES})
        if "/" in name or not name.endswith(EXTRA_SUFFIXES) or not (folder / name).is_file()
    ]
    try:
        config = read_config(folder)
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG_FILE} is not JSON: {error}") from error
    reid = config.get("reid") or {}
    if lacking := [name for name in REQUIRED_RECORDS if not reid.get(name)]:
        problems.append(f"{CONFIG_FILE}: its section reid lacks {', '.join(lacking)}")
    if config.get("architecture") != str(reid.get("name", "")).partition(".")[0]:
        problems.append(
            f"{CONFIG_FILE}: named {reid.get('name')}, but a {config.get('architecture')}"
        )
    problems += _check_weights(folder / WEIGHTS_FILE)
    if not problems:
        problems += _check_works(folder, config)
    if problems:
        raise ValueError("\n  ".join([f"{folder} cannot be published:", *problems]))


def check_tag(folder: str | Path) -> None:
    """Check that a checkpoint's tag, if timm knows it, gives the model of its folder.

    A tag is made with the arguments and the image size that are registered, not with those of the
    checkpoint's config.

    Raises:
        ValueError: If it does not.
    """
    folder = Path(folder)
    reid = read_config(folder)["reid"]
    architecture, _, tag = reid["name"].partition(".")
    if tag not in (known.partition(".")[2] for known in get_arch_pretrained_cfgs(architecture)):
        return
    overlay = {"file": str(folder / WEIGHTS_FILE)}
    try:
        with torch.random.fork_rng(devices=[]):
            model = timm.create_model(reid["name"], pretrained=True, pretrained_cfg_overlay=overlay)
        check_golden(reid["golden_embedding"], model)
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"the tag {reid['name']}, as it is registered, does not give the model of {folder}: "
            f"{error}. It was made with other arguments or another image size: take another tag, "
            "or register the tag with those"
        ) from error


def _check_weights(file: Path) -> list[str]:
    """What is wrong with a weights file by itself."""
    if file.stat().st_size > MAX_BYTES:
        return [f"{file.name}: {file.stat().st_size:,} bytes, more than {MAX_BYTES:,}"]
    try:
        with safe_open(file, framework="pt") as weights:
            bad = [name for name in weights.keys() if not weights.get_tensor(name).isfinite().all()]  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        return [f"{file.name} cannot be read: {error}"]
    return [f"{file.name}: not finite: {', '.join(bad)}"] if bad else []


def _check_works(folder: Path, config: Mapping[str, Any]) -> list[str]:
    """What is wrong with how a model comes out of the folder, and with its card."""
    problems = []
    try:
        check_golden(config["reid"]["golden_embedding"], _load(folder))
    except (ValueError, RuntimeError) as error:
        problems.append(f"the model does not come back as it was made: {error}")
    card = _card(config, folder)
    # By lines: Git and Windows end them in another way.
    if (folder / CARD_FILE).read_text(encoding="utf-8").splitlines() != card.splitlines():
        problems.append(f"{CARD_FILE} is not the card of this {CONFIG_FILE}: pack it again")
    return problems


def _card(config: Mapping[str, Any], folder: Path) -> str:
    return format_card(config, (folder / WEIGHTS_FILE).stat().st_size)


def _write_described(config: Mapping[str, Any], folder: Path) -> None:
    """Write the config and the card that follows from it."""
    write_config(config, folder)
    (folder / CARD_FILE).write_text(_card(config, folder), encoding="utf-8", newline="\n")


def _load(folder: Path) -> Any:
    """The model of a folder, without random numbers of its own."""
    with torch.random.fork_rng(devices=[]):
        return timm.create_model(f"local-dir:{folder}", pretrained=True)
