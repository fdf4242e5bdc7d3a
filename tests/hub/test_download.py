import json
import pickle
import shutil
from pathlib import Path

import pytest
import timm
import torch
from hub_client import Client, run_client, run_script
from hub_server import HubServer
from hub_upload_server import HubUploadServer

import rga_timm  # noqa: F401 - registers the models
from rga_timm.data.datasets.pedestrians import draw
from rga_timm.hub import save_pretrained

# In a client: the model of a name, the digest of a model's weights.
PRELUDE = """
import hashlib, timm, rga_timm

def create(name, **options):
    return timm.create_model(name, pretrained=True, **options)

def digest(model):
    state = sorted(model.state_dict().items())
    return hashlib.sha256(b"".join(k.encode() + v.numpy().tobytes() for k, v in state)).hexdigest()

def error_of(name):
    try:
        create(name)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "none"
"""
exec(PRELUDE, clients := {})
digest = clients["digest"]


def save(folder: Path, seed: int = 0) -> str:
    """A model's folder, as it is to be uploaded; the digest of the weights."""
    torch.manual_seed(seed)
    model = timm.create_model("test_rga_resnet", num_classes=5, img_size=(80, 48))
    save_pretrained(model, folder, reid={"trained_on": [{"name": f"set {seed}"}]})
    return digest(model)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path / "model")
    return tmp_path / "model"


def client(server: HubServer | HubUploadServer, home: Path, code: str, **env: str) -> list[str]:
    """The lines that a client prints."""
    done = run_client(PRELUDE + code, server.url, home, **env)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def change_config(folder: Path, **entries: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))


@pytest.mark.parametrize("lfs", [True, False], ids=["lfs", "plain git"])
def test_model_comes_back_bit_for_bit(hub_server, tmp_path, lfs):
    weights = save(tmp_path / "model")
    repo_id = f"download/model-{lfs}"
    hub_server.add(repo_id, tmp_path / "model", lfs=lfs)
    code = f"""
from rga_timm.hub import read_reid, takes_img_size
name = "hf-hub:{repo_id}"
print(digest(create(name)), read_reid(name), takes_img_size(name))
"""
    recorded = {"trained_on": [{"name": "set 0"}]}
    assert client(hub_server, tmp_path / "home", code) == [f"{weights} {recorded} True"]


def test_an_old_revision_gives_the_old_weights(hub_server, tmp_path):
    old, new = save(tmp_path / "old", 1), save(tmp_path / "new", 2)
    assert old != new
    commit = hub_server.add("download/versions", tmp_path / "old", "v1")
    hub_server.add("download/versions", tmp_path / "new", "v2")
    code = f"""
from rga_timm.hub import read_reid
for revision in ("", "@v1", "@v2", "@{commit}"):
    name = "hf-hub:download/versions" + revision
    print(digest(create(name)), read_reid(name)["trained_on"][0]["name"])
"""
    lines = client(hub_server, tmp_path / "home", code)
    assert lines == [f"{new} set 2", f"{old} set 1", f"{new} set 2", f"{old} set 1"]


def test_what_is_missing_is_named(hub_server, folder, tmp_path):
    hub_server.add("download/there", folder)
    code = """
import re
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
for name in ("hf-hub:download/missing", "hf-hub:download/there@v7"):
    try:
        create(name)
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        print(isinstance(error, OSError), re.search("for url: \\\\S+/(download/.*)", str(error))[1])
"""
    assert client(hub_server, tmp_path / "home", code) == [
        "True download/missing/resolve/main/config.json.",
        "True download/there/resolve/v7/config.json.",
    ]


def test_truncated_weights_are_an_error_until_they_are_repaired(hub_server, folder, tmp_path):
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1000])
    hub_server.add("download/truncated", folder)
    code = 'print(error_of("hf-hub:download/truncated"))'
    (line,) = client(hub_server, tmp_path / "home", code)
    assert line.startswith("SafetensorError: ")
    weights.write_bytes(whole)
    hub_server.add("download/truncated", folder)
    code = 'print(digest(create("hf-hub:download/truncated")))'
    good = digest(timm.create_model(f"local-dir:{folder}", pretrained=True))
    assert client(hub_server, tmp_path / "home", code) == [good]


def test_an_interrupted_download_begins_again(hub_server, folder, tmp_path):
    hub_server.add("download/interrupted", folder)
    name, home = "hf-hub:download/interrupted", tmp_path / "home"
    # What a killed client leaves: part of the file under the name that it has while it arrives.
    repository = hub_server.repository("download/interrupted")
    stored = repository.files("main")["model.safetensors"]
    blobs = home / "hub" / "models--download--interrupted" / "blobs"
    blobs.mkdir(parents=True)
    part = repository.content(stored)[:5000]
    (blobs / f"{stored.sha256}.incomplete").write_bytes(part)
    good = digest(timm.create_model(f"local-dir:{folder}", pretrained=True))
    assert client(hub_server, home, f"print(digest(create({name!r})))") == [good]


def test_an_unknown_architecture_is_named(hub_server, folder, tmp_path):
    change_config(folder, architecture="rga_of_tomorrow")
    hub_server.add("download/unknown", folder)
    lines = client(hub_server, tmp_path / "home", 'print(error_of("hf-hub:download/unknown"))')
    assert lines == ["RuntimeError: Unknown model (rga_of_tomorrow)"]


# What leaves a file if it ever runs: as a module, and as a pickle.
def trap(file: Path) -> str:
    return f"open({str(file)!r}, 'w').close()\n"


class Trap:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, (trap(self.file),)


@pytest.mark.parametrize("custom_load", ["hf", True])
def test_no_code_of_a_repository_is_run(hub_server, folder, tmp_path, custom_load):
    repo_id, sprung = f"download/code-{custom_load}", tmp_path / "sprung"
    for name in ("modeling_rga.py", "test_rga_resnet.py", "hubconf.py", "__init__.py"):
        (folder / name).write_text(trap(sprung))
    config = json.loads((folder / "config.json").read_text())
    change_config(
        folder,
        auto_map={"AutoModel": "modeling_rga.Model", "AutoConfig": "modeling_rga.Config"},
        trust_remote_code=True,
        custom_load=custom_load,
        pretrained_cfg={**config["pretrained_cfg"], "custom_load": custom_load},
    )
    hub_server.add(repo_id, folder)
    code = f"print(error_of('hf-hub:{repo_id}'))\nimport os\nprint(sorted(os.listdir()))"
    home = tmp_path / "home"
    outcome = client(hub_server, home, code)[0]
    assert outcome == "none" or "load_pretrained" in outcome  # a hook that our models have not
    assert not sprung.exists()
    fetched = {file.name for file in (home / "hub").rglob("snapshots/*/*")}
    assert fetched <= {"config.json", "model.safetensors"}
    exec(trap(sprung))  # the trap works
    assert sprung.exists()


def test_a_pickle_is_not_run(tmp_path, folder):
    sprung = tmp_path / "sprung"
    (folder / "model.safetensors").unlink()
    torch.save({"fc.weight": Trap(sprung)}, folder / "pytorch_model.bin")
    # By the server that says which file is missing, for timm then asks for the next.
    with HubUploadServer(tmp_path / "models") as hub:
        repository = hub.repository("download/pickle")
        repository.create()
        files = {file.name: file.read_bytes() for file in folder.iterdir()}
        repository.commit(files, message="A trap")
        (line, *_) = client(hub, tmp_path / "home", 'print(error_of("hf-hub:download/pickle"))')
        assert hub.asked("GET .*/pytorch_model.bin")
    assert line.startswith("UnpicklingError: Weights only load failed")
    assert not sprung.exists()
    with pytest.raises(pickle.UnpicklingError):
        torch.load(folder / "pytorch_model.bin", weights_only=True)
    torch.load(folder / "pytorch_model.bin", weights_only=False)  # the trap works
    assert sprung.exists()


def test_what_was_downloaded_works_offline_and_nothing_else(hub_server, folder, tmp_path):
    hub_server.add("download/offline", folder)
    home, name = tmp_path / "home", "hf-hub:download/offline"
    code = f"print(digest(create({name!r})))"
    online = client(hub_server, home, code)

    class Nowhere:
        url = "http://127.0.0.1:9"

    assert client(Nowhere, home, code, HF_HUB_OFFLINE="1") == online
    code = f"print(error_of({name!r}).splitlines()[0])"
    (line,) = client(Nowhere, tmp_path / "empty", code, HF_HUB_OFFLINE="1")
    assert line.startswith(("LocalEntryNotFoundError: ", "OfflineModeIsEnabled: "))


def test_several_processes_may_download_the_same_at_once(hub_server, folder, tmp_path):
    hub_server.add("download/together", folder)
    code = PRELUDE + 'print(digest(create("hf-hub:download/together")))'
    clients = [Client(code, hub_server.url, tmp_path / "home") for _ in range(4)]
    results = [client.result() for client in clients]
    assert [done.returncode for done in results] == [0] * 4, results[0].stderr
    good = digest(timm.create_model(f"local-dir:{folder}", pretrained=True))
    assert [done.stdout.strip() for done in results] == [good] * 4


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, in Market-1501's layout."""
    return draw(
        tmp_path_factory.mktemp("people") / "market1501",
        train_ids=4, train_images=2, test_ids=3, gallery_images=2, distractors=1, junk=0,
        progress=False,
    )  # fmt: skip


def test_scripts_say_what_is_wrong_with_a_repository(hub_server, folder, tmp_path, people):
    hub_server.add("scripts/good", folder)
    truncated, unknown = (shutil.copytree(folder, tmp_path / name) for name in ("t", "u"))
    weights = truncated / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    hub_server.add("scripts/truncated", truncated)
    change_config(unknown, architecture="rga_of_tomorrow")
    hub_server.add("scripts/unknown", unknown)
    print(people)
    data = ["--dataset", "market1501", "--data-dir", str(people), "--workers", "0"]
    for repo in ("missing", "unknown", "truncated", "good"):
        for script, args in (
            ("evaluate.py", [f"hf-hub:scripts/{repo}"]),
            (
                "finetune.py",
                [
                    "--model",
                    f"hf-hub:scripts/{repo}",
                    "--pretrained",
                    "--epochs",
                    "1",
                    "--output",
                    str(tmp_path / "run"),
                ],
            ),
        ):
            done = run_script(script, hub_server.url, tmp_path / "home", [*args, *data])
            print("=====", script, repo, done.returncode, done.stdout, done.stderr)
    assert 0
