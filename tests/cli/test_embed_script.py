from __future__ import annotations

import logging
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from embed_runs import MODEL, SIZE, files, in_processes, run
from PIL import Image
from safetensors.torch import save_file

import rga_timm.evaluation
from rga_timm.cli import embed as script
from rga_timm.data import ReidImage, ReidSplits, create_eval_loader, eval_transform
from rga_timm.evaluation import StoredEmbeddings, hash_weights, read_embeddings, read_metadata


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images in folders, and what is none."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for i in range(12):
        path = root / ("b", "a/inner", ".")[i % 3] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 20, 3), dtype=np.uint8)).save(path)
    (root / "notes.txt").write_text("no image")
    (root / "._00.png").write_text("what macOS leaves")
    return root


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of the images, in batches of two and shards of five."""
    folder = tmp_path_factory.mktemp("whole") / "embeddings"
    return run(*MODEL, "--images", images, "--output", folder, *SHARDS)


SHARDS = ("--batch-size", 2, "--shard-size", 5)


def features_by_hand(
    root: Path, paths: list[str], model: torch.nn.Module | None = None, **options: Any
) -> np.ndarray:
    if model is None:
        torch.manual_seed(0)
        model = timm.create_model(MODEL[0], num_classes=0, img_size=SIZE)
    cfg = model.pretrained_cfg
    transform = eval_transform(SIZE, cfg["mean"], cfg["std"], cfg["interpolation"])
    reader = ReidSplits.from_images("x", root, query=[ReidImage(p, 0, 0) for p in paths]).query
    loader = create_eval_loader(reader, transform, 2, num_workers=0)
    return rga_timm.evaluation.embed(model, loader, progress=False, **options).features.numpy()


def assert_close(found: StoredEmbeddings, features: np.ndarray) -> None:
    np.testing.assert_allclose(found.features, features, rtol=1e-5, atol=1e-6)


def test_all_images_below_a_folder_are_embedded(whole: Path, images: Path) -> None:
    found = read_embeddings(whole)
    expected = sorted(path.relative_to(images).as_posix() for path in images.rglob("[0-9]*.png"))
    assert found.paths == expected
    assert len(found) == 12
    assert_close(found, features_by_hand(images, expected))
    assert {*found.splits} == {""}
    for ids in (found.pids, found.camids, found.tracklets):
        assert (ids == -1).all()
    assert sorted(files(whole)) == ["embeddings.json", *(f"part-0000{i}.parquet" for i in range(3))]


def test_the_metadata_say_what_made_the_embeddings(whole: Path, images: Path) -> None:
    metadata = read_metadata(whole)
    expected = {
        "model": "test_rga_resnet", "checkpoint": "untrained", "img_size": [64, 32],
        "interpolation": "bilinear", "feature": "embedding", "flip": False, "scales": [1.0],
        "amp_dtype": None, "count": 12, "shard_size": 5, "shard_format": "parquet",
        "dataset": None, "root": str(images), "splits": [""], "paths_are_files": True,
    }  # fmt: skip
    assert expected.items() <= metadata.items()
    assert metadata["width"] == read_embeddings(whole).features.shape[1]
    assert metadata["software"]["timm"] == timm.__version__
    torch.manual_seed(0)
    model = timm.create_model(MODEL[0], num_classes=0, img_size=SIZE)
    assert metadata["weights_sha256"] == hash_weights(model)


def test_feature_flip_scales_and_format_reach_the_functions(images: Path, tmp_path: Path) -> None:
    options = ("--feature", "pooled", "--flip", "--scales", 1, 1.5, "--format", "safetensors")
    folder = run(*MODEL, "--images", images, "--output", tmp_path / "e", *SHARDS, *options)
    found = read_embeddings(folder)
    by_hand = features_by_hand(images, found.paths, feature="pooled", flip=True, scales=(1, 1.5))
    assert_close(found, by_hand)
    assert len(list(folder.glob("part-*.safetensors"))) == 3
    metadata = read_metadata(folder)
    assert (metadata["feature"], metadata["flip"], metadata["scales"]) == (
        "pooled",
        True,
        [1.0, 1.5],
    )


def test_two_processes_write_what_one_does_bit_for_bit(
    whole: Path, images: Path, tmp_path: Path
) -> None:
    options = (*MODEL, "--images", images, "--output", tmp_path / "e", *SHARDS)
    process = in_processes(2, *options)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert files(tmp_path / "e") == files(whole)


def test_a_run_that_is_ended_goes_on_to_the_same_files(
    whole: Path, images: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "e"
    options = (*MODEL, "--images", images, "--output", folder, *SHARDS)
    # The second shard is all but renamed for as long as the test likes.
    slow = tmp_path / "sitecustomize.py"
    slow.write_text(
        "import os, time\n"
        "replace = os.replace\n"
        "def slow(a, b):\n"
        "    if 'part-00001' in str(b):\n"
        "        time.sleep(600)\n"
        "    replace(a, b)\n"
        "os.replace = slow\n"
    )
    process = in_processes(1, *options, PYTHONPATH=str(tmp_path))
    deadline = time.monotonic() + 60
    while not list(folder.glob(".part-00001*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert f"Interrupted: {folder} holds 1 of 3 shards. The same command with --resume" in errors
    assert sorted(files(folder)) == ["embeddings.json", "part-00000.parquet"]
    kept = (folder / "part-00000.parquet").stat()
    run(*options, "--resume")
    assert files(folder) == files(whole)
    assert (folder / "part-00000.parquet").stat().st_mtime_ns == kept.st_mtime_ns


def test_an_error_on_the_way_says_how_to_go_on(
    whole: Path,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = tmp_path / "e"
    options = (*MODEL, "--images", images, "--output", folder, *SHARDS)
    write = script.write_shard

    def disk_full(folder: Path, metadata: dict[str, Any], index: int, *rest: Any) -> None:
        if index == 2:
            raise OSError("No space left on device")
        write(folder, metadata, index, *rest)

    monkeypatch.setattr(script, "write_shard", disk_full)
    with pytest.raises(OSError, match="No space left"):
        run(*options)
    assert f"Ended by an error: {folder} holds 2 of 3 shards." in caplog.text
    monkeypatch.undo()
    run(*options, "--resume")
    assert files(folder) == files(whole)


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "copy")


def test_missing_and_broken_shards_are_made_again(
    copy: Path, whole: Path, images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (copy / "part-00000.parquet").unlink()
    (copy / "part-00002.parquet").write_bytes(b"PAR1")
    with caplog.at_level(logging.INFO):
        run(*MODEL, "--images", images, "--output", copy, *SHARDS, "--resume")
    assert "Made again: part-00002.parquet is broken" in caplog.text
    assert "part-00000" not in caplog.text
    assert files(copy) == files(whole)


def test_what_is_complete_is_left_as_it_is(
    copy: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "write_shard", None)
    run(*MODEL, "--images", images, "--output", copy, *SHARDS, "--resume")


def test_other_weights_of_the_same_name_are_not_mixed(
    copy: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(1)
    model = timm.create_model(MODEL[0], num_classes=0, img_size=SIZE)
    save_file(model.state_dict(), tmp_path / "other.safetensors")
    (copy / "part-00001.parquet").unlink()
    before = files(copy)
    with pytest.raises(SystemExit):
        run(
            *(MODEL[0], "--checkpoint", tmp_path / "other.safetensors", *MODEL[2:]),
            *("--images", images, "--output", copy, *SHARDS, "--resume"),
        )
    message = capsys.readouterr().err
    assert "cannot be resumed, it holds embeddings of something else: weights_sha256 (" in message
    assert "flip" not in message.rpartition("error:")[2]
    assert files(copy) == before


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        (("--flip",), "flip (false there, true now)"),
        (("--scales", 1, 1.5), "scales ([1.0] there, [1.0, 1.5] now)"),
        (("--shard-size", 6), "shard_size (5 there, 6 now)"),
        (("--format", "safetensors"), 'shard_format ("parquet" there, "safetensors" now)'),
        (("--img-size", 32, 32), "img_size ([64, 32] there, [32, 32] now)"),
    ],
)
def test_a_run_does_not_go_on_with_other_options(
    copy: Path,
    images: Path,
    options: tuple[object, ...],
    difference: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        run(*MODEL, "--images", images, "--output", copy, *SHARDS, "--resume", *options)
    assert difference in capsys.readouterr().err


def test_a_run_does_not_go_on_with_other_images_or_another_folder_of_the_same_names(
    copy: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fewer, other = tmp_path / "fewer", shutil.copytree(images, tmp_path / "other")
    fewer.mkdir()
    shutil.copy(images / "02.png", fewer)
    (copy / "part-00001.parquet").unlink()
    for folder, difference in (
        (fewer, "count (12 there, 1 now)"),
        (other, f'root ("{images}" there, "{other}" now)'),
    ):
        with pytest.raises(SystemExit):
            run(*MODEL, "--images", folder, "--output", copy, *SHARDS, "--resume")
        assert difference in capsys.readouterr().err


def test_the_same_folder_may_be_named_in_another_way(
    copy: Path, whole: Path, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(images)
    (copy / "part-00001.parquet").unlink()
    run(*MODEL, "--images", tmp_path / "link", "--output", copy, *SHARDS, "--resume")
    assert files(copy) == files(whole)


def test_other_software_and_batches_are_warned_of(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    options = (*MODEL, "--images", images, "--output", tmp_path / "e", "--shard-size", 5)
    with monkeypatch.context() as patch:
        patch.setattr(script, "software_versions", lambda: {"timm": "0.1"})
        run(*options, "--batch-size", 2)
    run(*options, "--batch-size", 3, "--resume")
    assert "another" not in caplog.text  # nothing is made, so nothing is mixed
    (tmp_path / "e" / "part-00001.parquet").unlink()
    run(*options, "--batch-size", 3, "--resume")
    assert f"timm (0.1 there, {timm.__version__} now)" in caplog.text
    assert "Goes on with another batch_size (2 there, 3 now)" in caplog.text


@pytest.mark.parametrize("when", ["read_image_list", "create_model", "gather"])
def test_an_interruption_before_the_first_shard_is_no_traceback(
    when: str,
    images: Path,
    copy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(script.options if when == "create_model" else script, when, interrupt)
    options = (*MODEL, "--images", images, *SHARDS, "--output")
    with pytest.raises(SystemExit) as end:
        run(*options, tmp_path / "e")
    assert end.value.code == 130
    assert "Interrupted: no embeddings were written." in caplog.text
    (copy / "part-00001.parquet").unlink()
    with pytest.raises(SystemExit) as end:
        run(*options, copy, "--resume")
    assert end.value.code == 130
    assert f"Interrupted: {copy} holds 2 of 3 shards." in caplog.text


def test_a_place_below_a_file_is_refused(
    no_model_is_made: None, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.json").write_text("{}")
    for output in (tmp_path / "a.json", tmp_path / "a.json" / "x" / "y"):
        with pytest.raises(SystemExit):
            run(*MODEL, "--images", images, "--output", output)
        assert f"{tmp_path / 'a.json'} is a file, not a folder" in capsys.readouterr().err


def test_a_broken_image_in_another_process_share_is_named(images: Path, tmp_path: Path) -> None:
    root = shutil.copytree(images, tmp_path / "images")
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("[0-9]*.png"))
    broken = root / names[6]  # in the second shard, which the second process makes
    broken.write_bytes(broken.read_bytes()[:200])
    process = in_processes(2, *MODEL, "--images", root, "--output", tmp_path / "e", *SHARDS)
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "1 images cannot be read" in errors
    assert f"{broken}: " in errors
    assert not (tmp_path / "e").exists()


def test_embeddings_are_not_written_over(
    copy: Path, images: Path, no_model_is_made: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(*MODEL, "--images", images, "--output", copy)
    assert "already holds embeddings (embeddings.json): --resume" in capsys.readouterr().err
    (copy / "embeddings.json").unlink()
    with pytest.raises(SystemExit):
        run(*MODEL, "--images", images, "--output", copy, "--resume")
    assert "but no embeddings.json: take another folder" in capsys.readouterr().err


def test_bad_images_end_it_before_any_work_or_are_left_out(
    images: Path,
    whole: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    root = shutil.copytree(images, tmp_path / "images")
    found = read_embeddings(whole)
    for path in found.paths[3:5]:
        (root / path).write_bytes((images / path).read_bytes()[:200])
    options = (*MODEL, "--images", root, "--output", tmp_path / "e", *SHARDS)
    with pytest.raises(SystemExit):
        run(*options)
    message = capsys.readouterr().err
    assert "2 images cannot be read; --skip-bad-images leaves them out" in message
    assert all(f"{root / path}: " in message for path in found.paths[3:5])
    assert not (tmp_path / "e").exists()
    kept = read_embeddings(run(*options, "--skip-bad-images"))
    assert kept.paths == found.paths[:3] + found.paths[5:]
    assert all(f"left out: {path}: " in caplog.text for path in found.paths[3:5])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "one of the arguments --images --dataset is required"),
        (("--images", "x", "--splits", "query"), "--splits go with --dataset"),
        (("--images", "nowhere"), "there is no folder nowhere"),
        (("--images", "empty"), "empty holds no images, whose names end in .jpg"),
        (("--dataset", "market1501", "--data-dir", "nowhere"), "nowhere does not exist"),
        (("--dataset", "viper:split=all", "--data-dir", "nowhere"), "nowhere does not exist"),
        (("--images", "x", "--scales", "0"), "--scales: must be above 0, not 0.0"),
        (("--images", "x", "--device", "abacus"), "--device abacus"),
    ],
)
def test_bad_options_end_before_any_work(
    no_model_is_made: None,
    options: tuple[object, ...],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        run(*MODEL, "--output", tmp_path / "e", *options)
    assert message in capsys.readouterr().err


def test_scales_that_the_model_cannot_take_end_before_any_image_is_read(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--images", images, "--output", tmp_path / "e", "--scales", 1, 1.05)
    with pytest.raises(SystemExit):
        run("test_vit", "--no-pretrained", "--img-size", *SIZE, *options)
    assert "the scales 1 and 1.05 of 64x32 images are both 64x32" in capsys.readouterr().err
