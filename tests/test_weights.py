"""Where the weights of a tag come from. tests/hub/test_download_by_tag.py asks a real server."""

import os
import shutil
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import huggingface_hub
import pytest
import timm
import torch
from hub_cache import put_into_hub_cache

import rga_timm
from rga_timm import weights as source
from rga_timm.hub import WeightsNotFoundError, list_in_manifest, read_reid, save_pretrained

TAG = "test_rga_resnet.pedestrians"
SHIPPED = source.weights_folder()


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A local weights folder, empty, and no network."""
    monkeypatch.setenv("RGA_TIMM_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path


def create(name=TAG, **kwargs):
    return timm.create_model(name, pretrained=True, **kwargs).eval()


def test_tag_loads_from_the_clone_without_a_network(monkeypatch):
    monkeypatch.delenv("RGA_TIMM_WEIGHTS", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    expected = timm.create_model(f"local-dir:{SHIPPED / TAG}", pretrained=True).eval()
    x = torch.randn(2, 3, 64, 32)
    assert torch.equal(create()(x), expected(x))


def test_folder_of_the_variable_goes_before_the_clone(weights):
    torch.manual_seed(7)
    mine = timm.create_model("test_rga_resnet").eval()
    save_pretrained(mine, weights / TAG)
    x = torch.randn(2, 3, 64, 32)
    assert torch.equal(create()(x), mine(x))


def test_how_images_are_read_comes_with_the_local_weights(weights):
    mine = timm.create_model("test_rga_resnet", img_size=(96, 48))
    mine.pretrained_cfg = {**mine.pretrained_cfg, "mean": (0.1, 0.2, 0.3)}
    save_pretrained(mine, weights / TAG)
    loaded = create()
    assert loaded.img_size == (96, 48)
    assert tuple(loaded.pretrained_cfg["mean"]) == (0.1, 0.2, 0.3)
    # And what the caller says goes before it.
    overlay = {"mean": (0.5, 0.5, 0.5)}
    assert create(pretrained_cfg_overlay=overlay).pretrained_cfg["mean"] == (0.5, 0.5, 0.5)
    assert create(img_size=(64, 32)).img_size == (64, 32)


def test_weights_of_the_backbone_alone_may_lie_in_the_folder_too(weights):
    """ImageNet's, in a closed network."""
    torch.manual_seed(3)
    backbone = timm.create_model("resnet18")
    save_pretrained(backbone, weights / "rga_resnet18.tv_in1k")
    (weights / "rga_resnet18.tv_in1k" / "config.json").unlink()
    model = create("rga_resnet18.tv_in1k")
    assert torch.equal(model.conv1.weight, backbone.conv1.weight)


def test_damaged_local_file_is_refused(weights):
    shutil.copytree(SHIPPED / TAG, weights / TAG)
    list_in_manifest(weights, TAG)
    create()
    file = weights / TAG / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged: its SHA-256"):
        create()


def test_without_weights_the_error_names_both_ways(weights):
    with pytest.raises(WeightsNotFoundError) as caught:
        create()
    text = str(caught.value)
    assert f"no weights of {TAG}" in text
    assert f"{weights} holds no {TAG}/model.safetensors" in text
    assert f"{source.HUB_ORGANISATION}/{TAG}@v1 on the Hub could not be read" in text
    assert "set RGA_TIMM_WEIGHTS to a folder" in text
    assert "HF_ENDPOINT" in text


def test_without_imagenet_weights_the_error_names_both_ways(weights):
    with pytest.raises(WeightsNotFoundError, match=r"timm/resnet18\.tv_in1k on the Hub") as caught:
        create("rga_resnet18")
    assert "rga_resnet18.tv_in1k/model.safetensors" in str(caught.value)


def test_hub_is_asked_for_the_version_of_this_package(weights, monkeypatch):
    asked = []

    def download(repo_id, filename, **options):
        asked.append((repo_id, filename, options["revision"], options["cache_dir"]))
        return str(SHIPPED / TAG / filename)

    monkeypatch.setattr(source, "hf_hub_download", download)
    create(cache_dir=weights / "elsewhere")
    repository = f"{source.HUB_ORGANISATION}/{TAG}"
    assert asked == [
        (repository, file, "v1", weights / "elsewhere")
        for file in ("model.safetensors", "config.json")
    ]


def test_damaged_file_in_the_cache_is_downloaded_again(weights, monkeypatch, caplog):
    damaged = weights / "damaged.safetensors"
    damaged.write_bytes(b"x" * 100)
    forced = []

    def download(repo_id, filename, *, force_download=None, **options):
        if filename == "config.json":
            return str(SHIPPED / TAG / filename)
        forced.append(force_download)
        return str(SHIPPED / TAG / filename) if force_download else str(damaged)

    monkeypatch.setattr(source, "hf_hub_download", download)
    create()
    assert forced == [False, True]
    assert "damaged: downloading again" in caplog.text


def test_other_file_than_published_is_not_loaded(weights, monkeypatch):
    torch.manual_seed(0)
    folder = save_pretrained(timm.create_model("test_rga_resnet"), weights / "forged")
    monkeypatch.setattr(source, "hf_hub_download", lambda _, name, **o: str(folder / name))
    with pytest.raises(ValueError, match=r"is not the one that was published .* was not loaded"):
        create()


def test_repository_that_the_caller_names_is_asked_instead(weights):
    torch.manual_seed(5)
    mine = timm.create_model("test_rga_resnet").eval()
    folder = save_pretrained(mine, weights / "saved")
    put_into_hub_cache(folder, weights / "cache", "someone/else")
    x = torch.randn(2, 3, 64, 32)
    overlay = {"hf_hub_id": "someone/else"}
    loaded = create(pretrained_cfg_overlay=overlay, cache_dir=weights / "cache")
    assert torch.equal(loaded(x), mine(x))


def test_file_that_the_caller_names_is_taken_instead(weights):
    file = SHIPPED / TAG / "model.safetensors"
    assert create(pretrained_cfg_overlay={"file": str(file)}).pretrained_cfg["file"] == str(file)


def test_untrained_models_need_no_weights(weights):
    timm.create_model(TAG)
    timm.create_model("rga_resnet18")


def test_records_of_a_tag_are_read_where_its_weights_come_from(weights, monkeypatch, caplog):
    assert read_reid(TAG) == {}  # neither here nor there
    assert "The records of test_rga_resnet.pedestrians could not be read" in caplog.text
    monkeypatch.setattr(source, "hf_hub_download", lambda _, name, **o: str(SHIPPED / TAG / name))
    assert read_reid(TAG)["name"] == TAG
    recorded = {"trained_on": [{"name": "mine"}]}
    save_pretrained(timm.create_model("test_rga_resnet"), weights / TAG, reid=recorded)
    assert read_reid(TAG) == recorded


@pytest.mark.parametrize("name", ["resnet18", "rga_resnet18", "test_rga_resnet", "no_model"])
def test_other_names_have_no_records(weights, name):
    assert read_reid(name) == {}


def test_organisation_stands_in_one_place():
    cfg = timm.models.get_pretrained_cfg(TAG)
    assert cfg.hf_hub_id == source.hub_id(TAG, 1) == f"{source.HUB_ORGANISATION}/{TAG}@v1"


def install(folder, monkeypatch, *names):
    """Pretend that the package is installed in a folder, with these checkpoints in it."""
    checkpoints = folder / "rga_timm" / "checkpoints"
    checkpoints.mkdir(parents=True)
    shutil.copy(SHIPPED / "manifest.json", checkpoints)
    for name in names:
        shutil.copytree(SHIPPED / name, checkpoints / name)
    monkeypatch.setattr(source, "_PACKAGE", folder / "rga_timm")
    return checkpoints


def test_installed_package_reads_its_own_manifest(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch)
    monkeypatch.delenv("RGA_TIMM_WEIGHTS", raising=False)
    assert source.weights_folder() is None
    assert source.read_manifest() == source.read_manifest(SHIPPED)


def test_checkpoint_inside_the_package_is_taken_before_the_hub(weights, monkeypatch):
    checkpoints = install(weights, monkeypatch, TAG)
    assert create().pretrained_cfg["file"] == str(checkpoints / TAG / "model.safetensors")
    assert read_reid(TAG)["name"] == TAG
    (listed,) = [one for one in rga_timm.list_checkpoints() if one.name == TAG]
    assert listed.source == str(checkpoints / TAG)
    shutil.copytree(SHIPPED / TAG, weights / TAG)  # the user's own folder goes before it
    assert create().pretrained_cfg["file"] == str(weights / TAG / "model.safetensors")


def test_registered_config_is_what_the_manifest_says():
    entry = source.read_manifest()[TAG]
    cfg = timm.models.get_pretrained_cfg(TAG)
    for key, value in entry["preprocessing"].items():
        assert getattr(cfg, key) == (tuple(value) if isinstance(value, list) else value)
    with pytest.raises(ValueError, match=r"does not list rga_resnet50\.nowhere: pack"):
        source.registered_checkpoint("rga_resnet50.nowhere")


def test_tag_that_timm_does_not_know_is_a_missing_checkpoint():
    with pytest.raises(WeightsNotFoundError, match=r"rga_resnet50\.market1501: timm knows no such"):
        create("rga_resnet50.market1501")


def test_cached_weights_of_a_version_need_no_answer_of_the_hub(weights, monkeypatch):
    put_into_hub_cache(SHIPPED / TAG, weights / "cache", f"{source.HUB_ORGANISATION}/{TAG}", "v1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(source, "get_session", None)
    monkeypatch.setattr(source, "hf_hub_download", None)
    assert "cache" in create().pretrained_cfg["file"]
    assert read_reid(TAG)["name"] == TAG


# Seconds that a name takes to fail, with its error; where nobody answers.
FAIL = """
import sys, time, timm, rga_timm, rga_timm.hub, torch
start = time.monotonic()
try:
    timm.create_model(sys.argv[1], pretrained=True)
except rga_timm.hub.WeightsNotFoundError as error:
    print(time.monotonic() - start)
    print(error)
"""


@pytest.mark.parametrize("name", [TAG, "rga_resnet18.tv_in1k"])
@pytest.mark.parametrize("server", ["silent", "absent"])
def test_missing_weights_are_told_soon_where_the_hub_does_not_answer(tmp_path, name, server):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if server == "silent":
            listener.listen()  # connections are accepted, and nothing is ever said
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        (tmp_path / "no_weights").mkdir()
        environment = {
            **{k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")},
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_ETAG_TIMEOUT": "2",
            "RGA_TIMM_WEIGHTS": str(tmp_path / "no_weights"),
        }
        command = [sys.executable, "-c", FAIL, name]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    seconds, message = done.stdout.splitlines()
    assert float(seconds) < 5
    assert f"no weights of {name}" in message
    assert "HF_ENDPOINT" in message


def test_look_up_that_hangs_is_given_up(monkeypatch):
    monkeypatch.setattr(source, "_PATIENCE", 0.1)
    begun = time.monotonic()
    with pytest.raises(ConnectionError, match="no answer in"):
        source._check_answers(lambda: time.sleep(5))  # as a look-up of a name that hangs
    assert time.monotonic() - begun < 3


@pytest.mark.faults
def test_a_damaged_cache_without_a_network_is_named_with_what_to_do(weights, caplog):
    repository = f"{source.HUB_ORGANISATION}/{TAG}"
    put_into_hub_cache(SHIPPED / TAG, weights / "cache", repository, "v1")
    (file,) = (weights / "cache").rglob("model.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(WeightsNotFoundError) as caught:
        create()
    assert f"the file in the Hub's cache, {file}, is damaged; and {repository}" in str(caught.value)
    assert "make the Hub reachable" in str(caught.value)
    (config,) = (weights / "cache").rglob("config.json")
    config.write_text("{")
    assert read_reid(TAG) == {}
    assert f"The records of {TAG} could not be read" in caplog.text


class OutOfOrderError(OSError):
    def __init__(self, status):
        self.response = SimpleNamespace(status_code=status)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("answers", "asked", "works"),
    [
        ([503], 2, True),
        ([429], 2, True),
        ([503, 503], 2, False),
        ([404], 1, False),
        ([], 1, True),
    ],
)
def test_a_server_that_is_out_of_order_is_asked_once_more(monkeypatch, answers, asked, works):
    monkeypatch.setattr(source, "_PAUSE", 0)
    calls, answers = [], iter(answers)

    def ask():
        calls.append(1)
        if status := next(answers, None):  # as the Hub's client: wrapped in another error
            raise LookupError from OutOfOrderError(status)
        return "answer"

    if works:
        assert source.ask_again(ask) == "answer"
    else:
        with pytest.raises(LookupError):
            source.ask_again(ask)
    assert len(calls) == asked
