"""Find the weights of a tag.

A checkpoint is a folder, named as its model and tag (``rga_resnet50.market1501``) and laid out as
its repository on the Hugging Face Hub. A weights folder holds such folders and ``manifest.json``,
which lists version, hash, size, preprocessing and scores of each.

The weights of a tag are looked for in this order:

1. the local weights folder: ``RGA_TIMM_WEIGHTS``, else ``weights`` of a clone;
2. the small checkpoints in the installed package;
3. the Hub's cache, and the Hub, at the version that the package's manifest lists.

The preprocessing in a folder's ``config.json`` belongs to the weights in that folder. Packing
copies it into the manifest, from which the tags are registered with timm.
"""

import json
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import torch
from huggingface_hub import constants, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError
from huggingface_hub.utils import get_session
from huggingface_hub.utils.sha import sha_fileobj
from timm.models import PretrainedCfg, get_pretrained_cfg
from timm.models._hub import hf_split

_logger = logging.getLogger(__name__)

# The owner of the checkpoints' repositories on the Hub.
HUB_ORGANISATION = os.environ.get("RGA_TIMM_HUB_ORG") or "rga-timm"

WEIGHTS_VARIABLE = "RGA_TIMM_WEIGHTS"
WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
MANIFEST_FILE = "manifest.json"

PREPROCESSING = (
    "input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode", "first_conv",
)  # fmt: skip

CacheDir = str | Path | None  # of the Hub; its usual one if None
_T = TypeVar("_T")

_PACKAGE = Path(__file__).parent

# How long to wait for the Hub's first answer; its client's own retries take most of a minute.
_PATIENCE = float(os.environ.get("HF_HUB_ETAG_TIMEOUT") or 6)  # seconds
_PAUSE = 1.0  # seconds, before it is asked once more


class WeightsNotFoundError(OSError):
    """Weights that are neither in a local folder nor available from the Hub."""


def hub_id(name: str, version: int) -> str:
    """The repository of a checkpoint on the Hub, OWNER/NAME@REVISION.

    New weights get a new version, so that an installed package keeps loading its own.
    """
    return f"{HUB_ORGANISATION}/{name}@v{version}"


def clone_weights() -> Path | None:
    """The folder ``weights`` of the clone that the package runs from; None if installed."""
    clone = _PACKAGE.parent / "weights"
    return clone if (clone / MANIFEST_FILE).is_file() else None


def weights_folder() -> Path | None:
    """The local weights folder; None if there is none.

    Raises:
        NotADirectoryError: If RGA_TIMM_WEIGHTS does not name a folder.
    """
    named = os.environ.get(WEIGHTS_VARIABLE)
    if not named:
        return clone_weights()
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise NotADirectoryError(f"{WEIGHTS_VARIABLE} names {named}, which is not a folder")
    return folder


def read_manifest(folder: Path | None = None) -> dict[str, dict[str, Any]]:
    """Read a weights folder's manifest: its entries by model and tag; empty without manifest.

    With ``folder=None``, read this package's own manifest, which lists the checkpoints on the Hub.

    Raises:
        ValueError: If the file is not a manifest.
    """
    file = (folder or clone_weights() or _PACKAGE / "checkpoints") / MANIFEST_FILE
    if not file.is_file():
        return {}
    try:
        return dict(json.loads(file.read_text(encoding="utf-8"))["checkpoints"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is not a manifest of checkpoints: {error!r}") from error


def registered_checkpoint(name: str) -> dict[str, Any]:
    """The entries of a tag's pretrained config in the package's manifest, or a ValueError."""
    entry = read_manifest().get(name)
    if entry is None:
        raise ValueError(
            f"{MANIFEST_FILE} of rga_timm does not list {name}: pack the checkpoint before you "
            "register its tag, or install the package again"
        )
    return {"hf_hub_id": hub_id(name, entry["version"]), **_tuples(entry["preprocessing"])}


def preprocessing_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The preprocessing in the content of a ``config.json``."""
    cfg = config.get("pretrained_cfg") or {}
    return {key: cfg[key] for key in PREPROCESSING if cfg.get(key) is not None}


def sha256_of(file: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    with file.open("rb") as stream:
        return sha_fileobj(stream).hex()


def checkpoint_folder(name: str) -> Path | None:
    """The local folder that a tag's weights would be loaded from; None if there is none."""
    for weights in (weights_folder(), _PACKAGE / "checkpoints"):
        if weights and (weights / name / WEIGHTS_FILE).is_file():
            return weights / name
    return None


def find_weights(name: str, cfg: PretrainedCfg, cache_dir: CacheDir = None) -> dict[str, Any]:
    """Find the weights of a tag, and download them if they are a checkpoint of this project.

    Returns:
        Entries for timm's ``pretrained_cfg_overlay``; empty for ImageNet weights that are not in a
        local folder, which timm downloads itself.

    Raises:
        WeightsNotFoundError: If they cannot be downloaded, or their server does not answer.
        ValueError: If they are damaged.
    """
    if folder := checkpoint_folder(name):
        return _local_weights(folder)
    if (cfg.hf_hub_id or "").startswith(f"{HUB_ORGANISATION}/"):
        return _hub_weights(name, cfg, cache_dir)
    try:
        _check_source_answers(cfg, cache_dir)
    except ConnectionError as error:
        raise WeightsNotFoundError(weights_not_found_message(name, cfg, error)) from error
    return {}


def _check_source_answers(cfg: PretrainedCfg, cache_dir: CacheDir) -> None:
    """Raise a ConnectionError if weights for timm are neither cached nor can be downloaded."""
    if cfg.hf_hub_id:
        files = [cfg.hf_hub_filename or WEIGHTS_FILE, "pytorch_model.bin"]
        if not any(cached_file(cfg.hf_hub_id, file, cache_dir) for file in files):
            _check_hub_answers(cfg.hf_hub_id, files[0])
            fetch_for_timm(cfg.hf_hub_id, files[0], cache_dir)
    elif cfg.url:
        url, downloads = cfg.url, cache_dir or Path(torch.hub.get_dir()) / "checkpoints"
        if not Path(downloads, Path(url).name).is_file():
            _check_answers(lambda: urllib.request.urlopen(url, timeout=_PATIENCE).close())


def _local_weights(folder: Path) -> dict[str, Any]:
    """The overlay for the weights in a folder, checked if the manifest beside it lists them."""
    file, config = folder / WEIGHTS_FILE, folder / CONFIG_FILE
    entry = read_manifest(folder.parent).get(folder.name)
    if entry and sha256_of(file) != entry["sha256"]:
        raise ValueError(
            f"{file} is damaged: its SHA-256 is not the one in {folder.parent / MANIFEST_FILE}. "
            "Restore it, or remove its folder to download it from the Hub"
        )
    _logger.info("Weights of %s from %s.", folder.name, file)
    if not config.is_file():  # plain weights of a backbone
        return {"file": str(file)}
    preprocessing = preprocessing_of(json.loads(config.read_text(encoding="utf-8")))
    return {**_tuples(preprocessing), "file": str(file)}


def _hub_weights(name: str, cfg: PretrainedCfg, cache_dir: CacheDir) -> dict[str, Any]:
    """The overlay for weights from the Hub or its cache, checked against the manifest."""
    hf_hub_id = str(cfg.hf_hub_id)
    expected = read_manifest().get(name, {}).get("sha256")
    damaged = ""
    for force in (False, True):
        try:
            file = _hub_file(hf_hub_id, WEIGHTS_FILE, cache_dir, force)
        except Exception as error:  # the Hub's client and what it is built on raise many kinds
            message = weights_not_found_message(name, cfg, error, damaged)
            raise WeightsNotFoundError(message) from error
        if expected in (None, sha256_of(file)):
            _hub_config(name, hf_hub_id, cache_dir)  # cached for use without network
            return {"file": str(file)}
        if not force:
            _logger.warning("The file of %s in the cache is damaged: downloading again.", name)
            damaged = f"the file in the Hub's cache, {file}, is damaged; "
    raise ValueError(
        f"{WEIGHTS_FILE} of {hf_hub_id} is not the one that was published as {name}: its "
        f"SHA-256 is {sha256_of(file)}, not {expected}. It was not loaded"
    )


def config_of_tag(name: str) -> Path | None:
    """The ``config.json`` of a tag, or of a model's default tag.

    None if that is not a checkpoint of this project, or the file is not found.
    """
    cfg = get_pretrained_cfg(name, allow_unregistered=True)
    if cfg is None:
        return None
    name = f"{name.partition('.')[0]}.{cfg.tag}"
    if folder := checkpoint_folder(name):
        return folder / CONFIG_FILE if (folder / CONFIG_FILE).is_file() else None
    hf_hub_id = cfg.hf_hub_id or ""
    is_ours = hf_hub_id.startswith(f"{HUB_ORGANISATION}/")
    return _hub_config(name, hf_hub_id) if is_ours else None


def _hub_config(name: str, hf_hub_id: str, cache_dir: CacheDir = None) -> Path | None:
    """The config of a tag from the Hub or its cache; None, with a warning, if it is missing."""
    reason: Exception
    for force in (False, True):
        try:
            file = _hub_file(hf_hub_id, CONFIG_FILE, cache_dir, force)
            json.loads(file.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:  # damaged in the cache
            reason = error
        except Exception as error:  # as for the weights
            reason = error
            break
        else:
            return file
    _logger.warning("The records of %s could not be read: %s", name, reason)
    return None


def _hub_file(hf_hub_id: str, file: str, cache_dir: CacheDir, force: bool = False) -> Path:
    """A checkpoint's file; a cached one needs no network, as no version ever changes."""
    if not force and (cached := cached_file(hf_hub_id, file, cache_dir)):
        return Path(cached)
    _check_hub_answers(hf_hub_id, file)
    return _download(hf_hub_id, file, cache_dir, force)


def fetch_for_timm(hf_hub_id: str, file: str = WEIGHTS_FILE, cache_dir: CacheDir = None) -> None:
    """Download a file into the Hub's cache before timm does, which gives up at the first error.

    Repositories may lack it: timm knows other names.
    """
    with suppress(EntryNotFoundError):
        _download(hf_hub_id, file, cache_dir)


def _download(hf_hub_id: str, file: str, cache_dir: CacheDir, force: bool = False) -> Path:
    repo_id, revision = hf_split(hf_hub_id)
    options: dict[str, Any] = {"revision": revision, "cache_dir": cache_dir}
    ask = lambda: hf_hub_download(repo_id, file, force_download=force, **options)  # noqa: E731
    return Path(ask_again(ask))


def ask_again(ask: Callable[[], _T]) -> _T:
    """Ask the Hub, and once more if it is out of order for the moment (HTTP 429, 500 and above)."""
    try:
        return ask()
    except Exception as error:
        reason: BaseException | None = error
        while reason and not hasattr(reason, "response"):
            reason = reason.__cause__
        status = getattr(getattr(reason, "response", None), "status_code", 0)
        if status < 500 and status != 429:
            raise
    time.sleep(_PAUSE)
    return ask()


def cached_file(hf_hub_id: str, file: str, cache_dir: CacheDir = None) -> str | None:
    """The path of a repository's file in the Hub's cache; None if it is not there."""
    repo_id, revision = hf_split(hf_hub_id)
    cache = cache_dir or constants.HF_HUB_CACHE
    found = try_to_load_from_cache(repo_id, file, cache_dir=cache, revision=revision)
    return found if isinstance(found, str) else None


def _check_hub_answers(hf_hub_id: str, file: str) -> None:
    if not constants.HF_HUB_OFFLINE:  # offline, the client fails at once by itself
        repo_id, revision = hf_split(hf_hub_id)
        url = hf_hub_url(repo_id, file, revision=revision)
        _check_answers(lambda: get_session().head(url, timeout=_PATIENCE))


def _check_answers(ask: Callable[[], Any]) -> None:
    """Raise a ConnectionError unless a server answers soon, be it by an error.

    In a thread, because a socket's timeout limits neither the look-up of a name nor the total time
    for all addresses of a server.
    """
    failure: list[Exception] = [TimeoutError(f"no answer in {_PATIENCE + 1:g} seconds")]

    def run() -> None:
        try:
            with suppress(urllib.error.HTTPError):
                ask()
            failure.clear()
        except Exception as error:
            failure[:] = [error]

    thread = Thread(target=run, daemon=True)
    thread.start()
    thread.join(_PATIENCE + 1)
    for error in failure:
        raise ConnectionError(f"{type(error).__name__}: {error}") from error


def damaged_message(hf_hub_id: str | None, error: Exception, cache_dir: CacheDir = None) -> str:
    """Say which file is damaged in the Hub's cache, and how to mend that."""
    names = (WEIGHTS_FILE, "pytorch_model.bin") if hf_hub_id else ()
    found = filter(None, (cached_file(str(hf_hub_id), name, cache_dir) for name in names))
    reason = " ".join(str(error).split())
    if file := next(found, None):
        text = f"{file}, in the Hub's cache, is damaged ({reason}): delete it, with a network it"
        return f"{text} is downloaded again"
    return f"its file of weights is damaged ({reason}): copy or download it again"


def weights_not_found_message(
    name: str, cfg: PretrainedCfg, error: Exception, damaged: str = ""
) -> str:
    """Say where the weights of a tag were looked for, and how to provide them."""
    source = f"{cfg.hf_hub_id} on the Hub" if cfg.hf_hub_id else str(cfg.url)
    file = f"{name}/{WEIGHTS_FILE}"
    if folder := weights_folder():
        local = f"the local weights folder {folder} holds no {file}"
    else:
        local = f"{WEIGHTS_VARIABLE} is not set, and the package is not run from a clone"
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return (
        f"no weights of {name}: {local}; {damaged}and {source} could not be read "
        f"({type(error).__name__}: {reason}). Either set {WEIGHTS_VARIABLE} to a folder that holds "
        f"{file}, or make the Hub reachable (HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE; a slow one by "
        "HF_HUB_ETAG_TIMEOUT, in seconds)"
    )


def _tuples(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Turn JSON's lists into tuples, as in timm's configs."""
    return {key: tuple(v) if isinstance(v, list) else v for key, v in cfg.items()}
