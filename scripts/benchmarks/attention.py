"""What relation attention costs: the plain backbone, this form of RGA, the published form.

    python scripts/benchmarks/attention.py                         # ResNet-50 at 256x128
    python scripts/benchmarks/attention.py --img-size 256 128 --img-size 384 192 --batch-size 8 16
    python scripts/benchmarks/attention.py --model rga_resnet50 --device cuda --amp-dtype bfloat16
    python scripts/benchmarks/attention.py --runtimes eager compiled onnxruntime --batch-size 1 8

For each input size and batch size: parameters, GFLOPs, time and peak memory of inference and of a
training step, and their ratios to the plain backbone's (relation='none'), all measured in one run
on one machine. The published form (materialised affinities) has the same parameters and results.
The three forms take turns, so that a machine that slows down slows all three: the median round
counts, and for the ratios the median of the rounds' own ratios. Prints a Markdown table; --output
keeps everything as JSON.

With --runtimes, another table: the latency of each model, any of timm's, in each of these runtimes,
with its ratio to the first. They take turns in the same way, with the same number of threads.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import timm
import torch
from torch.profiler import ProfilerActivity, profile

from rga_timm.cli import export
from rga_timm.evaluation import Embedder
from rga_timm.evaluation.cost import (
    count_flops,
    create_images,
    describe_machine,
    make_step,
    take_turns,
)
from rga_timm.hub import takes_img_size
from rga_timm.layers.materialized import materialize

RUNTIMES = ("eager", "compiled", "onnxruntime")
Run = Callable[[], torch.Tensor]
FORMS = ("plain", "rga", "published")


def get_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", nargs="+", default=["rga_resnet50"], help="RGA models (default: rga_resnet50)")
    add(
        "--img-size",
        type=int,
        nargs=2,
        action="append",
        metavar=("H", "W"),
        help="input size in pixels; may be given several times (default: 256 128)",
    )
    add("--batch-size", type=int, nargs="+", default=[16], help="(default: 16)")
    add("--forms", nargs="+", default=list(FORMS), choices=FORMS, help="(default: all)")
    add("--runtimes", nargs="+", choices=RUNTIMES, help="compare these instead of the forms")
    add("--rounds", type=int, default=5, help="measurements of each (default: 5)")
    add(
        "--native",
        action="store_true",
        help="layers over positions as wide as the paper would make them for this input size; "
        "otherwise as wide as at the model's own size, as for a checkpoint used at another",
    )
    add("--no-train", action="store_true", help="inference only")
    add("--channels-last", action="store_true")
    add("--compile", action="store_true", help="by torch.compile")
    add("--amp-dtype", choices=("bfloat16", "float16"))
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--threads", type=int, help="CPU threads (default: torch's choice)")
    add("--output", type=Path, metavar="JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Measure, print the table, and return its rows."""
    parser = get_parser()
    args = parser.parse_args(argv)
    if args.runtimes:
        check_runtimes(args, parser)
    if args.threads:
        torch.set_num_threads(args.threads)
    measure = measure_runtimes if args.runtimes else measure_forms
    rows = []
    for name in args.model:
        for size in args.img_size or [[256, 128]]:
            for batch_size in args.batch_size:
                rows += measure(args, name, tuple(size), batch_size)
    print(format_runtimes(rows) if args.runtimes else format_table(rows))
    if args.output:
        machine = describe_machine(args.device)
        if "onnxruntime" in (args.runtimes or ()):
            machine["onnxruntime"] = version("onnxruntime")
        report = {"machine": machine, "options": vars(args), "rows": rows}
        args.output.write_text(json.dumps(report, indent=2, default=str) + "\n")
    return rows


def measure_forms(
    args: argparse.Namespace, name: str, size: tuple[int, int], batch_size: int
) -> list[dict[str, Any]]:
    """Rows of all forms at one input size and batch size, each with its ratios to the first."""
    images = create_images(batch_size, size, args.device, channels_last=args.channels_last)
    models = {form: create_model(args, name, form, size) for form in args.forms}
    rows: dict[str, dict[str, Any]] = {}
    for form, model in models.items():
        rows[form] = {
            "model": name,
            "form": form,
            "img_size": size,
            "batch_size": batch_size,
            "parameters": sum(p.numel() for p in model.parameters()),
            "gflops": count_flops(model, images[:1]) / 1e9,
        }
        if args.compile:
            models[form] = torch.compile(model)
    modes = ["inference"] if args.no_train else ["inference", "training"]
    for mode in modes:
        steps = {
            form: make_step(model, images, mode, args.amp_dtype) for form, model in models.items()
        }
        for form, step in steps.items():
            step()  # warm up, compile, settle the caches
            rows[form][f"{mode}_peak_mib"] = peak_memory(step, models[form], images) / 2**20
        for form, (ms, ratio) in take_turns(steps, args.rounds, args.device).items():
            rows[form][f"{mode}_ms"] = ms
            rows[form][f"{mode}_ms_ratio"] = ratio
    base = rows[args.forms[0]]
    for row in rows.values():
        for name in ("gflops", *(f"{mode}_peak_mib" for mode in modes)):
            row[f"{name}_ratio"] = row[name] / base[name]
    return list(rows.values())


def measure_runtimes(
    args: argparse.Namespace, name: str, size: tuple[int, int], batch_size: int
) -> list[dict[str, Any]]:
    """Rows of all runtimes of one model, each with its ratio to the first and its difference."""
    images = create_images(batch_size, size, args.device, channels_last=args.channels_last)
    options = {"img_size": size} if takes_img_size(name) else {}
    model = timm.create_model(name, num_classes=0, **options).to(args.device)
    if args.channels_last:
        model = model.to(memory_format=torch.channels_last)
    runs = create_runs(args, model, images)
    embeddings = {runtime: run().float() for runtime, run in runs.items()}  # compiles
    for run in runs.values():
        run()  # warm up, settle the caches
    first = embeddings[args.runtimes[0]]
    return [
        {
            "model": name,
            "runtime": runtime,
            "img_size": size,
            "batch_size": batch_size,
            "latency_ms": ms,
            "latency_ms_ratio": ratio,
            "difference": float((embeddings[runtime] - first).abs().max()),
        }
        for runtime, (ms, ratio) in take_turns(runs, args.rounds, args.device).items()
    ]


def create_model(
    args: argparse.Namespace, name: str, form: str, size: tuple[int, int]
) -> torch.nn.Module:
    """One form of the model, with random weights."""
    options: dict[str, Any] = {"img_size": size, "num_classes": 751}
    if form == "plain":
        options["relation"] = "none"
    if args.native:
        options["native_size"] = size
    model = timm.create_model(name, **options).to(args.device)
    if args.channels_last:
        model = model.to(memory_format=torch.channels_last)
    return materialize(model) if form == "published" else model


def peak_memory(step: Callable[[], None], model: torch.nn.Module, images: torch.Tensor) -> float:
    """Bytes that tensors hold at most during a step; the model, gradients and images included."""
    gc.collect()
    tensors = [images, *model.buffers(), *model.parameters()]
    tensors += [p.grad for p in model.parameters() if p.grad is not None]
    resident = sum(t.nbytes for t in tensors)
    if images.is_cuda:
        torch.cuda.reset_peak_memory_stats(images.device)
        others = torch.cuda.memory_allocated(images.device) - resident
        step()
        return float(torch.cuda.max_memory_allocated(images.device) - others)
    # The CPU allocator keeps no count: add up what the profiler saw it allocate and free.
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step()
    held = peak = resident
    for event in record.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return float(peak)


def format_table(rows: Sequence[dict[str, Any]]) -> str:
    """A Markdown table: absolute figures, and in brackets their ratio to the first form's."""
    modes = [mode for mode in ("inference", "training") if f"{mode}_ms" in rows[0]]
    several = len({row["model"] for row in rows}) > 1
    header = ["model"] * several + ["input", "batch", "form", "parameters (M)", "GFLOPs"]
    header += [f"{mode} ({unit})" for mode in modes for unit in ("ms", "peak MiB")]
    lines = ["| " + " | ".join(header) + " |", "| " + " | ".join("---" for _ in header) + " |"]
    for row in rows:
        cells = [row["model"]] * several
        cells += [
            "{}x{}".format(*row["img_size"]),
            str(row["batch_size"]),
            row["form"],
            f"{row['parameters'] / 1e6:.1f}",
            f"{row['gflops']:.1f} ({row['gflops_ratio']:.2f})",
        ]
        for mode in modes:
            for what in ("ms", "peak_mib"):
                name = f"{mode}_{what}"
                cells.append(f"{row[name]:.0f} ({row[f'{name}_ratio']:.2f})")
        lines.append("| " + " | ".join(cells) + " |")
    note = (
        "GFLOPs an image, a multiplication and an addition being two. Times and memory a batch; "
        "a training step is forward and backward, without the optimizer."
    )
    return "\n".join([*lines, "", note])


def check_runtimes(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """End with a message for options that the table of runtimes cannot follow."""
    for name in ("forms", "compile", "native", "no_train"):
        if getattr(args, name) != parser.get_default(name):
            parser.error(f"--{name.replace('_', '-')} is for the table of forms, not --runtimes")
    if "onnxruntime" not in args.runtimes:
        return
    if torch.device(args.device).type != "cpu" or args.amp_dtype:
        parser.error("onnxruntime is measured on the CPU in float32: leave it out of --runtimes")
    missing = export.missing_packages()
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
    """By onnxruntime on the CPU, from the file that `rga-timm export` writes: of any batch size."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    # Or its threads would go on spinning while the next runtime has its turn.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export.export(embedder, tuple(images.shape[1:]), path)
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


if __name__ == "__main__":
    main()
