"""What a user calls MODEL (a timm name, a folder, a repository), and clear errors about it."""

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import errors as hub
from safetensors import SafetensorError
from timm.data import resolve_data_config
from timm.models import parse_model_name
from timm.models._hub import load_model_config_from_hf

from rga_timm.hub.model_file import ModelFile, check_model_file, is_model_file
from rga_timm.hub.pretrained import takes_img_size
from rga_timm.weights import (
    WEIGHTS_FILE,
    ask_again,
    cached_file,
    damaged_message,
    fetch_for_timm,
)
from rga_timm.weights_file import check_file, forget_weights, not_finite, read_weights

MODEL_HELP = "a timm model name, a folder (a model's, or a run's), or hf-hub:OWNER/NAME"
FILE_HELP = "or a file that is run as it is, of ONNX (.onnx) or OpenVINO (.xml)"

# The HTTP library of huggingface_hub writes a line for each request.
for _library in ("httpx", "httpx2"):
    logging.getLogger(_library).setLevel(logging.WARNING)

_NOT_CACHED = "the files are not in the cache, and the Hub does not answer, {cause}"
# The first one that fits counts: some of these errors are kinds of others.
_HUB_ERRORS: dict[type[Exception], str] = {
    hub.GatedRepoError: "its owner lets users in one by one. Ask on the repository's page, and log "
    "in by `hf auth login`",
    hub.RepositoryNotFoundError: "there is no {error.response.url}. The repository does not exist, "
    "or is private: then log in by `hf auth login`",
    hub.RevisionNotFoundError: "no such revision of the repository, {error}",
    hub.LocalEntryNotFoundError: _NOT_CACHED,
    hub.OfflineModeIsEnabled: _NOT_CACHED,
    hub.EntryNotFoundError: "the repository lacks a file, {error}",
    hub.HfHubHTTPError: "cannot be fetched: {error}",
}


@contextmanager
def model_errors(model: str, checkpoint: str | Path | None = None) -> Iterator[None]:
    """Turn the libraries' errors into two kinds.

    `model` is as :func:`timm.create_model` takes it, `checkpoint` a file with other weights.

    Raises:
        ValueError: The files are damaged, or do not fit or describe a model; or it cannot be made
            with these arguments.
        OSError: A file cannot be read, or a repository cannot be reached.
    """
    try:
        yield
    except tuple(_HUB_ERRORS) as error:
        text = next(text for kind, text in _HUB_ERRORS.items() if isinstance(error, kind))
        text = text.format(error=error, cause=error.__cause__ or error)
        raise OSError(f"{model}: {_line(text)}") from error
    except SafetensorError as error:
        source, name = parse_model_name(model)
        cfg = None if source else timm.models.get_pretrained_cfg(name, allow_unregistered=True)
        hf_hub_id = name if source == "hf-hub" else cfg and cfg.hf_hub_id
        raise ValueError(f"{model}: {damaged_message(hf_hub_id, error)}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{model}: its config.json is no JSON, {error}") from error
    except (ValueError, AssertionError, RuntimeError, TypeError) as error:
        # A ValueError of this package may say all there is.
        if isinstance(error, ValueError) and (not checkpoint or str(checkpoint) in str(error)):
            raise
        where = f" with the weights of {checkpoint}" if checkpoint else ""
        reason = "" if "weights_only=" in str(error) else f": {error}"
        # timm's advice is an argument that none of its functions takes here.
        unsafe = "" if reason else ": its file of weights holds more than tensors and plain values"
        raise ValueError(f"{model} cannot be made{where}{reason}{unsafe}") from error


def check_described(model: str) -> None:
    """Check that a repository of the Hub describes a model that timm can make; others pass.

    Raises:
        ValueError, OSError: It does not, or cannot be reached.
    """
    source, name = parse_model_name(model)
    if source != "hf-hub":
        return
    with model_errors(model):
        try:
            architecture = ask_again(lambda: load_model_config_from_hf(name))[1]
        except (KeyError, TypeError, AttributeError) as error:
            why = f"its config.json does not describe a timm model ({error!r})"
            raise ValueError(f"{model}: {why}") from error
    if not timm.is_model(architecture):
        raise ValueError(
            f"{model}: its architecture, {architecture}, is unknown to timm {timm.__version__} "
            "and to rga_timm: a newer version may know it"
        )


def check_model(model: str, *, own_weights: bool = True, file_option: str = "--checkpoint") -> str:
    """Check that a model exists, and return its name as timm takes it.

    Args:
        model: A name, a folder or a repository.
        own_weights: Whether its own weights are wanted.
        file_option: The option for a file of weights, for the message.

    Raises:
        ValueError: There is no such model or folder, or it has no weights of its own.
        OSError: A folder cannot be read, or a repository cannot be reached.
    """
    model = resolve_model(model)
    if is_model_file(model):
        check_model_file(model)
        return model
    source, name = parse_model_name(model)
    if source == "local-dir":
        read_model_folder(name)
        return model
    if source is not None:
        check_described(model)
        return model
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise ValueError(
            f"timm knows no model {architecture!r}; timm.list_models('*PATTERN*') lists them, and "
            "those of this package with '*rga*'"
        )
    tags = [known.partition(".")[2] for known in timm.models.get_arch_pretrained_cfgs(architecture)]
    if tag and tag not in tags:
        raise ValueError(f"{architecture} has no weights {tag!r}; it has {', '.join(tags)}")
    cfg = timm.models.get_pretrained_cfg(name, allow_unregistered=True)
    if own_weights and not (cfg and cfg.has_weights):
        raise ValueError(
            f"{name} has no weights of its own: {file_option} FILE takes them from a file, "
            "--no-pretrained leaves it untrained"
        )
    return model


def create_model(
    model: str, *, pretrained: bool = True, checkpoint: str | Path | None = None,
    img_size: Sequence[int] | None = None, **kwargs: Any,
) -> torch.nn.Module:  # fmt: skip
    """Make a timm model with its own weights (`pretrained`) or those of a file (`checkpoint`).

    The file's weights are converted as the model's own: official files, other input sizes. Without
    ``num_classes`` the classifier is as wide as the file's. `img_size` is (H, W) in pixels, by
    default the model's own; other `kwargs` are :func:`timm.create_model`'s, or those of `ModelFile`
    if `model` is a file of another runtime.

    Raises:
        ValueError: The weights are missing, damaged or another model's; or the model does not take
            the size or the arguments.
        OSError: A file cannot be read, or a repository cannot be reached.
        ImportError: The runtime of a file is not installed.
    """
    if is_model_file(model):
        return ModelFile(model, img_size=img_size, **kwargs)
    with model_errors(model, checkpoint):
        if checkpoint:
            weights = read_weights(checkpoint)
            overlay: dict[str, Any] = {"file": str(checkpoint), "state_dict": weights}
            if "num_classes" not in kwargs:  # known to be as wide as the file's: loaded strictly
                kwargs["num_classes"] = _classifier_width(model, weights)
                overlay |= {"num_classes": kwargs["num_classes"], "label_offset": 0}
            kwargs["pretrained_cfg_overlay"] = overlay
        if img_size and takes_img_size(model):
            kwargs = {"img_size": tuple(img_size), **kwargs}
        source, name = parse_model_name(model)
        if source == "hf-hub" and pretrained:
            fetch_for_timm(name)
        made = timm.create_model(model, pretrained=pretrained or bool(checkpoint), **kwargs)
        if file := weights_file_of(model) if pretrained else None:
            check_file(file)  # numbers that are quantised have been loaded as if they were weights
        if broken := not_finite(made.state_dict()):
            raise ValueError(f"the weights of {checkpoint or model} are not usable: {broken}")
        return forget_weights(made)


def data_config(
    model: torch.nn.Module, *, img_size: Sequence[int] | None = None,
    mean: Sequence[float] | None = None, std: Sequence[float] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return a model's data config as timm resolves it, but for what is given."""
    size = (3, *img_size) if img_size else None
    wanted = {"input_size": size, "mean": mean, "std": std}
    return resolve_data_config({k: v for k, v in wanted.items() if v is not None}, model=model)


def weights_file_of(model: str) -> Path | None:
    """The ``model.safetensors`` of a folder, or of a repository in the Hub's cache, if there."""
    source, name = parse_model_name(model)
    if source == "hf-hub":
        cached = cached_file(name, WEIGHTS_FILE)
        return Path(cached) if cached else None
    file = Path(name, WEIGHTS_FILE)
    return file if source == "local-dir" and file.is_file() else None


def _line(text: object) -> str:
    return " ".join(str(text).split())


def resolve_model(name: str) -> str:
    """Return a model's name as timm takes it; a folder becomes `local-dir:FOLDER`.

    A run's folder stands for the model in it. A model that timm knows precedes a folder of its
    name. A ValueError says that a folder does not exist or holds no model, or of an unknown source.
    """
    if not name:
        raise ValueError(f"the model's name is empty: {MODEL_HELP}")
    is_path = "/" in name or os.sep in name
    folder = Path(name)
    if name.startswith(("hf-hub:", "hf_hub:", "local-dir:")) or is_model_file(name):
        return name
    if folder.is_dir() and (is_path or not timm.is_model(name)):
        if not (folder / "config.json").is_file():
            if not (folder / "model" / "config.json").is_file():
                is_run = (folder / "args.yaml").is_file()
                why = "the run has not ended" if is_run else f"{folder / 'config.json'} is missing"
                raise ValueError(f"there is no model in {folder}: {why}")
            folder /= "model"
        return f"local-dir:{folder}"
    if is_path:
        also = f"a repository of the Hugging Face Hub is hf-hub:{name}"
        raise ValueError(f"there is no folder {name}; {also}")
    if ":" in name:
        raise ValueError(f"{name!r} is no model: {MODEL_HELP}")
    return name


def read_model_folder(folder: str | Path) -> dict[str, Any]:
    """Return the `config.json` of a model's folder, or raise a ValueError on what is wrong."""
    file = Path(folder, "config.json")
    if not file.is_file():
        raise ValueError(f"there is no model in {folder}: {file} is missing")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # not JSON, or not UTF-8
        raise ValueError(f"{file} cannot be read: {error}") from error
    architecture = config.get("architecture") if isinstance(config, dict) else None
    if not isinstance(architecture, str):
        raise ValueError(f"{file} names no architecture: it is not the config of a timm model")
    if not timm.is_model(architecture):
        raise ValueError(f"{file} is of {architecture!r}, a model that timm does not know")
    for part in ("pretrained_cfg", "model_args", "reid"):
        if not isinstance(config.get(part) or {}, dict):
            raise ValueError(f"{file}: {part} is not a mapping")

    files = [file for kind in ("*.safetensors", "*.bin") for file in Path(folder).glob(kind)]
    if not files:
        raise ValueError(
            f"there are no weights in {folder}: {Path(folder, WEIGHTS_FILE)} is missing"
        )
    for file in files:
        check_file(file)
    return config


def classifier_width(model: str, checkpoint: Path) -> int:
    """Return the number of classes that a checkpoint was trained on; 0 if it has no classifier.

    A ValueError says that the file holds no weights.
    """
    return _classifier_width(model, read_weights(checkpoint))


def _classifier_width(model: str, weights: Mapping[str, torch.Tensor]) -> int:
    cfg = timm.models.get_pretrained_cfg(model, allow_unregistered=True)
    names = cfg.classifier if cfg else None
    names = names if isinstance(names, tuple) else (names,)
    for name in (*names, "cls"):  # cls: the paper's own code
        if f"{name}.weight" in weights:
            return len(weights[f"{name}.weight"])
    return 0


def public_name(model: str) -> str:
    """Return a model's name without the path, for a page that is passed on."""
    if is_model_file(model):
        return Path(model).name
    if not model.startswith("local-dir:"):
        return model
    folder = Path(model.removeprefix("local-dir:")).resolve()
    return folder.parent.name if folder.name == "model" else folder.name
