"""Write and check a checkpoint's folder, which equals its repository on the Hub.

It holds ``config.json`` in timm's form with the section ``reid``, ``model.safetensors``,
``README.md`` (the model card), and files of the training: recipe, summary.csv, curves.
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

from rga_timm.data.text_file import write_text, writing
from rga_timm.hub.pretrained import read_config, save_pretrained, write_config
from rga_timm.hub.publish.card import format_card
from rga_timm.hub.publish.golden import check_golden, golden_embedding
from rga_timm.hub.publish.push import EXTRA_SUFFIXES
from rga_timm.weights import CONFIG_FILE, WEIGHTS_FILE
from rga_timm.weights_file import not_finite

# So that weights fit into a Git repository without large-file storage.
MAX_BYTES = 64 * 2**20

CARD_FILE = "README.md"
REQUIRED_FILES = (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE)

# Required in the section `reid` of a published checkpoint.
REQUIRED_RECORDS = (
    "name", "version", "repository", "license", "trained_on", "dataset", "protocol", "metrics",
    "software", "code_version", "command", "weights_dtype", "golden_embedding",
)  # fmt: skip


def halve(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert matrices and kernels to float16; a ValueError if one exceeds its range.

    Vectors stay: they are small, and variances of a batch norm may exceed that range.
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
    """Write a checkpoint's folder, and return it.

    Args:
        model: The model to publish.
        folder: Replaced once the new one is complete; of a link, the target is left alone.
        reid: The records of :data:`REQUIRED_RECORDS`, apart from the last two, and others.
        half: Store the weights as by :func:`halve`.
        extra_files: Further files by their names in the folder.
        model_args: As for :func:`save_pretrained`.

    Raises:
        ValueError: If a record is missing, or a weight exceeds float16's range.
    """
    made_here = REQUIRED_RECORDS[-2:]
    if lacking := [name for name in REQUIRED_RECORDS if not (reid.get(name) or name in made_here)]:
        raise ValueError(f"{folder} cannot be packed: the records lack {', '.join(lacking)}")
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    made_beside = tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-")
    with writing(folder), made_beside as made_in:
        new = Path(made_in) / folder.name
        records = {**copy.deepcopy(dict(reid)), "weights_dtype": "float16" if half else "float32"}
        save_pretrained(model, new, reid=records, model_args=model_args)
        config = read_config(new)
        if half:
            weights = {k: v.cpu().contiguous() for k, v in halve(model.state_dict()).items()}
            save_file(weights, new / WEIGHTS_FILE, metadata={"format": "pt"})
            shutil.copymode(new / CONFIG_FILE, new / WEIGHTS_FILE)
            config = {"dtype": "float32", **config}  # so transformers computes in float32
        # Replace the entries of the weights that the training started from.
        tag = reid["name"].partition(".")[2]
        config["pretrained_cfg"] |= {"tag": tag, "license": reid["license"]}
        config["pretrained_cfg"].pop("origin_url", None)
        write_config(config, new)
        # Read back, so that it shows what is stored.
        config["reid"]["golden_embedding"] = golden_embedding(_load(new))
        _write_described(config, new)
        for name, source in (extra_files or {}).items():
            shutil.copyfile(source, new / name)
        if folder.exists() or folder.is_symlink():  # renaming is quicker than removing
            folder.rename(Path(made_in) / "old")
        new.rename(folder)
    return folder


def copy_for_repository(folder: str | Path, copy: str | Path, repository: str) -> Path:
    """Copy a packed folder for another repository, which its config and card will name."""
    copy = Path(shutil.copytree(folder, copy))
    config = read_config(copy)
    config["reid"]["repository"] = repository
    _write_described(config, copy)
    return copy


def check_checkpoint(folder: str | Path) -> None:
    """Check that a folder may be published: complete, harmless, and working as recorded.

    Raises:
        ValueError: With all problems.
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
    config = read_config(folder)
    reid = config.get("reid") or {}
    if lacking := [name for name in REQUIRED_RECORDS if not reid.get(name)]:
        problems.append(f"{CONFIG_FILE}: its section reid lacks {', '.join(lacking)}")
    name, architecture = reid.get("name"), config.get("architecture")
    if architecture != str(name or "").partition(".")[0]:
        problems.append(f"{CONFIG_FILE}: named {name}, but a {architecture}")
    problems += _check_weights(folder / WEIGHTS_FILE)
    if not problems:
        problems += _check_works(folder, config)
    if problems:
        raise ValueError("\n  ".join([f"{folder} cannot be published:", *problems]))


def check_tag(folder: str | Path) -> None:
    """Check that a checkpoint's tag, if timm knows it, gives the model of its folder.

    A tag uses the registered arguments and image size, not those of the checkpoint's config.

    Raises:
        ValueError: If it gives another model.
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
            f"{error}. That was made with other arguments or another image size: choose another "
            "tag, or register the tag with those"
        ) from error


def _check_weights(file: Path) -> list[str]:
    """List problems of a weights file."""
    if file.stat().st_size > MAX_BYTES:
        return [f"{file.name}: {file.stat().st_size:,} bytes, more than {MAX_BYTES:,}"]
    try:
        with safe_open(file, framework="pt") as weights:
            bad = not_finite({name: weights.get_tensor(name) for name in weights.keys()})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        return [f"{file.name} cannot be read: {error}"]
    return [f"{file.name}: {bad}"] if bad else []


def _check_works(folder: Path, config: Mapping[str, Any]) -> list[str]:
    """List problems of the loaded model, and of the card."""
    problems = []
    try:
        check_golden(config["reid"]["golden_embedding"], _load(folder))
    except (ValueError, RuntimeError) as error:
        problems.append(f"the model does not come back as it was made: {error}")
    card = _card(config, folder)
    # Git and Windows may change the line ends.
    if (folder / CARD_FILE).read_text(encoding="utf-8").splitlines() != card.splitlines():
        problems.append(f"{CARD_FILE} is not the card of this {CONFIG_FILE}: pack it again")
    return problems


def _card(config: Mapping[str, Any], folder: Path) -> str:
    return format_card(config, (folder / WEIGHTS_FILE).stat().st_size)


def _write_described(config: Mapping[str, Any], folder: Path) -> None:
    """Write the config and the card that follows from it."""
    write_config(config, folder)
    write_text(folder / CARD_FILE, _card(config, folder))


def _load(folder: Path) -> Any:
    """Load a folder's model without drawing from the global random numbers."""
    with torch.random.fork_rng(devices=[]):
        return timm.create_model(f"local-dir:{folder}", pretrained=True)
