"""Commands that cannot finish a file: one line with its name, and the old file is as it was."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from finetune_runs import summary

from rga_timm.cli import embed, export, finetune, run

pytestmark = pytest.mark.faults

MODEL = "test_rga_resnet.pedestrians"


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """Let every write beyond this size fail, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def fails(size: int, file: Path, capsys: pytest.CaptureFixture[str], *command: object) -> None:
    """Run a command that cannot write a file of more than a size, and check its last line."""
    verb, *options = map(str, command)
    with pytest.raises(SystemExit) as ended, no_file_above(size):
        run(verb, options)
    if isinstance(ended.value.code, int):  # of the parser, which has written it after the usage
        message = capsys.readouterr().err.splitlines()[-1]
    else:
        (message,) = str(ended.value).splitlines()
    assert ended.value.code
    assert message.startswith(f"rga-timm {verb}: error: ")
    assert "File too large" in message
    assert str(file) in message
    hidden = [path for path in file.parent.iterdir() if path.name.startswith(".")]
    assert [path for path in hidden if not path.name.endswith(".lock")] == []


@pytest.fixture
def data(people: Path) -> list[str]:
    return ["--dataset", "market1501", "--data-dir", str(people), "--device", "cpu"]


@pytest.mark.parametrize(
    ("verb", "name", "size"),
    [("evaluate", "a.json", 500), ("report", "a.html", 500), ("export", "a.onnx", 50_000)],
)
def test_the_old_result_is_kept(
    verb: str,
    name: str,
    size: int,
    data: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Making the graph takes long; what is tried is the writing.
    monkeypatch.setattr(export, "export", lambda *args: args[2].write_bytes(bytes(100_000)))
    file = tmp_path / name
    file.write_text("old")
    more = [file] if verb == "export" else ["--output", file, *data, "--workers", 0]
    fails(size, file, capsys, verb, MODEL, *more)
    assert file.read_text() == "old"


@pytest.mark.parametrize("kind", ["parquet", "safetensors"])
def test_embeddings_are_gone_on_with(
    kind: str, data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "e"
    command = [MODEL, *data, "--workers", "0", "--output", str(folder), "--format", kind]
    fails(10_000, folder / f"part-00000.{kind}", capsys, "embed", *command)
    assert [path.name for path in folder.iterdir()] == ["embeddings.json"]
    embed.main([*command, "--resume"])


def test_results_of_a_search_are_kept_and_so_is_the_index(
    data: list[str], people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, index = tmp_path / "e", tmp_path / "index"
    gallery = ["--workers", "0", "--splits", "gallery", "--output", str(folder)]
    embed.main([MODEL, *data, *gallery])
    fails(5_000, index, capsys, "search", "build", index, folder)
    assert run("search", ["build", str(index), str(folder)]) == 0
    fails(5_000, index, capsys, "search", "build", index, folder, "--overwrite")
    image = min((people / "query").iterdir())
    for option, name in (("--json", "a.json"), ("--page", "a.html")):
        file = tmp_path / name
        file.write_text("old")
        fails(500, file, capsys, "search", "query", index, image, option, file)
        assert file.read_text() == "old"


def test_a_training_run_and_its_export_are_gone_on_with_and_a_package_is_all_or_nothing(
    options: list[str], people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_folder = finetune.main([*options, "--epochs", "1"])
    more = ["--resume", run_folder, "--epochs", 2]
    before = {path: path.read_bytes() for path in run_folder.glob("*.pth.tar")}
    fails(100_000, run_folder / "last.pth.tar", capsys, "finetune", *more)
    assert {path: path.read_bytes() for path in run_folder.glob("*.pth.tar")} == before
    again = ["--resume", str(run_folder), "--epochs", "2"]
    assert run("finetune", again) == 0
    assert [row["epoch"] for row in summary(run_folder)] == ["0", "1"]

    weights = run_folder / "model" / "model.safetensors"
    before = {weights: weights.read_bytes()}
    # Enough for the checkpoints, which are only read; not for the weights.
    fails(100_000, weights, capsys, "finetune", "--resume", run_folder)
    assert weights.read_bytes() == before[weights]

    package = tmp_path / "weights" / "test_rga_resnet.mine"
    pack = [run_folder, "--weights", package.parent, "--name", package.name, "--license", "mit"]
    pack += ["--workers", 0]
    fails(100_000, package, capsys, "publish", *pack, "--data-dir", people, "--device", "cpu")
    assert list(package.parent.iterdir()) == []
