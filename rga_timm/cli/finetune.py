"""Fine-tune a re-identification model.

    rga-timm finetune                                                  # embedded data
    rga-timm finetune --dataset market1501 --data-dir DIR --model rga_resnet50
    rga-timm finetune --config own-folder --data-dir people            # people/anna/1.jpg, ...
    torchrun --nproc-per-node 4 -m rga_timm finetune --dataset market1501 --data-dir DIR
    rga-timm finetune --dataset market1501 cuhk03 --eval-dataset msmt17 --data-dir DIR
    rga-timm finetune --model output/RUN --dataset msmt17 --data-dir DIR  # its weights
    rga-timm finetune --resume output/RUN                              # go on

All options can stand in a YAML file too, --config: a file, or the name of a built-in recipe.
Without one the recipe is `paper`, and `pedestrians` for the embedded data.

A run's folder holds args.yaml, summary.csv and its curves.png, last.pth.tar (to resume from) and
previous.pth.tar (if that is damaged), model_best.pth.tar (by mAP) and its report.json. At the end
follow model/, the best model in the Hugging Face Hub's layout, for
timm.create_model('local-dir:RUN/model', pretrained=True), rga-timm evaluate and rga-timm publish;
and report.html, a page about it.
"""

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import timm
from timm.utils import world_info_from_env

from rga_timm.cli.options import add_config_options
from rga_timm.training import ConfigError, TrainConfig, train
from rga_timm.training.config import read_options
from rga_timm.training.resume import MAY_CHANGE, option_names, read_options_of_run

RECIPES = Path(__file__).parent / "recipes"


def get_parser() -> argparse.ArgumentParser:
    """All options, with the defaults without a recipe."""
    parser = argparse.ArgumentParser(
        prog="rga-timm finetune",
        description="Fine-tune a re-identification model.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    text = "options from a file or a built-in recipe; the command line overrides them. Recipes: "
    parser.add_argument("--config", metavar="YAML", help=f"{text}{_recipe_names()}")
    parser.add_argument(
        "--resume",
        metavar="RUN",
        help="go on with the run in this folder, with its options, of which these may change: "
        + option_names(MAY_CHANGE),
    )
    groups: dict[str, list[str]] = {}
    for field in fields(TrainConfig):
        if group := field.metadata.get("group"):
            groups.setdefault(group, []).append(field.name)
    for group, names in groups.items():
        add_config_options(parser.add_argument_group(group), *names)
    return parser


def parse_args(argv: Sequence[str] | None = None) -> TrainConfig:
    """The config: defaults, then a recipe or the run to resume, then the command line; checked."""
    parser = get_parser()
    first, _ = parser.parse_known_args(argv)
    try:
        if first.resume:
            options = read_options_of_run(Path(first.resume))
            options["output"] = first.resume  # the folder may have moved
        else:
            default = "pedestrians" if first.dataset == ["pedestrians"] else "paper"
            options = read_options(recipe_file(first.config or default))
            if not first.config and (first.pretrained_tag or is_checkpoint(first.model)):
                # A built-in recipe starts from another network than this one.
                options = options | {"pretrained": True, "model_kwargs": {}}
        recipe_kwargs = options.pop("model_kwargs", {})
        parser.set_defaults(**options)
        args = vars(parser.parse_args(argv))
        config, resume = args.pop("config"), args.pop("resume")
        if resume and args["output"] != resume:
            raise ConfigError("--resume names the run's folder: no other --output")
        # A built-in recipe's are for models of this package, not timm's own.
        if config or resume or "rga" in args["model"]:
            args["model_kwargs"] = {**recipe_kwargs, **args["model_kwargs"]}
        return TrainConfig(**args, resume=bool(resume)).resolved()
    except ConfigError as error:
        parser.error(str(error))


def recipe_file(config: str) -> Path:
    """The file that `--config` names, or the built-in recipe of that name."""
    built_in = RECIPES / f"{config.removesuffix('.yaml')}.yaml"
    is_built_in = not Path(config).is_file() and built_in.is_file()
    return built_in if is_built_in else _existing(Path(config))


def _existing(file: Path) -> Path:
    if not file.is_file():
        recipes = f"no built-in recipe of that name: {_recipe_names()}"
        raise ConfigError(f"there is no file {file}, and {recipes}")
    return file


def _recipe_names() -> str:
    return ", ".join(sorted(recipe.stem for recipe in RECIPES.glob("*.yaml")))


def is_checkpoint(model: str) -> bool:
    """Whether a model's name includes weights: a folder, a repository, or a tag."""
    return ":" in model or "." in model or not timm.is_model(model)


def run(config: TrainConfig) -> Path:
    """Train with messages, and with an exit status on failure."""
    is_main = world_info_from_env()[1] == 0
    logging.basicConfig(level=logging.INFO if is_main else logging.ERROR, format="%(message)s")
    # When a scheduler (SLURM, Kubernetes) ends the job: as Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return train(config)
    except ConfigError as error:
        raise SystemExit(str(error)) from error
    except KeyboardInterrupt:
        sys.exit(130)


def main(argv: Sequence[str] | None = None) -> Path:
    """Train as the command line says; return the run's folder."""
    return run(parse_args(argv))
