"""What it brings on a CPU to keep freed memory: steps with and without, in turns.

    python scripts/benchmarks/allocator.py                            # the small model, training
    python scripts/benchmarks/allocator.py --model rga_resnet50 --batch-size 16 --mode inference

Each round measures both ways, each in a process of its own, because malloc's settings cannot be
taken back: the mean of some steps after two that warm up. Prints the median over the rounds, and
that of the rounds' own ratios.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Sequence
from statistics import median

import timm
import torch

from rga_timm.evaluation.compute import keep_freed_memory
from rga_timm.evaluation.cost import create_images, make_step, timed
from rga_timm.evaluation.reports.tables import markdown_table

WARM_UP = 2


def get_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", default="rga_tf_efficientnet_lite0", help="(default: %(default)s)")
    add("--img-size", type=int, nargs=2, default=[256, 128], metavar=("H", "W"))
    add("--batch-size", type=int, default=64, help="(default: %(default)s)")
    add("--mode", default="training", choices=("training", "inference"))
    add("--steps", type=int, default=5, help="that are timed, of each process (default: 5)")
    add("--rounds", type=int, default=3, help="(default: 3)")
    add("--channels-last", action=argparse.BooleanOptionalAction, default=True)
    add("--threads", type=int, help="CPU threads (default: torch's choice)")
    return parser


def main(argv: Sequence[str] | None = None) -> dict[bool, float]:
    """Measure and print the table; the median seconds of a step, by whether memory is kept."""
    args = get_parser().parse_args(argv)
    times: dict[bool, list[float]] = {False: [], True: []}
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, maxtasksperchild=1) as pool:
        for _ in range(args.rounds):
            for keep, measured in times.items():
                measured.append(pool.apply(measure, (args, keep)))
    ratios = [kept / freed for freed, kept in zip(times[False], times[True], strict=True)]
    seconds = {keep: median(measured) for keep, measured in times.items()}
    rows = [("freed memory", f"{args.mode} (ms a batch)", "ratio")]
    rows.append(("handed back", f"{1e3 * seconds[False]:.0f}", "1.00"))
    rows.append(("kept", f"{1e3 * seconds[True]:.0f}", f"{median(ratios):.2f}"))
    print(markdown_table(rows, text=1))
    return seconds


def measure(args: argparse.Namespace, keep: bool) -> float:
    """Seconds of a step, in this process."""
    if args.threads:
        torch.set_num_threads(args.threads)
    if keep and not keep_freed_memory():
        raise SystemExit("the C library of this machine cannot keep memory: it is not glibc")
    size = tuple(args.img_size)
    model = timm.create_model(args.model, img_size=size, num_classes=751)
    if args.channels_last:
        model = model.to(memory_format=torch.channels_last)
    images = create_images(args.batch_size, size, "cpu", channels_last=args.channels_last)
    step = make_step(model, images, args.mode)
    for _ in range(WARM_UP):
        step()
    return sum(timed(step, "cpu") for _ in range(args.steps)) / args.steps


if __name__ == "__main__":
    main()
