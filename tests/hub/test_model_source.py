"""Models by the name that a user gives, with weights that are whole, wrapped or unusable."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from hub_cache import put_into_hub_cache
from safetensors.torch import load_file, save_file
from torch import nn

import rga_timm  # noqa: F401 - registers the models
from rga_timm.hub import save_pretrained
from rga_timm.hub.model_source import check_model, create_model

pytestmark = pytest.mark.faults
MODELS = ["test_rga_resnet", "test_resnet"]


def some_model(name: str) -> nn.Module:
    torch.manual_seed(1)
    return timm.create_model(name, num_classes=4)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("wrapping", ["net", "model_state_dict", "state_dict_ema", "flat"])
def test_weights_of_other_programs_are_read(name: str, wrapping: str, tmp_path: Path) -> None:
    model = some_model(name)
    weights = model.state_dict()
    beside = {"epoch": 3, "best": np.float64(0.5)}
    content = {**weights, **beside} if wrapping == "flat" else {wrapping: weights, **beside}
    torch.save(content, tmp_path / "a.pth")
    made = create_model(name, checkpoint=tmp_path / "a.pth")
    assert made.num_classes == 4
    assert all(torch.equal(value, made.state_dict()[key]) for key, value in weights.items())
    assert "state_dict" not in made.pretrained_cfg


def spoil(folder: Path, kind: str) -> str:
    """Change a parameter in a model's folder; return its name."""
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("bn1.weight"))
    if kind == "int8":
        weights[name] = weights[name].to(torch.int8)
    else:
        weights[name][:2] = float(kind)
    save_file(weights, folder / "model.safetensors")
    return name


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("source", ["local-dir", "hf-hub", "file"])
@pytest.mark.parametrize("kind", ["nan", "inf", "int8"])
def test_unusable_weights_are_refused_wherever_they_come_from(
    name: str, source: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_pretrained(some_model(name), tmp_path / "model")
    parameter = spoil(folder, kind)
    model, checkpoint = f"local-dir:{folder}", None
    if source == "file":
        model, checkpoint = name, folder / "model.safetensors"
    elif source == "hf-hub":
        put_into_hub_cache(folder, tmp_path, "someone/net")
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        model = "hf-hub:someone/net"
    message = rf"2 values are NaN or infinite, in 1 \({parameter}\)"
    if kind == "int8":
        message = rf"its numbers are quantised, 1 \({parameter} (I8|torch.int8)\)"
    with pytest.raises(ValueError, match=message):
        create_model(model, checkpoint=checkpoint)


def test_a_folder_with_something_else_than_weights_is_refused_at_once(tmp_path: Path) -> None:
    folder = save_pretrained(some_model("test_resnet"), tmp_path / "model")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    for name in ("model.safetensors", "pytorch_model.bin"):
        (folder / "model.safetensors").unlink(missing_ok=True)
        (folder / name).write_text(pointer)
        with pytest.raises(ValueError, match=rf"{folder / name} .* a pointer of Git LFS"):
            check_model(str(folder))


def test_a_pickle_in_a_folder_is_refused_without_advice_to_trust_it(tmp_path: Path) -> None:
    folder = save_pretrained(some_model("test_resnet"), tmp_path / "model")
    (folder / "model.safetensors").unlink()
    torch.save({"a": nn.Linear(2, 2)}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="holds more than tensors and plain values") as error:
        create_model(f"local-dir:{folder}")
    assert "weights_only" not in str(error.value)


def test_damage_in_the_hubs_cache_is_named_with_the_file_to_delete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_pretrained(some_model("test_resnet"), tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    put_into_hub_cache(folder, tmp_path / "hub", "someone/net")
    imagenet = timm.models.get_pretrained_cfg("resnet18.tv_in1k").hf_hub_id
    put_into_hub_cache(folder, tmp_path / "hub", imagenet)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for model in ("hf-hub:someone/net", "resnet18.tv_in1k", "rga_resnet18.tv_in1k"):
        with pytest.raises(ValueError, match=r"model\.safetensors, in the Hub's cache, is damaged"):
            create_model(model)
    with pytest.raises(ValueError, match="delete it, with a network it is downloaded again"):
        timm.create_model("rga_resnet18.tv_in1k", pretrained=True)
