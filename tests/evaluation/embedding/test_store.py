from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import torch
from stored_folder import rows_of, small_embeddings, small_metadata, write

from rga_timm.evaluation import (
    StoredEmbeddings,
    iter_embeddings,
    read_embeddings,
    read_metadata,
    read_stamp,
)
from rga_timm.evaluation.embedding import shards
from rga_timm.evaluation.embedding.store import (
    DECISIVE,
    differences,
    holds_embeddings,
    missing_shards,
    write_metadata,
    write_shard,
)

COUNT, WIDTH = 11, 6
FORMATS = ("parquet", "safetensors")


def assert_same(found: StoredEmbeddings, expected: StoredEmbeddings) -> None:
    for name, value in vars(expected).items():
        np.testing.assert_array_equal(getattr(found, name), value, err_msg=name)
    assert found.features.dtype == np.float32
    assert found.pids.dtype == found.camids.dtype == found.tracklets.dtype == np.int64
    torch.from_numpy(found.features)[0] = 0  # writable


@pytest.fixture(params=FORMATS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write(tmp_path / "embeddings", shard_format=request.param)


def test_what_is_written_is_read(folder: Path) -> None:
    assert_same(read_embeddings(folder), small_embeddings())
    parts = list(iter_embeddings(folder))
    assert [len(part) for part in parts] == [4, 4, 3]
    for start, part in zip((0, 4, 8), parts, strict=True):
        assert_same(part, rows_of(small_embeddings(), range(start, start + len(part))))
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("shard_size", [1, 11, 100])
def test_the_size_of_shards_changes_nothing(tmp_path: Path, shard_size: int) -> None:
    write(tmp_path, shard_size=shard_size)
    assert len(list(tmp_path.glob("part-*.parquet"))) == -(-COUNT // shard_size)
    assert_same(read_embeddings(tmp_path), small_embeddings())


def test_parquet_has_a_column_for_each_thing(tmp_path: Path) -> None:
    table = pq.read_table(write(tmp_path) / "part-00001.parquet")
    expected = rows_of(small_embeddings(), range(4, 8))
    types = {
        "path": pa.string(), "split": pa.string(), "pid": pa.int64(), "camid": pa.int64(),
        "tracklet": pa.int64(), "embedding": pa.list_(pa.float32(), WIDTH),
    }  # fmt: skip
    assert {field.name: field.type for field in table.schema} == types
    assert table.column("path").to_pylist() == expected.paths
    assert table.column("pid").to_pylist() == expected.pids.tolist()
    np.testing.assert_array_equal(table.column("embedding").to_pylist(), expected.features)


def test_safetensors_hold_the_same_by_the_same_names(tmp_path: Path) -> None:
    write(tmp_path, shard_format="safetensors")
    tensors = safetensors.numpy.load_file(tmp_path / "part-00001.safetensors")
    expected = rows_of(small_embeddings(), range(4, 8))
    assert {*tensors} == {"path", "split", "pid", "camid", "tracklet", "embedding"}
    assert json.loads(tensors["path"].tobytes()) == expected.paths
    assert json.loads(tensors["split"].tobytes()) == expected.splits
    np.testing.assert_array_equal(tensors["embedding"], expected.features)


@pytest.mark.parametrize("shard_format", FORMATS)
def test_the_same_embeddings_are_the_same_files(tmp_path: Path, shard_format: str) -> None:
    a, b = (write(tmp_path / name, shard_format=shard_format) for name in "ab")
    files = sorted(path.name for path in a.iterdir())
    assert len(files) == 4
    for name in files:
        assert (a / name).read_bytes() == (b / name).read_bytes()


def test_the_metadata_are_read_as_they_were_written(folder: Path) -> None:
    metadata = read_metadata(folder)
    assert read_stamp(folder) == metadata  # the earlier name
    assert metadata["format_version"] == 1
    assert small_metadata(shard_format=metadata["shard_format"]).items() <= metadata.items()


def test_a_folder_without_metadata_is_told(tmp_path: Path) -> None:
    for read in (read_embeddings, read_metadata, lambda folder: next(iter_embeddings(folder))):
        with pytest.raises(FileNotFoundError, match=r"holds no embeddings: there is no .*\.json"):
            read(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        read_metadata(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda metadata: "{", "is not JSON"),
        (lambda metadata: "[]", "is not the metadata of embeddings"),
        (lambda metadata: '{"model": "x"}', "is not the metadata of embeddings"),
        (
            lambda metadata: json.dumps(metadata | {"format_version": 2}),
            "is of version 2 of the format",
        ),
        (
            lambda metadata: json.dumps(metadata | {"flip": False}),
            "was changed after it was written",
        ),
        (
            lambda metadata: json.dumps({"format_version": 1, "id": ""}),
            "lacks model, weights_sha256",
        ),
    ],
)
def test_metadata_that_are_not_of_this_version_are_refused(
    folder: Path, change: Any, message: str
) -> None:
    metadata = read_metadata(folder)
    (folder / "embeddings.json").write_text(change(metadata))
    with pytest.raises(ValueError, match=message):
        read_embeddings(folder)


def test_data_that_were_moved_do_not_make_other_embeddings_of_them(folder: Path) -> None:
    metadata = read_metadata(folder)
    (folder / "embeddings.json").write_text(json.dumps(metadata | {"root": "/elsewhere"}))
    assert_same(read_embeddings(folder), small_embeddings())


def shard(folder: Path, index: int) -> Path:
    (path,) = folder.glob(f"part-{index:05d}.*")
    return path


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def of_another_model(path: Path) -> None:
    other = write(
        path.parent.with_name(f"other-{path.stem}"),
        shard_format=path.suffix[1:],
        weights_sha256="another",
    )
    shutil.copy(other / path.name, path)


BAD_SHARDS = [
    (Path.unlink, "is missing"),
    (cut_off, "is broken"),
    (lambda path: path.write_bytes(b""), "is broken"),
    (of_another_model, "is a part of other embeddings"),
    (lambda path: shutil.copy(shard(path.parent, 0), path), "is a part of other embeddings"),
]


@pytest.mark.parametrize(("spoil", "message"), BAD_SHARDS)
def test_bad_shards_are_named_before_anything_is_read(
    folder: Path, spoil: Any, message: str
) -> None:
    paths = [shard(folder, 1), shard(folder, 2)]
    for path in paths:
        spoil(path)
    texts = [f"{path.name} {message}" for path in paths]
    for read in (read_embeddings, lambda folder: next(iter_embeddings(folder))):
        with pytest.raises(ValueError, match="2 of its 3 shards are missing or unusable") as caught:
            read(folder)
        assert all(text in str(caught.value) for text in texts)
        assert "Run rga-timm embed again with --resume" in str(caught.value)
    wrong = missing_shards(folder, read_metadata(folder))
    assert [*wrong] == [1, 2]


def test_embeddings_of_another_width_are_found_out(tmp_path: Path) -> None:
    folder = write(tmp_path / "embeddings", shard_format="safetensors")
    path = shard(folder, 1)
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    tensors = safetensors.numpy.load_file(path)
    tensors["embedding"] = np.ascontiguousarray(tensors["embedding"][:, :5])
    safetensors.numpy.save_file(tensors, path, metadata)
    with pytest.raises(ValueError, match=r"4 embeddings of width 5 instead of 4 .* of width 6"):
        read_embeddings(folder)


def test_what_breaks_while_shards_are_read_is_told(folder: Path) -> None:
    parts = iter_embeddings(folder)
    next(parts)
    path = shard(folder, 1)
    cut_off(path)
    with pytest.raises(ValueError, match=f"{path.name} is broken .*Delete it"):
        next(parts)


def test_a_flipped_bit_in_parquet_is_found_out(tmp_path: Path) -> None:
    folder = write(tmp_path, shard_size=COUNT)
    path = shard(folder, 0)
    content = bytearray(path.read_bytes())
    content[content.find(small_embeddings().features.tobytes()[:16])] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"part-00000.parquet is broken \(.*CRC"):
        read_embeddings(folder)


def test_wrong_embeddings_are_not_written(tmp_path: Path) -> None:
    metadata, embeddings = write_metadata(tmp_path, small_metadata()), small_embeddings()
    with pytest.raises(ValueError, match=r"shard 2 takes features of shape \(3, 6\), got \(4, 6\)"):
        write_shard(tmp_path, metadata, 2, rows_of(embeddings, range(4)))
    embeddings.features[1, 2] = np.inf
    with pytest.raises(ValueError, match="the features of 1 images, such as über/1"):
        write_shard(tmp_path, metadata, 0, rows_of(embeddings, range(4)))
    with pytest.raises(ValueError, match="do not fit together"):
        StoredEmbeddings(np.zeros((2, 3)), ["a"], [""], *[np.zeros(1, int)] * 3)
    with pytest.raises(ValueError, match="must be"):
        StoredEmbeddings(np.zeros((1, 3)), ["a"], [""], *[np.zeros(2, int)] * 3)
    assert [path.name for path in tmp_path.iterdir()] == ["embeddings.json"]


@pytest.mark.parametrize("shard_format", FORMATS)
def test_an_interrupted_write_leaves_nothing(
    tmp_path: Path, shard_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = write_metadata(tmp_path, small_metadata(shard_format=shard_format))

    def interrupted(path: Path, *_: object) -> None:
        path.write_bytes(b"half a sha")
        raise KeyboardInterrupt

    monkeypatch.setitem(
        shards._FORMATS, shard_format, shards._FORMATS[shard_format]._replace(write=interrupted)
    )
    with pytest.raises(KeyboardInterrupt):
        write_shard(tmp_path, metadata, 0, rows_of(small_embeddings(), range(4)))
    assert [path.name for path in tmp_path.iterdir()] == ["embeddings.json"]


def test_a_folder_is_begun_once(tmp_path: Path) -> None:
    assert holds_embeddings(tmp_path) is None
    write(tmp_path)
    with pytest.raises(FileExistsError, match=r"already holds embeddings \(embeddings\.json\)"):
        write_metadata(tmp_path, small_metadata())
    (tmp_path / "embeddings.json").unlink()
    with pytest.raises(FileExistsError, match=r"already holds embeddings \(part-0000"):
        write_metadata(tmp_path, small_metadata())
    with pytest.raises(ValueError, match="the metadata lack model, weights_sha256"):
        write_metadata(tmp_path / "new", {})
    with pytest.raises(ValueError, match="shard_format must be one of parquet, safetensors"):
        write_metadata(tmp_path / "new", small_metadata(shard_format="npy"))


def test_metadata_differ_in_what_decides_the_numbers(folder: Path) -> None:
    metadata = read_metadata(folder)
    same = small_metadata(shard_format=metadata["shard_format"], root="/x", mean=(0.1, 0.2, 0.3))
    assert differences(metadata, same) == []
    other = same | {"flip": False, "weights_sha256": "def"}
    assert differences(metadata, other) == [
        'weights_sha256 ("abc" there, "def" now)',
        "flip (true there, false now)",
    ]
    for name in set(DECISIVE) - {"format_version"}:
        assert len(differences(metadata, same | {name: "another"})) == 1


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet, other = (write(tmp_path / name, shard_format=name) for name in FORMATS)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install 'rga-timm\[data\]'"):
        read_embeddings(parquet)
    assert_same(read_embeddings(other), small_embeddings())
