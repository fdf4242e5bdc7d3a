"""Checkpoints in the Hugging Face Hub's layout, as timm reads it."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from timm.models import get_pretrained_cfg, parse_model_name
from timm.models._hub import (
    download_from_hf,
    load_model_config_from_hf,
    load_model_config_from_path,
    save_for_hf,
)

from rga_timm.weights import config_of_tag

# What a model of this package must be rebuilt with, beside timm's own num_classes and in_chans.
# Options of a run that are paths of the machine it ran on: never passed on to others.
PRIVATE = ("data_dir", "eval_data_dir", "output", "pretrained_path")

_MODEL_ARGS = ("img_size", "native_size", "relation", "reduction")


def save_pretrained(
    model: Any,
    directory: str | Path,
    *,
    reid: dict[str, Any] | None = None,
    model_args: dict[str, Any] | None = None,
) -> Path:
    """Write ``config.json`` and ``model.safetensors``.

    ``timm.create_model('local-dir:DIRECTORY', pretrained=True)`` gives the model back bit for bit,
    and so does ``hf-hub:`` once the folder is a repository there.

    Args:
        model: Any timm model; of those of this package, image size and relation are recorded.
        directory: The folder, made where it does not exist.
        reid: What to record of data, protocol and metrics: the ``reid`` section of the config.
        model_args: Further arguments that the model was made with. timm 1.0.31 and later remember
            them themselves.

    Returns:
        The folder.
    """
    directory = Path(directory)
    # A copy: on the CPU, in the memory order that safetensors wants, with a config of its own.
    model = copy.deepcopy(model).to("cpu", memory_format=torch.contiguous_format)
    args = {name: getattr(model, name) for name in _MODEL_ARGS if hasattr(model, name)}
    cfg = dict(model.pretrained_cfg, num_classes=model.num_classes)
    if "img_size" in args:
        # The size that the relation weights are for now, whatever they were loaded from.
        cfg["input_size"] = (model.in_chans, *args["img_size"])
        cfg["pool_size"] = None
        args["global_pool"] = model.pool_type
    args.update(model_args or {})
    model.pretrained_cfg = cfg
    save_for_hf(
        model,
        str(directory),
        model_config={"reid": reid} if reid else {},
        model_args=args,
        safe_serialization=True,
    )
    readable_as(directory / "config.json", directory / "model.safetensors")
    return directory


def readable_as(other: Path, weights: Path) -> None:
    """Let those read a weights file who may read another: safetensors writes for its owner alone.

    Args:
        other: A file that was made in the usual way.
        weights: What safetensors has written.
    """
    shutil.copymode(other, weights)


def read_reid(model_name: str) -> dict[str, Any]:
    """What a model's folder or repository records of data, protocol and metrics.

    Args:
        model_name: As :func:`timm.create_model` takes it.

    Returns:
        The ``reid`` section of its config; empty where there is none, as of ImageNet weights, and
        where a tag's config cannot be had.
    """
    source, name = parse_model_name(model_name)
    if source == "hf-hub":
        path: str | Path | None = download_from_hf(name, "config.json")
    else:
        path = f"{name}/config.json" if source else config_of_tag(name)
    if path is None:
        return {}
    config = json.loads(Path(path).read_text(encoding="utf-8"))
    return dict(config.get("reid") or {})


def takes_img_size(model_name: str) -> bool:
    """Whether a model must be told its image size when it is created.

    Args:
        model_name: As :func:`timm.create_model` takes it: a name, ``hf-hub:`` or ``local-dir:``.
    """
    source, name = parse_model_name(model_name)
    if source == "hf-hub":
        return bool(load_model_config_from_hf(name)[0].get("fixed_input_size"))
    if source == "local-dir":
        return bool(load_model_config_from_path(name)[0].get("fixed_input_size"))
    cfg = get_pretrained_cfg(name, allow_unregistered=True)
    return bool(cfg and cfg.fixed_input_size)
