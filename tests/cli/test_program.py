"""The program's own part: verbs, help, versions, wrong words."""

import io
import os
import subprocess
import sys
from importlib import import_module

import pytest
import timm
from PIL import Image

from rga_timm import __version__, cli


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["rga-timm", *words])
    try:
        cli.main()
    except SystemExit as end:
        return end.code or 0
    return 0


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_lists_every_verb_in_one_line(option, monkeypatch, capsys):
    assert run(monkeypatch, option) == 0
    lines = capsys.readouterr().out.splitlines()
    for verb, text in cli.VERBS.items():
        assert sum(line.split() == [verb, *text.split()] for line in lines) == 1
    assert all(len(line) <= 100 for line in lines)


def test_version_names_what_scores_depend_on(monkeypatch, capsys):
    assert run(monkeypatch, "--version") == 0
    printed = capsys.readouterr().out
    assert f"rga-timm {__version__}, timm {timm.__version__}, torch " in printed


@pytest.fixture
def zoe(tmp_path) -> str:
    """A folder of two images, whose name is not valid UTF-8."""
    folder = tmp_path / os.fsdecode(b"Zo\xe9")
    (folder / "test" / "p").mkdir(parents=True)
    for i in range(2):
        Image.new("RGB", (16, 32), (i, 0, 0)).save(folder / "test" / "p" / f"{i}.png")
    return str(folder)


@pytest.mark.faults
def test_names_that_are_no_valid_text_are_printed(monkeypatch, zoe):
    printed = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="strict")
    monkeypatch.setattr(sys, "stdout", printed)
    assert run(monkeypatch, "check-data", zoe, "--dataset", "folder", "--workers", "0") == 0
    printed.flush()
    assert rb"Zo\udce9 is read as folder" in printed.buffer.getvalue()


@pytest.mark.faults
@pytest.mark.parametrize("source", ["--images", "--dataset"])
def test_names_that_embeddings_cannot_hold_are_told(monkeypatch, tmp_path, capsys, zoe, source):
    where = (zoe,) if source == "--images" else ("folder", "--data-dir", zoe)
    words = ("embed", "test_rga_resnet", "--no-pretrained", source, *where, "--output")
    assert run(monkeypatch, *words, str(tmp_path / "e")) == 2
    error = capsys.readouterr().err
    assert "error: rename '" in error
    assert r"Zo\udce9': its name is not valid UTF-8" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name a verb or a script"),
        (["fintune"], "there is no verb 'fintune'; did you mean finetune?"),
        (["check_data", "DIR"], "did you mean check-data?"),
        (["zzz"], "there is no verb 'zzz'\n"),
        (["--model", "x"], "the verb or script comes first"),
    ],
)
def test_wrong_words_are_explained(words, message, monkeypatch, capsys):
    assert run(monkeypatch, *words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "usage: rga-timm VERB" in error


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_help_under_its_own_name(verb, monkeypatch, capsys):
    assert run(monkeypatch, verb, "--help") == 0
    assert capsys.readouterr().out.startswith(f"usage: rga-timm {verb} ")
    assert import_module(f"rga_timm.cli.{verb.replace('-', '_')}").__doc__


def test_exit_status_of_a_verb_is_the_programs(monkeypatch, tmp_path):
    assert run(monkeypatch, "check-data", str(tmp_path / "missing")) not in (0, None)
    assert run(monkeypatch, "checkpoints") == 0


def test_module_and_clone_script_are_the_same_program(pytestconfig):
    module, script = (
        subprocess.run([sys.executable, *words, "--help"], capture_output=True, text=True)
        for words in (
            ["-m", "rga_timm", "evaluate"],
            [str(pytestconfig.rootpath / "scripts" / "evaluate.py")],
        )
    )
    assert module.returncode == script.returncode == 0, module.stderr + script.stderr
    assert module.stdout == script.stdout
