from __future__ import annotations

import argparse
import json
from itertools import islice
from pathlib import Path

import pytest
import torch
from benchmarks import data as benchmark_data

from rga_timm.data import ImageCache, create_dataset, train_transform


@pytest.fixture
def no_image_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*_, **__):
        raise AssertionError("images were read")

    monkeypatch.setattr(ImageCache, "fill", fill)


def options_for(people: Path) -> list[str]:
    options = ["loader", "--dataset", "market1501", "--data-dir", str(people)]
    options += ["--model", "test_rga_resnet", "--num-identities", "2", "--num-instances", "2"]
    return [*options, "--device", "cpu", "--rounds", "1", "--batches", "2", "--steps", "1"]


def test_measures_the_plain_loader_the_cache_and_the_model(
    people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "rates.json"
    options = [*options_for(people), "--workers", "0", "1", "--output", str(output)]
    benchmark_data.main(options)
    rows = json.loads(output.read_text())["rows"]
    found = [(row["device"], row["workers"], row["images"]) for row in rows]
    assert found == [
        ("cpu", workers, images) for workers in (0, 1) for images in ("plain", "cached", "model")
    ]
    for plain, cached, model in (rows[:3], rows[3:]):
        for row in (plain, cached, model):
            assert row["per_second"] > 0
            # In a single round the median of the ratios is the ratio of the medians.
            assert row["to_plain"] == pytest.approx(row["per_second"] / plain["per_second"])
            assert row["to_model"] == pytest.approx(row["per_second"] / model["per_second"])
    printed = capsys.readouterr().out
    assert "ImageCache(24 images of 64x32" in printed
    assert printed.count("| cpu |") == 6


def test_model_is_compiled_if_asked_for(people: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda model: compiled.append(model) or model)
    benchmark_data.main([*options_for(people), "--workers", "0"])
    assert compiled == []
    benchmark_data.main([*options_for(people), "--workers", "0", "--compile"])
    assert [type(model).__name__ for model in compiled] == ["RGAResNet"]


def test_both_sources_give_the_same_batches_epoch_after_epoch(people: Path) -> None:
    args = argparse.Namespace(num_identities=2, num_instances=2, device="cpu")
    train = create_dataset("market1501", people).train
    cache = ImageCache.fill(train, (64, 32), num_workers=0)
    transform = train_transform((64, 32), enlarge_prob=0.0)  # enlarged images are rounded apart
    plain, cached = (
        list(islice(benchmark_data.endless(args, source, 0, train, cache, transform), 14))
        for source in ("plain", "cached")
    )  # an epoch has 6 batches
    torch.testing.assert_close(plain, cached, rtol=0, atol=0)
    assert not torch.equal(torch.cat(plain[:6]), torch.cat(plain[6:12]))


def test_what_was_read_ahead_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(benchmark_data.time, "perf_counter", lambda: now[0])

    def batches():
        for seconds in [0.0] * 4 + [7.0] + [2.0] * 5:  # two each of two processes, then a wait
            now[0] += seconds
            yield torch.zeros(1)

    args = argparse.Namespace(device="cpu", batches=5)
    assert benchmark_data.time_batches(args, batches(), workers=2) == 1 / 2


def test_makes_msmt17s_layout(tmp_path: Path) -> None:
    count = benchmark_data.make_msmt17(tmp_path, scale=0.002)
    files = list(tmp_path.rglob("*.jpg"))
    assert count == len(files) > 200
    assert all(path.stat().st_size == 0 for path in files)
    listed = []
    for folder, lists in (("train", ("train", "val")), ("test", ("query", "gallery"))):
        for name in lists:
            for line in (tmp_path / f"list_{name}.txt").read_text().splitlines():
                path, pid = line.split()
                assert path.startswith(f"{int(pid):04d}/{int(pid):04d}_")
                assert 1 <= int(path.split("_")[2]) <= 15
                listed.append(tmp_path / folder / path)
    assert sorted(listed) == sorted(files)
    splits = create_dataset("msmt17", tmp_path)
    assert len(splits.query) == round(11659 * 0.002)
    assert len(splits.gallery) == round(82161 * 0.002)


def test_the_index_is_of_msmt17s_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(Path, "touch", lambda path, **_: made.append(path))
    assert benchmark_data.make_msmt17(tmp_path) == len(set(made)) == 126_441
    lengths = {
        path.name: path.read_text().count("\n") for path in sorted(tmp_path.glob("list_*.txt"))
    }
    assert lengths == {
        "list_gallery.txt": 82161,
        "list_query.txt": 11659,
        "list_train.txt": 30248,
        "list_val.txt": 2373,
    }
    people = {name: len(list((tmp_path / name).iterdir())) for name in ("train", "test")}
    assert people == {"train": 1041, "test": 3060}
    assert {path.name.split("_")[2] for path in made} == {f"{c:02d}" for c in range(1, 16)}


def test_measures_the_index_and_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["index", "--folder", str(tmp_path), "--scale", "0.002", "--rounds", "2"]
    (row,) = benchmark_data.main(options)
    assert len(row["rounds"]) == 2
    assert min(row["rounds"]) <= row["seconds"] <= max(row["rounds"])
    assert f"| msmt17 | {row['files']:,} |" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "the following arguments are required: command"),
        (["loader", "--rounds", "0"], "--rounds must be at least 1"),
        (["loader", "--batches", "0"], "--batches must be at least 1"),
        (["loader", "--workers", "2", "-1"], "--workers must not be negative"),
        (["index", "--scale", "1.5"], "--scale is above 0, and at most 1"),
    ],
)
@pytest.mark.usefixtures("no_model_is_made", "no_image_is_read")
def test_bad_options_end_it_at_once(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        benchmark_data.main(options)
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("no_model_is_made", "no_image_is_read")
def test_a_data_set_that_cannot_be_read_ends_it_at_once(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--dataset market1501: market1501 was not found"):
        benchmark_data.main(["loader", "--dataset", "market1501", "--data-dir", str(tmp_path)])
