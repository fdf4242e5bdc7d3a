"""What a user gets who installs the wheel and has no clone: the README's main job, offline."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from email.parser import Parser
from pathlib import Path

import pytest

from rga_timm import __version__
from rga_timm.data.datasets.pedestrians import draw

ROOT = Path(__file__).parents[2]
SOURCES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")
Run = Callable[..., str]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Built from a copy: building leaves folders beside the sources.
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("rga_timm", "weights"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=ignore)
    for name in SOURCES:
        shutil.copy(ROOT / name, folder / "source")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder)]
    subprocess.run([*command, str(folder / "source")], check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def rga_timm_of_wheel(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs the installed program in an empty folder, where the Hub cannot be reached.

    The environment is new; the dependencies are those of the tests' own.
    """
    folder = tmp_path_factory.mktemp("user")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    site = next((folder / "venv").glob("lib/python*/site-packages"))
    dependencies = sysconfig.get_paths()["purelib"]
    (site / "dependencies.pth").write_text(f"{dependencies}\n")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*install, "--target", str(site), str(wheel)], check=True)
    (folder / "work").mkdir()
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment = {
        **kept,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "hub"),
        "XDG_CACHE_HOME": str(folder / "cache"),
    }

    def run(*words: object, code: int = 0) -> str:
        python = str(folder / "venv" / "bin" / "python")
        done = subprocess.run(
            [python, *map(str, words)],
            cwd=folder / "work",
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stderr
        return done.stdout

    where = run("-c", "import rga_timm; print(rga_timm.__file__)")
    assert str(site) in where  # not the clone's
    return run


def test_wheel_holds_the_program_recipes_and_the_small_checkpoint(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "rga_timm/cli/finetune.py" in names
    assert "rga_timm/cli/recipes/paper.yaml" in names
    assert f"rga_timm-{__version__}.dist-info/entry_points.txt" in names
    weights = [name for name in names if name.endswith(".safetensors")]
    assert len(weights) == 1
    assert "test_rga_resnet.pedestrians" in weights[0]  # others are too large for a wheel


def test_package_page_has_no_dead_links_and_says_who_and_where(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        name = f"rga_timm-{__version__}.dist-info/METADATA"
        metadata = Parser().parsestr(archive.read(name).decode())
    assert metadata["Author"] or metadata["Author-email"]
    assert {url.partition(",")[0] for url in metadata.get_all("Project-URL")} >= {"Repository"}
    targets = [part.partition(")")[0] for part in metadata.get_payload().split("](")[1:]]
    assert targets
    assert [t for t in targets if not t.startswith(("https://", "#"))] == []


def test_main_job_works_from_the_wheel_alone(rga_timm_of_wheel: Run, tmp_path: Path) -> None:
    def program(*words: object) -> str:
        return rga_timm_of_wheel("-m", "rga_timm", *words)

    small = ("--workers", 0, "--device", "cpu")
    model = "test_rga_resnet.pedestrians"

    # Fine-tune on the embedded data, and on a folder of people, from the wheel's checkpoint
    run = tmp_path / "embedded"
    small_model = ("--model", "test_rga_resnet", "--img-size", 64, 32, "--epochs", 1)
    program("finetune", *small_model, "--output", run, *small)
    assert (run / "report.html").is_file()
    market = draw(tmp_path / "drawn", train_ids=12, train_images=4, test_ids=1, progress=False)
    for image in (market / "bounding_box_train").glob("*.jpg"):
        person = tmp_path / "people" / image.name[:4]
        person.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, person)
    own = tmp_path / "own"
    options = ("--config", "own-folder", "--data-dir", tmp_path / "people", "--epochs", 2)
    program("finetune", *options, "--model", model, "--output", own, *small)

    # Use both
    report = tmp_path / "report.json"
    printed = program("evaluate", model, "--output", report, *small)
    assert "| test_rga_resnet.pedestrians |" in printed
    recorded = json.loads((ROOT / "weights" / model / "config.json").read_text())["reid"]
    metrics = json.loads(report.read_text())["metrics"]
    assert metrics["mAP"] == pytest.approx(recorded["metrics"]["mAP"], abs=1e-3)
    program("report", own, "--output", tmp_path / "page.html", *small)
    assert (tmp_path / "page.html").stat().st_size > 10_000
    program("export", own, tmp_path / "own.onnx")
    program("embed", model, "--images", tmp_path / "people", "--output", tmp_path / "e", *small)
    program("search", "build", tmp_path / "gallery", tmp_path / "e")
    query = next((tmp_path / "people").rglob("*.jpg"))
    assert query.name in program("search", "query", tmp_path / "gallery", query)
    assert model in program("checkpoints")
