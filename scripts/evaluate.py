"""Evaluate a model on a re-identification data set.

    python scripts/evaluate.py local-dir:output/RUN/model --dataset market1501 --data-dir DIR
    python scripts/evaluate.py resnet50 --img-size 256 128 --feature pooled --flip --rerank
    python scripts/evaluate.py MODEL --dataset msmt17 viper:split=all --data-dir DIR DIR
    python scripts/evaluate.py --embeddings FOLDER                 # that embed.py has written

Any timm model will do. Images are resized and normalised as the model's own configuration says.
Several data sets make one table, and split=all is the mean over a data set's partitions. Prints the
scores in percent; --output keeps them, with everything that they depend on, as JSON.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import timm
import torch
from data_options import (
    add_data_options,
    leave_out_bad_images,
    pair_with_folders,
    read_partitions,
)
from timm.data import resolve_data_config

import rga_timm  # noqa: F401 - registers the models with timm
from rga_timm.data import ReidSplits
from rga_timm.evaluation import (
    METRICS,
    Protocol,
    Report,
    Reranking,
    check_testable,
    evaluate_dataset,
    evaluate_embeddings,
    format_table,
    save_reports,
)
from rga_timm.evaluation.embed import Feature
from rga_timm.evaluation.stored import check_testable_stamp
from rga_timm.hub import takes_img_size


def get_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model_options(parser, optional=True)
    parser.add_argument(
        "--embeddings",
        type=Path,
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="evaluate stored embeddings of a data set in the place of MODEL; of several folders "
        "the results stand side by side",
    )

    data = parser.add_argument_group("data")
    add_data_options(data)
    add_loading_options(data)

    test = parser.add_argument_group("test")
    add_feature_options(test)
    test.add_argument(
        "--metric", default="cosine", choices=METRICS, help="distance (default: %(default)s)"
    )
    test.add_argument("--rerank", action="store_true", help="k-reciprocal re-ranking")
    test.add_argument("--k1", type=int, default=20, help="of the re-ranking (default: 20)")
    test.add_argument("--k2", type=int, default=6, help="of the re-ranking (default: 6)")
    test.add_argument(
        "--lambda-value",
        type=float,
        default=0.3,
        metavar="X",
        help="weight of the original distance in the re-ranking (default: 0.3)",
    )

    run = parser.add_argument_group("run")
    add_run_options(run)
    run.add_argument("--output", type=Path, metavar="JSON", help="write the report here")
    return parser


def add_model_options(
    parser: argparse.ArgumentParser, name: str = "model", *, optional: bool = False
) -> None:
    """Which model, with which weights; `name` may also be `--model`."""
    parser.add_argument(
        name,
        metavar="MODEL",
        nargs="?" if optional else None,
        help="a timm model name, or a model's folder as hf-hub:OWNER/NAME or local-dir:PATH",
    )
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="weights to load instead of the model's own: .safetensors, or a .pth of tensors",
    )
    weights.add_argument("--no-pretrained", action="store_true", help="take the untrained network")


def add_loading_options(parser: argparse._ActionsContainer) -> None:
    """How images are read."""
    parser.add_argument(
        "--img-size",
        type=positive_int,
        nargs=2,
        metavar=("H", "W"),
        help="input size in pixels (default: the model's)",
    )
    parser.add_argument(
        "--batch-size", type=positive_int, default=128, help="(default: %(default)s)"
    )
    parser.add_argument("--workers", type=int, default=4, help="loader processes (default: 4)")


def add_feature_options(parser: argparse._ActionsContainer) -> None:
    """What is taken from the model."""
    parser.add_argument(
        "--feature",
        default="embedding",
        choices=get_args(Feature),
        help="after (embedding) or before (pooled) the BN neck; models without a neck have but one "
        "feature (default: %(default)s)",
    )
    parser.add_argument(
        "--flip", action="store_true", help="average with the mirror image's feature"
    )
    parser.add_argument(
        "--scales",
        type=positive_float,
        nargs="+",
        default=[1.0],
        metavar="X",
        help="average the normalised features of the images resized by each factor (default: 1)",
    )


def add_run_options(parser: argparse._ActionsContainer) -> None:
    """What the model runs on."""
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--amp-dtype",
        choices=("float16", "bfloat16"),
        help="mixed precision (default: full precision)",
    )
    parser.add_argument("--channels-last", action="store_true", help="often faster on GPUs")


def positive_float(text: str) -> float:
    """An argparse type."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def positive_int(text: str) -> int:
    """An argparse type."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def check(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """End with a message for what would otherwise fail after minutes of work."""
    if args.embeddings:
        check_embeddings(args, parser)
    elif args.model is None:
        parser.error("which MODEL? Or --embeddings FOLDER, for stored embeddings")
    else:
        check_model(args, parser)
    if args.output and not args.output.parent.is_dir():
        parser.error(f"there is no folder {args.output.parent} to write {args.output.name} to")
    check_run(args, parser)


def check_embeddings(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """End with a message if an option is given that stored embeddings have decided on."""
    decided = (
        "model", "checkpoint", "no_pretrained", "dataset", "data_dir", "skip_bad_images",
        "img_size", "feature", "flip", "scales", "amp_dtype",
    )  # fmt: skip
    if given := [name for name in decided if getattr(args, name) != parser.get_default(name)]:
        names = ["MODEL" if name == "model" else f"--{name.replace('_', '-')}" for name in given]
        parser.error(f"--embeddings does not go with {', '.join(names)}: their stamp says it all")


def check_run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """End with a message unless there is such a device."""
    if args.workers < 0:
        parser.error("--workers must not be negative")
    try:
        torch.empty(0, device=args.device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without it
        parser.error(f"--device {args.device}: {error}")


def check_model(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """End with a message unless there is such a model, with such weights."""
    try:
        source, name = timm.models.parse_model_name(args.model)
    except ValueError as error:
        parser.error(str(error))
    if source is None:
        if not timm.is_model(name):
            parser.error(f"timm knows no model {name!r}; timm.list_models('*PATTERN*') lists them")
        try:
            cfg = timm.models.get_pretrained_cfg(name, allow_unregistered=True)
        except RuntimeError as error:  # an unknown tag
            parser.error(str(error))
        own_weights = not (args.no_pretrained or args.checkpoint)
        if own_weights and not (cfg and cfg.has_weights):
            parser.error(f"{name} has no weights of its own: --checkpoint or --no-pretrained")
    elif args.checkpoint or args.no_pretrained:
        parser.error(f"{args.model} brings its weights: no --checkpoint, no --no-pretrained")
    if args.checkpoint and not args.checkpoint.is_file():
        parser.error(f"there is no file {args.checkpoint}")


def create_model(args: argparse.Namespace, **model_kwargs: Any) -> torch.nn.Module:
    """The model with its weights, at the input size asked for; made with these arguments."""
    options: dict[str, Any] = {}
    if args.checkpoint:
        num_classes = classifier_width(args.model, args.checkpoint)
        # As weights of the model's own they pass through its conversions (official files, other
        # input sizes). The classifier as wide as the file's makes timm load strictly.
        overlay = {"file": str(args.checkpoint), "num_classes": num_classes, "label_offset": 0}
        options = {"num_classes": num_classes, "pretrained_cfg_overlay": overlay}
    elif args.no_pretrained:
        options = {"num_classes": 0}

    if args.img_size and takes_img_size(args.model):
        options["img_size"] = tuple(args.img_size)
    options.update(model_kwargs)
    torch.manual_seed(0)  # an untrained network is the same every time
    return timm.create_model(args.model, pretrained=not args.no_pretrained, **options)


def preprocessing(args: argparse.Namespace, model: torch.nn.Module) -> dict[str, Any]:
    """The model's data config, as timm resolves it, at the input size asked for."""
    wanted = {"input_size": (3, *args.img_size)} if args.img_size else {}
    return resolve_data_config(wanted, model=model)


def classifier_width(model: str, checkpoint: Path) -> int:
    """The number of classes that a checkpoint was trained on; 0 if it has no classifier."""
    weights = timm.models.load_state_dict(str(checkpoint), weights_only=True)
    cfg = timm.models.get_pretrained_cfg(model, allow_unregistered=True)
    names = (
        cfg.classifier if cfg and isinstance(cfg.classifier, tuple) else (cfg and cfg.classifier,)
    )
    for name in (*names, "cls"):  # cls: the paper's own code
        if f"{name}.weight" in weights:
            return len(weights[f"{name}.weight"])
    return 0


def main(argv: Sequence[str] | None = None) -> list[Report]:
    """Evaluate as the command line says; the reports are returned for other programs."""
    parser = get_parser()
    args = parser.parse_args(argv)
    check(args, parser)
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    if args.embeddings:
        return finish(evaluate_stored(args, parser), args.output)

    # Data
    try:
        rerank = Reranking(args.k1, args.k2, args.lambda_value) if args.rerank else None
        test_sets = [
            read_test_set(args, spec, folder, rerank)
            for spec, folder in pair_with_folders(args.dataset, args.data_dir)
        ]
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))

    # Model, and the preprocessing that it was trained with
    model = create_model(args)
    config = preprocessing(args, model)
    protocol = Protocol(
        img_size=config["input_size"][1:],
        interpolation=config["interpolation"],
        mean=config["mean"],
        std=config["std"],
        feature=args.feature,
        metric=args.metric,
        flip=args.flip,
        scales=tuple(args.scales),
        rerank=rerank,
        amp_dtype=args.amp_dtype,
    )

    # Scores
    reports = [
        evaluate_dataset(
            model,
            partitions,
            protocol,
            name=args.model,
            checkpoint=checkpoint_name(args),
            batch_size=args.batch_size,
            num_workers=args.workers,
            device=args.device,
            channels_last=args.channels_last,
        )
        for partitions in test_sets
    ]
    return finish(reports, args.output)


def evaluate_stored(args: argparse.Namespace, parser: argparse.ArgumentParser) -> list[Report]:
    """The reports of stored embeddings."""
    try:
        rerank = Reranking(args.k1, args.k2, args.lambda_value) if args.rerank else None
        for folder in args.embeddings:
            check_testable_stamp(folder)
        return [
            evaluate_embeddings(folder, metric=args.metric, rerank=rerank, device=args.device)
            for folder in args.embeddings
        ]
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))


def finish(reports: list[Report], output: Path | None) -> list[Report]:
    """Show the reports, and keep them."""
    print(format_table(reports))
    if output:
        save_reports(reports, output)
    return reports


def read_test_set(
    args: argparse.Namespace, spec: str, folder: str | Path | None, rerank: Reranking | None
) -> list[ReidSplits]:
    """A data set that can be tested on, as asked for; its partitions, or it alone."""
    partitions = read_partitions(spec, folder)
    if args.skip_bad_images:
        partitions = [leave_out_bad_images(part, args.workers)[0] for part in partitions]
    check_testable(partitions)
    for part in partitions:
        if rerank:
            rerank.check_fits(len(part.query) + len(part.gallery))
    return partitions


def checkpoint_name(args: argparse.Namespace) -> str | None:
    """What the report says about the weights."""
    if args.no_pretrained:
        return "untrained"
    return str(args.checkpoint) if args.checkpoint else None


if __name__ == "__main__":
    main()
