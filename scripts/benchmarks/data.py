r"""How fast images come: the plain loader, the image cache, and the index of a large data set.

    python scripts/benchmarks/data.py loader                                  # embedded data
    python scripts/benchmarks/data.py loader --dataset market1501 --data-dir DIR --workers 4
    python scripts/benchmarks/data.py loader --device cuda --amp-dtype bfloat16 --channels-last \
        --compile --cache-on-device
    python scripts/benchmarks/data.py index

loader: training images a second from the plain loader and from the cache (finetune.py --cache),
both up to the device, beside those that a model takes in training on random input of the same batch
size. They take turns in one run on one machine, so that a machine that slows down slows all of
them. The median round counts, and for the ratios the median of the rounds' own ratios. Before its
turn is timed a loader gives as many batches as its processes read ahead; between turns it has none.

index: the time in which a data set of MSMT17's size is read, without its images: 126,441 empty
files with MSMT17's names, folders and lists are made in a temporary folder, and read by
create_dataset. They have just been written, so the system knows them by heart: a disk or a network
drive that it has to ask takes longer.

Both print a Markdown table; --output keeps everything as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import timm
import torch
from timm.data import resolve_data_config

from rga_timm.data import (
    IdentityBatchSampler,
    ImageCache,
    ReidReader,
    TrainTransform,
    create_cached_train_loader,
    create_dataset,
    create_train_loader,
    train_transform,
)
from rga_timm.evaluation.cost import create_images, describe_machine, make_step, synchronize
from rga_timm.hub import takes_img_size

SOURCES = ("plain", "cached")


def get_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)

    loader = commands.add_parser("loader", help="images a second that are trained on")
    add = loader.add_argument
    add("--dataset", default="pedestrians", metavar="NAME", help="(default: pedestrians)")
    add("--data-dir", metavar="DIR", help="where it lies; pedestrians can do without")
    add("--model", default="rga_resnet50", help="any timm model (default: rga_resnet50)")
    add("--img-size", type=int, nargs=2, metavar=("H", "W"), help="(default: the model's own)")
    add("--num-identities", type=int, default=16, help="P, identities a batch (default: 16)")
    add("--num-instances", type=int, default=4, help="K, images of each (default: 4)")
    add("--workers", type=int, nargs="+", default=[4], help="loader processes (default: 4)")
    add("--device", nargs="+", help="(default: cpu, and cuda where there is one)")
    add("--cache-on-device", action="store_true", help="the cache lies in the device's memory")
    add("--rounds", type=int, default=3, help="turns of each (default: 3)")
    add("--batches", type=int, default=20, help="that a loader gives in a turn (default: 20)")
    add("--steps", type=int, default=2, help="that the model trains in a turn (default: 2)")
    add("--channels-last", action="store_true")
    add("--compile", action="store_true", help="the model, by torch.compile")
    add("--amp-dtype", choices=("bfloat16", "float16"))
    add("--threads", type=int, help="CPU threads (default: torch's choice)")

    index = commands.add_parser("index", help="seconds to read a data set of MSMT17's size")
    index.add_argument("--folder", type=Path, help="make it below this (default: the system's)")
    index.add_argument("--rounds", type=int, default=3, help="readings (default: 3)")
    index.add_argument(
        "--scale", type=float, default=1.0, help="that part of its images and people (default: 1)"
    )
    for command in (loader, index):
        command.add_argument("--output", type=Path, metavar="JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Measure, print the table, and return its rows."""
    parser = get_parser()
    args = parser.parse_args(argv)
    for name in ("rounds", "batches", "steps"):
        if getattr(args, name, 1) < 1:
            parser.error(f"--{name} must be at least 1")
    if args.command == "index":
        if not 0 < args.scale <= 1:
            parser.error("--scale is above 0, and at most 1")
        args.device, rows = "cpu", [measure_index(args)]
        print(format_index(rows))
    else:
        if min(args.workers) < 0:
            parser.error("--workers must not be negative")
        if args.threads:
            torch.set_num_threads(args.threads)
        args.device = args.device or ["cpu", *["cuda"] * torch.cuda.is_available()]
        rows = measure_loaders(args)
        print(format_loaders(rows))
    if args.output:
        # Of several devices the last, which is the GPU where there is one.
        device = args.device if isinstance(args.device, str) else args.device[-1]
        machine = describe_machine(device)
        machine["cpus"] = str(os.cpu_count())
        report = {"machine": machine, "options": vars(args), "rows": rows}
        args.output.write_text(json.dumps(report, indent=2, default=str) + "\n")
    return rows


def measure_loaders(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of each device, number of workers and source of images."""
    try:
        train = create_dataset(args.dataset, args.data_dir).train
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(f"--dataset {args.dataset}: {error}") from error
    batch_size = args.num_identities * args.num_instances
    options: dict[str, Any] = {"num_classes": len(train.label_of)}
    if args.img_size and takes_img_size(args.model):
        options["img_size"] = tuple(args.img_size)
    model = timm.create_model(args.model, **options)
    if args.channels_last:
        model.to(memory_format=torch.channels_last)
    wanted = {"input_size": (3, *args.img_size)} if args.img_size else {}
    config = resolve_data_config(wanted, model=model)
    img_size = config["input_size"][1:]
    transform = train_transform(img_size, config["mean"], config["std"], config["interpolation"])

    start = time.perf_counter()
    workers = max(args.workers)
    cache = ImageCache.fill(train, img_size, config["interpolation"], num_workers=workers)
    print(f"{cache} filled in {time.perf_counter() - start:.1f} s by {workers} processes\n")
    rows = []
    for device in args.device:
        here = cache.to(device) if args.cache_on_device else cache
        on_device = argparse.Namespace(**{**vars(args), "device": device})
        images = create_images(batch_size, img_size, device, channels_last=args.channels_last)
        moved = model.to(device)
        trained = torch.compile(moved) if args.compile else moved
        step = make_step(trained, images, "training", args.amp_dtype)
        step()  # warm up, settle the caches
        for workers in args.workers:
            rates: dict[str, list[float]] = {name: [] for name in (*SOURCES, "model")}
            for _ in range(args.rounds):
                for source in SOURCES:
                    batches = endless(on_device, source, workers, train, here, transform)
                    rates[source].append(batch_size * time_batches(on_device, batches, workers))
                    batches.close()  # ends its processes
                rates["model"].append(batch_size * time_steps(on_device, step))
            rows += [
                {
                    "device": device,
                    "workers": workers,
                    "images": name,
                    "batch_size": batch_size,
                    "img_size": img_size,
                    "per_second": median(values),
                    "to_plain": median(ratios(values, rates["plain"])),
                    "to_model": median(ratios(values, rates["model"])),
                    "rounds": values,
                }
                for name, values in rates.items()
            ]
    return rows


def endless(
    args: argparse.Namespace,
    source: str,
    workers: int,
    train: ReidReader,
    cache: ImageCache,
    transform: TrainTransform,
) -> Iterator[torch.Tensor]:
    """Images (B, 3, H, W) on the device, epoch after epoch."""
    device = torch.device(args.device)
    sampler = IdentityBatchSampler(
        train.labels, args.num_identities, args.num_instances, epoch_images="all"
    )
    loader: Iterable[Any]
    if source == "plain":
        pin_memory = device.type == "cuda"
        loader = create_train_loader(
            train, transform, sampler, num_workers=workers, pin_memory=pin_memory
        )
    else:
        loader = create_cached_train_loader(
            cache, transform, sampler, targets=train.targets, device=device, num_workers=workers
        )
    epoch = 0
    while True:
        sampler.set_epoch(epoch)
        for images, _ in loader:
            yield images.to(device, non_blocking=True)
        epoch += 1


def time_batches(args: argparse.Namespace, batches: Iterator[torch.Tensor], workers: int) -> float:
    """Batches a second, from the time on when none has been read ahead before the clock runs."""
    for _ in range(2 * workers + 1):  # torch's processes read two batches ahead each
        next(batches)
    synchronize(args.device)
    start = time.perf_counter()
    for _ in range(args.batches):
        next(batches)
    synchronize(args.device)
    return args.batches / (time.perf_counter() - start)


def time_steps(args: argparse.Namespace, step: Any) -> float:
    """Training steps a second, without the optimizer."""
    synchronize(args.device)
    start = time.perf_counter()
    for _ in range(args.steps):
        step()
    synchronize(args.device)
    return args.steps / (time.perf_counter() - start)


def ratios(values: Sequence[float], bases: Sequence[float]) -> list[float]:
    """Round by round."""
    return [value / base for value, base in zip(values, bases, strict=True)]


def format_loaders(rows: Sequence[dict[str, Any]]) -> str:
    """A Markdown table."""
    lines = [
        "| device | workers | source | images/s | to the plain loader | to the model |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    titles = {"plain": "plain loader", "cached": "cache", "model": "(the model trains on)"}
    for row in rows:
        lines.append(
            f"| {row['device']} | {row['workers']} | {titles[row['images']]} | "
            f"{row['per_second']:.0f} | {row['to_plain']:.2f} | {row['to_model']:.2f} |"
        )
    size, batch = "x".join(map(str, rows[0]["img_size"])), rows[0]["batch_size"]
    note = (
        f"Images of {size} in batches of {batch}, on the device. The model: forward and backward "
        "on random input, without the optimizer. Each was measured alone, the loaders while "
        "nothing was trained."
    )
    return "\n".join([*lines, "", note])


def measure_index(args: argparse.Namespace) -> dict[str, Any]:
    """The row of a data set of MSMT17's size."""
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        count = make_msmt17(Path(folder), args.scale)
        seconds = []
        for _ in range(args.rounds):
            start = time.perf_counter()
            try:
                create_dataset("msmt17", folder)
            except (ValueError, FileNotFoundError) as error:
                raise SystemExit(f"msmt17: {error}") from error
            seconds.append(time.perf_counter() - start)
    return {"data": "msmt17", "files": count, "seconds": median(seconds), "rounds": seconds}


def make_msmt17(root: Path, scale: float = 1.0) -> int:
    """Empty files in MSMT17's V1 layout, with its lists. Returns how many.

    Their numbers are the published ones, or a part of them: 32,621 images of 1,041 people, of which
    2,373 are to validate on; 11,659 queries and 82,161 gallery images of 3,060 others.
    """
    numbers = {
        "train": {"list_train.txt": 30248, "list_val.txt": 2373},
        "test": {"list_query.txt": 11659, "list_gallery.txt": 82161},
    }
    people_in = {"train": 1041, "test": 3060}
    count = 0
    for folder, lists in numbers.items():
        people = max(2, round(people_in[folder] * scale))
        for pid in range(people):
            (root / folder / f"{pid:04d}").mkdir(parents=True)
        first = 0  # images of a person are numbered on from list to list
        for file, published in lists.items():
            images = range(first, first + max(people, round(published * scale)))
            first = images.stop
            lines = []
            for image in images:
                pid, number = image % people, image // people
                camid = (pid + number) % 15 + 1
                name = f"{pid:04d}_{number:03d}_{camid:02d}_0303morning_{number:04d}_0.jpg"
                path = f"{pid:04d}/{name}"
                (root / folder / path).touch(exist_ok=False)
                lines.append(f"{path} {pid}\n")
            (root / file).write_text("".join(lines))
            count += len(lines)
    return count


def format_index(rows: Sequence[dict[str, Any]]) -> str:
    """A Markdown table."""
    lines = ["| data set | files | seconds |", "| --- | --- | --- |"]
    lines += [f"| {row['data']} | {row['files']:,} | {row['seconds']:.2f} |" for row in rows]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
