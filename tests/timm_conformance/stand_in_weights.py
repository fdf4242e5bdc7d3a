"""Weights in place of downloads: the names and shapes that are published, with random values.

timm's tests of pretrained models download. Here each download gives a file that is made on the
spot, so that loading runs through timm's own code as far as the network:

- ``timm/<arch>.<tag>`` on the Hub: timm's own plain ``<arch>``, provided that timm knows that tag.
- Anything else (a URL, another Hub repository): from our model that names it, made without relation
  attention, less the neck, plus ImageNet's classifier. Names and shapes are then our word; that the
  published file has them is for a test with that file.
- If that model's config has identities (``num_classes``), the file holds the whole model.
"""

import tempfile
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
from timm.models import _builder, _hub

from rga_timm import weights as rga_weights

_KEPT = 2  # files at a time: a ResNet-152 is 240 MB
_folder: tempfile.TemporaryDirectory | None = None
_files: dict[str, Path] = {}


def install() -> None:
    """Take the place of every download that timm's loader does, and of what asks for its server."""
    global _folder
    _folder = tempfile.TemporaryDirectory(prefix="stand-in-weights-")
    _hub.hf_hub_download = _hf_hub_download
    _builder.load_state_dict_from_url = _load_state_dict_from_url
    _builder.download_cached_file = _refuse
    _hub.download_cached_file = _refuse
    rga_weights._check_answers = lambda ask: None  # whether a server can be reached at all


def remove() -> None:
    """Delete the files."""
    if _folder is not None:
        _folder.cleanup()


def _hf_hub_download(repo_id: str, filename: str, **kwargs: Any) -> str:
    """In place of ``huggingface_hub.hf_hub_download``."""
    if not filename.endswith(".safetensors"):
        raise NotImplementedError(f"no stand-in for {filename} of {repo_id}")
    if repo_id not in _files:
        for old in list(_files)[: max(0, len(_files) + 1 - _KEPT)]:
            _files.pop(old).unlink()
        path = Path(_folder.name) / f"{repo_id.replace('/', '_')}.safetensors"
        safetensors.torch.save_file(_hub_weights(repo_id), path)
        _files[repo_id] = path
    return str(_files[repo_id])


def _load_state_dict_from_url(url: str, **kwargs: Any) -> dict[str, torch.Tensor]:
    """In place of ``torch.hub.load_state_dict_from_url``."""
    return _own_weights("url", url)


def _refuse(url: Any, **kwargs: Any) -> str:
    raise NotImplementedError(f"no stand-in for files in formats of their own: {url}")


def _hub_weights(repo_id: str) -> dict[str, torch.Tensor]:
    owner, name = repo_id.split("/")
    if owner != "timm":
        return _own_weights("hf_hub_id", repo_id)
    cfg = timm.get_pretrained_cfg(name) if timm.is_model_pretrained(name) else None
    if cfg is None or cfg.hf_hub_id != repo_id:
        raise LookupError(f"timm {timm.__version__} knows no weights {repo_id!r} of its own")
    return timm.create_model(name, pretrained=False).state_dict()


def _own_weights(source: str, location: str) -> dict[str, torch.Tensor]:
    """What a model of ours expects where its config says ``source=location``."""
    for name in timm.models._registry.list_models(pretrained=True):
        cfg = timm.get_pretrained_cfg(name)
        if getattr(cfg, source) != location:
            continue
        if cfg.num_classes:
            return timm.create_model(name, pretrained=False).state_dict()
        model = timm.create_model(name, pretrained=False, relation="none")
        weights = {k: v for k, v in model.state_dict().items() if not k.startswith("neck.")}
        weights["fc.weight"] = torch.randn(1000, model.num_features)
        weights["fc.bias"] = torch.randn(1000)
        return weights
    raise LookupError(f"no registered model has {source}={location!r}")
