"""Where the weights of a tag come from: a local folder, else the Hugging Face Hub.

A weights folder holds a folder for each checkpoint, named as its model and tag and laid out as its
repository on the Hub, and ``manifest.json``, which lists them with hash and size.
"""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from timm.models import PretrainedCfg, get_pretrained_cfg
from timm.models._hub import hf_split

_logger = logging.getLogger(__name__)

# Whose repositories on the Hub the checkpoints are. Here, and nowhere else.
HUB_ORGANISATION = os.environ.get("RGA_TIMM_HUB_ORG") or "rga-timm"

WEIGHTS_VARIABLE = "RGA_TIMM_WEIGHTS"
WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
MANIFEST_FILE = "manifest.json"

_PACKAGE = Path(__file__).parent

# What a checkpoint says of its images goes before what is registered under its tag.
_CFG_OF_CHECKPOINT = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")


class WeightsNotFoundError(OSError):
    """Weights that are neither in the local weights folder nor to be had from the Hub."""


def hub_id(name: str, version: int) -> str:
    """The repository of a checkpoint on the Hub, at the revision of that version.

    Args:
        name: Model and tag.
        version: Of the checkpoint; a new one for other weights, so that who has installed this
            version of the package goes on getting those that it was made with.
    """
    return f"{HUB_ORGANISATION}/{name}@v{version}"


def weights_folder() -> Path | None:
    """The local weights folder: what RGA_TIMM_WEIGHTS names, else ``weights`` of a clone.

    Returns:
        The folder; None where the package is installed without a clone.

    Raises:
        NotADirectoryError: If the variable names no folder.
    """
    if named := os.environ.get(WEIGHTS_VARIABLE):
        folder = Path(named).expanduser()
        if not folder.is_dir():
            raise NotADirectoryError(f"{WEIGHTS_VARIABLE} names {named}, which is not a folder")
        return folder
    clone = _PACKAGE.parent / "weights"
    return clone if (clone / MANIFEST_FILE).is_file() else None


def read_manifest(folder: Path | None = None) -> dict[str, dict[str, Any]]:
    """The checkpoints of a weights folder, by model and tag.

    Args:
        folder: The weights folder; None for the manifest that came with this package, which lists
            what is on the Hub.

    Returns:
        An entry a checkpoint, empty where the folder has no manifest.

    Raises:
        ValueError: If the manifest is none.
    """
    if folder is None:
        clone = _PACKAGE.parent / "weights" / MANIFEST_FILE
        file = clone if clone.is_file() else _PACKAGE / MANIFEST_FILE
    else:
        file = folder / MANIFEST_FILE
    if not file.is_file():
        return {}
    try:
        return dict(json.loads(file.read_text(encoding="utf-8"))["checkpoints"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is no manifest of checkpoints: {error!r}") from error


def sha256_of(file: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def find_weights(
    name: str, cfg: PretrainedCfg, cache_dir: str | Path | None = None
) -> dict[str, Any] | None:
    """What to load a tag with: from the local weights folder, else from a repository of ours.

    Args:
        name: Model and tag.
        cfg: Its registered config.
        cache_dir: Of the Hub; its usual one if None.

    Returns:
        Entries for timm's ``pretrained_cfg_overlay``; None for weights that are not in the folder,
        and others' to download: those of ImageNet.

    Raises:
        WeightsNotFoundError: If ours are not to be had.
        ValueError: If they are damaged.
    """
    local = local_weights(name)
    if local is None and (cfg.hf_hub_id or "").startswith(f"{HUB_ORGANISATION}/"):
        return hub_weights(name, cfg.hf_hub_id, cache_dir)
    return local


def local_weights(name: str) -> dict[str, Any] | None:
    """What to load a tag from the local weights folder with.

    Args:
        name: Model and tag.

    Returns:
        Entries for timm's ``pretrained_cfg_overlay``; None where the folder does not hold the tag.

    Raises:
        ValueError: If its file is not the one that the folder's manifest lists.
    """
    folder = weights_folder()
    if folder is None or not (file := folder / name / WEIGHTS_FILE).is_file():
        return None
    entry = read_manifest(folder).get(name)
    if entry and sha256_of(file) != entry["sha256"]:
        raise ValueError(
            f"{file} is damaged: its SHA-256 is not the one in {folder / MANIFEST_FILE}. Restore "
            "it, or remove its folder to have it downloaded from the Hub"
        )
    _logger.info("Weights of %s from %s.", name, file)
    return {**_cfg_beside(file), "file": str(file)}


def hub_weights(name: str, repository: str, cache_dir: str | Path | None = None) -> dict[str, Any]:
    """Download the weights of a tag from the Hub, or find them in its cache, and check them.

    Args:
        name: Model and tag.
        repository: OWNER/NAME@REVISION.
        cache_dir: Of the Hub; its usual one if None.

    Returns:
        Entries for timm's ``pretrained_cfg_overlay``.

    Raises:
        WeightsNotFoundError: If they are not to be had.
        ValueError: If the file there is not the one that this package's manifest lists.
    """
    repo_id, revision = hf_split(repository)
    expected = read_manifest().get(name, {}).get("sha256")
    for attempt in (1, 2):
        try:
            file = hf_hub_download(
                repo_id,
                WEIGHTS_FILE,
                revision=revision,
                cache_dir=cache_dir,
                force_download=attempt == 2,
            )
        except Exception as error:  # the Hub's client and what it is built on raise many kinds
            raise WeightsNotFoundError(
                both_ways(name, f"{repository} on the Hub", error)
            ) from error
        if expected in (None, sha256_of(Path(file))):
            # The records go with the weights, also later, when only the cache is there.
            _download_config(name, repo_id, revision, cache_dir)
            return {"file": file}
        if attempt == 1:
            _logger.warning("The file of %s in the cache is damaged: downloading again.", name)
    raise ValueError(
        f"{WEIGHTS_FILE} of {repository} is not the one that was published as {name}: its SHA-256 "
        f"is {sha256_of(Path(file))}, not {expected}. It was not loaded"
    )


def config_of_tag(name: str) -> Path | None:
    """The ``config.json`` of a tag, where its weights come from.

    Args:
        name: A model's name in timm, with its tag or for its default one.

    Returns:
        The file; None of what is no checkpoint of this project, or where it cannot be had.
    """
    cfg = get_pretrained_cfg(name, allow_unregistered=True)
    if cfg is None:
        return None
    name = f"{name.partition('.')[0]}.{cfg.tag}"
    folder = weights_folder()
    if folder and (folder / name / WEIGHTS_FILE).is_file():
        local = folder / name / CONFIG_FILE
        return local if local.is_file() else None
    repo_id, revision = hf_split(cfg.hf_hub_id or "")
    if not repo_id.startswith(f"{HUB_ORGANISATION}/"):
        return None
    return _download_config(name, repo_id, revision)


def _download_config(
    name: str, repo_id: str, revision: str | None, cache_dir: str | Path | None = None
) -> Path | None:
    """The config of a tag from the Hub or its cache; None, with a warning, if it is not there."""
    try:
        file = hf_hub_download(repo_id, CONFIG_FILE, revision=revision, cache_dir=cache_dir)
    except Exception as error:  # as for the weights
        _logger.warning("The records of %s could not be read: %s", name, error)
        return None
    return Path(file)


def both_ways(name: str, source: str, error: Exception) -> str:
    """Say that weights are not to be had, and both ways in which they could be.

    Args:
        name: Model and tag.
        source: Where they were looked for in the network.
        error: Why they were not found there.
    """
    file = f"{name}/{WEIGHTS_FILE}"
    if folder := weights_folder():
        local = f"the local weights folder {folder} holds no {file}"
    else:
        local = f"{WEIGHTS_VARIABLE} is not set, and the package is not run from a clone"
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return (
        f"no weights of {name}: {local}; and {source} could not be read "
        f"({type(error).__name__}: {reason}). Either set {WEIGHTS_VARIABLE} to a folder that holds "
        f"{file}, or make the Hub reachable (HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE)"
    )


def _cfg_beside(weights: Path) -> dict[str, Any]:
    """What the config beside a weights file says of its images."""
    file = weights.with_name(CONFIG_FILE)
    if not file.is_file():  # plain weights of a backbone
        return {}
    cfg: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8")).get("pretrained_cfg", {})
    return {key: cfg[key] for key in _CFG_OF_CHECKPOINT if cfg.get(key) is not None}
