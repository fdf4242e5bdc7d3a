"""Write and read checkpoints in the Hugging Face Hub's layout, for timm and transformers."""

import copy
import json
import os
import shutil
from collections.abc import Mapping, Sequence
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

from rga_timm.data.text_file import write_text, writing
from rga_timm.hub.model_file import is_model_file
from rga_timm.weights import CONFIG_FILE, WEIGHTS_FILE, config_of_tag

# Options of a run that are paths of its machine, and are never published.
PRIVATE = (
    "data_dir", "eval_data_dir", "output", "pretrained_path", "teacher", "teacher_embeddings",
    "unlabelled_data_dir",
)  # fmt: skip

# Arguments to rebuild a model of this package, beside timm's own num_classes and in_chans.
_MODEL_ARGS = ("img_size", "native_size", "relation", "reduction")


def save_pretrained(
    model: Any,
    directory: str | Path,
    *,
    reid: dict[str, Any] | None = None,
    model_args: Mapping[str, Any] | None = None,
    label_names: Sequence[str] | None = None,
) -> Path:
    """Write ``config.json`` and ``model.safetensors``.

    ``timm.create_model('local-dir:DIRECTORY', pretrained=True)`` restores the model bit for bit,
    and so does ``hf-hub:`` once the folder is a repository there. After ``import rga_timm``,
    ``transformers.AutoModel.from_pretrained`` and ``AutoModelForImageClassification`` load it, too.

    Args:
        model: Any timm model; for those of this package, image size and relation are recorded.
        directory: The folder, made if it does not exist. It is returned.
        reid: The ``reid`` section of the config: records of data, protocol and metrics.
        model_args: Further arguments to rebuild the model; timm 1.0.31 and later remember them.
        label_names: A name for each class of the classifier; by default those in the model's
            ``pretrained_cfg``, if their number fits.
    """
    directory = Path(directory)
    # A copy, in the memory order that safetensors needs.
    model = copy.deepcopy(model).to("cpu", memory_format=torch.contiguous_format)
    args = {name: getattr(model, name) for name in _MODEL_ARGS if hasattr(model, name)}
    cfg = dict(model.pretrained_cfg, num_classes=model.num_classes)
    known = cfg.pop("label_names", None) or ()
    labels = label_names or (known if len(known) == model.num_classes else ())
    defaults: dict[str, Any] = {"in_chans": 3}
    if "img_size" in args:
        # The present size of the relation weights, which may have been resampled.
        cfg |= {"input_size": (model.in_chans, *args["img_size"]), "pool_size": None}
        args["global_pool"] = model.pool_type
        defaults["global_pool"] = "avg"
    args.update(model_args or {})
    model.pretrained_cfg = cfg
    sections = {"reid": reid, "label_names": list(labels)}
    records = {name: section for name, section in sections.items() if section}
    made = directory / ".unfinished"
    shutil.rmtree(made, ignore_errors=True)  # of a program that was killed
    made.mkdir(parents=True)
    try:
        with writing(directory / WEIGHTS_FILE):
            save_for_hf(model, str(made), records, model_args=args, safe_serialization=True)
        config = read_config(made)
        made_with = config.get("model_args", {})
        # timm writes it beside the arguments, too, and transformers would pass it twice.
        made_with.pop("num_classes", None)
        config["model_args"] = {k: v for k, v in made_with.items() if v != defaults.get(k)}
        write_config(config, made)
        shutil.copymode(made / CONFIG_FILE, made / WEIGHTS_FILE)  # safetensors: owner only
        for name in (WEIGHTS_FILE, CONFIG_FILE):  # the config last: a folder with one is a model
            os.replace(made / name, directory / name)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return directory


def read_config(folder: Path) -> dict[str, Any]:
    """The content of a folder's ``config.json``; a ValueError names a damaged file."""
    file = folder / CONFIG_FILE
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:  # not JSON, not UTF-8, or not a mapping
        raise ValueError(f"{file} cannot be read: {error}") from error


def write_config(config: Mapping[str, Any], folder: Path) -> None:
    """Write a folder's ``config.json``."""
    text = json.dumps(config, indent=2) + "\n"
    write_text(folder / CONFIG_FILE, text)


def read_reid(model_name: str) -> dict[str, Any]:
    """Read the records of data, protocol and metrics of a model, named as for timm.

    They are the ``reid`` section of its config; empty without one, or if a tag has no config.
    """
    if is_model_file(model_name):
        return {}
    source, name = parse_model_name(model_name)
    if source == "hf-hub":
        path: str | Path | None = download_from_hf(name, CONFIG_FILE)
    else:
        path = Path(name, CONFIG_FILE) if source else config_of_tag(name)
    if path is None:
        return {}
    return dict(read_config(Path(path).parent).get("reid") or {})


def takes_img_size(model_name: str) -> bool:
    """Whether :func:`timm.create_model` must be given the image size for this model."""
    source, name = parse_model_name(model_name)
    if source:
        read = load_model_config_from_hf if source == "hf-hub" else load_model_config_from_path
        return bool(read(name)[0].get("fixed_input_size"))
    cfg = get_pretrained_cfg(name, allow_unregistered=True)
    return bool(cfg and cfg.fixed_input_size)
