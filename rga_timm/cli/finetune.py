"""Fine-tune a re-identification model.

    rga-timm finetune                                                  # embedded data
    rga-timm finetune --dataset market1501 --data-dir DIR --model rga_resnet50
    torchrun --nproc-per-node 4 -m rga_timm finetune --dataset market1501 --data-dir DIR
    rga-timm finetune --dataset market1501 cuhk03 --eval-dataset msmt17 --data-dir DIR
    rga-timm finetune --model output/RUN --dataset msmt17 --data-dir DIR  # its weights
    rga-timm finetune --resume output/RUN                              # go on

All options can stand in a YAML file too, --config: a file, or the name of a built-in recipe.
Without one the recipe is `paper`, and `pedestrians` for the embedded data.

A run's folder holds args.yaml, summary.csv and its curves.png, last.pth.tar and
recovery-*.pth.tar (to resume from), model_best.pth.tar (by mAP), and at the end model/: the best
model in the Hugging Face Hub's layout, for timm.create_model('local-dir:RUN/model',
pretrained=True), rga-timm evaluate and rga-timm publish; and report.html, a page on what it finds.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

import timm
import torch
import yaml

from rga_timm.cli.options import add_data_options, add_model_kwargs
from rga_timm.data import partition_specs
from rga_timm.data.specs import FORM, pair_with_folders
from rga_timm.evaluation.embedding.embed import Feature
from rga_timm.hub.model_source import MODEL_HELP, check_described, read_model_folder, resolve_model
from rga_timm.training.loop import train

RECIPES = Path(__file__).parent / "recipes"


def get_parser() -> argparse.ArgumentParser:
    """All options, with the defaults that hold where no recipe says otherwise."""
    parser = argparse.ArgumentParser(
        prog="rga-timm finetune",
        description="Fine-tune a re-identification model.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,  # of a wrong word nothing is guessed
    )
    add = parser.add_argument
    recipes = ", ".join(sorted(path.stem for path in RECIPES.glob("*.yaml")))
    add(
        "--config",
        metavar="YAML",
        help="options from a file, or a built-in recipe; the command line overrides them. Built in "
        f"are {recipes}",
    )
    add("--resume", metavar="RUN", help="go on with the run in this folder, with its options")
    add("--output", metavar="DIR", help="the run's folder (output/DATE-MODEL-DATASET if not given)")
    add("--seed", type=int, default=0, help="of weights, batches and augmentation")

    data = parser.add_argument_group("data")
    add_data_options(data)
    add = data.add_argument
    add(
        "--eval-dataset",
        nargs="+",
        metavar=FORM,
        help="what to test on, the best model being that on the first; what is trained on if not "
        "given",
    )
    add(
        "--eval-data-dir",
        nargs="+",
        metavar="DIR",
        help="where they lie; where the training data lies if not given",
    )
    add(
        "--img-size",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        help="pixels; the model's own if not given",
    )
    add("--num-identities", type=int, default=16, help="P, identities a batch, over all processes")
    add("--num-instances", type=int, default=4, help="K, images of each")
    add(
        "--epoch-images",
        default="identity",
        choices=("identity", "all"),
        help="an epoch is K images of each identity, or every image",
    )
    add("--enlarge-prob", type=float, default=0.5, help="enlarge by 1.125 and crop at random")
    add("--flip-prob", type=float, default=0.5, help="mirror")
    add("--erase-prob", type=float, default=0.5, help="erase a rectangle at random")
    add("--workers", type=int, default=4, help="loader processes, for each training process")
    add(
        "--cache",
        type=float,
        metavar="GB",
        help="hold the training images in so much shared memory, decoded and resized, and augment "
        "batches on the device",
    )
    add(
        "--cache-on-device",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="hold them in the memory of each device",
    )

    model = parser.add_argument_group("model")
    add = model.add_argument
    add(
        "--model",
        default="rga_resnet50",
        help=f"{MODEL_HELP}; of a folder or repository its weights are what is started from",
    )
    add_model_kwargs(
        model,
        "further arguments of the model, such as relation=none; added to those of the recipe",
    )
    add(
        "--pretrained",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="start from the model's weights",
    )
    add(
        "--pretrained-tag", metavar="TAG", help="start from the weights that timm knows by this tag"
    )
    add("--pretrained-path", metavar="FILE", help="start from these weights instead")
    add("--drop-rate", type=float, default=0.0, help="dropout before the classifier")

    add = parser.add_argument_group("loss").add_argument
    add("--smoothing", type=float, default=0.1, help="label smoothing of the cross-entropy")
    add("--margin", type=float, default=0.3, help="of the triplet loss")
    add("--triplet-weight", type=float, default=1.0, help="0 leaves the triplet loss out")

    add = parser.add_argument_group("optimisation").add_argument
    add("--epochs", type=int, default=120)
    add("--opt", default="adam", help="timm's name of the optimizer")
    add("--lr", type=float, default=8e-4)
    add("--weight-decay", type=float, default=5e-4)
    add("--momentum", type=float, default=0.9)
    add(
        "--decay-norm-and-bias",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="weight decay of norms and biases too",
    )
    add(
        "--layer-decay",
        type=float,
        help="factor of the learning rate from layer to layer, towards the input",
    )
    add("--sched", default="cosine", help="timm's name of the schedule")
    add(
        "--sched-on-updates",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="change the learning rate with every update, not every epoch",
    )
    add("--warmup-epochs", type=int, default=0)
    add("--warmup-lr", type=float, default=1e-5)
    add("--min-lr", type=float, default=0.0)
    add(
        "--decay-milestones",
        type=int,
        nargs="*",
        default=[],
        help="epochs, of the multistep schedule",
    )
    add("--decay-rate", type=float, default=0.1, help="at the milestones")
    add("--clip-grad", type=float, help="largest norm of the gradient")
    add("--grad-accum-steps", type=int, default=1, help="batches an update")
    add("--ema-decay", type=float, default=0.0, help="of the weights' moving average; 0 for none")
    add("--freeze-backbone-epochs", type=int, default=0, help="train only what is new for so long")
    add(
        "--freeze-bn",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="batch norms keep their statistics",
    )
    add(
        "--sync-bn",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="batch norms over all GPUs",
    )

    add = parser.add_argument_group("run").add_argument
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--amp-dtype", choices=("bfloat16", "float16"), help="mixed precision; full if not given")
    add(
        "--channels-last",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="memory format",
    )
    add("--compile", action=argparse.BooleanOptionalAction, default=False, help="by torch.compile")
    add("--eval-every", type=int, default=10, metavar="EPOCHS")
    add(
        "--feature",
        default="embedding",
        choices=get_args(Feature),
        help="to test by: after (embedding) or before (pooled) the BN neck",
    )
    add(
        "--eval-initial",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="evaluate before training, too",
    )
    add("--eval-batch-size", type=int, default=128)
    add(
        "--page",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="at the end write report.html, which shows what the best model finds",
    )
    return parser


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, checked; ``args.options`` holds them all as plain data, to be saved."""
    parser = get_parser()
    first, _ = parser.parse_known_args(argv)
    if first.resume:
        config = Path(first.resume) / "args.yaml"
    else:
        embedded = first.dataset == ["pedestrians"]
        config = recipe_file(first.config or ("pedestrians" if embedded else "paper"))
    options = read_config(config, parser)
    if not (first.resume or first.config) and (first.pretrained_tag or is_checkpoint(first.model)):
        # A built-in recipe begins with a network of its own making; this one is trained already.
        options = {k: v for k, v in options.items() if k not in ("pretrained", "model_kwargs")}
    parser.set_defaults(**options)
    if first.resume:  # where the run lies now, not where it was begun
        parser.set_defaults(output=first.resume)
    args = parser.parse_args(argv)
    for name in ("dataset", "data_dir", "eval_dataset", "eval_data_dir"):
        if isinstance(value := getattr(args, name), str):  # files may name one without a list
            setattr(args, name, [value])
    check(args, parser)
    args.model_kwargs = merge_model_kwargs(args, options.get("model_kwargs") or {})
    if not args.output:
        source, _, name = args.model.rpartition(":")
        name = read_model_folder(name)["architecture"] if source == "local-dir" else name
        name = name.replace("/", "-")
        data = re.sub(r"[^\w.+]+", "-", "+".join(args.dataset))
        args.output = f"output/{datetime.now():%Y%m%d-%H%M%S}-{name}-{data}"
    left_out = ("config", "resume", "pretrained_tag")  # the tag stands in the model's name
    args.options = {k: v for k, v in vars(args).items() if k not in left_out}
    return args


def recipe_file(config: str) -> Path:
    """The file that `--config` names, or the built-in recipe of that name."""
    built_in = RECIPES / f"{config.removesuffix('.yaml')}.yaml"
    return built_in if not Path(config).is_file() and built_in.is_file() else Path(config)


def is_checkpoint(model: str) -> bool:
    """Whether a model's name stands for weights: a folder, a repository, or a tag."""
    return ":" in model or "." in model or not timm.is_model(model)


def merge_model_kwargs(args: argparse.Namespace, recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe's model arguments, and the command line's over them.

    Those of a built-in recipe are for models of this package: timm's own do without.
    """
    given = {} if args.model_kwargs == recipe else args.model_kwargs
    if not (args.config or args.resume or "rga" in args.model):
        return given
    return {**recipe, **given}


def read_config(path: Path, parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Options from a YAML file; unknown ones end the program."""
    if not path.is_file():
        recipes = ", ".join(sorted(recipe.stem for recipe in RECIPES.glob("*.yaml")))
        parser.error(f"there is no file {path}, and no built-in recipe of that name: {recipes}")
    try:
        config = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        parser.error(f"{path} is not YAML: {error}")
    known = {action.dest for action in parser._actions}
    if unknown := set(config) - known:
        parser.error(f"{path} has unknown options: {', '.join(sorted(unknown))}")
    for action in parser._actions:  # argparse checks what it parses, but not its defaults
        if action.choices and config.get(action.dest) not in (None, *action.choices):
            parser.error(f"{path}: {action.dest} is one of {', '.join(action.choices)}")
    return config


def check(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """End with a message for what would otherwise fail after minutes of work."""
    if args.sched.startswith("plateau"):
        parser.error("--sched plateau needs a score every epoch, which is not computed here")
    check_model(args, parser)
    check_data(args, parser)
    for name in ("epochs", "grad_accum_steps", "eval_every", "eval_batch_size"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    if args.seed < 0 or args.workers < 0:
        parser.error("--seed and --workers must not be negative")
    if args.triplet_weight and args.num_instances < 2:
        parser.error("the triplet loss needs --num-instances of at least 2, or --triplet-weight 0")
    if args.output and not args.resume and (Path(args.output) / "summary.csv").exists():
        parser.error(
            f"{args.output} holds a run already: go on with it by --resume {args.output}, or "
            "choose another --output"
        )
    if args.sync_bn and args.device == "cpu":
        parser.error("--sync-bn needs GPUs: torch synchronises batch norms on them alone")
    if args.freeze_bn and args.sync_bn:
        parser.error("--freeze-bn leaves nothing for --sync-bn to synchronise")


def check_model(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """End with a message unless there is such a model; make its name what timm understands."""
    if args.pretrained_path and not Path(args.pretrained_path).is_file():
        parser.error(f"there is no file {args.pretrained_path}")
    try:
        args.model = resolve_model(args.model)
        source, name = timm.models.parse_model_name(args.model)
        if source == "local-dir":
            read_model_folder(name)
    except ValueError as error:
        parser.error(str(error))
    if args.pretrained_tag:
        others = {
            f"--model {args.model}, which brings its weights": source is not None,
            f"the tag in --model {args.model}": source is None and "." in name,
            "--no-pretrained": not args.pretrained,
            "--pretrained-path": bool(args.pretrained_path),
        }
        if given := [other for other, is_given in others.items() if is_given]:
            parser.error(f"--pretrained-tag {args.pretrained_tag} does not go with {given[0]}")
        args.model = name = f"{name}.{args.pretrained_tag}"
    if source is not None and args.pretrained_path:
        parser.error(f"--model {args.model} brings its weights: no --pretrained-path")
    if source is not None:
        try:
            check_described(args.model)
        except (ValueError, OSError) as error:
            parser.error(str(error))
        return
    if not timm.is_model(name):
        parser.error(
            f"timm knows no model {name.partition('.')[0]!r}; timm.list_models('*rga*') lists ours"
        )
    architecture, _, tag = name.partition(".")
    tags = [known.partition(".")[2] for known in timm.models.get_arch_pretrained_cfgs(architecture)]
    if tag and tag not in tags:
        parser.error(f"{architecture} has no weights {tag!r}; it has {', '.join(tags)}")
    cfg = timm.models.get_pretrained_cfg(name, allow_unregistered=True)
    if args.pretrained and not args.pretrained_path and not (cfg and cfg.has_weights):
        parser.error(
            f"{name} has no weights of its own: --pretrained-path FILE to start from a file, or "
            "--no-pretrained to train from scratch"
        )


def check_data(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """End with a message unless these can be data sets."""
    try:
        pair_with_folders(args.dataset, args.data_dir or [])
        if args.eval_dataset:
            pair_with_folders(args.eval_dataset, args.eval_data_dir or [], option="--eval-data-dir")
    except ValueError as error:
        parser.error(str(error))
    if any(len(partition_specs(spec)) > 1 for spec in args.dataset):
        parser.error("--dataset: one model is trained on one partition, such as split=0")
    if args.eval_data_dir and not args.eval_dataset:
        parser.error("--eval-data-dir is for --eval-dataset")
    if args.cache is not None and args.cache <= 0:
        parser.error("--cache must be positive: so many GB")
    if args.cache_on_device and args.cache is None:
        parser.error("--cache-on-device needs --cache GB")


def main(argv: Sequence[str] | None = None) -> Path:
    """Train as the command line says; the run's folder is returned for other programs."""
    return train(parse_args(argv))
