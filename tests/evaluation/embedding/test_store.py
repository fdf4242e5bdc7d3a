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

from rga_timm.evaluation import (
    Embeddings,
    ReidResult,
    Reranking,
    StoredEmbeddings,
    evaluate,
    evaluate_embeddings,
    iter_embeddings,
    protocol_of,
    read_embeddings,
    read_stamp,
)
from rga_timm.evaluation.embedding import shards
from rga_timm.evaluation.embedding.store import (
    DECISIVE,
    differences,
    holds_embeddings,
    missing_shards,
    shard_count,
    shard_images,
    write_shard,
    write_stamp,
)

COUNT, WIDTH, SHARD = 11, 6, 4
FORMATS = ("parquet", "safetensors")
DATASET = {"name": "tiny", "query": {"images": 4}, "gallery": {"images": 7}, "fingerprint": "f"}


def make_stamp(**changes: Any) -> dict[str, Any]:
    return {
        "model": "test_resnet", "weights_sha256": "abc", "img_size": [64, 32],
        "interpolation": "bilinear", "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.25, 0.3],
        "feature": "embedding", "flip": True, "scales": [1.0, 1.25], "amp_dtype": None,
        "splits": ["query", "gallery"], "fingerprint": "list", "count": COUNT, "width": WIDTH,
        "shard_format": "parquet", "shard_size": SHARD, "root": "/people", "dataset": DATASET,
        "checkpoint": "model.pth",
    } | changes  # fmt: skip


def make_embeddings(seed: int = 0, tracklets: bool = False) -> StoredEmbeddings:
    """Four queries, of persons 0 to 3 under camera 1, and a gallery under the cameras 1 and 2."""
    rng = np.random.default_rng(seed)
    persons = [0, 1, 2, 3, 0, 0, 1, 2, 3, 3, 9]
    cameras = [1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 1]
    numbers = [-1] * 4 + [5, 5, 2, 8, 7, 7, 1] if tracklets else [-1] * COUNT
    return StoredEmbeddings(
        rng.standard_normal((COUNT, WIDTH)).astype(np.float32),
        paths=[f"über/{i}\n'\".jpg" for i in range(COUNT)],
        splits=["query"] * 4 + ["gallery"] * 7,
        pids=np.array(persons),
        camids=np.array(cameras),
        tracklets=np.array(numbers),
    )


def rows_of(embeddings: StoredEmbeddings, rows: range) -> StoredEmbeddings:
    part = slice(rows.start, rows.stop)
    return StoredEmbeddings(**{name: value[part] for name, value in vars(embeddings).items()})


def write(folder: Path, embeddings: StoredEmbeddings | None = None, **changes: Any) -> Path:
    embeddings = embeddings or make_embeddings()
    stamp = write_stamp(folder, make_stamp(**changes))
    for index in range(shard_count(stamp)):
        write_shard(folder, stamp, index, rows_of(embeddings, shard_images(stamp, index)))
    return folder


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
    assert_same(read_embeddings(folder), make_embeddings())
    parts = list(iter_embeddings(folder))
    assert [len(part) for part in parts] == [4, 4, 3]
    for start, part in zip((0, 4, 8), parts, strict=True):
        assert_same(part, rows_of(make_embeddings(), range(start, start + len(part))))
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("shard_size", [1, 11, 100])
def test_the_size_of_shards_changes_nothing(tmp_path: Path, shard_size: int) -> None:
    write(tmp_path, shard_size=shard_size)
    assert len(list(tmp_path.glob("part-*.parquet"))) == -(-COUNT // shard_size)
    assert_same(read_embeddings(tmp_path), make_embeddings())


def test_parquet_has_a_column_for_each_thing(tmp_path: Path) -> None:
    table = pq.read_table(write(tmp_path) / "part-00001.parquet")
    expected = rows_of(make_embeddings(), range(4, 8))
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
    expected = rows_of(make_embeddings(), range(4, 8))
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


def test_the_stamp_is_read_as_it_was_written(folder: Path) -> None:
    stamp = read_stamp(folder)
    assert stamp["format_version"] == 1
    assert make_stamp(shard_format=stamp["shard_format"]).items() <= stamp.items()


def test_a_folder_without_a_stamp_is_told(tmp_path: Path) -> None:
    for read in (read_embeddings, read_stamp, lambda folder: next(iter_embeddings(folder))):
        with pytest.raises(FileNotFoundError, match=r"holds no embeddings: there is no .*\.json"):
            read(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        read_stamp(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda stamp: "{", "is not JSON"),
        (lambda stamp: "[]", "is not the stamp of embeddings"),
        (lambda stamp: '{"model": "x"}', "is not the stamp of embeddings"),
        (lambda stamp: json.dumps(stamp | {"format_version": 2}), "is of version 2 of the format"),
        (lambda stamp: json.dumps(stamp | {"flip": False}), "was changed after it was written"),
        (lambda stamp: json.dumps({"format_version": 1, "id": ""}), "lacks model, weights_sha256"),
    ],
)
def test_a_stamp_that_is_none_of_this_version_is_refused(
    folder: Path, change: Any, message: str
) -> None:
    stamp = read_stamp(folder)
    (folder / "embeddings.json").write_text(change(stamp))
    with pytest.raises(ValueError, match=message):
        read_embeddings(folder)


def test_data_that_were_moved_do_not_make_other_embeddings_of_them(folder: Path) -> None:
    stamp = read_stamp(folder)
    (folder / "embeddings.json").write_text(json.dumps(stamp | {"root": "/elsewhere"}))
    assert_same(read_embeddings(folder), make_embeddings())


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
        assert "Run embed.py again with --resume" in str(caught.value)
    wrong = missing_shards(folder, read_stamp(folder))
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
    content[content.find(make_embeddings().features.tobytes()[:16])] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"part-00000.parquet is broken \(.*CRC"):
        read_embeddings(folder)


def test_wrong_embeddings_are_not_written(tmp_path: Path) -> None:
    stamp, embeddings = write_stamp(tmp_path, make_stamp()), make_embeddings()
    with pytest.raises(ValueError, match=r"shard 2 takes features of shape \(3, 6\), got \(4, 6\)"):
        write_shard(tmp_path, stamp, 2, rows_of(embeddings, range(4)))
    embeddings.features[1, 2] = np.inf
    with pytest.raises(ValueError, match="the features of 1 images, such as über/1"):
        write_shard(tmp_path, stamp, 0, rows_of(embeddings, range(4)))
    with pytest.raises(ValueError, match="do not fit together"):
        StoredEmbeddings(np.zeros((2, 3)), ["a"], [""], *[np.zeros(1, int)] * 3)
    with pytest.raises(ValueError, match="must be"):
        StoredEmbeddings(np.zeros((1, 3)), ["a"], [""], *[np.zeros(2, int)] * 3)
    assert [path.name for path in tmp_path.iterdir()] == ["embeddings.json"]


@pytest.mark.parametrize("shard_format", FORMATS)
def test_an_interrupted_write_leaves_nothing(
    tmp_path: Path, shard_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamp = write_stamp(tmp_path, make_stamp(shard_format=shard_format))

    def interrupted(path: Path, *_: object) -> None:
        path.write_bytes(b"half a sha")
        raise KeyboardInterrupt

    monkeypatch.setitem(
        shards._FORMATS, shard_format, shards._FORMATS[shard_format]._replace(write=interrupted)
    )
    with pytest.raises(KeyboardInterrupt):
        write_shard(tmp_path, stamp, 0, rows_of(make_embeddings(), range(4)))
    assert [path.name for path in tmp_path.iterdir()] == ["embeddings.json"]


def test_a_folder_is_begun_once(tmp_path: Path) -> None:
    assert holds_embeddings(tmp_path) is None
    write(tmp_path)
    with pytest.raises(FileExistsError, match=r"already holds embeddings \(embeddings\.json\)"):
        write_stamp(tmp_path, make_stamp())
    (tmp_path / "embeddings.json").unlink()
    with pytest.raises(FileExistsError, match=r"already holds embeddings \(part-0000"):
        write_stamp(tmp_path, make_stamp())
    with pytest.raises(ValueError, match="the stamp lacks model, weights_sha256"):
        write_stamp(tmp_path / "new", {})
    with pytest.raises(ValueError, match="shard_format must be one of parquet, safetensors"):
        write_stamp(tmp_path / "new", make_stamp(shard_format="npy"))


def test_stamps_differ_in_what_decides_the_numbers(folder: Path) -> None:
    stamp = read_stamp(folder)
    same = make_stamp(shard_format=stamp["shard_format"], root="/x", mean=(0.1, 0.2, 0.3))
    assert differences(stamp, same) == []
    other = same | {"flip": False, "weights_sha256": "def"}
    assert differences(stamp, other) == [
        'weights_sha256 ("abc" there, "def" now)',
        "flip (true there, false now)",
    ]
    for name in set(DECISIVE) - {"format_version"}:
        assert len(differences(stamp, same | {name: "another"})) == 1


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet, other = (write(tmp_path / name, shard_format=name) for name in FORMATS)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install 'rga-timm\[data\]'"):
        read_embeddings(parquet)
    assert_same(read_embeddings(other), make_embeddings())


def scores(result: ReidResult) -> dict[str, Any]:
    names = ("mAP", "mAP_trapezoid", "mINP", "num_valid_queries")
    return {"cmc": result.cmc.tolist()} | {name: getattr(result, name) for name in names}


def by_hand(query: Embeddings, gallery: Embeddings, **options: Any) -> dict[str, Any]:
    sides = [(side.features, side.pids, side.camids) for side in (query, gallery)]
    return scores(evaluate(*sides[0], *sides[1], **options))


def images_of(embeddings: StoredEmbeddings, rows: slice) -> Embeddings:
    features = torch.from_numpy(embeddings.features[rows])
    return Embeddings(features, embeddings.pids[rows], embeddings.camids[rows])


@pytest.mark.parametrize("options", [{}, {"metric": "euclidean", "rerank": Reranking(3, 2, 0.5)}])
def test_stored_embeddings_score_as_they_do_in_memory(
    folder: Path, options: dict[str, Any]
) -> None:
    report = evaluate_embeddings(folder, protocol_of(read_stamp(folder), **options))
    embeddings = make_embeddings()
    query, gallery = (images_of(embeddings, rows) for rows in (slice(4), slice(4, None)))
    assert by_hand(query, gallery, **options).items() <= report.metrics.items()
    assert (report.model, report.checkpoint) == ("test_resnet", "model.pth")
    assert report.dataset == DATASET
    protocol = report.protocol
    assert (protocol.img_size, protocol.mean) == ((64, 32), (0.1, 0.2, 0.3))
    assert (protocol.flip, protocol.scales, protocol.cameras) == (True, (1.0, 1.25), True)
    assert (protocol.metric, protocol.rerank) == (
        options.get("metric", "cosine"),
        options.get("rerank"),
    )


@pytest.mark.parametrize("shard_size", [1, 3, 20])
def test_images_of_tracklets_are_averaged_over_shards(tmp_path: Path, shard_size: int) -> None:
    embeddings = make_embeddings(tracklets=True)
    report = evaluate_embeddings(write(tmp_path, embeddings, shard_size=shard_size))
    features = embeddings.features.astype(np.float64)
    members = [[4, 5], [6], [7], [8, 9], [10]]
    means = torch.from_numpy(np.stack([features[rows].mean(0) for rows in members])).float()
    first = [rows[0] for rows in members]
    gallery = Embeddings(means, embeddings.pids[first], embeddings.camids[first])
    assert by_hand(images_of(embeddings, slice(4)), gallery).items() <= report.metrics.items()


def test_the_data_set_has_its_say_in_the_protocol(tmp_path: Path) -> None:
    folder = write(tmp_path, cameras=False, single_gallery_shot=True)
    report = evaluate_embeddings(folder)
    assert (report.protocol.cameras, report.protocol.single_gallery_shot) == (False, True)
    embeddings = make_embeddings()
    query, gallery = (images_of(embeddings, rows) for rows in (slice(4), slice(4, None)))
    assert report.metrics["cmc"] == by_hand(query, gallery, single_gallery_shot=True)["cmc"]
    assert report.metrics["cmc"] != by_hand(query, gallery)["cmc"]


def test_versions_that_made_the_embeddings_are_told_where_they_are_others(tmp_path: Path) -> None:
    folder = write(tmp_path, software={"torch": "1.0", "timm": read_version("timm")})
    software = evaluate_embeddings(folder).software
    assert software["torch (embeddings)"] == "1.0"
    assert software["torch"] == torch.__version__
    assert "timm (embeddings)" not in software


def read_version(name: str) -> str:
    return sys.modules[name].__version__


def test_what_cannot_be_evaluated_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="of a plain folder of images"):
        evaluate_embeddings(write(tmp_path / "plain", dataset=None, splits=[""]))
    with pytest.raises(ValueError, match="of query, train, but not of gallery"):
        evaluate_embeddings(write(tmp_path / "train", splits=["query", "train"]))
    mixed = make_embeddings()
    mixed.tracklets[6] = 3
    with pytest.raises(ValueError, match="images of gallery are of tracklets and others are not"):
        evaluate_embeddings(write(tmp_path / "mixed", mixed))
    empty = make_embeddings()
    empty.splits[:4] = ["gallery"] * 4
    with pytest.raises(ValueError, match="holds no image of query"):
        evaluate_embeddings(write(tmp_path / "empty", empty))
