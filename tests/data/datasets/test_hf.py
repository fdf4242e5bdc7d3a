import io
import os
import pickle
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
from noise_image import write_noise
from PIL import Image

from rga_timm.data import ReidDataset, create_dataset, create_eval_loader, eval_transform


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """Everything that `datasets` keeps goes to a folder of the test; nothing comes from outside."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True, raising=False)


def png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 16, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def rows(labels: list, first: int = 0, **columns: list) -> datasets.Dataset:
    """Images, each of its own seed, with the names of people as classes if they are texts."""
    names = sorted({label for label in labels if isinstance(label, str)})
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=names) if names else datasets.Value("int64"),
            **{
                name: datasets.Value("string" if isinstance(values[0], str) else "int64")
                for name, values in columns.items()
            },
        }
    )
    images = [{"bytes": png(first + i), "path": None} for i in range(len(labels))]
    return datasets.Dataset.from_dict(
        {"image": images, "label": labels, **columns}, features=features
    )


def save(data: datasets.Dataset | dict, path: Path) -> Path:
    data = datasets.DatasetDict(data) if isinstance(data, dict) else data
    data.save_to_disk(str(path))
    return path


def listed(reader) -> list[tuple[str, int, int]]:
    return [image[:3] for image in reader.images]


def read(reader) -> list[bytes]:
    return [image.tobytes() for image, _ in ReidDataset(reader)]


def expected(*seeds: int) -> list[bytes]:
    return [Image.open(io.BytesIO(png(seed))).tobytes() for seed in seeds]


def test_saved_splits_are_read_with_their_classes_and_cameras(tmp_path):
    train = rows(["zoe", "anna", "ben"], camera=["b", "a", "b"])
    test = rows(["ben", "zoe", "ben", "anna"], first=3, camera=["a", "a", "c", "a"])
    splits = create_dataset("hf", save({"train": train, "test": test}, tmp_path / "data"))
    assert listed(splits.train) == [("train/0", 3, 2), ("train/1", 1, 1), ("train/2", 2, 2)]
    # The classes of a part are those of the part: 'ben' is 1 in both.
    assert listed(splits.query)[:3] == [("test/0", 2, 1), ("test/1", 3, 1), ("test/2", 2, 3)]
    assert splits.query.images == splits.gallery.images
    assert splits.has_cameras
    assert read(splits.train) == expected(0, 1, 2)
    assert read(splits.gallery) == expected(3, 4, 5, 6)


def test_undivided_people_are_dealt_and_the_deal_is_kept_beside_the_data(tmp_path):
    root = save(rows([5, 5, 7, 7, 8, 8, 9, 9]), tmp_path / "data")
    before = sorted(os.listdir(root))
    splits = create_dataset("hf", root)
    assert len(splits.train) == len(splits.query) == 4
    assert {*splits.train.pids, *splits.query.pids} == {5, 7, 8, 9}
    assert not splits.has_cameras
    assert (tmp_path / "data.split.csv").read_text().count(",test") == 2
    # Inside, it would be taken for a part of the data.
    assert sorted(os.listdir(root)) == before
    assert create_dataset("hf", root).fingerprint == splits.fingerprint


def test_a_part_that_was_saved_alone_keeps_its_role(tmp_path):
    save({"test": rows([1, 1, 2, 2])}, tmp_path / "all")
    part = datasets.load_from_disk(str(tmp_path / "all"))["test"]
    part._split = datasets.Split.TEST
    splits = create_dataset("hf", save(part, tmp_path / "part"))
    assert (len(splits.train), len(splits.query)) == (0, 4)


def test_a_column_may_say_the_split(tmp_path):
    data = rows([1, 1, 2, 2], set=["train", "Test", "test", "test"], cam=[4, 5, 6, 7])
    root = save({"train": data, "more": rows([2], 4, set=["test"], cam=[9])}, tmp_path / "data")
    splits = create_dataset("hf:split_column=set,camera=cam", root)
    assert listed(splits.train) == [("train/0", 1, 4)]
    assert listed(splits.query) == [
        ("train/1", 1, 5),
        ("train/2", 2, 6),
        ("train/3", 2, 7),
        ("more/0", 2, 9),
    ]


def test_splits_and_columns_may_be_called_otherwise(tmp_path, caplog):
    names = {"image": "photo", "label": "who"}
    parts = {name: rows([1, 1], first=i).rename_columns(names) for i, name in enumerate("abc")}
    spec = "hf:image=photo,identity=who,train_split=b,test_split=a"
    splits = create_dataset(spec, save(parts, tmp_path / "data"))
    assert [image.path for image in splits.train.images] == ["b/0", "b/1"]
    assert [image.path for image in splits.query.images] == ["a/0", "a/1"]
    assert "the splits c are not read" in caplog.text
    assert read(splits.query) == expected(0, 1)


@pytest.mark.parametrize("name", ["validation", "val"])
def test_validation_is_tested_on_and_query_and_gallery_are_taken_as_such(tmp_path, name):
    parts = {"train": rows([3, 3]), name: rows([1, 1])}
    splits = create_dataset("hf", save(parts, tmp_path / "v"))
    assert (len(splits.train), len(splits.query)) == (2, 2)
    parts = {"query": rows([1]), "gallery": rows([1, 2])}
    splits = create_dataset("hf", save(parts, tmp_path / "q"))
    assert (len(splits.train), len(splits.query), len(splits.gallery)) == (0, 1, 2)


def test_a_folder_of_images_is_read_without_copying_them(tmp_path):
    names = ["train/p/0.png", "train/a/1.png", "test/q/2.png", "test/q/3.png", "test/r/4.png"]
    for i, name in enumerate(names):
        write_noise(tmp_path / "data" / name, seed=i)
    splits = create_dataset("hf", tmp_path / "data")
    assert splits.classes == [1, 2]
    assert splits.query.pids.tolist() == [3, 3, 4]
    assert read(splits.query) == expected(2, 3, 4)
    value = splits.query.opener.parts["test"][0]["image"]
    assert (value["bytes"], Path(value["path"]).name) == (None, "2.png")


def test_parquet_files_are_read_alone_and_in_a_folder(tmp_path):
    (tmp_path / "data").mkdir()
    for i, part in enumerate(("train", "test")):
        rows([i, i, i], first=3 * i).to_parquet(str(tmp_path / "data" / f"{part}-0-of-1.parquet"))
    splits = create_dataset("hf", tmp_path / "data")
    assert read(splits.train) == expected(0, 1, 2)
    assert read(splits.query) == expected(3, 4, 5)
    rows([1, 1, 2, 2, 3, 3, 4, 4]).to_parquet(str(tmp_path / "one.parquet"))
    splits = create_dataset("hf:test_share=1", tmp_path / "one.parquet")
    assert read(splits.query) == expected(*range(8))


@pytest.mark.parametrize("kind", ["struct", "binary", "path", "full path"])
def test_images_may_be_bytes_or_paths_without_being_called_images(tmp_path, kind):
    root = tmp_path / "data"
    write_noise(root / "images" / "0.png", seed=0)
    values = {
        "struct": [{"bytes": png(0), "path": None}, {"bytes": png(1), "path": "x"}],
        "binary": [png(0), png(1)],
        "path": ["images/0.png"] * 2,
        "full path": [str(root / "images/0.png")] * 2,
    }[kind]
    data = datasets.Dataset.from_dict({"image": values, "label": ["7", "7"]})
    splits = create_dataset("hf:test_share=1", save(data, root))
    assert splits.query.pids.tolist() == [7, 7]
    assert read(splits.query) == (expected(0, 0) if "path" in kind else expected(0, 1))


def test_nothing_is_decoded_before_it_is_asked_for(tmp_path):
    values = [{"bytes": b"no image", "path": None}, None]
    broken = datasets.Dataset.from_dict(
        {"image": values, "label": [1, 1], "face": [values[0]] * 2},
        features=datasets.Features({**rows([1]).features, "face": datasets.Image()}),
    )
    reader = create_dataset("hf", save({"test": broken}, tmp_path / "data")).query
    for index, message in ((0, "cannot identify image"), (1, "the row has no image")):
        with pytest.raises(RuntimeError, match=rf"cannot read the image .*test/{index}: {message}"):
            ReidDataset(reader)[index]


@pytest.mark.parametrize("column", ["image", "label"])
def test_rows_that_were_shuffled_or_have_a_format_are_read_as_they_stand(tmp_path, column):
    data = rows([1, 2, 3, 4]).select([2, 0, 2, 0]).with_format("numpy", columns=[column])
    splits = create_dataset("hf", save({"test": data}, tmp_path / "data"))
    assert splits.query.pids.tolist() == [3, 1, 3, 1]
    assert read(splits.query) == expected(2, 0, 2, 0)


def test_the_reader_can_be_sent_to_other_processes(tmp_path):
    root = save({"test": rows([1, 1, 2, 2])}, tmp_path / "data")
    reader = create_dataset("hf", root).query
    sent = pickle.dumps(reader)
    assert len(sent) < 20_000  # where the images are, not the images
    assert read(pickle.loads(sent)) == expected(0, 1, 2, 3)
    loader = create_eval_loader(reader, eval_transform((32, 16)), 2, num_workers=2)
    assert [targets.tolist() for _, targets in loader] == [[[1, 1], [1, 2]], [[2, 3], [2, 4]]]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("hf:image=photo", "has no column 'photo'. It has image, label, note: the option image"),
        ("hf:identity=who", "train has no column 'who'.* the option identity says"),
        ("hf:camera=cam", "has no column 'cam'"),
        ("hf:split_column=set", "has no column 'set'.* the option split_column says"),
        ("hf:identity=image", "the column 'image' holds Image.* which says no identity"),
        ("hf:image=label", "the column 'label' holds .* which is not an image"),
        ("hf:camera=note", "train, row 1 has no camera"),
        ("hf:split_column=note", "train, row 0 has the split 'a' .*, which is none of train,"),
        ("hf:train_split=fold1", r"has no split 'fold1' \(train_split\); it has train, more"),
        ("hf:test_split=fold1", r"has no split 'fold1' \(test_split\); it has train, more"),
    ],
)
def test_what_is_not_there_is_an_error_that_says_what_is(tmp_path, spec, message):
    parts = {name: rows([1, 1], note=["a", ""]) for name in ("train", "more")}
    with pytest.raises(ValueError, match=message):
        create_dataset(spec, save(parts, tmp_path / "data"))


def test_people_that_are_not_known_are_an_error(tmp_path):
    data = rows(["a", "b", "a"])
    unknown = datasets.Dataset.from_dict(
        {"image": data["image"], "label": [0, -1, None]}, features=data.features
    )
    for row in (1, 2):
        part = unknown.select([0, row])
        with pytest.raises(ValueError, match="test, row 1 has no identity"):
            create_dataset("hf", save({"test": part}, tmp_path / str(row)))


def test_splits_of_unknown_names_are_an_error(tmp_path):
    root = save({"a": rows([1]), "b": rows([1])}, tmp_path / "data")
    with pytest.raises(ValueError, match="has the splits a, b: choose with train_split and"):
        create_dataset("hf", root)


def test_one_of_repository_and_folder_is_needed(tmp_path):
    with pytest.raises(ValueError, match="neither was given"):
        create_dataset("hf")
    with pytest.raises(ValueError, match="both were given, me/data and "):
        create_dataset("hf:repo=me/data", tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        create_dataset("hf", tmp_path / "nowhere")


def test_a_repository_is_asked_for_with_its_revision_and_without_its_code(tmp_path, monkeypatch):
    calls = []

    def load_dataset(*args, **options):
        calls.append((args, options))
        return datasets.DatasetDict({"train": rows([1, 1, 2, 2, 3, 3, 4, 4])})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.chdir(tmp_path)
    splits = create_dataset("hf:repo=me/data,config=small,revision=abc")
    assert calls == [(("me/data", "small"), {"revision": "abc", "trust_remote_code": False})]
    assert (tmp_path / "me--data.split.csv").is_file()
    assert splits.name == "hf:config=small,repo=me/data,revision=abc"
    assert splits.train.filename(0, absolute=True).startswith("me/data/train/")


def test_code_that_comes_with_the_data_is_not_run(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    ran = tmp_path / "ran"
    (root / "data.py").write_text(f"open({str(ran)!r}, 'w')\nimport datasets\n")
    rows([1, 1]).to_parquet(str(root / "test.parquet"))
    with pytest.raises((ValueError, RuntimeError)):
        create_dataset("hf", root)
    assert not ran.exists()


def test_without_the_package_it_is_an_error_that_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'rga-timm\[hf\]'"):
        create_dataset("hf", tmp_path)
