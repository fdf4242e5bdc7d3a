"""The fine-tuning run: one linear function, from the config to the exported model."""

import argparse
import logging
import math
import shlex
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from timm import utils
from timm.layers import convert_sync_batchnorm
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import distributed as dist
from tqdm import tqdm

from rga_timm.data import IdentityBatchSampler
from rga_timm.data.text_file import write_text
from rga_timm.evaluation import (
    Compute,
    ModelRecord,
    Protocol,
    Report,
    evaluate_dataset,
    format_table,
    load_reports,
    log_warnings,
    save_reports,
)
from rga_timm.evaluation.compute import keep_freed_memory
from rga_timm.hub import code_version, save_pretrained
from rga_timm.hub.pretrained import PRIVATE
from rga_timm.losses import DistillationLoss, ReidLoss, world_size
from rga_timm.task import ReidTask
from rga_timm.training.checkpoints import (
    BEST,
    REPORT,
    CheckpointSaver,
    load_weights,
    read_checkpoint,
    read_report_of,
    remove_old_checkpoints,
)
from rga_timm.training.config import ConfigError, TrainConfig
from rga_timm.training.curves import draw_curves
from rga_timm.training.data import Batches, Data, check_same_data, create_batches, read_data
from rga_timm.training.precision import fastest_amp_dtype
from rga_timm.training.records import open_tensorboard, record, write_page_of_best
from rga_timm.training.resume import check_same_options, resume
from rga_timm.training.start import Start, create_model, exported_model_args, warn_of_overlap
from rga_timm.training.teacher import Teacher, create_teacher

_logger = logging.getLogger(__name__)


def train(config: TrainConfig) -> Path:
    """Fine-tune as the config says, on all processes that torchrun has started.

    Returns:
        The run's folder.

    Raises:
        ConfigError: Model or data do not exist or do not fit, or the loss is not finite.
    """
    config = config.resolved()
    process = argparse.Namespace(device=config.device)  # timm puts rank and world_size into it
    device = utils.init_distributed_device(process)
    keep_freed_memory(device)
    is_main = utils.is_primary(process)
    utils.random_seed(config.seed, 0)  # the same initial weights on all ranks
    run = Path(str(config.output))
    if config.resume:
        check_same_options(config, run)
    if is_main:
        run.mkdir(parents=True, exist_ok=True)
        _logger.info("Run %s on %d x %s", run, process.world_size, device)

    # Data and model: both need the image size and the number of identities
    data = read_data(config)
    if is_main or config.resume:
        check_same_data(data, run, config.resume)
    if is_main and data.left_out:
        lines = "\n".join(data.left_out) + "\n"
        # surrogateescape: the name of a file is not always valid UTF-8.
        write_text(run / "left_out_images.txt", lines, errors="surrogateescape")
    model, start = create_model(config, data)
    model.to(device)
    trained_on = start.trained_on_with(data.trained_on)
    warn_of_overlap(start, data)
    if config.channels_last:
        model.to(memory_format=torch.channels_last)
    closing = ExitStack()
    train_loader, sampler, protocol = create_batches(
        config, data, model, device, process.rank, process.world_size, closing
    )
    if config.amp_dtype == "auto":
        amp_dtype: Any = fastest_amp_dtype(
            model, sampler.batch_size, protocol.img_size, device,
            channels_last=config.channels_last,
        )  # fmt: skip
        config = replace(config, amp_dtype=amp_dtype)
        protocol = replace(protocol, amp_dtype=amp_dtype)
    teacher = create_teacher(config, data.parts, protocol, device)

    # Task, optimizer, schedule. In this order: the optimizer must know all parameters before some
    # are frozen, and DistributedDataParallel comes last.
    if config.sync_bn:
        model = convert_sync_batchnorm(model)
    loss = ReidLoss(config.smoothing, config.margin, config.triplet_weight)
    distillation = DistillationLoss(config.similarity_weight, config.projection_weight)
    task = ReidTask(
        model, loss, freeze_bn=config.freeze_bn, device=device, verbose=is_main,
        distillation=distillation if teacher else None,
        teacher_width=teacher.width if teacher else 0, feature=config.feature,
    )  # fmt: skip
    task.to(device)
    optimizer = create_optimizer_v2(
        model, opt=config.opt, lr=config.lr, weight_decay=config.weight_decay,
        momentum=config.momentum, layer_decay=config.layer_decay,
        filter_bias_and_bn=not config.decay_norm_and_bias,
    )  # fmt: skip
    if task.trainable_module.projection is not None:
        optimizer.add_param_group({"params": task.trainable_module.projection.parameters()})
    updates_per_epoch = math.ceil(len(train_loader) / config.grad_accum_steps)
    scheduler = create_schedule(config, optimizer, updates_per_epoch)
    scaler = utils.NativeScaler(device.type) if config.amp_dtype == "float16" else None
    if config.ema_decay:
        task.setup_ema(decay=config.ema_decay, use_warmup=True)
    start_epoch, best = 0, None
    if config.resume:
        start_epoch, best = resume(run, task, optimizer, scaler, is_main=is_main)
    if is_main:  # only now: options that do not fit the checkpoint must not replace those that do
        write_text(run / "args.yaml", yaml.safe_dump(config.to_dict(), sort_keys=False))
    if start_epoch < config.freeze_backbone_epochs:
        task.freeze_backbone()
    if config.compile:
        task.compile()
    if process.distributed:
        task.prepare_distributed(device_ids=[device] if device.type == "cuda" else None)

    saver, board = None, None
    if is_main:
        saver = CheckpointSaver(run, type(model).__name__.lower(), task, optimizer, scaler, best)
        board = open_tensorboard(run)

    compute = Compute(
        device,
        config.eval_batch_size,
        config.workers,
        channels_last=config.channels_last,
        distributed=process.distributed,
        progress=is_main,
    )

    def evaluate(state: str | None = None) -> list[Report]:
        eval_model: Any = task.get_eval_model(ema=task.has_ema())
        if process.distributed:  # the first rank's statistics for all
            utils.distribute_bn(eval_model, process.world_size, reduce=False)
        name = f"{start.name} ({state})" if state else start.name
        record = ModelRecord(name, trained_on=trained_on).with_hash_of(eval_model)
        return [
            evaluate_dataset(eval_model, partitions, protocol, record, compute=compute)
            for partitions in data.test_sets
        ]

    try:
        if config.eval_initial and start_epoch == 0:
            initial = evaluate("before training")
            _logger.info("Before training: mAP %.1f%%", 100 * initial[0].metrics["mAP"])
            if is_main:
                save_reports(initial, run / "initial_report.json")
        for epoch in range(start_epoch, config.epochs):
            if epoch == config.freeze_backbone_epochs > 0:
                task.freeze_backbone(False)
            sampler.set_epoch(epoch)
            # From here everything random follows from (seed, epoch): a resumed run is the same run.
            utils.random_seed(config.seed + 1000 * (epoch + 1), process.rank)
            lr = schedule_epoch(scheduler, optimizer, config, epoch, updates_per_epoch)
            losses = train_epoch(
                config, task, train_loader, sampler, teacher, optimizer, scheduler, scaler, epoch
            )
            last = epoch + 1 == config.epochs
            reports = evaluate() if last or (epoch + 1) % config.eval_every == 0 else []
            if saver:
                record(run, board, saver, epoch, losses, lr, data.test_names, reports)
        if is_main:
            alone = replace(compute, distributed=False)
            finish(config, run, task, data, start, protocol, alone, teacher)
    except (KeyboardInterrupt, OSError) as error:
        if is_main:
            how = "Interrupted" if isinstance(error, KeyboardInterrupt) else "Ended by an error"
            text = "%s. Begin this epoch again by:\n    rga-timm finetune --resume %s"
            _logger.warning(text, how, shlex.quote(str(run)))
        raise
    finally:
        closing.close()
        if board:
            with suppress(OSError):  # of a full disk; it would hide the first error
                board.close()
    if process.distributed:
        dist.barrier()  # the other ranks wait until the first one has written the model
        dist.destroy_process_group()
    return run


def create_schedule(
    config: TrainConfig, optimizer: torch.optim.Optimizer, updates_per_epoch: int
) -> Scheduler | None:
    """The learning rate over epochs or updates; None for ``--sched none``."""
    scheduler, _ = create_scheduler_v2(
        optimizer, config.sched, num_epochs=config.epochs, warmup_epochs=config.warmup_epochs,
        warmup_lr=config.warmup_lr, min_lr=config.min_lr, decay_rate=config.decay_rate,
        # timm lowers the rate a step before its milestone; the paper's code in its epoch. (Where
        # steps are updates, one of them does not matter.)
        decay_milestones=[m + (not config.sched_on_updates) for m in config.decay_milestones],
        step_on_epochs=not config.sched_on_updates, updates_per_epoch=updates_per_epoch,
    )  # fmt: skip
    return scheduler


def schedule_epoch(
    scheduler: Scheduler | None, optimizer: torch.optim.Optimizer, config: TrainConfig, epoch: int,
    updates_per_epoch: int,
) -> float:  # fmt: skip
    """Set the learning rate that the epoch begins with, and return it."""
    if scheduler is not None and config.sched_on_updates:
        scheduler.step_update(epoch * updates_per_epoch)
    elif scheduler is not None:
        scheduler.step(epoch)
    return max(group["lr"] for group in optimizer.param_groups)


def train_epoch(
    config: TrainConfig, task: ReidTask, loader: Batches, sampler: IdentityBatchSampler,
    teacher: Teacher | None, optimizer: torch.optim.Optimizer, scheduler: Scheduler | None,
    scaler: utils.NativeScaler | None, epoch: int,
) -> dict[str, float]:  # fmt: skip
    """Train for one epoch; return the means over all ranks of what the task reports."""
    task.train()
    device = task.device
    memory_format = torch.channels_last if config.channels_last else torch.contiguous_format
    amp_dtype = getattr(torch, config.amp_dtype or "bfloat16")
    steps = config.grad_accum_steps
    names = ["cross_entropy", "triplet", "accuracy"]
    names += ["similarity", "projection"] if teacher else []
    meters = {name: utils.AverageMeter() for name in names}
    count = len(loader)
    updates = epoch * math.ceil(count / steps)
    is_main = not dist.is_initialized() or dist.get_rank() == 0
    title = f"epoch {epoch + 1}/{config.epochs}"
    # The sampler plans an epoch by its number: these are the images of the loader's batches.
    batches = zip(loader, sampler, strict=True)
    progress = tqdm(batches, title, count, disable=not is_main, leave=False)
    optimizer.zero_grad()
    for i, ((images, targets), indices) in enumerate(progress):
        images = images.to(device, memory_format=memory_format, non_blocking=True)
        labels = targets[: sampler.num_labelled, 0].to(device, non_blocking=True)
        taught = teacher(images, indices) if teacher else None
        # The last group of batches may be smaller than the others.
        group = min(steps, count - i // steps * steps)
        is_update = (i + 1) % steps == 0 or i + 1 == count
        with nullcontext() if is_update else task.no_sync():
            with torch.autocast(device.type, amp_dtype, enabled=bool(config.amp_dtype)):
                out = task(images, labels, taught)
            backward(config, task, out["loss"] / group, optimizer, scaler, is_update)
        for name, meter in meters.items():
            meter.update(out[name].detach(), len(images))
        if is_update:
            optimizer.zero_grad()
            updates += 1
            task.update_ema(updates)
            if scheduler is not None:
                scheduler.step_update(updates)
        if i % 10 == 0:  # reading a number waits for the GPU
            shown = {"ce": out["cross_entropy"].item(), "triplet": out["triplet"].item()}
            progress.set_postfix({name: f"{value:.3f}" for name, value in shown.items()})
    means = torch.stack([meter.avg for meter in meters.values()])
    if world_size() > 1:
        means = utils.reduce_tensor(means, world_size())
    if not means.isfinite().all():
        raise ConfigError(
            f"the loss is not finite in epoch {epoch + 1}: lower --lr, lengthen "
            "--warmup-epochs, or set --clip-grad; with --amp-dtype float16, try bfloat16"
        )
    return dict(zip(meters, means.tolist(), strict=True))


def backward(
    config: TrainConfig, task: ReidTask, loss: torch.Tensor, optimizer: torch.optim.Optimizer,
    scaler: utils.NativeScaler | None, is_update: bool,
) -> None:  # fmt: skip
    """Compute gradients, and with the last batch of a group the update."""
    parameters = list(task.get_clip_parameters())
    if scaler is not None:
        scaler(loss, optimizer, config.clip_grad, parameters=parameters, need_update=is_update)
        return
    loss.backward()
    if is_update:
        if config.clip_grad is not None:
            utils.dispatch_clip_grad(parameters, config.clip_grad)
        optimizer.step()


def finish(
    config: TrainConfig, run: Path, task: ReidTask, data: Data, start: Start, protocol: Protocol,
    compute: Compute, teacher: Teacher | None,
) -> None:  # fmt: skip
    """Export the best model, and print how good it is and where it is."""
    best = read_checkpoint(run / BEST)
    load_weights(task, best.path)
    model: Any = task.get_eval_model(ema=task.has_ema())
    trained_on = start.trained_on_with(data.trained_on)
    record = ModelRecord(start.name, trained_on=trained_on)
    initial = run / "initial_report.json"
    reports = read_report_of(best)
    if reports is None:
        _logger.warning("%s is not of %s, which is tested again.", run / REPORT, best.path.name)
        reports = [
            evaluate_dataset(model, partitions, protocol, record, compute=compute)
            for partitions in data.test_sets
        ]
        save_reports(reports, run / REPORT)
    reid = {
        "options": {
            **{k: value for k, value in config.to_dict().items() if k not in PRIVATE},
            "model": start.name,
            "dataset": [splits.name for splits in data.sources],
            "eval_dataset": data.test_names,
        },
        **({"started_from": start.record} if start.record else {}),
        **({"teachers": teacher.records} if teacher else {}),
        "trained_on": trained_on,
        "code_version": code_version(),
        **reports[0].to_dict(),
        "also_tested_on": [report.to_dict() for report in reports[1:]],
    }
    log_warnings(reports)
    folder = save_pretrained(
        model, run / "model", reid=reid, model_args=exported_model_args(config, start)
    )
    remove_old_checkpoints(run)
    print(format_table([*(load_reports(initial) if initial.exists() else []), *reports]))
    command = ["rga-timm", "evaluate", f"local-dir:{folder}", *data.test_options]
    command += ["--feature", config.feature] if config.feature != "embedding" else []
    print(f"\nThe best model is in {folder}. Use it:\n    {shlex.join(command)}")
    draw_curves(run)
    if config.page and (page := write_page_of_best(run, model, data, record, protocol, compute)):
        print(f"\nSee what it finds, and what not: open {page} in a browser.")
