"""The checkpoints in weights/: each as listed, as described, and working; each tag with one."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import rga_timm  # noqa: F401 - registers the models
from rga_timm.hub import MAX_BYTES, check_checkpoint, check_manifest, check_tag, read_manifest
from rga_timm.weights import HUB_ORGANISATION

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / "weights"
MANIFEST = read_manifest(WEIGHTS)
PACKAGED = "test_rga_resnet.pedestrians"  # what setup.py puts into the package
FREE = ("apache-2.0",)
PREPROCESSING = (
    "mean",
    "std",
    "interpolation",
    "crop_pct",
    "crop_mode",
    "input_size",
    "num_classes",
)


def test_there_are_checkpoints():
    assert "test_rga_resnet.pedestrians" in MANIFEST


def test_manifest_lists_what_lies_there():
    check_manifest(WEIGHTS)


@pytest.mark.parametrize("name", MANIFEST)
def test_checkpoint_is_complete_and_gives_its_golden_embedding(name):
    check_checkpoint(WEIGHTS / name)
    check_tag(WEIGHTS / name)
    assert MANIFEST[name]["size"] <= MAX_BYTES


@pytest.mark.parametrize("name", MANIFEST)
def test_tag_is_registered_as_the_checkpoint_says(name):
    registered = timm.models.get_pretrained_cfg(name).to_dict()
    config = json.loads((WEIGHTS / name / "config.json").read_text())
    recorded, reid = config["pretrained_cfg"], config["reid"]
    assert registered["hf_hub_id"] == f"{HUB_ORGANISATION}/{name}@v{reid['version']}"
    assert reid["repository"] == f"{HUB_ORGANISATION}/{name}"
    for key in PREPROCESSING:
        expected = registered[key]
        assert recorded[key] == (list(expected) if isinstance(expected, tuple) else expected), key


def test_every_tag_with_a_repository_of_ours_is_in_the_manifest():
    names = [
        name
        for name in timm.list_models("*rga*", pretrained=True)
        if (timm.models.get_pretrained_cfg(name).hf_hub_id or "").startswith(f"{HUB_ORGANISATION}/")
    ]
    assert sorted(names) == sorted(MANIFEST)


def test_nothing_in_it_tells_of_the_machine_it_was_made_on():
    here = (ROOT, tempfile.gettempdir())
    for file in WEIGHTS.rglob("*"):
        if file.suffix in (".json", ".md", ".yaml", ".csv"):
            text = file.read_text(encoding="utf-8")
            # Neither any absolute path, nor, in whatever form, one of this machine's.
            assert re.findall(r"(?<![\w./:<])(?:/[\w.-]+)+/|\b[A-Z]:\\", text) == [], file
            assert not any(str(path) in text for path in here), file


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with what a wheel holds."""
    # A copy: building leaves folders beside the sources.
    source = tmp_path_factory.mktemp("source")
    ignore = shutil.ignore_patterns("__pycache__", "*.png", "rga_tf_*")
    for name in ("rga_timm", "weights"):
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    wheels = tmp_path_factory.mktemp("wheels")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(wheels)]
    subprocess.run([*command, str(source)], check=True, capture_output=True, text=True)
    (wheel,) = wheels.glob("*.whl")
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_wheel_carries_the_manifest_and_the_free_checkpoint_only(installed):
    checkpoints = installed / "rga_timm" / "checkpoints"
    assert (checkpoints / "manifest.json").read_bytes() == (WEIGHTS / "manifest.json").read_bytes()
    (weights,) = installed.rglob("*.safetensors")
    assert weights.parent == checkpoints / PACKAGED
    assert json.loads(weights.with_name("config.json").read_text())["reid"]["license"] in FREE
    assert (installed / "rga_timm" / "hub" / "publish" / "card.md.j2").is_file()


def test_wheel_alone_gives_the_test_checkpoint_without_a_network(installed, tmp_path):
    code = f"""
import rga_timm, timm, torch
assert {str(installed)!r} in rga_timm.__file__
model = timm.create_model({PACKAGED!r}, pretrained=True).eval()
torch.save(model.state_dict(), "state.pth")
print(rga_timm.list_checkpoints())
"""
    environment = {k: v for k, v in os.environ.items() if k != "RGA_TIMM_WEIGHTS"}
    environment |= {"PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = timm.create_model(f"local-dir:{WEIGHTS / PACKAGED}", pretrained=True).state_dict()
    state = torch.load(tmp_path / "state.pth", weights_only=True)
    assert state.keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in state.items())
    assert str(installed / "rga_timm" / "checkpoints" / PACKAGED) in done.stdout


@pytest.mark.parametrize("name", MANIFEST)
def test_config_repeats_nothing_that_transformers_passes_itself(name):
    config = json.loads((WEIGHTS / name / "config.json").read_text())
    assert not {"num_classes", "global_pool", "in_chans"} & config["model_args"].keys()


def test_transformers_loads_the_checkpoint_and_gives_the_same_embedding():
    transformers = pytest.importorskip("transformers")
    folder = str(WEIGHTS / PACKAGED)
    expected = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    pixels = np.random.default_rng(0).integers(0, 255, (100, 60, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(expected))
    with torch.no_grad():
        embedding = expected(transform(image)[None])
        model = transformers.AutoModel.from_pretrained(folder).eval()
        assert torch.equal(model(transform(image)[None]).pooler_output, embedding)
    extract = transformers.pipeline("image-feature-extraction", folder, device="cpu")
    assert np.array_equal(np.float32(extract(image, pool=True)), embedding.numpy())
