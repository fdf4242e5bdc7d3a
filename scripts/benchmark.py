"""What relation attention costs: the plain backbone, this form of RGA, the published form.

    python scripts/benchmark.py                                     # ResNet-50 at 256x128
    python scripts/benchmark.py --img-size 256 128 --img-size 384 192 --batch-size 8 16
    python scripts/benchmark.py --model rga_resnet50 --device cuda --amp-dtype bfloat16

For each input size and batch size: parameters, GFLOPs, time and peak memory of inference and of a
training step, and their ratios to the plain backbone's (relation='none'), all measured in one run
on one machine. The published form (materialised affinities) has the same parameters and results.
The three forms take turns, so that a machine that slows down slows all three: the median round
counts, and for the ratios the median of the rounds' own ratios. Prints a Markdown table; --output
keeps everything as JSON.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import timm
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

import rga_timm
from rga_timm.layers.materialized import materialize

FORMS = ("plain", "rga", "published")


def get_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", default="rga_resnet50", help="an RGA model (default: %(default)s)")
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
    add("--rounds", type=int, default=5, help="measurements of each form (default: 5)")
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
    args = get_parser().parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    rows = []
    for size in args.img_size or [[256, 128]]:
        for batch_size in args.batch_size:
            rows += measure_forms(args, tuple(size), batch_size)
    print(format_table(rows))
    if args.output:
        report = {"machine": describe_machine(args), "options": vars(args), "rows": rows}
        args.output.write_text(json.dumps(report, indent=2, default=str) + "\n")
    return rows


def measure_forms(
    args: argparse.Namespace, size: tuple[int, int], batch_size: int
) -> list[dict[str, Any]]:
    """Rows of all forms at one input size and batch size, each with its ratios to the first."""
    memory_format = torch.channels_last if args.channels_last else torch.contiguous_format
    images = torch.randn(batch_size, 3, *size, device=args.device).to(memory_format=memory_format)
    models = {form: create_model(args, form, size) for form in args.forms}
    rows: dict[str, dict[str, Any]] = {}
    for form, model in models.items():
        rows[form] = {
            "model": args.model,
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
        steps = {form: make_step(args, model, images, mode) for form, model in models.items()}
        for form, step in steps.items():
            step()  # warm up, compile, settle the caches
            rows[form][f"{mode}_peak_mib"] = peak_memory(step, models[form], images) / 2**20
        times: dict[str, list[float]] = {form: [] for form in steps}
        for _ in range(args.rounds):
            for form, step in steps.items():
                times[form].append(timed(step, args.device))
        first = times[args.forms[0]]
        for form, values in times.items():
            ratios = [value / base for value, base in zip(values, first, strict=True)]
            rows[form][f"{mode}_ms"] = median(values) * 1e3
            rows[form][f"{mode}_ms_ratio"] = median(ratios)
    base = rows[args.forms[0]]
    for row in rows.values():
        for name in ("gflops", *(f"{mode}_peak_mib" for mode in modes)):
            row[f"{name}_ratio"] = row[name] / base[name]
    return list(rows.values())


def create_model(args: argparse.Namespace, form: str, size: tuple[int, int]) -> torch.nn.Module:
    """One form of the model, with random weights."""
    options: dict[str, Any] = {"img_size": size, "num_classes": 751}
    if form == "plain":
        options["relation"] = "none"
    if args.native:
        options["native_size"] = size
    model = timm.create_model(args.model, **options).to(args.device)
    if args.channels_last:
        model = model.to(memory_format=torch.channels_last)
    return materialize(model) if form == "published" else model


def make_step(
    args: argparse.Namespace, model: torch.nn.Module, images: torch.Tensor, mode: str
) -> Callable[[], None]:
    """A forward pass without gradients, or a training step without its optimizer."""
    dtype = getattr(torch, args.amp_dtype) if args.amp_dtype else None
    autocast = torch.autocast(torch.device(args.device).type, dtype=dtype, enabled=bool(dtype))

    def inference() -> None:
        model.eval()
        with torch.inference_mode(), autocast:
            model(images)

    labels = torch.arange(len(images), device=images.device)

    def training() -> None:
        model.train()
        model.zero_grad()
        with autocast:
            loss = torch.nn.functional.cross_entropy(model(images).float(), labels)
        loss.backward()

    return inference if mode == "inference" else training


def count_flops(model: torch.nn.Module, image: torch.Tensor) -> float:
    """Multiplications and additions of one image's forward pass."""
    model.eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(image)
    return counter.get_total_flops()


def timed(step: Callable[[], None], device: str) -> float:
    """Seconds of one step."""
    synchronize(device)
    start = time.perf_counter()
    step()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: str) -> None:
    """Wait for a GPU."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


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
    header = ["input", "batch", "form", "parameters (M)", "GFLOPs"]
    header += [f"{mode} ({unit})" for mode in modes for unit in ("ms", "peak MiB")]
    lines = ["| " + " | ".join(header) + " |", "| " + " | ".join("---" for _ in header) + " |"]
    for row in rows:
        cells = [
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


def describe_machine(args: argparse.Namespace) -> dict[str, str]:
    """What the figures were measured on."""
    is_gpu = torch.device(args.device).type == "cuda"
    return {
        "device": torch.cuda.get_device_name(args.device) if is_gpu else processor_name(),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "rga_timm": rga_timm.__version__,
    }


def processor_name() -> str:
    """The processor's own name where the system tells it."""
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
