"""The checkpoints in weights/: each as listed, as described, and working; each tag with one."""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
import timm

import rga_timm  # noqa: F401 - registers the models
from rga_timm.hub import MAX_BYTES, check_checkpoint, check_manifest, check_tag, read_manifest
from rga_timm.weights import HUB_ORGANISATION

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / "weights"
MANIFEST = read_manifest(WEIGHTS)
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


def test_wheel_carries_the_manifest(tmp_path):
    # A copy: building leaves folders beside the sources.
    source = tmp_path / "source"
    ignore = shutil.ignore_patterns("__pycache__", "*.safetensors")
    for name in ("rga_timm", "weights"):
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(tmp_path)]
    subprocess.run([*command, str(source)], check=True, capture_output=True, text=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("rga_timm/manifest.json") == (WEIGHTS / "manifest.json").read_bytes()
        assert not any(name.endswith((".safetensors", ".png")) for name in archive.namelist())
