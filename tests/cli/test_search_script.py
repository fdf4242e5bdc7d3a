from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stored_folder import clustered, write_folder

from rga_timm.cli import embed, search
from rga_timm.evaluation import read_embeddings
from rga_timm.search import SearchIndex
from rga_timm.search import rows as rows_module

MODEL = ["test_rga_resnet", "--no-pretrained", "--img-size", "64", "32"]
RUN = ["--device", "cpu", "--workers", "0"]


def run(*arguments: object) -> Any:
    return search.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def photos(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The gallery's images, in a folder without meaning."""
    return Path(shutil.copytree(people / "bounding_box_test", tmp_path_factory.mktemp("x") / "p"))


@pytest.fixture(scope="module")
def embeddings(photos: Path) -> Path:
    """With flip and two scales, which a query has to follow."""
    folder = photos.parent / "embeddings"
    options = ["--images", str(photos), "--output", str(folder), "--shard-size", "3"]
    return embed.main([*MODEL, *RUN, *options, "--flip", "--scales", "1", "1.5"])


@pytest.fixture(scope="module")
def table(photos: Path) -> Path:
    """A camera's name and a minute for each image."""
    names = sorted(path.name for path in photos.iterdir())
    lines = [f"{name},{'ab'[i % 2]},2024-05-01T12:{i:02d}" for i, name in enumerate(names)]
    file = photos.parent / "photos.csv"
    file.write_text("\n".join(["path,camera,time", *lines]) + "\n")
    return file


@pytest.fixture
def index(embeddings: Path, table: Path, tmp_path: Path) -> Path:
    run("build", tmp_path / "index", embeddings, "--columns", table)
    return tmp_path / "index"


def test_an_image_is_embedded_as_the_index_was_and_finds_itself(
    index: Path, embeddings: Path, photos: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    stored = read_embeddings(embeddings)
    queries = [photos / stored.paths[number] for number in (4, 0)]
    output = "--json", tmp_path / "found.json", "--page", tmp_path / "found.html"
    found = run("query", index, *queries, "-k", 3, *output, *RUN)
    assert [rows[0]["path"] for rows in found] == [stored.paths[4], stored.paths[0]]
    assert [rows[0]["similarity"] for rows in found] == pytest.approx([1, 1], abs=1e-5)

    unit = stored.features / np.linalg.norm(stored.features, axis=1, keepdims=True)
    order = np.argsort(-(unit[[4, 0]] @ unit.T), axis=1)[:, :3]
    expected = [[stored.paths[number] for number in numbers] for numbers in order]
    assert [[row["path"] for row in rows] for rows in found] == expected

    report = json.loads((tmp_path / "found.json").read_text())
    assert [query["query"] for query in report["queries"]] == [str(query) for query in queries]
    results = [[row["path"] for row in query["results"]] for query in report["queries"]]
    assert results == expected
    assert report["search"]["k"] == 3
    assert report["index"]["stamp"]["scales"] == [1.0, 1.5]
    page = (tmp_path / "found.html").read_text()
    assert page.count("<figure") == 2 * (1 + 3)
    assert page.count('src="data:image/jpeg;base64,') == 8
    assert "http" not in page
    printed = capsys.readouterr().out
    assert f"{queries[0]}\n   1  1.000  {stored.paths[4]}  camera a, 2024-05-01 12:04:00" in printed
    assert printed.count(stored.paths[4]) >= 2


def test_conditions_hold(index: Path, embeddings: Path, photos: Path) -> None:
    paths = read_embeddings(embeddings).paths

    def found(*conditions: object) -> set[str]:
        (rows,) = run("query", index, photos / paths[0], "-k", 100, *conditions, *RUN)
        return {row["path"] for row in rows}

    assert found() == {*paths}
    assert found("--camera", "b") == {*paths[1::2]}
    assert found("--not-camera", "b") == {*paths[::2]}
    assert found("--after", "2024-05-01T12:03", "--before", "2024-05-01T12:05") == {*paths[3:5]}
    assert found("--where", "time < timestamp '2024-05-01T12:01:00'") == {paths[0]}
    assert found("--camera", "c") == set()


def test_stored_embeddings_are_queries(index: Path, embeddings: Path) -> None:
    paths = read_embeddings(embeddings).paths
    found = run("query", index, "--embeddings", embeddings, "-k", 1)
    assert [rows[0]["path"] for rows in found] == paths


def test_appends_and_indexes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = write_folder(
        tmp_path / "first", clustered(100, 3)[0], paths=[f"{i}" for i in range(300)]
    )
    features, _ = clustered(5, 1, seed=1)
    more = write_folder(tmp_path / "more", features, paths=[f"m{i}" for i in range(5)])
    assert run("build", tmp_path / "index", first)["rows"] == 300
    assert run("index", tmp_path / "index", "--partitions", 2)["indexed_rows"] == 300
    assert run("append", tmp_path / "index", more)["rows"] == 305
    assert "5 images more" in capsys.readouterr().out
    assert run("append", tmp_path / "index", more)["rows"] == 305
    assert "0 images more" in capsys.readouterr().out
    assert run("append", tmp_path / "index", more, "--replace")["rows"] == 305
    found = run("query", tmp_path / "index", "--embeddings", more, "-k", 1, "--nprobes", 1)
    assert [rows[0]["path"] for rows in found] == [f"m{i}" for i in range(5)]

    info = run("info", tmp_path / "index")
    assert (info["kind"], info["indexed_rows"]) == ("ivf_rq", 300)
    assert '"indexed_rows": 300' in capsys.readouterr().out
    assert run("optimize", tmp_path / "index")["indexed_rows"] == 305
    assert run("index", tmp_path / "index", "--kind", "exact")["kind"] == "exact"
    assert len(SearchIndex(tmp_path / "index")) == 305


def test_a_model_with_other_weights_is_refused(
    index: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = next(photos.iterdir())
    with pytest.raises(SystemExit):
        run("query", index, image, "--model", "test_rga_regnet", "--no-pretrained", *RUN)
    assert "the weights of test_rga_regnet are others than" in capsys.readouterr().err
    assert run("query", index, image, "--model", "test_rga_resnet", "--no-pretrained", *RUN)


def test_a_model_that_moved_is_asked_for(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_folder(
        tmp_path / "e", clustered(3, 1)[0], model="local-dir:gone", checkpoint=None
    )
    run("build", tmp_path / "index", folder)
    with pytest.raises(SystemExit):
        run("query", tmp_path / "index", next(photos.iterdir()), *RUN)
    assert "no folder gone with the model: --model says" in capsys.readouterr().err


@pytest.mark.usefixtures("no_model_is_made")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["query", "INDEX"], "what is the query?"),
        (["query", "INDEX", "IMAGE", "--embeddings", "X"], "what is the query?"),
        (["query", "INDEX", "nowhere.jpg"], "there is no image nowhere.jpg"),
        (["query", "INDEX", "BROKEN", *RUN], "these images cannot be read"),
        (["query", "INDEX", "IMAGE", "--json", "no/x.json"], "no folder no to write x.json to"),
        (["query", "INDEX", "IMAGE", "--page", "no/x.html"], "no folder no to write x.html"),
        (["query", "INDEX", "IMAGE", "--after", "noon"], "invalid fromisoformat value: 'noon'"),
        (["query", "INDEX", "IMAGE", "-k", "0"], "-k: must be at least 1, not 0"),
        (["query", "nowhere", "IMAGE"], "there is no index in nowhere"),
        (["query", "INDEX", "--embeddings", "nowhere"], "nowhere does not exist"),
        (
            ["query", "INDEX", "--embeddings", "EMBEDDINGS", "--splits", "z"],
            "holds no embeddings of z",
        ),
        (["build", "INDEX", "EMBEDDINGS"], "already: append, or overwrite it"),
        (["build", "new", "EMBEDDINGS", "--splits", "query"], "no embeddings of the splits query"),
        (["build", "new", "EMBEDDINGS", "--columns", "gone.csv"], "gone.csv"),
        (["query", "INDEX", "IMAGE", "--where", "nope = 3", *RUN], "No field named nope"),
        (["index", "INDEX"], "are too few for an approximate index"),
    ],
)
def test_bad_options_end_with_what_is_wrong(
    index: Path, embeddings: Path, photos: Path, tmp_path: Path, arguments: list[str],
    message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    named = {
        "INDEX": str(index),
        "EMBEDDINGS": str(embeddings),
        "IMAGE": str(next(photos.iterdir())),
        "BROKEN": str(tmp_path / "broken.jpg"),
    }
    with pytest.raises(SystemExit) as error:
        run(*(named.get(argument, argument) for argument in arguments))
    assert error.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new" / "embeddings.lance" / "_versions").exists()


def test_without_lancedb_it_says_what_to_install(
    embeddings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, "lancedb", None)
    with pytest.raises(SystemExit):
        run("build", tmp_path / "index", embeddings)
    assert "pip install 'rga-timm[search]'" in capsys.readouterr().err


def test_ctrl_c_leaves_the_index_as_it_was(
    index: Path, embeddings: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    before = run("info", index)
    iter_embeddings: Callable[..., Any] = rows_module.iter_embeddings

    def interrupted(folder: Path) -> Any:
        shards = iter_embeddings(folder)
        yield next(shards)
        os.kill(os.getpid(), signal.SIGINT)
        yield from shards

    monkeypatch.setattr(rows_module, "iter_embeddings", interrupted)
    with pytest.raises(SystemExit) as error:
        run("build", index, embeddings, "--overwrite")
    assert error.value.code == 130
    assert "Interrupted: the index is as it was." in caplog.text
    monkeypatch.undo()
    assert run("info", index) == before
