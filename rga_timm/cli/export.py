"""Export a re-identification model to ONNX, and check the file against the model.

    rga-timm export local-dir:output/RUN/model reid.onnx
    rga-timm export rga_resnet50 reid.onnx --checkpoint model.safetensors

Any timm model works. The graph takes preprocessed `images`, float32 (batch, 3, H, W), and returns
`embedding`, float32 (batch, C), L2-normalised: the dot product of two is their cosine similarity.
The batch may be of any size. The file's metadata describe the model and the preprocessing. The file
is written only after onnxruntime has computed the same embeddings as the model.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor

import rga_timm
from rga_timm.cli import options
from rga_timm.data import create_dataset, create_eval_loader
from rga_timm.data.datasets.pedestrians import VERSION, draw
from rga_timm.data.text_file import whole_file
from rga_timm.evaluation import Embedder, Protocol
from rga_timm.training.ranges import Range

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
MIN_OPSET = 18
BATCH_SIZES = (1, 2, 5)  # that the file is tried with


def get_parser() -> argparse.ArgumentParser:
    """Define the options."""
    parser = options.create_parser("export", __doc__)
    options.add_model_options(parser)
    add = parser.add_argument
    add("output", type=Path, metavar="OUTPUT.onnx", help="the file to write")
    options.add_img_size_option(parser)
    options.add_model_kwargs(parser, "further arguments of the model, e.g. relation=s")
    options.add_feature_option(parser)
    opset = options.number(int, Range(minimum=MIN_OPSET))
    add("--opset", type=opset, help="ONNX opset (default: the exporter's)")
    text = "largest difference of the embeddings' components to the model's (default: %(default)s)"
    add("--tolerance", type=options.positive_float, default=1e-4, metavar="X", help=text)
    return parser


def check(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Exit with a message for errors that would otherwise appear after minutes of work."""
    if missing := missing_packages():
        parser.error(f"{', '.join(missing)} not installed: pip install 'rga-timm[export]'")
    options.check_model(args, parser)
    if args.output.suffix != ".onnx":
        parser.error(f"OUTPUT must end in .onnx, not {args.output.name}")
    options.check_output_file(args.output, parser, ".onnx")


def missing_packages() -> list[str]:
    """List what the export needs and is not installed."""
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

    with whole_file(args.output) as unchecked:
        export(embedder, config["input_size"], unchecked, args.opset, describe(args, model, config))
        difference, similarity = compare(unchecked, embedder, check_images(config))
        result = f"largest difference of a component {difference:.1e}, "
        result += f"smallest cosine similarity {similarity:.7f}"
        # Negated, so that NaN fails.
        if not (difference <= args.tolerance and similarity >= 1 - args.tolerance):
            raise SystemExit(
                f"onnxruntime and the model disagree: {result}; --tolerance is {args.tolerance}. "
                f"{args.output} was not written."
            )
    print(f"{args.output}: {args.output.stat().st_size / 2**20:.1f} MiB; {result}")
    return args.output


def export(
    embedder: Embedder,
    input_size: Sequence[int],
    path: Path,
    opset: int | None = None,
    metadata: dict[str, str] | None = None,
) -> None:
    """Write one ONNX file, of any batch size: `images` to `embedding`."""
    for name in ("onnxscript", "onnx_ir", "torch.onnx"):
        logging.getLogger(name).setLevel(logging.ERROR)  # they report every unchanged node
    images = torch.zeros(2, *input_size)  # not 1, which would be taken for a constant
    shapes = {"images": {0: torch.export.Dim("batch", min=1)}}
    with torch.no_grad():
        program = torch.export.export(embedder, (images,), dynamic_shapes=shapes, strict=False)
        if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 7):
            # Its exporter cannot translate a batch norm with current onnxscript.
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
    if opset and made != opset:  # old exporters ignore it
        raise SystemExit(f"torch {torch.__version__} made opset {made}, not {opset}")
    for node in model.graph:
        node.metadata_props.clear()  # stack traces, with the paths of this machine
    model.metadata_props.update(metadata or {})
    onnx_program.save(path, external_data=False)


def _batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor,
    momentum: float, eps: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Compute batch norm in eval mode by simpler operators; the other results are not used."""
    shape = [1, -1] + [1] * (x.ndim - 2)
    scale = (var + eps).rsqrt() if weight is None else weight * (var + eps).rsqrt()
    shift = -mean * scale if bias is None else bias - mean * scale
    return x * scale.view(shape) + shift.view(shape), x.new_empty(0), x.new_empty(0)


def describe(args: argparse.Namespace, model: Any, config: dict[str, Any]) -> dict[str, str]:
    """Return the file's metadata for deployment. Lists and booleans are JSON."""
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
        # channels, height, width; and of each channel
        **{name: json.dumps(list(config[name])) for name in ("input_size", "mean", "std")},
        "color_order": "RGB",
        "resize": "squash",  # to that height and width, not keeping the aspect ratio; no crop
        "interpolation": config["interpolation"],
        "antialias": "true",
        "value_range": json.dumps([0, 1]),  # before mean and std
        "feature": args.feature if has_neck else "pre_logits",
        "feature_description": f"{where} the BN neck" if has_neck else "what the classifier takes",
        "normalized": "true",
        "similarity": "dot product",
        **{f"{m.__name__}_version": m.__version__ for m in (rga_timm, timm, torch)},
    }


def check_images(config: dict[str, Any]) -> Iterator[Tensor]:
    """Yield batches to try the file with: noise, and drawn pedestrians, preprocessed."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(max(BATCH_SIZES), *config["input_size"], generator=generator)
    transform = Protocol.of_data_config(config).transform()
    with tempfile.TemporaryDirectory() as folder:
        root = draw(
            Path(folder) / f"pedestrians-{VERSION}",
            train_ids=1, train_images=1, test_ids=2, gallery_images=1, distractors=0, junk=0,
            progress=False,
        )  # fmt: skip
        people = create_dataset("pedestrians", root).query
        loader = create_eval_loader(people, transform, max(BATCH_SIZES), num_workers=0)
        drawn, _ = next(iter(loader))
    yield from (images[:size] for images in (noise, drawn) for size in BATCH_SIZES)


def compare(path: Path, embedder: Embedder, batches: Iterator[Tensor]) -> tuple[float, float]:
    """Compare the file's embeddings to the model's: largest difference, smallest similarity."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    differences, similarities = [], []
    for images in batches:
        with torch.inference_mode():
            expected = embedder(images).numpy()
        (embedding,) = session.run(["embedding"], {"images": images.numpy()})
        if embedding.shape != expected.shape:
            shapes = f"{embedding.shape}, the model of {expected.shape}"
            raise SystemExit(f"onnxruntime gives embeddings of shape {shapes}: no file was written")
        differences.append(np.abs(embedding - expected).max())
        similarities.append((embedding * expected).sum(axis=1).min())
    return float(np.max(differences)), float(np.min(similarities))
