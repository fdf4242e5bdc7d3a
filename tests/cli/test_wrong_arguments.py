"""Wrong arguments of every verb: one line that names them, exit status 2, before any work."""

from __future__ import annotations

import shlex
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from models.official_network import OfficialNetwork
from stored_folder import clustered, write_folder

from rga_timm.cli import VERBS, export, extract_cuhk03
from rga_timm.hub import save_pretrained
from rga_timm.search import SearchIndex

pytestmark = pytest.mark.faults

# A complete command line of each verb, to which a wrong argument is added. Words in capitals stand
# for files that a fixture makes.
EVALUATE = "test_resnet --no-pretrained --dataset market1501 --data-dir DATA --device cpu"
COMMANDS = {
    "finetune": "--dataset market1501 --data-dir DATA --model test_resnet --no-pretrained "
    "--device cpu",
    "evaluate": f"{EVALUATE} --workers 0",
    "embed": "test_resnet --no-pretrained --images DATA --output new --device cpu --workers 0",
    "report": f"{EVALUATE} --workers 0",
    "export": "test_resnet x.onnx --no-pretrained",
    "search": "query INDEX IMAGE --device cpu",
    "check-data": "DATA --workers 0",
    "extract-cuhk03": "DATA",
    "convert-official": "WEIGHTS --output new --device cpu",
    "publish": "MODEL --weights new --device cpu",
    "checkpoints": "",
    "demo": f"--model {EVALUATE}",
    "ablation": "--output new --dataset market1501 --data-dir DATA --model test_rga_resnet "
    "--no-pretrained --device cpu",
}

# The message names the option or its value, or what stands here after a colon and a blank.
NUMBERS = ("nan", "inf", "-1", "many")
WRONG = {
    "finetune": [
        *(
            f"--{name} {value}"
            for name in (
                "lr", "weight-decay", "momentum", "layer-decay", "warmup-lr", "min-lr",
                "decay-rate",
                "clip-grad", "ema-decay", "smoothing", "margin", "triplet-weight", "drop-rate",
                "enlarge-prob", "flip-prob", "erase-prob", "cache", "similarity-weight",
                "projection-weight",
            )
            for value in NUMBERS
        ),
        *(
            f"--{name} {value}"
            for name in (
                "epochs", "workers", "num-identities", "num-instances", "warmup-epochs",
                "grad-accum-steps", "freeze-backbone-epochs", "eval-every", "eval-batch-size",
                "seed", "unlabelled-images", "decay-milestones",
            )
            for value in ("-1", "1.5", "nan", "true", "99999999999")
        ),
        "--lr 1e999", "--momentum 9", "--momentum 1", "--ema-decay 7", "--ema-decay 1",
        "--smoothing 2", "--smoothing 1", "--drop-rate 1", "--flip-prob 1.01", "--layer-decay 1.1",
        "--clip-grad 0", "--decay-rate 0", "--num-identities 0", "--num-identities 1",
        "--num-instances 1", "--img-size 0 32", "--img-size 64", "--img-size 64 -32",
        "--teacher-mean 0 0 nan", "--teacher-std 0 1 1", "--decay-milestones 8 4",
        "--opt bogus", "--opt fusedsgd", "--sched bogus", "--sched plateau", "--sched Cosine",
        "--sched wsd --warmup-epochs 999",
        "--device cuda", "--device cuda:99", "--device bogus", "--device meta", "--device mps",
        "--device ''", "--amp-dtype int8", "--feature neck", "--epoch-images some",
        "--output /etc/passwd", "--output /dev/null", "--output FILE", "--output FILE/run",
        "--model nobody", "--model /nowhere/run", "--model ftp:x", "--model '': name is empty",
        "--model FILE",
        "--dataset nobody", "--dataset market1501:split", "--dataset market1501:bogus=1",
        "--dataset viper:split=many", "--dataset '': unknown data set",
        "--data-dir a b: there are 2 for 1",
        "--pretrained-tag nobody", "--pretrained-path nowhere.pth", "--pretrained-path DATA",
        "--config nobody", "--config DATA", "--resume nowhere", "--resume FILE",
        "--bogus", "--model-kwargs relation",
    ],
    "evaluate": [
        *(f"--batch-size {value}" for value in ("0", "-1", "1.5", "nan", "true", "9" * 12)),
        *(f"--workers {value}" for value in ("-1", "1.5", "many")),
        *(f"--scales {value}" for value in ("0", "nan", "inf", "-1", "1 0")),
        *(f"--expand --expand-alpha {value}: --expand-alpha" for value in NUMBERS),
        *(f"--expand-k {value}" for value in ("0", "-1", "2.5")),
        *(f"--{name} {value}" for name in ("k1", "k2") for value in ("0", "-1", "nan")),
        *(f"--lambda-value {value}" for value in ("nan", "-0.1", "1.1", "inf")),
        *(f"--fpr {value}" for value in ("nan", "-0.1", "1.1", "0.1 2")),
        "--mean 0 0 nan", "--std 0 1 1", "--std 1 1 inf", "--mean 0 0", "--channel-order bgr",
        "--img-size 0 0", "--metric manhattan", "--feature neck", "--amp-dtype int8",
        "--device cuda", "--device meta", "--device bogus", "--device cuda:99",
        "--output /etc/passwd", "--output /dev/null", "--output DATA",
        "--output no/x.json: no folder no",
        "--output FILE/x.json: no folder FILE", "--checkpoint nowhere.pth: not allowed with",
        "--dataset nobody", "--embeddings nowhere: --embeddings", "--bogus",
        "--compare a.json: no MODEL",
    ],
    "embed": [
        "--shard-size 0", "--shard-size nan", "--batch-size 0", "--workers -1", "--scales nan",
        "--splits some", "--splits query", "--device cuda", "--output /etc/passwd",
        "--output FILE/x: FILE is a file", "--format csv",
        "--dataset market1501: not allowed with", "--std 0 1 1",
        "--images nowhere: nowhere", "--images FILE: FILE", "--data-dir x",
    ],
    "report": [
        "--queries 0", "--top -1", "--budget-mb nan", "--budget-mb inf", "--budget-mb 0",
        "--output /etc/passwd", "--output DATA", "--output no/x.html: no folder no",
        "--against nobody",
        "--batch-size 0", "--device cuda", "--metric none", "--blur-faces --no-images",
        "--dataset nobody",
    ],
    "export": [
        "--tolerance nan", "--tolerance inf", "--tolerance 0", "--tolerance -1", "--opset 17",
        "--opset nan", "--img-size 0 1", "--feature neck", "--model-kwargs relation",
        "--model-kwargs nonsense=3: nonsense", "--model-kwargs in_chans=1: 1 channels",
        "--checkpoint nowhere: not allowed with",
    ],
    "search": [
        "-k 0", "-k nan", "--nprobes 0", "--refine-factor -1", "--batch-size 0", "--workers -1",
        "--device cuda", "--after noon", "--json /etc/passwd", "--page FILE", "--page DATA",
        "--where camid", "--where ''", "--before 2024-13-01", "--embeddings x: what is the query",
        "--splits x: --splits", "--camera 1: no cameras", "--after 2024-01-01: no column time",
        "--where 'pid=1) OR (true'",
    ],
    "check-data": [
        "--workers -1", "--workers nan", "--json /etc/passwd", "--json DATA",
        "--json no/x.json: no folder no",
        "--dataset nobody",
    ],
    "extract-cuhk03": ["--output /etc/passwd", "--bogus"],
    "convert-official": [
        "--output /etc/passwd", "--output FILE/x: FILE is a file", "--output DATA",
        "--model nobody",
        "--img-size 0 1", "--device cuda", "--workers -1", "--batch-size 0",
        "--trained-on nobody: nobody", "--data-dir x",
    ],
    "publish": [
        "--version 0", "--version -1", "--version x", "--batch-size 0", "--batch-size nan",
        "--workers -1", "--device cuda", "--device bogus", "--device meta", "--precision int8",
        "--feature neck", "--weights /etc/passwd", "--weights FILE/x: FILE is a file",
        "--extra nowhere.txt",
        "--name resnet50.x", "--name test_resnet", "--gated maybe", "--organisation 'a b'",
    ],
    "checkpoints": ["--bogus", "now: unrecognized"],
    "demo": [
        "--port 0", "--port -1", "--port 99999", "--port nan", "--top 0", "--examples -1",
        "--device cuda", "--batch-size 0", "--gallery nowhere: not allowed with",
        "--dataset nobody", "--scales nan",
    ],
    "ablation": [
        "--seeds -1", "--seeds 1.5", "--seeds nan", "--relations x", "--seed 3", "--lr nan",
        "--opt bogus", "--epochs 0", "--output /etc/passwd", "--bogus",
        "--model-kwargs relation=s", "--model-kwargs reduction=-1: reduction",
    ],
}  # fmt: skip


# Where the work of a verb begins, which no wrong argument may reach.
WORK = {
    "finetune": "cli.finetune.train",
    "evaluate": "cli.evaluate.evaluate_dataset",
    "embed": "cli.embed.write_metadata",
    "report": "cli.report.evaluate",
    "export": "cli.export.export",
    "search": "cli.search.embed_queries",
    "check-data": "cli.check_data.read",
    "extract-cuhk03": "cli.extract_cuhk03.extract",
    "convert-official": "cli.convert_official.convert",
    "publish": "hub.publish.pack._read_test_sets",
    "checkpoints": "cli.checkpoints.list_checkpoints",
    "demo": "cli.demo.demo_search.Searcher",
    "ablation": "cli.ablation.finetune.run",
}


@pytest.fixture(scope="module")
def files(people: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the words in capitals stand for."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "a.txt").write_text("a text")
    features, _ = clustered(3, 2)
    # Of a plain folder of images, without cameras.
    camids = np.full(len(features), -1)
    SearchIndex.build(folder / "index", write_folder(folder / "e", features, camids=camids))
    model = timm.create_model("test_resnet", num_classes=4)
    reid = {"trained_on": [{"name": "market1501"}], "command": "x"}
    torch.save(
        OfficialNetwork(3, (16, 20, 24, 32), (192, 96)).state_dict(), folder / "official.pth"
    )
    return {
        "DATA": str(people),
        "FILE": str(folder / "a.txt"),
        "IMAGE": str(next((people / "query").iterdir())),
        "INDEX": str(folder / "index"),
        "WEIGHTS": str(folder / "official.pth"),
        "MODEL": str(save_pretrained(model, folder / "model", reid=reid)),
    }


class WorkedError(Exception):
    """A verb has begun its work."""


def call(verb: str, line: str, files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a verb up to where its work begins, on a machine without a GPU."""

    def begin(*_: Any, **__: Any) -> None:
        raise WorkedError

    monkeypatch.setattr(f"rga_timm.{WORK[verb]}", begin)
    monkeypatch.setattr(export, "missing_packages", list)  # it is not about these
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(extract_cuhk03, "find_layout", lambda _, folder, *__: (folder, None))
    words = [files.get(word, word.replace("FILE", files["FILE"])) for word in shlex.split(line)]
    import_module(f"rga_timm.cli.{verb.replace('-', '_')}").main(words)


CASES = [(verb, wrong) for verb, cases in WRONG.items() for wrong in cases]


def test_every_verb_is_tried() -> None:
    assert WRONG.keys() == COMMANDS.keys() == WORK.keys() == VERBS.keys()
    assert len(CASES) > 300


@pytest.mark.parametrize("verb", COMMANDS)
def test_the_command_without_a_wrong_argument_begins_its_work(
    verb: str, files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WorkedError):
        call(verb, COMMANDS[verb], files, monkeypatch)


@pytest.mark.parametrize(("verb", "wrong"), CASES)
def test_a_wrong_argument_ends_the_program_with_a_line_about_it(
    verb: str, wrong: str, files: dict[str, str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    options, _, message = wrong.partition(": ")
    words = [files.get(word, word) for word in shlex.split(options)]
    with pytest.raises(SystemExit) as ended:
        call(verb, f"{COMMANDS[verb]} {options}", files, monkeypatch)
    assert ended.value.code == 2 or isinstance(ended.value.code, str)
    printed = capsys.readouterr().err if ended.value.code == 2 else str(ended.value)
    *_, last = printed.strip().splitlines()
    named = [message] if message else [words[0], *filter(None, words[1:])]  # the option, its values
    assert any(name.replace("FILE", files["FILE"]) in last for name in named), last
    assert not [*tmp_path.iterdir()]
