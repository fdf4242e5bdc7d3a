"""Export a re-identification model to ONNX, and check the file against the model.

    rga-timm export local-dir:output/RUN/model reid.onnx
    rga-timm export rga_resnet50 reid.onnx --checkpoint model.safetensors

Any timm model will do. The graph takes `images`, float32 (batch, 3, H, W), which are already
preprocessed, and gives `embedding`, float32 (batch, C), L2-normalised: the dot product of two is
their cosine similarity. The batch may be of any size. What the preprocessing is stands in the
file's metadata, and so does where the model comes from. The file appears under its name only once
onnxruntime has computed from it what the model computes.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch

import rga_timm
from rga_timm.cli import options
from rga_timm.data import create_dataset, create_eval_loader, eval_transform
from rga_timm.data.datasets.pedestrians import VERSION, draw
from rga_timm.evaluation import Embedder

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
MIN_OPSET = 18
BATCH_SIZES = (1, 2, 5)  # that the file is tried with


def get_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = options.create_parser("export", __doc__)
    options.add_model_options(parser)
    add = parser.add_argument
    add("output", type=Path, metavar="OUTPUT.onnx", help="the file to write")
    options.add_img_size_option(parser)
    options.add_model_kwargs(
        parser, "further arguments that the model is made with, e.g. relation=s"
    )
    options.add_feature_option(parser)
    add("--opset", type=options.positive_int, help="ONNX opset (default: the exporter's)")
    add(
        "--tolerance",
        type=float,
        default=1e-4,
        metavar="X",
        help="greatest difference allowed between a component of the file's embedding and of the "
        "model's (default: %(default)s)",
    )
    return parser


def check(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """End with a message for what would otherwise fail after minutes of work."""
    if missing := missing_packages():
        parser.error(f"{', '.join(missing)} not installed: pip install 'rga-timm[export]'")
    options.check_model(args, parser)
    if args.output.suffix != ".onnx":
        parser.error(f"OUTPUT must end in .onnx, not {args.output.name}")
    options.check_output_file(args.output, parser)
    if args.opset and args.opset < MIN_OPSET:
        parser.error(f"--opset must be at least {MIN_OPSET}: the exporter makes none below")
    if not args.tolerance > 0:
        parser.error("--tolerance must be above 0")


def missing_packages() -> list[str]:
    """What the export needs and is not installed."""
    return [name for name in PACKAGES if find_spec(name) is None]


def main(argv: Sequence[str] | None = None) -> Path:
    """Export as the command line says, and return the file's path."""
    parser = get_parser()
    args = parser.parse_args(argv)
    check(args, parser)

    try:
        model: Any = options.create_model(args, **args.model_kwargs)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    config = options.preprocessing(args, model)
    channels = args.model_kwargs.get("in_chans", model.pretrained_cfg["input_size"][0])
    if channels != 3:
        parser.error(f"the model takes images of {channels} channels, not RGB images")
    embedder = Embedder(model, args.feature)

    # A sibling, so that the rename at the end stays on one file system, where it is atomic.
    unchecked = args.output.with_name(f".{args.output.stem}-{uuid.uuid4().hex}.onnx")
    try:
        export(embedder, config["input_size"], unchecked, args.opset, describe(args, model, config))
        difference, similarity = compare(unchecked, embedder, check_images(config))
        result = (
            f"largest difference of a component {difference:.1e}, "
            f"smallest cosine similarity {similarity:.7f}"
        )
        # Turned round, so that NaN fails.
        if not (difference <= args.tolerance and similarity >= 1 - args.tolerance):
            raise SystemExit(
                f"onnxruntime and the model disagree: {result}; --tolerance is {args.tolerance}. "
                f"{args.output} was not written."
            )
        unchecked.replace(args.output)
    finally:
        unchecked.unlink(missing_ok=True)
    print(f"{args.output}: {args.output.stat().st_size / 2**20:.1f} MiB; {result}")
    return args.output


def export(
    embedder: Embedder,
    input_size: tuple[int, int, int],
    path: Path,
    opset: int | None = None,
    metadata: dict[str, str] | None = None,
) -> None:
    """Write one ONNX file, of any batch size: `images` to `embedding`."""
    for name in ("onnxscript", "onnx_ir", "torch.onnx"):
        logging.getLogger(name).setLevel(logging.ERROR)  # they tell every node left as it is
    images = torch.zeros(2, *input_size)  # not 1, which would be taken for a constant
    shapes = {"images": {0: torch.export.Dim("batch", min=1)}}
    with torch.no_grad():
        program = torch.export.export(embedder, (images,), dynamic_shapes=shapes, strict=False)
        if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 7):
            # Its exporter cannot translate a batch norm with the onnxscript of today.
            table = torch.export.default_decompositions()
            table[torch.ops.aten._native_batch_norm_legit_no_training.default] = _batch_norm
            program = program.run_decompositions(table)
        onnx_program = torch.onnx.export(
            program,
            input_names=["images"],
            output_names=["embedding"],
            dynamic_shapes=shapes,
            opset_version=opset,
            dynamo=True,
            optimize=True,
            verbose=False,
        )
    if onnx_program is None:  # of other exporters, which write the file themselves
        raise RuntimeError("torch.onnx.export gave no program")
    model = onnx_program.model
    made = model.opset_imports[""]
    if opset and made != opset:  # old exporters go on with the one that they have
        raise SystemExit(
            f"the exporter of torch {torch.__version__} made opset {made}, not {opset}"
        )
    for node in model.graph:
        node.metadata_props.clear()  # stack traces, with the paths of this machine
    model.metadata_props.update(metadata or {})
    onnx_program.save(path, external_data=False)


def _batch_norm(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    mean: torch.Tensor,
    var: torch.Tensor,
    momentum: float,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Batch norm in eval mode, of simpler operators; the statistics returned are not used."""
    shape = [1, -1] + [1] * (x.ndim - 2)
    scale = (var + eps).rsqrt() if weight is None else weight * (var + eps).rsqrt()
    shift = -mean * scale if bias is None else bias - mean * scale
    return x * scale.view(shape) + shift.view(shape), x.new_empty(0), x.new_empty(0)


def describe(args: argparse.Namespace, model: Any, config: dict[str, Any]) -> dict[str, str]:
    """The file's metadata: what a deployment must know. Lists and truth values are JSON."""
    cfg = model.pretrained_cfg
    has_neck = hasattr(model, "forward_neck")
    weights = options.checkpoint_name(args)
    if weights is None:  # the model's own: the folder or repository named, or timm's for that name
        named = timm.models.parse_model_name(args.model)[0] is not None
        weights = args.model if named else cfg.get("hf_hub_id") or cfg.get("url") or cfg.get("file")
    where = {"embedding": "after", "pooled": "before"}[args.feature]
    return {
        "model": args.model,
        "architecture": cfg.get("architecture") or args.model,
        "model_kwargs": json.dumps(args.model_kwargs),
        "weights": str(weights),
        "input_size": json.dumps(list(config["input_size"])),  # channels, height, width
        "color_order": "RGB",
        "resize": "squash",  # to that height and width, whatever the aspect ratio; nothing cropped
        "interpolation": config["interpolation"],
        "antialias": "true",
        "value_range": json.dumps([0, 1]),  # before mean and std
        "mean": json.dumps(list(config["mean"])),
        "std": json.dumps(list(config["std"])),
        "feature": args.feature if has_neck else "pre_logits",
        "feature_description": f"{where} the BN neck" if has_neck else "what the classifier takes",
        "normalized": "true",
        "similarity": "dot product",
        "rga_timm_version": rga_timm.__version__,
        "timm_version": timm.__version__,
        "torch_version": torch.__version__,
    }


def check_images(config: dict[str, Any]) -> Iterator[torch.Tensor]:
    """What the file is tried with: noise, and drawn pedestrians as the model would see them."""
    noise = torch.randn(
        max(BATCH_SIZES), *config["input_size"], generator=torch.Generator().manual_seed(0)
    )
    size, mean, std = config["input_size"][1:], config["mean"], config["std"]
    transform = eval_transform(size, mean, std, config["interpolation"])
    with tempfile.TemporaryDirectory() as folder:
        root = draw(
            Path(folder) / f"pedestrians-{VERSION}",
            train_ids=1, train_images=1, test_ids=2, gallery_images=1, distractors=0, junk=0,
            progress=False,
        )  # fmt: skip
        people = create_dataset("pedestrians", root).query
        loader = create_eval_loader(people, transform, max(BATCH_SIZES), num_workers=0)
        drawn, _ = next(iter(loader))
    for images in (noise, drawn):
        for batch_size in BATCH_SIZES:
            yield images[:batch_size]


def compare(path: Path, embedder: Embedder, batches: Iterator[torch.Tensor]) -> tuple[float, float]:
    """Largest difference and smallest cosine similarity of the file's embeddings to the model's."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    differences, similarities = [], []
    for images in batches:
        with torch.inference_mode():
            expected = embedder(images).numpy()
        (embedding,) = session.run(["embedding"], {"images": images.numpy()})
        if embedding.shape != expected.shape:
            raise SystemExit(
                f"onnxruntime gives embeddings of shape {embedding.shape}, "
                f"the model of {expected.shape}: no file was written"
            )
        differences.append(np.abs(embedding - expected).max())
        similarities.append((embedding * expected).sum(axis=1).min())
    return float(np.max(differences)), float(np.min(similarities))
