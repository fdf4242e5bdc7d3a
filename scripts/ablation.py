r"""Does relation attention help? One recipe, with each of several relations, and several seeds.

    python scripts/ablation.py --output output/ablation                           # embedded data
    python scripts/ablation.py --output output/ablation --seeds 0 1 --relations none sc \
        --dataset market1501 --data-dir DIR --model rga_tf_efficientnet_lite0 --epochs 20

All other options are finetune.py's, and the same for all runs; the tests are at their ends, so that
no run is chosen by its score. The runs lie in OUTPUT/RELATION-seedSEED. What is finished is not
trained again and what was interrupted goes on, so that further relations or seeds can be asked for
later: the table, printed and written to OUTPUT/ablation.md, is of all finished runs there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import finetune
import finetune_options
import timm
import yaml
from benchmark import count_flops
from model_options import ParseModelKwargs
from torch import empty

from rga_timm.evaluation.reports.markdown import markdown_table
from rga_timm.layers.rga import RELATIONS

SCORES = ("mAP", "mAP_trapezoid", "mINP", "rank-1")
HEADER = (
    "relation", "parameters (M)", "GFLOPs", "runs",
    "mAP", "mAP (trapezoid)", "mINP", "rank-1", "mAP, against none",
)  # fmt: skip

# Of a run's options those that may differ from one to the next, or from one machine to another.
_NOT_COMPARED = (
    "output", "seed", "data_dir", "eval_data_dir", "pretrained_path", "workers",
    "cache", "cache_on_device", "eval_batch_size",
)  # fmt: skip


def get_parser() -> argparse.ArgumentParser:
    """The options that are not finetune.py's."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # --model is finetune.py's
    )
    add = parser.add_argument
    add("--output", type=Path, required=True, metavar="DIR", help="the folder of all runs")
    add(
        "--relations",
        nargs="+",
        default=["none", "s", "c", "sc"],
        choices=RELATIONS,
        help="(default: none s c sc)",
    )
    add("--seeds", type=int, nargs="+", default=[0], help="(default: 0)")
    add(
        "--model-kwargs",
        nargs="*",
        default={},
        action=ParseModelKwargs,
        metavar="KEY=VALUE",
        help="as of finetune.py, but for relation",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Train what is not trained yet, print the table, and return what is in it."""
    parser = get_parser()
    args, recipe = parser.parse_known_args(argv)
    for option in ("--seed", "--resume", "--eval-every", "--eval-initial"):
        if any(word.partition("=")[0] == option for word in recipe):
            parser.error(f"{option} is not for an ablation, whose runs are all alike")
    if "relation" in args.model_kwargs:
        parser.error("--model-kwargs relation=… is what --relations is for")
    asked = [(relation, seed) for seed in args.seeds for relation in args.relations]
    commands = {one: command_of(args, recipe, *one) for one in asked}
    for one, command in commands.items():  # all of them, before any work
        check_run(folder_of(args.output, *one), command, parser)
    for one, command in commands.items():
        folder = folder_of(args.output, *one)
        if is_finished(folder):
            print(f"{folder} is finished.")
            continue
        begun = (folder / "args.yaml").is_file()
        finetune.main(["--resume", str(folder)] if begun else command)
        write_table(args.output)
    rows = write_table(args.output)
    print(f"\n{(args.output / 'ablation.md').read_text()}")
    return rows


def folder_of(output: Path, relation: str, seed: int) -> Path:
    """Of one run."""
    return output / f"{relation}-seed{seed}"


def is_finished(folder: Path) -> bool:
    """Whether a run has come to its end."""
    return (folder / "model" / "config.json").is_file()


def command_of(args: argparse.Namespace, recipe: list[str], relation: str, seed: int) -> list[str]:
    """The options of finetune.py for one run."""
    kwargs = {**args.model_kwargs, "relation": relation}
    command = [*recipe, "--model-kwargs", *(f"{key}={value}" for key, value in kwargs.items())]
    command += ["--seed", str(seed), "--no-eval-initial", "--no-page"]
    # A folder that holds no run, as parse_args refuses one that does.
    epochs = finetune_options.parse_args([*command, "--output", str(args.output)]).epochs
    output = str(folder_of(args.output, relation, seed))
    return [*command, "--eval-every", str(epochs), "--output", output]


def check_run(folder: Path, command: list[str], parser: argparse.ArgumentParser) -> None:
    """End with a message if a folder holds a run with another recipe."""
    file = folder / "args.yaml"
    if not file.is_file():
        return
    found = yaml.safe_load(file.read_text(encoding="utf-8"))
    options = finetune_options.parse_args([*command, "--output", str(folder.parent)]).options
    asked = yaml.safe_load(yaml.safe_dump(options))
    differing = [
        f"{name}: {found.get(name)}, not {value}"
        for name, value in asked.items()
        if name not in _NOT_COMPARED and found.get(name) != value
    ]
    if differing:
        parser.error(
            f"{folder} is a run with other options ({'; '.join(differing)}): choose another "
            "--output, or remove it"
        )


def write_table(output: Path) -> list[dict[str, Any]]:
    """Write ``ablation.md``: what the finished runs of a folder have come to; and return it."""
    rows = [
        read_row(relation, folders)
        for relation in RELATIONS
        if (folders := finished_runs(output, relation))
    ]
    # RELATIONS begins with "none".
    base = rows[0]["scores"]["mAP"] if rows and rows[0]["relation"] == "none" else {}
    table = [HEADER]
    for row in rows:
        mean_ap = row["scores"]["mAP"]
        gains = {s: mean_ap[s] - base[s] for s in mean_ap if s in base}
        row["gain"] = gains if row["relation"] != "none" else {}
        table.append(
            (
                row["relation"],
                f"{row['parameters'] / 1e6:.2f}",
                f"{row['gflops']:.3f}",
                str(len(mean_ap)),
                *(format_scores(row["scores"][name]) for name in SCORES),
                format_scores(row["gain"], "+") if row["gain"] else "",
            )
        )
    note = (
        "Scores in percent: the mean over the seeds, in brackets each. The last column compares "
        "runs of the same seed. GFLOPs of an image; a multiplication and an addition are two."
    )
    text = f"{markdown_table(table, text=1)}\n\n{note}\n"
    (output / "ablation.md").write_text(text, encoding="utf-8")
    return rows


def finished_runs(output: Path, relation: str) -> dict[int, Path]:
    """The folders of a relation's finished runs, by seed."""
    start = f"{relation}-seed"
    seeds = (p.name.removeprefix(start) for p in output.glob(f"{start}*") if is_finished(p))
    return {seed: folder_of(output, relation, seed) for seed in sorted(map(int, seeds))}


def read_row(relation: str, folders: dict[int, Path]) -> dict[str, Any]:
    """The scores of a relation's runs by seed, and what its network costs."""
    scores: dict[str, dict[int, float]] = {name: {} for name in SCORES}
    for seed, folder in folders.items():
        config = json.loads((folder / "model" / "config.json").read_text(encoding="utf-8"))
        metrics = {**config["reid"]["metrics"], "rank-1": config["reid"]["metrics"]["cmc"][0]}
        for name in SCORES:
            scores[name][seed] = metrics[name]
    source = f"local-dir:{folder / 'model'}"
    model = timm.create_model(source, num_classes=0, device="meta")
    image = empty(1, *model.pretrained_cfg["input_size"], device="meta")
    return {
        "relation": relation,
        "parameters": sum(p.numel() for p in model.parameters()),
        "gflops": count_flops(model, image) / 1e9,
        "scores": scores,
    }


def format_scores(scores: dict[int, float], sign: str = "") -> str:
    """The mean, and each."""
    mean = sum(scores.values()) / len(scores)
    each = ", ".join(f"{100 * score:{sign}.1f}" for score in scores.values())
    return f"{100 * mean:{sign}.1f}" + (f" ({each})" if len(scores) > 1 else "")


if __name__ == "__main__":
    main()
