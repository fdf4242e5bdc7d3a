"""What rga-timm finetune trains and tests on: data sets, batches, preprocessing."""

import json
import logging
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

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
from rga_timm.data.cached_loader import CachedTrainLoader
from rga_timm.data.specs import leave_out_bad_images, pair_with_folders, read_partitions
from rga_timm.data.text_file import write_text
from rga_timm.evaluation import (
    Protocol,
    check_testable,
    describe_training,
    name_of_all_partitions,
    train_test_overlap,
)
from rga_timm.hub.model_source import data_config
from rga_timm.training.config import ConfigError, TrainConfig

_logger = logging.getLogger(__name__)

Batches = DataLoader[Any] | CachedTrainLoader


@dataclass(frozen=True)
class Data:
    """The data of a run."""

    train: ReidReader  # the training images of all sources
    sources: list[ReidSplits]
    test_sets: list[list[ReidSplits]]  # each in its partitions; the first chooses the best model
    tested: list[tuple[str, str | Path | None]] = field(default_factory=list)  # specs and folders
    left_out: list[str] = field(default_factory=list)  # a line for each unreadable image
    unlabelled: list[ReidSplits] = field(default_factory=list)  # trained on without identities

    @property
    def num_classes(self) -> int:
        """The number of people trained on."""
        return sum(label >= 0 for label in (self.train.label_of or {}).values())

    @property
    def parts(self) -> list[tuple[str, ReidReader]]:
        """Name and images of each data set to train on; one after another they are `train`."""
        return [(splits.name, splits.train) for splits in (*self.sources, *self.unlabelled)]

    @cached_property
    def trained_on(self) -> list[dict[str, Any]]:
        """What the model records about its training data."""
        unlabelled = ({**describe_training(one), "unlabelled": True} for one in self.unlabelled)
        return [*(describe_training(splits) for splits in self.sources), *unlabelled]

    @property
    def test_names(self) -> list[str]:
        """The names of the test sets in reports and in summary.csv."""
        names: list[str] = []
        for partitions in self.test_sets:
            name = partitions[0].name
            name = name_of_all_partitions(name) if len(partitions) > 1 else name
            names.append(f"{name}-{len(names) + 1}" if name in names else name)
        return names

    @property
    def test_options(self) -> list[str]:
        """The options of rga-timm evaluate for the same test sets."""
        folders = [str(folder) for _, folder in self.tested if folder is not None]
        options = ["--dataset", *(spec for spec, _ in self.tested)]
        folders = folders[:1] if len(set(folders)) == 1 else folders
        options += ["--data-dir", *folders] if folders else []
        return options


def read_data(config: TrainConfig) -> Data:
    """Read all data sets, or raise a ConfigError if one cannot be read, trained or tested on."""
    left_out: list[str] = []

    def read(option: str, spec: str, folder: str | Path | None) -> list[ReidSplits]:
        try:
            partitions = read_partitions(spec, folder)
            if config.skip_bad_images:
                # Every process checks all, so that none waits for another too long.
                checked = [leave_out_bad_images(part, config.workers) for part in partitions]
                partitions = [part for part, _ in checked]
                left_out.extend(line for _, lines in checked for line in lines)
            if option == "--eval-dataset":
                check_testable(partitions)
        except (ValueError, OSError, ImportError) as error:
            raise ConfigError(f"{option} {spec}: {error}") from error
        return partitions

    tested = pair_with_folders(config.dataset, config.data_dir)
    test_sets = [read("--dataset", *pair) for pair in tested]
    sources = [partitions[0] for partitions in test_sets]
    if config.eval_dataset:
        tested = pair_with_folders(config.eval_dataset, config.eval_data_dir or config.data_dir)
        test_sets = [read("--eval-dataset", *pair) for pair in tested]
    # Some of the training data sets may have no test images.
    there = [i for i, partitions in enumerate(test_sets) if len(partitions[0].query)]
    pairs = pair_with_folders(config.unlabelled, config.unlabelled_data_dir)
    unlabelled = [read("--unlabelled", *pair)[0] for pair in pairs]
    try:
        train = join_train(sources, [(splits.name, splits.train) for splits in unlabelled])
        if not config.eval_dataset:
            check_testable([part for i in there for part in test_sets[i]])
    except ValueError as error:
        raise ConfigError(f"--dataset: {error}") from error
    if not there:
        raise ConfigError(
            f"--dataset {' '.join(config.dataset)}: there is nothing to test on, so no best model "
            "could be chosen: name a data set with queries by --eval-dataset"
        )
    tests = [test_sets[i] for i in there], [tested[i] for i in there]
    data = Data(train, sources, *tests, list(dict.fromkeys(left_out)), unlabelled)
    if len(sources) > 1:
        _logger.info("%d images of %d people to train on", len(train), data.num_classes)
    # One partition may train on what another one tests on. Say so before hours of training.
    for part in (part for partitions in data.test_sets for part in partitions):
        for warning in train_test_overlap(part, data.trained_on):
            _logger.warning("%s: %s", part.name, warning)
    return data


def check_same_data(data: Data, run: Path, resumes: bool) -> None:
    """Check that a resumed run has the data it was begun with; write data.json at the start.

    With other data, people could be tested on who were trained on, and labels could change. Raises
    a ConfigError then.
    """
    file = run / "data.json"
    now = {
        "train": [_described(splits) for splits in (*data.sources, *data.unlabelled)],
        "test": [_described(splits) for partitions in data.test_sets for splits in partitions],
    }
    if not (resumes and file.exists()):
        write_text(file, json.dumps(now, indent=2) + "\n")
        return
    try:
        begun_with = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(
            f"{file} is damaged ({error}). It describes the data that the run was begun with: "
            "remove it if they are the same, to go on"
        ) from error
    if begun_with != now:
        raise ConfigError(
            f"--resume {run}: its training or test data have changed since it was begun. Restore "
            f"the data as {file} describes them, or begin a new run"
        )


def _described(splits: ReidSplits) -> dict[str, Any]:
    """Describe the data as older versions did; the other fingerprint covers the test images."""
    return {k: value for k, value in splits.describe().items() if k != "test_fingerprint"}


def create_batches(
    config: TrainConfig, data: Data, model: Any, device: torch.device, rank: int,
    world_size: int, closing: ExitStack,
) -> tuple[Batches, IdentityBatchSampler, Protocol]:  # fmt: skip
    """Make the batches to train on, prepared as the model wants, and the protocol to test by.

    `closing` closes the cache after training. A ConfigError says that the numbers of a batch do not
    fit, or that the cache is too small.
    """
    resolved = data_config(model, img_size=config.img_size)
    img_size = resolved["input_size"][1:]
    preparation = {name: resolved[name] for name in ("mean", "std", "interpolation")}
    # At most all identities, in equal shares of the processes.
    most = max(data.num_classes // world_size * world_size, 1)
    if config.num_identities > most:
        _logger.warning(
            "Batches are of %d identities, not %d: there are %d to train on.",
            *(most, config.num_identities, data.num_classes),
        )
    try:
        sampler = IdentityBatchSampler(
            data.train.labels, min(config.num_identities, most), config.num_instances,
            seed=config.seed, rank=rank, world_size=world_size, epoch_images=config.epoch_images,
            num_unlabelled=config.unlabelled_images if data.unlabelled else 0,
        )  # fmt: skip
    except ValueError as error:
        raise ConfigError(f"--num-identities, --num-instances: {error}") from error
    augmentation = train_transform(
        img_size, **preparation, enlarge_prob=config.enlarge_prob,
        flip_prob=config.flip_prob, erase_prob=config.erase_prob,
    )  # fmt: skip
    protocol = Protocol(
        img_size=img_size, **preparation, feature=config.feature, amp_dtype=config.amp_dtype
    )
    loading: dict[str, Any] = {"num_workers": config.workers, "seed": config.seed}
    if config.cache is None:
        pin = device.type == "cuda"
        loader = create_train_loader(data.train, augmentation, sampler, **loading, pin_memory=pin)
        return loader, sampler, protocol
    try:
        cache = ImageCache.fill(
            data.train, img_size, preparation["interpolation"], allowed_gb=config.cache,
            num_workers=config.workers, progress=rank == 0,
        )  # fmt: skip
        if config.cache_on_device and device.type != "cpu":
            in_memory, cache = cache, cache.to(device)
            in_memory.close()
    except (MemoryError, ValueError, RuntimeError) as error:
        raise ConfigError(f"--cache {config.cache:g}: {error}") from error
    closing.enter_context(cache)
    cached = create_cached_train_loader(
        cache, augmentation, sampler, targets=data.train.targets, device=device, **loading
    )
    return cached, sampler, protocol
