"""From a model and a data set to a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from rga_timm.data import ReidSplits, create_eval_loader, eval_transform
from rga_timm.evaluation.average import average_reports
from rga_timm.evaluation.model import evaluate_model
from rga_timm.evaluation.report import Protocol, Report


def evaluate_dataset(
    model: nn.Module,
    splits: ReidSplits | Sequence[ReidSplits],
    protocol: Protocol,
    *,
    name: str,
    checkpoint: str | None = None,
    batch_size: int = 128,
    num_workers: int = 4,
    device: torch.device | str = "cpu",
    channels_last: bool = False,
    progress: bool = True,
) -> Report:
    """Find the queries of a data set in its gallery.

    Args:
        model: any timm model.
        splits: the data set; or its partitions, whose mean is reported.
        protocol: how to test. What the data set itself prescribes (no cameras, single gallery shot)
            is put into it.
        name: of the model, for the report.
        checkpoint: where its weights are from, for the report.
        batch_size: images embedded at a time.
        num_workers: processes that read images.
        device: where the model runs and the ranking is computed.
        channels_last: run in that memory format.
        progress: show progress bars.

    Returns:
        The report.

    Raises:
        ValueError: the data set has no queries or no gallery, or as `evaluate`.
    """
    partitions = [splits] if isinstance(splits, ReidSplits) else list(splits)
    check_testable(partitions)
    transform = eval_transform(
        protocol.img_size, protocol.mean, protocol.std, protocol.interpolation
    )
    reports = []
    for part in partitions:
        part_protocol = replace(
            protocol, cameras=part.has_cameras, single_gallery_shot=part.single_gallery_shot
        )
        query, gallery = (
            create_eval_loader(
                reader,
                transform,
                batch_size,
                num_workers=num_workers,
                pin_memory=torch.device(device).type == "cuda",
            )
            for reader in (part.query, part.gallery)
        )
        result = evaluate_model(
            model,
            query,
            gallery,
            part_protocol,
            device=device,
            channels_last=channels_last,
            progress=progress,
        )
        reports.append(
            Report.of(
                result,
                model=name,
                checkpoint=checkpoint,
                dataset=part.describe(),
                protocol=part_protocol,
            )
        )
    return reports[0] if len(reports) == 1 else average_reports(reports)


def check_testable(partitions: Sequence[ReidSplits]) -> None:
    """Raise a ValueError unless there are queries and a gallery."""
    for part in partitions:
        for split in ("query", "gallery"):
            if not len(part.readers[split]):
                raise ValueError(f"{part.name} cannot be tested on: its {split} is empty")
