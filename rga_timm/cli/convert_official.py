"""Convert a checkpoint of the paper's own code to a folder in the Hugging Face Hub's layout.

    rga-timm convert-official checkpoint_600.pth.tar --output MODEL
    rga-timm convert-official FILE --output MODEL --trained-on market1501 \
        --dataset market1501 --data-dir DIR                        # evaluate, and record the scores

The code is microsoft/Relation-Aware-Global-Attention-Networks. The network and the number of
identities are read from the weights. timm.create_model('local-dir:MODEL', pretrained=True) and all
commands that take a model then load it.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm

from rga_timm.cli.evaluate import read_test_sets
from rga_timm.cli.options import (
    add_data_options,
    add_loading_options,
    add_model_kwargs,
    add_run_options,
    check_output_folder,
    compute_of,
    create_parser,
    prepare_run,
    preprocessing,
)
from rga_timm.data import ReidSplits, parse_spec
from rga_timm.evaluation import (
    ModelRecord,
    Protocol,
    Report,
    evaluate_dataset,
    format_table,
    log_warnings,
)
from rga_timm.hub import save_pretrained
from rga_timm.hub.official_file import OfficialFile, read_official_file
from rga_timm.models._rga import rga_modules
from rga_timm.models.rga_resnet import RGAResNet

CODE = "https://github.com/microsoft/Relation-Aware-Global-Attention-Networks"
SIZE = (256, 128)  # of the paper


def get_parser() -> argparse.ArgumentParser:
    """Define the options."""
    parser = create_parser("convert-official", __doc__)
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="what the paper's code has saved")
    add("--output", type=Path, required=True, metavar="DIR", help="the folder to make")
    add("--force", action="store_true", help="replace the model in a folder that holds something")
    add("--model", metavar="NAME", help="an RGA ResNet (default: what the weights are of)")
    add_model_kwargs(parser, "further arguments of the model, such as reduction=4")
    add("--drop-classifier", action="store_true", help="leave the classifier of identities out")
    help_text = "data sets that it was trained on, which the file does not tell, to be recorded"
    add("--trained-on", nargs="+", default=[], metavar="NAME", help=help_text)
    test = parser.add_argument_group("test")
    add_data_options(test)
    add_loading_options(test)
    add_run_options(test)
    parser.set_defaults(dataset=[])
    return parser


def check(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Exit with a message for errors that would otherwise appear after minutes of work."""
    check_output_folder(args.output, parser)
    if args.output.is_dir() and any(args.output.iterdir()) and not args.force:
        parser.error(f"{args.output} is not empty: --force to replace the model in it")
    if args.model and not timm.is_model(args.model):
        parser.error(f"timm knows no model {args.model!r}; see timm.list_models('rga*resne*')")
    if args.data_dir and not args.dataset:
        parser.error("--data-dir is for --dataset")
    prepare_run(args, parser)


def main(argv: Sequence[str] | None = None) -> Path:
    """Convert as the command line says, and return the folder."""
    parser = get_parser()
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    check(args, parser)
    try:
        for name in args.trained_on:
            parse_spec(name)
        test_sets = read_test_sets(args)
        file = read_official_file(args.file)
        model = convert(args, file)
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))

    origin = {"code": CODE, "file": file.path.name, "sha256": file.sha256, "epoch": file.epoch}
    known = {key: value for key, value in origin.items() if value is not None}
    reid: dict[str, Any] = {"converted_from": known}
    if args.trained_on:
        # Without the people: a test on the same data set warns that it cannot check the overlap.
        reid["trained_on"] = [{"name": name} for name in args.trained_on]
    args.output.mkdir(parents=True, exist_ok=True)
    # In a temporary folder, so that the files appear only when all is done.
    with tempfile.TemporaryDirectory(dir=args.output, prefix=".convert-") as temp:
        folder = save_pretrained(model, temp, reid=reid, model_args=args.model_kwargs)
        if test_sets:
            reports = evaluate(args, folder, test_sets, reid)
            others = [report.to_dict() for report in reports[1:]]
            reid |= {**reports[0].to_dict(), "also_tested_on": others}
            save_pretrained(model, folder, reid=reid, model_args=args.model_kwargs)
            log_warnings(reports)
            print(format_table(reports))
        for part in list(folder.iterdir()):
            os.replace(part, args.output / part.name)
    print(
        f"{model.pretrained_cfg['architecture']} (relation={model.relation!r}, {model.num_classes} "
        f"identities, images of {model.img_size[0]}x{model.img_size[1]}) is in {args.output}: "
        f"timm.create_model('local-dir:{args.output}', pretrained=True)"
    )
    return args.output


def convert(args: argparse.Namespace, file: OfficialFile) -> Any:
    """Create the model with the file's weights; a ValueError if they do not fit."""
    name = args.model or file.model
    size = tuple(args.img_size or SIZE)
    options = {"img_size": size, "native_size": size, "relation": file.relation}
    try:
        options |= args.model_kwargs
        model = timm.create_model(name, num_classes=file.num_identities, **options).eval()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} cannot be made: {error}") from error
    if not isinstance(model, RGAResNet):
        raise ValueError(f"--model {name}: the paper's code has ResNets with attention alone")
    check_size(file, model)
    if differences := file.differences(model.state_dict()):
        raise ValueError("\n    ".join([f"{file.path} does not fit {name}:", *differences]))
    weights = model.convert_weights(dict(file.weights))
    model.load_state_dict(weights, strict=False)  # old files lack num_batches_tracked
    if args.drop_classifier:
        model.reset_classifier(0)
    # Instead of those of timm's ImageNet weights of this name.
    model.pretrained_cfg |= {"tag": None, "license": None, "origin_url": CODE}
    return model


def check_size(file: OfficialFile, model: RGAResNet) -> None:
    """Raise a ValueError if the file is for another image size, which the user must name."""
    grids = [rga.height * rga.width for rga, _ in rga_modules(model).values()]
    own = dict(enumerate(grids, start=1))
    theirs = file.positions
    if not theirs or any(own.get(stage) == count for stage, count in theirs.items()):
        return  # a single stage that differs is reported with the other weights
    last = theirs[max(theirs)]
    sizes = [(16 * (last // w), 16 * w) for w in range(1, last + 1) if last % w == 0]
    likely = [f"--img-size {h} {w}" for h, w in sizes if w <= h <= 4 * w]
    hint = f", perhaps {' or '.join(likely)}" if likely else ""
    raise ValueError(
        f"{file.path} is for images of another size than {model.img_size[0]}x{model.img_size[1]}: "
        f"its maps have {', '.join(map(str, theirs.values()))} positions, not "
        f"{', '.join(map(str, own.values()))}. Name the size by --img-size{hint}"
    )


def evaluate(
    args: argparse.Namespace, folder: Path, test_sets: list[list[ReidSplits]], reid: dict[str, Any]
) -> list[Report]:
    """Evaluate the model as it loads from its folder."""
    model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    protocol = Protocol.of_data_config(preprocessing(args, model), amp_dtype=args.amp_dtype)
    name = model.pretrained_cfg["architecture"]
    record = ModelRecord(name, trained_on=reid.get("trained_on", ()))
    how = compute_of(args)
    return [evaluate_dataset(model, parts, protocol, record, compute=how) for parts in test_sets]
