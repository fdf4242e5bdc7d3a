import shutil
import subprocess
import sys

import pytest
from checkpoints import make_checkpoint

import rga_timm
from rga_timm.hub import list_in_manifest
from rga_timm.weights import HUB_ORGANISATION

TAG = "test_rga_resnet.pedestrians"


@pytest.fixture
def weights(tmp_path, monkeypatch):
    monkeypatch.setenv("RGA_TIMM_WEIGHTS", str(tmp_path))
    return tmp_path


def test_clone_lists_what_lies_in_it(monkeypatch):
    monkeypatch.delenv("RGA_TIMM_WEIGHTS", raising=False)
    table = {checkpoint.name: checkpoint for checkpoint in rga_timm.list_checkpoints()}
    assert table[TAG].source.endswith(f"weights/{TAG}")
    assert table[TAG].licence == "apache-2.0"


def test_what_does_not_lie_in_the_local_folder_would_come_from_the_hub(weights):
    table = {checkpoint.name: checkpoint for checkpoint in rga_timm.list_checkpoints()}
    assert table[TAG].source == f"{HUB_ORGANISATION}/{TAG}@v1"
    assert table[TAG].size > 0


def test_checkpoints_of_the_users_own_folder_are_listed(weights):
    name = "test_rga_resnet.mine"
    folder = make_checkpoint(weights, name)
    list_in_manifest(weights, name)
    mine = next(one for one in rga_timm.list_checkpoints() if one.name == name)
    assert mine.source == str(folder)
    assert mine.size == (folder / "model.safetensors").stat().st_size
    assert (mine.mean_average_precision, mine.rank1) == (0.5, 0.625)
    assert mine.trained_on == ("market1501",)


def test_table_prints_percent_and_megabytes(weights):
    make_checkpoint(weights, TAG)
    list_in_manifest(weights, TAG)
    header, _, *rows = str(rga_timm.list_checkpoints()).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in (header, *rows)]
    assert cells[0] == [
        "checkpoint", "trained on", "tested on", "licence", "source", "size (MB)", "mAP", "rank-1",
    ]  # fmt: skip
    row = next(row for row in cells if row[0] == TAG)
    assert row[1:4] == ["market1501", "market1501", "research-use-only"]
    assert row[6:] == ["50.0", "62.5"]


def test_variable_that_names_no_folder_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv("RGA_TIMM_WEIGHTS", str(tmp_path / "nowhere"))
    with pytest.raises(NotADirectoryError, match=r"RGA_TIMM_WEIGHTS names .*nowhere"):
        rga_timm.list_checkpoints()


def test_stale_local_manifest_does_not_speak_for_the_hub(weights):
    folder = make_checkpoint(weights, TAG, version=7)
    list_in_manifest(weights, TAG)
    shutil.rmtree(folder)
    checkpoint = next(one for one in rga_timm.list_checkpoints() if one.name == TAG)
    assert checkpoint.source == f"{HUB_ORGANISATION}/{TAG}@v1"
    assert checkpoint.licence == "apache-2.0"


def test_models_are_registered_without_waiting_for_the_evaluation():
    code = (
        "import sys, rga_timm, timm\n"
        "assert timm.is_model('rga_resnet50')\n"
        "assert not {'rga_timm.evaluation', 'rga_timm.hub'} & sys.modules.keys()\n"
        "assert len(rga_timm.list_checkpoints()) > 0"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
