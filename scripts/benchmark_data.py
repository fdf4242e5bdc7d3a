"""How fast images come: read from files, or from the image cache, beside what a model takes.

    python scripts/benchmark_data.py loader --dataset market1501 --data-dir DIR --model rga_resnet50
    python scripts/benchmark_data.py index

`loader` prints images per second of both ways to get augmented training batches on the device, and
of training steps on random input that lies there already. All are measured in turn, in rounds; the
table has the medians. `index` makes a tree of empty files of MSMT17's size and times its reader.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import timm
import torch
from data_options import FORM
from timm.data import resolve_data_config
from torch import Tensor
from tqdm import tqdm

import rga_timm  # noqa: F401 - registers the models with timm
from rga_timm.data import (
    IdentityBatchSampler,
    ImageCache,
    ReidReader,
    create_cached_train_loader,
    create_dataset,
    create_train_loader,
    train_transform,
)
from rga_timm.hub import takes_img_size
from rga_timm.losses import ReidLoss
from rga_timm.task import ReidTask

WARM_UP = 4  # batches that are not timed
# MSMT17: people and images of train (with val), query and gallery.
TRAIN_IDS, TEST_IDS = 1041, 3060
MSMT17 = {"train": 30248, "val": 2373, "query": 11659, "gallery": 82161}


def get_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    loader = commands.add_parser("loader", help="images per second")
    add = loader.add_argument
    add("--dataset", default="pedestrians", metavar=FORM, help="(default: %(default)s)")
    add("--data-dir", metavar="DIR", help="where it lies; pedestrians can do without")
    add("--model", default="rga_resnet50", help="a timm model (default: %(default)s)")
    add("--img-size", type=int, nargs=2, metavar=("H", "W"), help="(default: the model's)")
    add("--num-identities", type=int, default=16, help="P (default: %(default)s)")
    add("--num-instances", type=int, default=4, help="K (default: %(default)s)")
    add("--workers", type=int, default=4, help="loader processes (default: %(default)s)")
    add("--steps", type=int, default=30, help="batches a round (default: %(default)s)")
    add("--rounds", type=int, default=3, help="(default: %(default)s)")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--amp-dtype", choices=("bfloat16", "float16"), help="of the model's steps")
    add("--cache-on-device", action="store_true", help="hold the cache in the device's memory")
    index = commands.add_parser("index", help="seconds to read the lists of 126,441 images")
    index.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    index.add_argument("--share", type=float, default=1.0, help="of MSMT17's size (default: all)")
    return parser


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Measure as the command line says; the medians are returned for other programs."""
    args = get_parser().parse_args(argv)
    return measure_loaders(args) if args.command == "loader" else measure_index(args)


def measure_loaders(args: argparse.Namespace) -> dict[str, float]:
    """Images per second of the plain and the cached loader, and of the model."""
    torch.manual_seed(0)
    device = torch.device(args.device)
    train = create_dataset(args.dataset, args.data_dir).train
    size = tuple(args.img_size) if args.img_size else None
    options = {"img_size": size} if size and takes_img_size(args.model) else {}
    model = timm.create_model(args.model, num_classes=len(train.label_of or ()), **options)
    config = resolve_data_config({"input_size": (3, *size)} if size else {}, model=model)
    img_size = config["input_size"][1:]

    cache = ImageCache.fill(train, img_size, config["interpolation"], num_workers=args.workers)
    if args.cache_on_device:
        cache = cache.to(device)
    with cache:
        plain, cached = (make_batches(args, train, config, device, use) for use in (None, cache))
        batch_size = args.num_identities * args.num_instances
        sources = {
            "files": lambda: next(plain)[0].to(device, non_blocking=True),
            "image cache": lambda: next(cached)[0],
            f"{args.model}, training": make_step(args, model.to(device), img_size, device),
        }
        seconds: dict[str, list[float]] = {name: [] for name in sources}
        for _ in tqdm(range(args.rounds), "rounds", leave=False):
            for name, get in sources.items():
                seconds[name].append(seconds_of(get, args.steps, device))
    rates = {
        name: args.steps * batch_size / statistics.median(times) for name, times in seconds.items()
    }
    first, *_, model_rate = rates.values()
    print(f"| {img_size[0]}x{img_size[1]}, batch {batch_size}, {args.workers} workers, {device} "
          "| images/s | to files | to the model |")  # fmt: skip
    print("| --- | ---: | ---: | ---: |")
    for name, rate in rates.items():
        print(f"| {name} | {rate:.0f} | {rate / first:.2f} | {rate / model_rate:.2f} |")
    return rates


def make_batches(
    args: argparse.Namespace,
    train: ReidReader,
    config: dict,
    device: torch.device,
    cache: ImageCache | None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Training batches without end, from files or from a cache."""
    sampler = IdentityBatchSampler(train.labels, args.num_identities, args.num_instances)
    preparation = {name: config[name] for name in ("mean", "std", "interpolation")}
    transform = train_transform(config["input_size"][1:], **preparation)
    loader: Iterable[tuple[Tensor, Tensor]]
    if cache is None:
        loader = create_train_loader(
            train,
            transform,
            sampler,
            num_workers=args.workers,
            pin_memory=device.type == "cuda",
        )
    else:
        loader = create_cached_train_loader(
            cache,
            transform,
            sampler,
            targets=np.stack([train.labels, train.camids], axis=1),
            device=device,
            num_workers=args.workers,
        )
    return endless(loader, sampler)


def endless(
    loader: Iterable[tuple[Tensor, Tensor]], sampler: IdentityBatchSampler
) -> Iterator[tuple[Tensor, Tensor]]:
    """Epoch after epoch."""
    while True:
        yield from loader
        sampler.set_epoch(sampler.epoch + 1)


def make_step(
    args: argparse.Namespace,
    model: torch.nn.Module,
    img_size: tuple[int, int],
    device: torch.device,
) -> Callable[[], None]:
    """A training step on random images that lie on the device."""
    batch_size = args.num_identities * args.num_instances
    task = ReidTask(model, ReidLoss(0.1, 0.3, 1.0), device=device, verbose=False).to(device)
    task.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    images = torch.randn(batch_size, 3, *img_size, device=device)
    labels = torch.arange(args.num_identities, device=device).repeat_interleave(args.num_instances)
    dtype = getattr(torch, args.amp_dtype) if args.amp_dtype else None

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            loss = task(images, labels)["loss"]
        loss.backward()
        optimizer.step()

    return step


def seconds_of(get: Callable[[], object], steps: int, device: torch.device) -> float:
    """How long so many calls take, once warm."""
    for _ in range(min(WARM_UP, steps)):
        get()
    wait_for(device)
    start = time.perf_counter()
    for _ in range(steps):
        get()
    wait_for(device)
    return time.perf_counter() - start


def wait_for(device: torch.device) -> None:
    """Until a GPU has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_index(args: argparse.Namespace) -> dict[str, float]:
    """Seconds to read the lists of a data set of MSMT17's size, and to see that all is there."""
    with tempfile.TemporaryDirectory() as folder:
        images = make_msmt17(Path(folder) / "MSMT17_V1", args.share)
        seconds = []
        for _ in range(args.rounds):
            start = time.perf_counter()
            splits = create_dataset("msmt17:val=true", folder)
            seconds.append(time.perf_counter() - start)
    read = sum(len(reader) for reader in splits.readers.values())
    if read != images:
        raise RuntimeError(f"made {images} files, but read {read}")
    print(f"{images} images indexed in {statistics.median(seconds):.2f} s "
          f"(median of {args.rounds})")  # fmt: skip
    return {"images": images, "seconds": statistics.median(seconds)}


def make_msmt17(root: Path, share: float = 1.0) -> int:
    """Empty files and lists in MSMT17's first form; returns how many images."""
    total = 0
    for split, count in MSMT17.items():
        folder = "train" if split in ("train", "val") else "test"
        ids = max(2, round((TRAIN_IDS if folder == "train" else TEST_IDS) * share))
        lines = []
        for number in tqdm(range(max(ids, round(count * share))), f"making {split}", leave=False):
            pid = number % ids
            camera = 1 + number % 15
            name = f"{pid:04d}_{number:06d}_{camera:02d}_0303morning_0008_{split}.jpg"
            path = root / folder / f"{pid:04d}" / name
            if number < ids:
                path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            lines.append(f"{pid:04d}/{name} {pid}\n")
        (root / f"list_{split}.txt").write_text("".join(lines))
        total += len(lines)
    return total


if __name__ == "__main__":
    main()
