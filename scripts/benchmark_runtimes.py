"""The ways to run a trained model that the benchmark compares."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import export_onnx
import torch

from rga_timm.evaluation import Embedder

RUNTIMES = ("eager", "compiled", "onnxruntime")
Run = Callable[[], torch.Tensor]


def check_runtimes(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """End with a message for options that the table of runtimes cannot follow."""
    for name in ("forms", "compile", "native", "no_train"):
        if getattr(args, name) != parser.get_default(name):
            parser.error(f"--{name.replace('_', '-')} is for the table of forms, not --runtimes")
    if "onnxruntime" not in args.runtimes:
        return
    if torch.device(args.device).type != "cpu" or args.amp_dtype:
        parser.error("onnxruntime is measured on the CPU in float32: leave it out of --runtimes")
    missing = export_onnx.missing_packages()
    if missing:
        parser.error(f"{', '.join(missing)} not installed: pip install 'rga-timm[export]'")


def create_runs(
    args: argparse.Namespace, model: torch.nn.Module, images: torch.Tensor
) -> dict[str, Run]:
    """Of each runtime, what computes the normalised embeddings of these images."""
    embedder = Embedder(model)
    # What was compiled before would make this compilation a dynamic one, and at last none at all.
    torch.compiler.reset()
    makers = {
        "eager": lambda: in_torch(args, embedder, images),
        "compiled": lambda: in_torch(args, torch.compile(embedder), images),
        "onnxruntime": lambda: in_onnxruntime(embedder, images),
    }
    return {runtime: makers[runtime]() for runtime in args.runtimes}


def in_torch(args: argparse.Namespace, module: torch.nn.Module, images: torch.Tensor) -> Run:
    """By torch, as the options say."""
    dtype = getattr(torch, args.amp_dtype) if args.amp_dtype else None
    autocast = torch.autocast(torch.device(args.device).type, dtype=dtype, enabled=bool(dtype))

    def run() -> torch.Tensor:
        with torch.inference_mode(), autocast:
            return module(images)

    return run


def in_onnxruntime(embedder: Embedder, images: torch.Tensor) -> Run:
    """By onnxruntime on the CPU, from the file that export_onnx.py writes: of any batch size."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    # Or its threads would go on spinning while the next runtime has its turn.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx.export(embedder, tuple(images.shape[1:]), path)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {"images": images.contiguous().numpy()}

    def run() -> torch.Tensor:
        return torch.from_numpy(session.run(["embedding"], feed)[0])

    return run


def format_runtimes(rows: Sequence[dict[str, Any]]) -> str:
    """A Markdown table of the rows of runtimes."""
    first = rows[0]["runtime"]
    header = ["model", "input", "batch", "runtime", "latency (ms)", f"ratio to {first}"]
    header.append("largest difference")
    lines = ["| " + " | ".join(header) + " |", "| " + " | ".join("---" for _ in header) + " |"]
    for row in rows:
        cells = [
            row["model"],
            "{}x{}".format(*row["img_size"]),
            str(row["batch_size"]),
            row["runtime"],
            f"{row['latency_ms']:.1f}",
            f"{row['latency_ms_ratio']:.2f}",
            f"{row['difference']:.0e}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    note = (
        "From preprocessed images to normalised embeddings, a batch; the difference is a "
        f"component's to {first}'s."
    )
    return "\n".join([*lines, "", note])
