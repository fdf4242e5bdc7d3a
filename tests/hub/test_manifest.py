import hashlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
from checkpoints import make_checkpoint

from rga_timm.hub import check_manifest, list_in_manifest, read_manifest
from rga_timm.weights import PREPROCESSING

NAME = "test_rga_resnet.market1501"


@pytest.fixture
def weights(tmp_path):
    make_checkpoint(tmp_path, NAME)
    list_in_manifest(tmp_path, NAME)
    return tmp_path


def test_entry_has_hash_and_size_of_every_file(weights):
    entry = json.loads((weights / "manifest.json").read_text())["checkpoints"][NAME]
    file = weights / NAME / "model.safetensors"
    assert entry["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert entry["size"] == len(file.read_bytes())
    for name in ("README.md", "config.json"):
        content = (weights / NAME / name).read_bytes()
        expected = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        assert entry["files"][name] == expected
    assert entry["metrics"] == {"mAP": 0.5, "mAP_trapezoid": 0.45, "mINP": 0.25, "rank1": 0.625}
    config = json.loads((weights / NAME / "config.json").read_text())
    assert entry["preprocessing"] == {k: config["pretrained_cfg"][k] for k in PREPROCESSING}
    assert entry["trained_on"] == ["market1501"]
    assert entry["license"] == "research-use-only"


def test_folder_as_listed_passes(weights):
    check_manifest(weights)


def test_further_entries_keep_the_others(weights):
    other = "test_rga_resnet.other"
    make_checkpoint(weights, other, seed=1)
    list_in_manifest(weights, other)
    assert list(read_manifest(weights)) == [NAME, other]
    check_manifest(weights)


def test_unlisted_and_lost_folders_are_named(weights):
    make_checkpoint(weights, "test_rga_resnet.new")
    shutil.rmtree(weights / NAME)
    with pytest.raises(ValueError, match=r"(?s)new is not listed.*market1501 is listed, but not"):
        check_manifest(weights)


def test_changed_card_is_noticed(weights):
    card = weights / NAME / "README.md"
    card.write_text(card.read_text() + "more")
    with pytest.raises(ValueError, match=r"README\.md is not the card"):
        check_manifest(weights)


def test_other_weights_than_listed_are_noticed(weights):
    make_checkpoint(weights, NAME, seed=1)
    with pytest.raises(ValueError, match="listed with other sha256"):
        check_manifest(weights)


def test_folder_under_another_name_is_noticed(weights):
    (weights / NAME).rename(weights / "test_rga_resnet.better")
    list_in_manifest(weights, "test_rga_resnet.better")
    with pytest.raises(ValueError, match=r"its config calls it test_rga_resnet\.market1501"):
        check_manifest(weights)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"checkpoints": 3}'])
def test_broken_manifest_is_named(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest\.json is not a manifest of checkpoints"):
        read_manifest(tmp_path)


def test_folder_without_manifest_lists_nothing(tmp_path):
    assert read_manifest(tmp_path) == {}


def test_entry_that_stands_there_is_not_written_again(weights):
    before = (weights / "manifest.json").stat().st_mtime_ns
    list_in_manifest(weights, NAME)
    assert (weights / "manifest.json").stat().st_mtime_ns == before


def test_several_programs_may_enter_checkpoints_at_once(weights):
    names = [f"test_rga_resnet.number{i}" for i in range(12)]
    for name in names:
        shutil.copytree(weights / NAME, weights / name)
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda name: list_in_manifest(weights, name), names))
    assert sorted(read_manifest(weights)) == sorted([NAME, *names])
