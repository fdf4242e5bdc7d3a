import json
import pickle
import re
from pathlib import Path

import pytest
import timm
import torch
from hub_client import Client, run_client, run_verb
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
exec(PRELUDE, here := {})
digest = here["digest"]

NOWHERE = "http://127.0.0.1:9"  # a port on which nothing listens


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


def client(url: str, home: Path, code: str, **env: str) -> list[str]:
    """The lines that a client of the Hub at this URL prints."""
    done = run_client(PRELUDE + code, url, home, **env)
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
    assert client(hub_server.url, tmp_path / "home", code) == [f"{weights} {recorded} True"]


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
    lines = client(hub_server.url, tmp_path / "home", code)
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
    assert client(hub_server.url, tmp_path / "home", code) == [
        "True download/missing/resolve/main/config.json.",
        "True download/there/resolve/v7/config.json.",
    ]


def test_truncated_weights_are_an_error_until_they_are_repaired(hub_server, folder, tmp_path):
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1000])
    hub_server.add("download/truncated", folder)
    code = 'print(error_of("hf-hub:download/truncated"))'
    (line,) = client(hub_server.url, tmp_path / "home", code)
    assert line.startswith("SafetensorError: ")
    weights.write_bytes(whole)
    hub_server.add("download/truncated", folder)
    code = 'print(digest(create("hf-hub:download/truncated")))'
    good = digest(timm.create_model(f"local-dir:{folder}", pretrained=True))
    assert client(hub_server.url, tmp_path / "home", code) == [good]


def test_an_unknown_architecture_is_named(hub_server, folder, tmp_path):
    change_config(folder, architecture="rga_of_tomorrow")
    hub_server.add("download/unknown", folder)
    lines = client(hub_server.url, tmp_path / "home", 'print(error_of("hf-hub:download/unknown"))')
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
    home = tmp_path / "home"
    good = digest(timm.create_model(f"local-dir:{folder}", pretrained=True))
    assert client(hub_server.url, home, f"print(digest(create('hf-hub:{repo_id}')))") == [good]
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
        (line, *_) = client(hub.url, tmp_path / "home", 'print(error_of("hf-hub:download/pickle"))')
        assert hub.asked("GET .*/pytorch_model.bin")
    assert "weights_only" in line or "Weights only" in line
    assert not sprung.exists()
    with pytest.raises(pickle.UnpicklingError):
        torch.load(folder / "pytorch_model.bin", weights_only=True)
    torch.load(folder / "pytorch_model.bin", weights_only=False)  # the trap works
    assert sprung.exists()


def test_what_was_downloaded_works_offline_and_nothing_else(hub_server, folder, tmp_path):
    hub_server.add("download/offline", folder)
    home, name = tmp_path / "home", "hf-hub:download/offline"
    code = f"print(digest(create({name!r})))"
    online = client(hub_server.url, home, code)
    assert client(NOWHERE, home, code, HF_HUB_OFFLINE="1") == online
    code = f"print(error_of({name!r}).splitlines()[0])"
    (line,) = client(NOWHERE, tmp_path / "empty", code, HF_HUB_OFFLINE="1")
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


@pytest.fixture(scope="module")
def repositories(hub_server: HubServer, tmp_path_factory: pytest.TempPathFactory) -> HubServer:
    """Repositories below `scripts/`, good and bad ones."""
    folder = tmp_path_factory.mktemp("repositories")
    for name in ("good", "truncated", "unknown", "transformers", "gibberish", "arguments"):
        save(folder / name)
    weights = folder / "truncated" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    change_config(folder / "unknown", architecture="rga_of_tomorrow")
    change_config(folder / "arguments", model_args={"heads_of_tomorrow": 3})
    (folder / "transformers" / "config.json").write_text('{"architectures": ["ViTModel"]}')
    (folder / "gibberish" / "config.json").write_text("<html>")
    for path in folder.iterdir():
        hub_server.add(f"scripts/{path.name}", path)
    return hub_server


MESSAGES = {
    "missing": r"there is no http://[\w.:]+/scripts/missing/resolve/main/config\.json\. The repos",
    "unknown": r"its architecture, rga_of_tomorrow, is unknown to timm .* a newer version may know",
    "transformers": r"its config\.json does not describe a timm model \(KeyError\('architecture'",
    "gibberish": r"its config\.json is no JSON, ",
    "arguments": r"cannot be made: .*'heads_of_tomorrow'",
    "truncated": r"/\S+, in the Hub's cache, is damaged \(.*\): delete it, with a network ",
}


@pytest.mark.parametrize("repo", MESSAGES)
@pytest.mark.parametrize("script", ["evaluate", "finetune"])
def test_scripts_say_in_one_line_what_is_wrong(repositories, people, tmp_path, script, repo):
    name = f"hf-hub:scripts/{repo}"
    model = [name] if script == "evaluate" else ["--model", name, "--pretrained"]
    data = ["--dataset", "market1501", "--data-dir", str(people), "--workers", "0"]
    output = ["--output", str(tmp_path / "output")]
    arguments = [*model, *data, *output]
    done = run_verb(script, repositories.url, tmp_path / "home", arguments)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert "HTTP Request" not in done.stderr
    assert re.search(f"{name}:? {MESSAGES[repo]}.*\\n\\Z", done.stderr)


def test_scripts_tell_apart_why_a_repository_cannot_be_had(folder, tmp_path):
    # By the server with the Hub's own error codes.
    code = """
import sys
from rga_timm.hub.model_source import check_described
for repo in sys.argv[1:]:
    try:
        check_described(f"hf-hub:why/{repo}")
    except OSError as error:
        print(error)
"""
    with HubUploadServer(tmp_path / "models") as hub:
        for repo in ("net", "gated", "shut", "empty"):
            files = tmp_path if repo == "empty" else folder
            repository = hub.repository(f"why/{repo}")
            repository.create()
            content = {f.name: f.read_bytes() for f in files.iterdir() if f.is_file()}
            repository.commit(content, message="A model")
        hub.settings["why/gated"] = {"gated": "manual"}
        hub.fail_at = {"HEAD /why/broken": 403, "GET /why/shut": 403}

        def said(*repos: str, **env: str) -> list[str]:
            done = run_client(code, hub.url, tmp_path / "home", ["client", *repos], **env)
            assert done.returncode == 0, done.stderr
            return [line.removeprefix("hf-hub:why/") for line in done.stdout.splitlines()]

        asked = ("no", "net@v7", "empty", "gated", "broken", "shut")
        missing, revision, file, gated, broken, shut = said(*asked)
        (offline,) = said("net", HF_HUB_OFFLINE="1")
    assert missing.startswith("no: there is no http://")
    assert revision.startswith("net@v7: no such revision of the repository, 404 ")
    assert file.startswith("empty: the repository lacks a file, 404 ")
    assert gated.startswith("gated: its owner lets users in one by one. ")
    not_cached = "the files are not in the cache, and the Hub does not answer"
    assert broken.startswith(f"broken: {not_cached}, 403 ")
    assert shut.startswith("shut: cannot be fetched: 403 ")
    assert offline.startswith(f"net: {not_cached}, ")
    assert "HF_HUB_OFFLINE" in offline


def test_a_model_of_the_hub_is_evaluated_and_fine_tuned(repositories, people, tmp_path):
    data = ["--dataset", "market1501", "--data-dir", str(people), "--workers", "0"]
    hub = (repositories.url, tmp_path / "home")
    done = run_verb("evaluate", *hub, ["hf-hub:scripts/good", *data])
    assert done.returncode == 0, done.stderr
    assert "| hf-hub:scripts/good | market1501 | 80x48, embedding, cosine |" in done.stdout
    run = ["--model", "hf-hub:scripts/good", "--pretrained", "--output", str(tmp_path / "run")]
    short = ["--epochs", "1", "--num-identities", "2", "--num-instances", "2"]
    done = run_verb("finetune", *hub, [*run, *data, *short])
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


@pytest.mark.faults
def test_a_hub_that_is_out_of_order_for_a_moment_is_asked_again(folder, tmp_path):
    code = """
from rga_timm.hub.model_source import check_model, create_model
print(digest(create_model(check_model("hf-hub:moment/net"))))
"""
    good = digest(timm.create_model(f"local-dir:{folder}", pretrained=True))
    with HubUploadServer(tmp_path / "models") as hub:
        repository = hub.repository("moment/net")
        repository.create()
        repository.commit({f.name: f.read_bytes() for f in folder.iterdir()}, message="A model")
        hub.fail_at = {f"GET .*{name}": 503 for name in ("config.json", "model.safetensors")}
        assert client(hub.url, tmp_path / "home", code) == [good]
        assert not hub.fail_at  # both were refused once
