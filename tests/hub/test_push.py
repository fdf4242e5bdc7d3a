import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
import timm
import torch
from hub_client import run_client
from hub_server import HubServer
from hub_upload_server import READER, WRITER, HubUploadServer

import rga_timm  # noqa: F401 - registers the models
from rga_timm.hub import save_pretrained
from rga_timm.hub.publish import push as hub_push

# Of `push`: the URL, or the kind of its error and the message.
Outcome = tuple[str, str]


def make_folder(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    save_pretrained(timm.create_model("test_rga_resnet", num_classes=5), folder)
    (folder / "README.md").write_text("---\nlibrary_name: timm\n---\n# A model\n")
    (folder / "train.csv").write_text("epoch,loss\n1,0.5\n")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "checkpoint")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubUploadServer]:
    with HubUploadServer(tmp_path / "models") as hub:
        yield hub


def push(url: str, folder: Path, repo_id: str, *, token: str = WRITER, **options: Any) -> Outcome:
    """`push_checkpoint` in a client of the Hub at this URL."""
    code = f"""
import json, runpy
# The module alone, as timm takes most of a second to import.
push = runpy.run_path({hub_push.__file__!r})["push_checkpoint"]
try:
    outcome = "", push({str(folder)!r}, {repo_id!r}, **{options!r})
except Exception as error:
    outcome = type(error).__name__, str(error)
print(json.dumps(outcome))
"""
    done = run_client(code, url, folder.parent / "home", **({"HF_TOKEN": token} if token else {}))
    assert done.returncode == 0, done.stderr
    kind, text = json.loads(done.stdout.splitlines()[-1])
    return kind, text


def stored(hub: HubUploadServer, repo_id: str, revision: str = "main") -> dict[str, bytes]:
    repository = hub.repository(repo_id)
    files = repository.files(repository.resolve(revision) or "")
    return {name: repository.content(file) for name, file in files.items()}


def content(folder: Path) -> dict[str, bytes]:
    """What is stored of a folder; the Hub itself puts a .gitattributes beside it."""
    return {".gitattributes": ANY, **{f.name: f.read_bytes() for f in folder.iterdir()}}


def test_all_of_a_folder_arrives(hub, folder):
    done = push(
        hub.url, folder, "zoo/net", revision_tag="v1", collection="Models", commit_message="First"
    )
    assert done == ("", f"{hub.url}/zoo/net")
    assert stored(hub, "zoo/net") == stored(hub, "zoo/net", "v1") == content(folder)
    assert hub.settings["zoo/net"] == {"private": False, "gated": False}
    (collection,) = hub.collections.values()
    assert (collection["title"], collection["owner"]["name"]) == ("Models", "zoo")
    assert [item["id"] for item in collection["items"]] == ["zoo/net"]


def test_what_is_there_is_not_made_again(hub, folder):
    options = {"revision_tag": "v1", "collection": "Models"}
    first = push(hub.url, folder, "zoo/net", **options)
    commit, collections = hub.repository("zoo/net").refs(), json.dumps(hub.collections)
    hub.requests.clear()
    assert push(hub.url, folder, "zoo/net", **options) == first
    assert hub.asked(r"preupload|PUT|/commit/|/tag/|POST /api/collections$") == []
    assert hub.repository("zoo/net").refs() == commit
    assert json.dumps(hub.collections) == collections
    # Without a tag files are compared one by one, and those that are the same make no commit.
    (folder / "train.csv").write_text("epoch,loss\n1,0.4\n")
    hub.requests.clear()
    assert push(hub.url, folder, "zoo/net") == first
    assert hub.asked("PUT") == []
    assert stored(hub, "zoo/net") == content(folder)
    assert len(hub.asked("/commit/")) == 1
    assert push(hub.url, folder, "zoo/net") == first
    assert len(hub.asked("/commit/")) == 1


@pytest.mark.parametrize("step", ["PUT /lfs/", "/commit/", "/tag/", "/items"])
def test_after_an_interruption_only_what_is_missing_is_uploaded(hub, folder, step):
    options = {"revision_tag": "v1", "collection": "Models"}
    hub.fail_at[step] = 418  # a status after which the client does not try again by itself
    kind, message = push(hub.url, folder, "zoo/net", **options)
    assert kind == "ConnectionError"
    assert "zoo/net" in message
    assert "418" in message or "model.safetensors" in message
    assert message.endswith("Try again")
    assert len(hub.asked("PUT /lfs/")) == 1
    hub.requests.clear()
    assert push(hub.url, folder, "zoo/net", **options)[0] == ""
    # The weights are known by their content.
    assert len(hub.asked("PUT /lfs/")) == (step == "PUT /lfs/")
    assert len(hub.asked("/commit/")) == (step in ("PUT /lfs/", "/commit/"))
    assert len(hub.asked("/tag/")) == (step != "/items")
    assert stored(hub, "zoo/net", "v1") == content(folder)
    assert [len(c["items"]) for c in hub.collections.values()] == [1]


def test_a_tag_never_moves(hub, folder, tmp_path):
    push(hub.url, folder, "zoo/net", revision_tag="v1")
    before = hub.repository("zoo/net").refs()
    other = make_folder(tmp_path / "other", seed=1)
    hub.requests.clear()
    kind, message = push(hub.url, other, "zoo/net", revision_tag="v1")
    assert kind == "FileExistsError"
    assert "has a tag v1 of other files (model.safetensors differ)" in message
    assert message.endswith("raise the version")
    assert hub.asked("preupload|/commit/|/tag/") == []
    assert hub.repository("zoo/net").refs() == before
    assert push(hub.url, other, "zoo/net", revision_tag="v2")[0] == ""
    assert stored(hub, "zoo/net") == stored(hub, "zoo/net", "v2") == content(other)
    assert stored(hub, "zoo/net", "v1") == content(folder)


CLOSE_THEN_FILL = ["PUT /api/models/zoo/net/settings", "POST /api/models/zoo/net/preupload/main"]


def test_a_repository_is_closed_before_it_is_filled(hub, folder):
    assert push(hub.url, folder, "zoo/net", private=True, gated="manual")[0] == ""
    assert hub.settings["zoo/net"] == {"private": True, "gated": "manual"}
    asked = hub.asked("create|settings|preupload")
    assert asked[0] == "POST /api/repos/create"
    assert asked[-2:] == CLOSE_THEN_FILL


def test_a_public_repository_becomes_private_before_the_upload(hub, folder):
    push(hub.url, folder, "zoo/net")
    (folder / "train.csv").write_text("secret\n")
    hub.requests.clear()
    assert push(hub.url, folder, "zoo/net", private=True)[0] == ""
    assert hub.settings["zoo/net"] == {"private": True, "gated": False}
    assert hub.asked("settings|preupload") == CLOSE_THEN_FILL
    assert push(hub.url, folder, "zoo/net")[0] == ""
    assert hub.settings["zoo/net"]["private"]  # nothing is made public by leaving an option out


def test_an_organisation_may_want_its_repositories_private(hub, folder):
    hub.default_visibility = "private"
    assert push(hub.url, folder, "zoo/net")[0] == ""
    assert hub.settings["zoo/net"]["private"]


def test_a_collection_is_found_by_its_title_and_owner(hub, folder):
    for repo_id in ("zoo/one", "zoo/two", "ann/three"):
        assert push(hub.url, folder, repo_id, collection="Models")[0] == ""
    found = {c["owner"]["name"]: [i["id"] for i in c["items"]] for c in hub.collections.values()}
    assert found == {"zoo": ["zoo/one", "zoo/two"], "ann": ["ann/three"]}


@pytest.mark.parametrize(
    ("repo_id", "token", "expected"),
    [
        ("zoo/net", "", "log in by `hf auth login`, or set HF_TOKEN"),
        ("zoo/net", "hf_expired", "the token is not valid"),
        ("zoo/net", READER, "zoo/net as ben: no right to do that"),
        ("others/net", WRITER, "others/net as ann: no right to do that"),
    ],
)
def test_who_may_not_write_is_told_why(hub, folder, repo_id, token, expected):
    kind, message = push(hub.url, folder, repo_id, token=token)
    assert kind == "PermissionError"
    assert expected in message
    assert "\n" not in message
    assert not hub.repository(repo_id).exists()


def test_who_may_not_write_changes_nothing_of_a_repository_that_is_there(hub, folder):
    push(hub.url, folder, "zoo/net")
    before = hub.repository("zoo/net").refs()
    (folder / "train.csv").write_text("mine\n")
    kind, message = push(hub.url, folder, "zoo/net", token=READER)
    assert (kind, "zoo/net as ben: no right to do that" in message) == ("PermissionError", True)
    assert hub.repository("zoo/net").refs() == before


def test_a_hub_out_of_reach_is_said_to_be(folder):
    with socket.socket() as taken:  # and not listening
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        kind, message = push(url, folder, "zoo/net")
    assert kind == "ConnectionError"
    assert message.startswith(f"logging in to {url}: the Hub cannot be reached, ")


class _NoNetwork:
    def __init__(self, **_: Any) -> None:
        raise AssertionError("the Hub was to be asked")


@pytest.fixture
def refuse(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The message of a push that is refused before anything is sent."""
    monkeypatch.setattr(hub_push, "HfApi", _NoNetwork)

    def refuse(repo_id: str = "zoo/net", **options: Any) -> str:
        with pytest.raises(ValueError, match=r".") as caught:
            hub_push.push_checkpoint(folder, repo_id, token=WRITER, **options)
        return str(caught.value)

    return refuse


@pytest.mark.parametrize(
    "name",
    [
        "pytorch_model.bin", "model_best.pth.tar", "weights.pt", "weights.PTH", "model.pkl",
        "extra.safetensors", "modeling.py", ".env", "a[b].csv",
    ],
)  # fmt: skip
def test_other_files_are_refused_before_anything_is_sent(folder, refuse, name):
    (folder / name).write_bytes(b"x")
    assert f"holds what is not uploaded: {name}." in refuse()


def test_folders_within_are_refused(folder, refuse):
    (folder / "logs.csv").mkdir()
    assert "holds what is not uploaded: logs.csv." in refuse()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_an_incomplete_folder_is_refused(folder, refuse, name):
    (folder / name).unlink()
    assert f"{name} is missing" in refuse()


def test_a_folder_that_is_none_is_refused(folder, refuse):
    folder.rename(folder.with_name("elsewhere"))
    assert "there is no folder" in refuse()


@pytest.mark.parametrize("damage", [lambda b: b[:-100], lambda b: b"", lambda b: b"\x80\x04" + b])
def test_damaged_weights_are_refused(folder, refuse, damage):
    weights = folder / "model.safetensors"
    weights.write_bytes(damage(weights.read_bytes()))
    assert "model.safetensors is no complete safetensors file" in refuse()


@pytest.mark.parametrize("repo_id", ["net", "zoo/a net", "zoo/net/v1"])
def test_a_name_that_is_none_is_refused(refuse, repo_id):
    assert repo_id in refuse(repo_id)


def test_another_kind_of_gate_is_refused(refuse):
    assert "gated is 'auto', 'manual' or None, not 'yes'" in refuse(gated="yes")


def test_what_is_pushed_comes_back_by_create_model(hub_server: HubServer, folder, tmp_path):
    with HubUploadServer(hub_server.models) as hub:
        assert push(hub.url, folder, "zoo/loop", revision_tag="v1")[0] == ""
    code = f"""
import timm, torch, rga_timm
def state(name): return timm.create_model(name, pretrained=True).state_dict()
here = state("local-dir:{folder}")
for name in ("hf-hub:zoo/loop", "hf-hub:zoo/loop@v1"):
    there = state(name)
    assert there.keys() == here.keys()
    assert all(torch.equal(there[key], here[key]) for key in here)
print("the same")
"""
    done = run_client(code, hub_server.url, tmp_path / "other home")
    assert done.stdout == "the same\n", done.stderr
