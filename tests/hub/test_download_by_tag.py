"""Tags through the Hub's real client, from a real server; without a local weights folder."""

import shutil
from pathlib import Path

import pytest
import timm
import torch
from hub_client import Client, run_client, run_verb
from hub_server import HubServer
from hub_upload_server import WRITER, HubUploadServer

from rga_timm.hub import save_pretrained, weights_folder

TAG = "test_rga_resnet.pedestrians"
SHIPPED = Path(weights_folder() or "") / TAG

# Writes the state dict that a tag gives, or the error.
CREATE = """
import sys, timm, torch, rga_timm.hub
try:
    model = timm.create_model(sys.argv[1], pretrained=True)
    print(rga_timm.hub.read_reid(sys.argv[1]).get("name"))
    torch.save(model.state_dict(), sys.argv[2])
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


@pytest.fixture
def client(tmp_path):
    """The arguments of a client of a server that has no weights of its own."""
    (tmp_path / "no_weights").mkdir()

    def arguments(url: str, organisation: str, *, out: str = "state.pth", **env: str):
        env = {
            "RGA_TIMM_HUB_ORG": organisation,
            "RGA_TIMM_WEIGHTS": str(tmp_path / "no_weights"),
            **env,
        }
        return (CREATE, url, tmp_path / "home", ["client", TAG, str(tmp_path / out)]), env

    return arguments


def run(client_arguments):
    arguments, env = client_arguments
    return run_client(*arguments, **env)


def assert_shipped(file: Path) -> None:
    expected = timm.create_model(f"local-dir:{SHIPPED}", pretrained=True).state_dict()
    state = torch.load(file, weights_only=True)
    assert state.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in state.items())


def test_tag_is_downloaded_at_its_version(hub_server: HubServer, client, tmp_path):
    hub_server.add(f"versions/{TAG}", SHIPPED, revision_tag="v1")
    later = tmp_path / "later"
    torch.manual_seed(0)
    save_pretrained(timm.create_model("test_rga_resnet"), later)
    hub_server.add(f"versions/{TAG}", later)  # on main, after v1
    done = run(client(hub_server.url, "versions"))
    assert done.returncode == 0, done.stderr
    assert_shipped(tmp_path / "state.pth")


def test_cache_is_enough_without_the_hub(hub_server: HubServer, client, tmp_path):
    hub_server.add(f"cached/{TAG}", SHIPPED, revision_tag="v1")
    assert run(client(hub_server.url, "cached")).returncode == 0
    nowhere = "http://127.0.0.1:9"
    done = run(client(nowhere, "cached", out="offline.pth", HF_HUB_OFFLINE="1"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == TAG  # the records are there, too
    assert_shipped(tmp_path / "offline.pth")
    shutil.rmtree(tmp_path / "home")
    done = run(client(nowhere, "cached", HF_HUB_OFFLINE="1"))
    assert f"WeightsNotFoundError: no weights of {TAG}" in done.stderr


def test_missing_repository_names_both_ways(hub_server: HubServer, client, tmp_path):
    done = run(client(hub_server.url, "nobody"))
    assert f"{tmp_path / 'no_weights'} holds no {TAG}/model.safetensors" in done.stderr
    assert f"nobody/{TAG}@v1 on the Hub could not be read" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("damage", ["cut short", "of another checkpoint"])
def test_other_file_than_published_is_not_loaded(hub_server: HubServer, client, tmp_path, damage):
    organisation = damage.replace(" ", "-")
    folder = tmp_path / "damaged"
    shutil.copytree(SHIPPED, folder)
    file = folder / "model.safetensors"
    if damage == "cut short":
        file.write_bytes(file.read_bytes()[:-1000])
    else:
        save_pretrained(timm.create_model("test_rga_resnet"), folder)
    hub_server.add(f"{organisation}/{TAG}", folder, revision_tag="v1")
    done = run(client(hub_server.url, organisation))
    assert "ValueError: model.safetensors of" in done.stderr
    assert f"is not the one that was published as {TAG}" in done.stderr
    assert not (tmp_path / "state.pth").exists()


def test_damaged_cache_is_mended(hub_server: HubServer, client, tmp_path):
    hub_server.add(f"mended/{TAG}", SHIPPED, revision_tag="v1")
    assert run(client(hub_server.url, "mended")).returncode == 0
    (cached,) = (tmp_path / "home").rglob("model.safetensors")
    blob = cached.resolve()
    blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    done = run(client(hub_server.url, "mended", out="mended.pth"))
    assert done.returncode == 0, done.stderr
    assert_shipped(tmp_path / "mended.pth")


def test_several_processes_download_at_once(hub_server: HubServer, client, tmp_path):
    hub_server.add(f"many/{TAG}", SHIPPED, revision_tag="v1")
    clients = []
    for i in range(4):
        arguments, env = client(hub_server.url, "many", out=f"{i}.pth")
        clients.append(Client(*arguments, **env))
    for i, one in enumerate(clients):
        done = one.result()
        assert done.returncode == 0, done.stderr
        assert_shipped(tmp_path / f"{i}.pth")


def test_published_checkpoint_comes_back_by_its_tag(hub_server: HubServer, client, tmp_path):
    with HubUploadServer(hub_server.models) as hub:
        done = run_verb(
            "publish",
            hub.url,
            tmp_path / "publisher",
            [str(SHIPPED), "--push", "--organisation", "zoo", "--collection", "People"],
            HF_TOKEN=WRITER,
        )
    assert done.returncode == 0, done.stderr
    assert f"zoo/{TAG}" in done.stdout
    done = run(client(hub_server.url, "zoo"))
    assert done.returncode == 0, done.stderr
    assert_shipped(tmp_path / "state.pth")
