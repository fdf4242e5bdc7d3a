"""From a model and a data set to a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from rga_timm.data import ReidReader, ReidSplits, create_eval_loader, eval_transform
from rga_timm.evaluation.distributed import rank_and_world_size
from rga_timm.evaluation.embedding.embed import Embeddings
from rga_timm.evaluation.embedding.weights_hash import hash_weights
from rga_timm.evaluation.model import embed_as
from rga_timm.evaluation.reports.average import average_reports
from rga_timm.evaluation.reports.diagnosis import diagnose
from rga_timm.evaluation.reports.from_features import report_features
from rga_timm.evaluation.reports.per_query import query_ids
from rga_timm.evaluation.reports.report import Protocol, Report


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
    distributed: bool = False,
    progress: bool = True,
    per_query: bool = False,
    verify_at: Sequence[float] = (),
    trained_on: Sequence[Mapping[str, Any]] = (),
    log_warnings: bool = True,
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
        distributed: the processes of the default group, under torchrun, share the images and the
            queries. All are given the same arguments, and get the same report.
        progress: show progress bars.
        per_query: keep how each query fared, for paired comparisons. The mean over partitions
            has no such results.
        verify_at: false positive rates at which pairs are verified too, as by `verify`.
        trained_on: what the model says that it was trained on, for the warnings: the list of that
            name in `rga_timm.hub.read_reid`.
        log_warnings: log the report's warnings too.

    Returns:
        The report, with the hash of the weights and what `diagnose` warns of.

    Raises:
        ValueError: the data set has no queries or no gallery, or as `evaluate`.
    """
    return evaluate_protocols(
        model,
        splits,
        [protocol],
        name=name,
        checkpoint=checkpoint,
        batch_size=batch_size,
        num_workers=num_workers,
        device=device,
        channels_last=channels_last,
        distributed=distributed,
        progress=progress,
        per_query=per_query,
        verify_at=verify_at,
        trained_on=trained_on,
        log_warnings=log_warnings,
    )[0]


def evaluate_protocols(
    model: nn.Module,
    splits: ReidSplits | Sequence[ReidSplits],
    protocols: Sequence[Protocol],
    *,
    name: str,
    checkpoint: str | None = None,
    batch_size: int = 128,
    num_workers: int = 4,
    device: torch.device | str = "cpu",
    channels_last: bool = False,
    distributed: bool = False,
    progress: bool = True,
    per_query: bool = False,
    verify_at: Sequence[float] = (),
    trained_on: Sequence[Mapping[str, Any]] = (),
    log_warnings: bool = True,
) -> list[Report]:
    """Test in several ways; images are embedded once for all that differ in the ranking alone.

    Args:
        model: as for `evaluate_dataset`, and so are the others.
        splits: the same.
        protocols: how to test, at least one.
        name: the same.
        checkpoint: the same.
        batch_size: the same.
        num_workers: the same.
        device: the same.
        channels_last: the same.
        distributed: the same.
        progress: the same.
        per_query: the same.
        verify_at: the same.
        trained_on: the same.
        log_warnings: the same.

    Returns:
        A report for each protocol.

    Raises:
        ValueError: as `evaluate_dataset`.
    """
    partitions = [splits] if isinstance(splits, ReidSplits) else list(splits)
    check_testable(partitions)
    weights = hash_weights(model)
    rank, _ = rank_and_world_size(distributed)

    def embedded_as(protocol: Protocol, reader: ReidReader) -> Embeddings:
        return embed_split(
            protocol,
            model,
            reader,
            batch_size=batch_size,
            num_workers=num_workers,
            device=device,
            channels_last=channels_last,
            distributed=distributed,
            progress=progress,
        )

    reports: list[list[Report]] = [[] for _ in protocols]
    for part in partitions:
        embedded: list[tuple[Protocol, Embeddings, Embeddings]] = []
        for protocol, of_parts in zip(protocols, reports, strict=True):
            part_protocol = protocol_on(part, protocol)
            how = replace(protocol, metric="cosine", multi_query=False, expansion=None, rerank=None)
            if how not in (done := [known for known, _, _ in embedded]):
                done.append(how)
                embedded.append((how, embedded_as(how, part.query), embedded_as(how, part.gallery)))
            _, query, gallery = embedded[done.index(how)]
            warnings = diagnose(part, query, gallery, metric=protocol.metric, trained_on=trained_on)
            of_parts.append(
                report_features(
                    query,
                    gallery,
                    part_protocol,
                    model=name,
                    checkpoint=checkpoint,
                    dataset=part.describe(),
                    weights=weights,
                    query_ids=query_ids(part.query) if per_query else None,
                    verify_at=verify_at,
                    warnings=warnings,
                    log_warnings=log_warnings and rank == 0,
                    device=device,
                    distributed=distributed,
                    progress=progress,
                )
            )
    return [one[0] if len(one) == 1 else average_reports(one) for one in reports]


def protocol_on(splits: ReidSplits, protocol: Protocol) -> Protocol:
    """The protocol with what the data set itself prescribes."""
    return replace(
        protocol, cameras=splits.has_cameras, single_gallery_shot=splits.single_gallery_shot
    )


def embed_split(
    protocol: Protocol,
    model: nn.Module,
    reader: ReidReader,
    *,
    batch_size: int = 128,
    num_workers: int = 4,
    device: torch.device | str = "cpu",
    channels_last: bool = False,
    distributed: bool = False,
    progress: bool = True,
) -> Embeddings:
    """Embed the queries or the gallery of a data set, as a protocol says.

    Args:
        protocol: how images are prepared, and what feature is taken.
        model: as for `evaluate_dataset`, and so are the others.
        reader: the split.
        batch_size: the same.
        num_workers: the same.
        device: the same.
        channels_last: the same.
        distributed: the same.
        progress: the same.

    Returns:
        The features, of images or of tracklets; of all processes.
    """
    rank, world_size = rank_and_world_size(distributed)
    loader = create_eval_loader(
        reader,
        eval_transform(protocol.img_size, protocol.mean, protocol.std, protocol.interpolation),
        batch_size,
        num_workers=num_workers,
        rank=rank,
        world_size=world_size,
        pin_memory=torch.device(device).type == "cuda",
    )
    return embed_as(
        protocol,
        model,
        loader,
        device=device,
        channels_last=channels_last,
        distributed=distributed,
        progress=progress,
    )


def check_testable(partitions: Sequence[ReidSplits]) -> None:
    """Raise a ValueError unless there are queries and a gallery."""
    for part in partitions:
        for split in ("query", "gallery"):
            if not len(part.readers[split]):
                raise ValueError(f"{part.name} cannot be tested on: its {split} is empty")
