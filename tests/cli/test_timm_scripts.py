"""``rga-timm SCRIPT.py`` against what ``python SCRIPT.py`` does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm

import rga_timm
from rga_timm.cli import main

TELL = """
import json, os, sys
import helper_beside_script
import timm

if __name__ == "__main__":
    os.chdir("/")
    print(json.dumps({
        "argv": sys.argv[1:],
        "path": sys.path[0],
        "file": __file__,
        "main": sys.modules["__main__"].__file__,
        "models": timm.list_models("rga_resnet50"),
    }))
    sys.exit(int(sys.argv[1]))
"""

# The class can be found by a new process only through __main__.
WORKERS = """
import torch
from torch.utils.data import DataLoader, Dataset

class Squares(Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, i):
        return torch.tensor(i * i)

if __name__ == "__main__":
    for method in ("spawn", "forkserver"):
        loader = DataLoader(Squares(), num_workers=1, multiprocessing_context=method)
        print(method, torch.cat(list(loader)).tolist())
"""


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    # The package as this process has it, also where it is not installed.
    package = str(Path(rga_timm.__file__).parents[1])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A script with a module beside it, in a folder that is not the working directory."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "helper_beside_script.py").touch()
    (folder / "tell.py").write_text(TELL)
    return folder / "tell.py"


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Calls the module's main with these arguments, in the test's own process."""

    def call(*arguments: str) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["rga_timm/__main__.py", *arguments])
        monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
        main()

    return call


def test_script_sees_what_python_shows_it_and_the_models_as_well(script: Path) -> None:
    arguments = ("folder/tell.py", "7", "--model", "-h", "")
    plain = run(*arguments, cwd=script.parents[1])
    ours = run("-m", "rga_timm", *arguments, cwd=script.parents[1])
    assert plain.returncode == ours.returncode == 7, ours.stderr
    told, expected = json.loads(ours.stdout), json.loads(plain.stdout)
    assert told.pop("models") == ["rga_resnet50"]
    assert expected.pop("models") == []
    assert told == expected
    assert told["file"] == told["main"] == str(script)


def test_script_behind_a_link_finds_its_neighbours(
    script: Path, tmp_path: Path, in_process, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "link.py").symlink_to(script)
    with pytest.raises(SystemExit) as exit_:
        in_process("link.py", "0")
    assert exit_.value.code == 0
    assert json.loads(capsys.readouterr().out)["path"] == str(script.parent)


def test_worker_processes_that_do_not_fork_find_the_classes_of_the_script(tmp_path: Path) -> None:
    (tmp_path / "workers.py").write_text(WORKERS)
    done = run("-m", "rga_timm", "workers.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["spawn [0, 1]", "forkserver [0, 1]"]


def test_script_that_is_not_there_is_named(in_process) -> None:
    with pytest.raises(SystemExit, match=r"there is no script missing\.py"):
        in_process("missing.py", "--model", "x")


def test_scripts_that_start_others_pass_the_models_on(tmp_path: Path) -> None:
    # As timm's bulk_runner.py does with `--module yes rga_timm SCRIPT.py`.
    (tmp_path / "inner.py").write_text("import timm; print(timm.list_models('rga_resnet50'))")
    (tmp_path / "outer.py").write_text(
        "import subprocess, sys\n"
        "subprocess.run([sys.executable, '-u', '-m', *sys.argv[1:]], check=True)\n"
    )
    done = run("-m", "rga_timm", "outer.py", "rga_timm", "inner.py", cwd=tmp_path)
    assert done.stdout.strip() == "['rga_resnet50']", done.stderr


@pytest.mark.parametrize(("version", "warned"), [("0.0.1", True), (timm.__version__, False)])
def test_another_timm_beside_the_script_is_told(
    version: str, warned: bool, tmp_path: Path, in_process, recwarn: pytest.WarningsRecorder
) -> None:
    (tmp_path / "timm").mkdir()
    (tmp_path / "timm" / "version.py").write_text(f"__version__ = '{version}'\n")
    (tmp_path / "script.py").write_text("import timm")
    in_process("script.py")
    assert any("another version of timm" in str(w.message) for w in recwarn) == warned
