r"""Does relation attention help? One recipe, with each of several relations, and several seeds.

    rga-timm ablation --output output/ablation                           # embedded data
    rga-timm ablation --output output/ablation --seeds 0 1 --relations none sc \
        --dataset market1501 --data-dir DIR --model rga_resnet50 --pretrained-tag tv_in1k

All other options are those of finetune, the same for all runs. Runs are tested at their ends, so
that none is chosen by its score. They are in OUTPUT/RELATION-seedSEED. Finished runs are not
repeated and interrupted ones go on, so that relations or seeds can be added later. The table,
printed and written to OUTPUT/ablation.md, covers all finished runs there.
"""

import argparse
import json
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import timm
import yaml
from torch import empty

from rga_timm.cli import finetune
from rga_timm.cli.options import add_model_kwargs, create_parser, non_negative_int
from rga_timm.data.text_file import write_text
from rga_timm.evaluation.cost import count_flops
from rga_timm.evaluation.reports.tables import markdown_table
from rga_timm.layers.rga import RELATIONS
from rga_timm.training import TrainConfig
from rga_timm.training.start import read_start

SCORES = ("mAP", "mAP_trapezoid", "mINP", "rank-1")
HEADER = (
    "relation", "parameters (M)", "GFLOPs", "runs",
    "mAP", "mAP (trapezoid)", "mINP", "rank-1", "mAP, against none",
)  # fmt: skip

# Options that may differ from one run, or one machine, to another.
_NOT_COMPARED = (
    "output", "seed", "data_dir", "eval_data_dir", "workers",
    "cache", "cache_on_device", "eval_batch_size",
)  # fmt: skip


def get_parser() -> argparse.ArgumentParser:
    """The options that are not rga-timm finetune's."""
    parser = create_parser("ablation", __doc__)
    parser.allow_abbrev = False  # --model is rga-timm finetune's
    add = parser.add_argument
    add("--output", type=Path, required=True, metavar="DIR", help="the folder of all runs")
    relations, text = ["none", "s", "c", "sc"], "(default: none s c sc)"
    add("--relations", nargs="+", default=relations, choices=RELATIONS, help=text)
    add("--seeds", type=non_negative_int, nargs="+", default=[0], help="(default: 0)")
    add_model_kwargs(parser, "as of rga-timm finetune, but for relation")
    return parser


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Train the missing runs, print the table, and return its rows."""
    parser = get_parser()
    args, recipe = parser.parse_known_args(argv)
    for option in ("--seed", "--resume", "--eval-every", "--eval-initial"):
        if any(word.partition("=")[0] == option for word in recipe):
            parser.error(f"{option} is not for an ablation: all its runs are alike")
    if "relation" in args.model_kwargs:
        parser.error("--model-kwargs relation=…: use --relations instead")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        parser.error("an ablation trains in one process: not under torchrun")
    # In a folder without a run: one with a run is refused.
    base = finetune.parse_args([*recipe, "--output", str(args.output)])
    base = replace(base, model_kwargs={**base.model_kwargs, **args.model_kwargs})
    try:
        check(base, args.relations)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    for seed, relation in product(args.seeds, args.relations):
        config = config_of(base, relation, seed)
        folder = Path(str(config.output))
        if is_finished(folder):
            print(f"{folder} is finished.")
            continue
        finetune.run(replace(config, resume=(folder / "summary.csv").exists()))
        write_table(args.output)
    rows = write_table(args.output)
    print(f"\n{(args.output / 'ablation.md').read_text(encoding='utf-8')}")
    return rows


def check(base: TrainConfig, relations: Sequence[str]) -> None:
    """Check that the models can be made, and that all runs compare; or raise a ValueError."""
    for relation in relations:
        kwargs = config_of(base, relation, seed=0).model_kwargs
        try:
            timm.create_model(base.model, device="meta", **kwargs)
        except (TypeError, ValueError, RuntimeError, OSError) as error:
            raise ValueError(f"--model {base.model} with relation={relation}: {error}") from error
    if read_start(base).trained_on:
        raise ValueError(
            f"--model {base.model} is a checkpoint of people, trained with a relation already: "
            "start from ImageNet weights (--pretrained-tag, --pretrained-path) or --no-pretrained"
        )
    # Compare all runs in the table, new and old.
    for (relation, seed), folder in runs_in(Path(str(base.output))).items():
        asked = comparable(config_of(base, relation, seed).to_dict())
        found = comparable(yaml.safe_load((folder / "args.yaml").read_text(encoding="utf-8")))
        asked = {k: v for k, v in asked.items() if found.get(k) != v}
        if differing := [f"{k}: {found.get(k)}, not {v}" for k, v in asked.items()]:
            raise ValueError(
                f"{folder} is a run with other options ({'; '.join(differing)}): choose another "
                "--output, or remove it"
            )


def comparable(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that must be alike, in the types of args.yaml."""
    options = yaml.safe_load(yaml.safe_dump(options))
    if path := options.get("pretrained_path"):  # the file, wherever it lies
        options["pretrained_path"] = Path(path).name
    return {name: value for name, value in options.items() if name not in _NOT_COMPARED}


def config_of(base: TrainConfig, relation: str, seed: int) -> TrainConfig:
    """Return the config of one run."""
    return replace(
        base,
        output=str(Path(str(base.output), f"{relation}-seed{seed}")), seed=seed,
        model_kwargs={**base.model_kwargs, "relation": relation},
        eval_every=base.epochs, eval_initial=False, page=False,
    )  # fmt: skip


def runs_in(output: Path) -> dict[tuple[str, int], Path]:
    """Find the folders of finished and unfinished runs, by relation and seed."""
    found = {}
    for file in sorted(output.glob("*/args.yaml")):
        relation, separator, seed = file.parent.name.partition("-seed")
        if separator and relation in RELATIONS and re.fullmatch("0|[1-9][0-9]*", seed):
            found[relation, int(seed)] = file.parent
    return found


def is_finished(folder: Path) -> bool:
    """Whether a run has ended."""
    return (folder / "model" / "config.json").is_file()


def write_table(output: Path) -> list[dict[str, Any]]:
    """Write the scores of a folder's finished runs to ``ablation.md``; return the rows."""
    runs = {one: folder for one, folder in runs_in(output).items() if is_finished(folder)}
    rows = []
    for relation in RELATIONS:
        if folders := {seed: runs[kind, seed] for kind, seed in sorted(runs) if kind == relation}:
            rows.append(read_row(relation, folders))
    # RELATIONS begins with "none".
    base = rows[0]["scores"]["mAP"] if rows and rows[0]["relation"] == "none" else {}
    table = [HEADER]
    for row in rows:
        mean_ap = row["scores"]["mAP"]
        gains = {s: mean_ap[s] - base[s] for s in mean_ap if s in base}
        row["gain"] = gains if row["relation"] != "none" else {}
        table.append((
            row["relation"], f"{row['parameters'] / 1e6:.2f}", f"{row['gflops']:.3f}",
            str(len(mean_ap)), *(format_scores(row["scores"][name]) for name in SCORES),
            format_scores(row["gain"], "+") if row["gain"] else "",
        ))  # fmt: skip
    note = (
        "Scores in percent: the mean over the seeds, in brackets each. The last column compares "
        "runs of the same seed. Parameters and GFLOPs (of an image, a multiplication and an "
        "addition being two) without classifier."
    )
    text = f"{markdown_table(table, text=1)}\n\n{note}\n"
    write_text(output / "ablation.md", text)
    return rows


def read_row(relation: str, folders: dict[int, Path]) -> dict[str, Any]:
    """Read the scores of a relation's runs by seed, and the costs of its network."""
    scores: dict[str, dict[int, float]] = {name: {} for name in SCORES}
    for seed, folder in folders.items():
        config = json.loads((folder / "model" / "config.json").read_text(encoding="utf-8"))
        metrics = {**config["reid"]["metrics"], "rank-1": config["reid"]["metrics"]["cmc"][0]}
        for name in SCORES:
            scores[name][seed] = metrics[name]
    source = f"local-dir:{next(iter(folders.values())) / 'model'}"  # all are of one size
    model = timm.create_model(source, num_classes=0, device="meta")
    image = empty(1, *model.pretrained_cfg["input_size"], device="meta")
    return {
        "relation": relation,
        "parameters": sum(p.numel() for p in model.parameters()),
        "gflops": count_flops(model, image) / 1e9,
        "scores": scores,
    }


def format_scores(scores: dict[int, float], sign: str = "") -> str:
    """The mean, and in brackets each."""
    mean = sum(scores.values()) / len(scores)
    each = ", ".join(f"{100 * score:{sign}.1f}" for score in scores.values())
    return f"{100 * mean:{sign}.1f}" + (f" ({each})" if len(scores) > 1 else "")
