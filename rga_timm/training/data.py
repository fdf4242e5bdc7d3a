"""What rga-timm finetune trains and tests on: data sets, batches, preprocessing."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from timm import utils
from timm.data import resolve_data_config
from torch import Tensor

from rga_timm.data import (
    IdentityBatchSampler,
    ImageCache,
    ReidReader,
    ReidSplits,
    create_cached_train_loader,
    create_train_loader,
    join_train,
    train_transform,
)
from rga_timm.data.specs import leave_out_bad_images, pair_with_folders, read_partitions
from rga_timm.evaluation import (
    Protocol,
    check_testable,
    describe_training,
    name_of_all_partitions,
    train_test_overlap,
)

_logger = logging.getLogger("finetune")


@dataclass(frozen=True)
class Data:
    """What is trained and tested on.

    Attributes:
        train: The training images of all sources.
        sources: What they are from.
        test_sets: Each a data set, or its partitions; the best model is that on the first.
        tested: The spec and the folder of each of the test sets, as they were given.
        left_out: A line for each image that cannot be read.
    """

    train: ReidReader
    sources: list[ReidSplits]
    test_sets: list[list[ReidSplits]]
    tested: list[tuple[str, str | Path | None]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def num_classes(self) -> int:
        """How many people are trained on."""
        return len(self.train.label_of or ())

    @cached_property
    def trained_on(self) -> list[dict[str, Any]]:
        """What the model is to record of the sources."""
        return [describe_training(splits) for splits in self.sources]

    @property
    def test_names(self) -> list[str]:
        """What each test set is called, in reports and in summary.csv."""
        names = []
        for partitions in self.test_sets:
            name = partitions[0].name
            if len(partitions) > 1:
                name = name_of_all_partitions(name)
            names.append(f"{name}-{len(names) + 1}" if name in names else name)
        return names

    @property
    def test_options(self) -> list[str]:
        """The options by which rga-timm evaluate tests on the same."""
        folders = [str(folder) for _, folder in self.tested if folder is not None]
        options = ["--dataset", *(spec for spec, _ in self.tested)]
        if folders:
            options += ["--data-dir", *(folders[:1] if len(set(folders)) == 1 else folders)]
        return options


def read_data(args: argparse.Namespace) -> Data:
    """Read all data sets; what cannot be read, or not be used, ends the program."""
    folders = args.data_dir or []
    pairs = {"train": pair_with_folders(args.dataset, folders)}
    if args.eval_dataset:
        pairs["test"] = pair_with_folders(args.eval_dataset, args.eval_data_dir or folders)
    left_out: list[str] = []
    read: dict[str, list[list[ReidSplits]]] = {}
    for purpose, specs in pairs.items():
        read[purpose] = []
        for spec, folder in specs:
            try:
                partitions = read_partitions(spec, folder)
                if args.skip_bad_images:
                    # Every process looks at all of them, so that none waits for another too long.
                    checked = [leave_out_bad_images(part, args.workers) for part in partitions]
                    partitions = [part for part, _ in checked]
                    left_out += [line for _, lines in checked for line in lines]
                if purpose == "test":
                    check_testable(partitions)
            except (ValueError, OSError, ImportError) as error:
                option = "--eval-dataset" if purpose == "test" else "--dataset"
                raise SystemExit(f"{option} {spec}: {error}") from error
            read[purpose].append(partitions)
    sources = [partitions[0] for partitions in read["train"]]
    # Of what is trained on, not all need be there to be tested on.
    purpose = "test" if "test" in read else "train"
    tests = [
        (pair, partitions)
        for pair, partitions in zip(pairs[purpose], read[purpose], strict=True)
        if len(partitions[0].query)
    ]
    try:
        train = join_train(sources)
        if purpose == "train":
            check_testable([partitions[0] for _, partitions in tests])
    except ValueError as error:
        raise SystemExit(f"--dataset: {error}") from error
    if not tests:
        raise SystemExit(
            f"--dataset {' '.join(args.dataset)}: there is nothing to test on, so no best model "
            "could be chosen: name a data set with queries by --eval-dataset"
        )
    if len(sources) > 1:
        _logger.info("%d images of %d people to train on", len(train), len(train.label_of or ()))
    data = Data(
        train,
        sources,
        test_sets=[partitions for _, partitions in tests],
        tested=[pair for pair, _ in tests],
        left_out=list(dict.fromkeys(left_out)),
    )
    # Now, and not after hours of training: what one partition trains on another one tests on.
    for _, partitions in tests:
        for part in partitions:
            for warning in train_test_overlap(part, data.trained_on):
                _logger.warning("%s: %s", part.name, warning)
    return data


def check_same_data(data: Data, run: Path, resumes: bool) -> None:
    """End a resumed run whose data are not what it was begun with; note them down at the start.

    People who were trained on could else be tested on, and labels mean others than they did.
    """
    file = run / "data.json"
    now = {
        "train": [_described(splits) for splits in data.sources],
        "test": [_described(splits) for partitions in data.test_sets for splits in partitions],
    }
    if not (resumes and file.exists()):
        file.write_text(json.dumps(now, indent=2) + "\n", encoding="utf-8")
        return
    if json.loads(file.read_text(encoding="utf-8")) != now:
        raise SystemExit(
            f"--resume {run}: what it trains or tests on has changed since it was begun. Restore "
            f"the data as {file} describes them, or begin a new run"
        )


def _described(splits: ReidSplits) -> dict[str, Any]:
    """Without what runs of older versions did not note; the other fingerprint covers it."""
    return {k: value for k, value in splits.describe().items() if k != "test_fingerprint"}


def create_batches(
    args: argparse.Namespace,
    train: ReidReader,
    model: Any,
    device: torch.device,
    stack: ExitStack,
) -> tuple[Iterable[tuple[Tensor, Tensor]], IdentityBatchSampler, Protocol]:
    """The batches to train on, and how images are prepared to be tested on.

    Args:
        args: The options.
        train: What to train on.
        model: A timm model, which says how images are to be prepared.
        device: Where it runs.
        stack: What it takes over is to be closed after training: the cache.
    """
    wanted = {"input_size": (3, *args.img_size)} if args.img_size else {}
    config = resolve_data_config(wanted, model=model)
    img_size = config["input_size"][1:]
    preparation = {name: config[name] for name in ("mean", "std", "interpolation")}
    try:
        sampler = IdentityBatchSampler(
            train.labels,
            args.num_identities,
            args.num_instances,
            seed=args.seed,
            rank=args.rank,
            world_size=args.world_size,
            epoch_images=args.epoch_images,
        )
    except ValueError as error:
        raise SystemExit(f"--num-identities, --num-instances: {error}") from error
    augmentation = train_transform(
        img_size,
        **preparation,
        enlarge_prob=args.enlarge_prob,
        flip_prob=args.flip_prob,
        erase_prob=args.erase_prob,
    )
    batches: Iterable[tuple[Tensor, Tensor]]
    if args.cache is None:
        batches = create_train_loader(
            train,
            augmentation,
            sampler,
            num_workers=args.workers,
            seed=args.seed,
            pin_memory=device.type == "cuda",
        )
    else:
        try:
            cache = ImageCache.fill(
                train,
                img_size,
                preparation["interpolation"],
                allowed_gb=args.cache,
                num_workers=args.workers,
                progress=utils.is_primary(args),
            )
            if args.cache_on_device and device.type != "cpu":
                in_memory, cache = cache, cache.to(device)
                in_memory.close()
        except (MemoryError, ValueError, RuntimeError) as error:
            raise SystemExit(f"--cache {args.cache:g}: {error}") from error
        stack.enter_context(cache)
        batches = create_cached_train_loader(
            cache,
            augmentation,
            sampler,
            targets=train.targets,
            device=device,
            num_workers=args.workers,
            seed=args.seed,
        )
    protocol = Protocol(
        img_size=img_size, **preparation, feature=args.feature, amp_dtype=args.amp_dtype
    )
    return batches, sampler, protocol
