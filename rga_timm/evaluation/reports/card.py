"""The protocol card: everything that a report's scores depend on, as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from rga_timm.evaluation.reports.report import AP_CONVENTIONS, Report

# What belongs to the model and not to the test: with which features it comes to be compared. All
# other fields of a protocol, also those that are added one day, are the test's.
MODELS_OWN = ("img_size", "interpolation", "mean", "std", "feature", "amp_dtype")

_LABELS = {
    "img_size": "image size",
    "amp_dtype": "mixed precision",
    "metric": "distance",
    "rerank": "re-ranking",
    "cameras": "cameras known",
}


def format_card(report: Report) -> str:
    """What was tested, how, and with what, a line each."""
    sections = card(report)
    width = max(len(name) for items in sections.values() for name in items)
    lines = []
    for section, items in sections.items():
        lines += [section, *(f"  {name:<{width}}  {text}" for name, text in items.items()), ""]
    return "\n".join(lines[:-1])


def card(report: Report) -> dict[str, dict[str, str]]:
    """The lines of the sections ``model``, ``data set``, ``test``, ``scores`` and ``software``."""
    protocol = {
        f.name: (_LABELS.get(f.name, f.name.replace("_", " ")), _text(f.name, value))
        for f in fields(report.protocol)
        for value in [getattr(report.protocol, f.name)]
    }
    metrics = report.metrics
    return {
        "model": {
            "name": report.model,
            "checkpoint": report.checkpoint or "the model's own",
            "weights (sha256)": report.weights or "not recorded",
            **dict(protocol[name] for name in MODELS_OWN),
        },
        "data set": _describe(report.dataset),
        "test": dict(text for name, text in protocol.items() if name not in MODELS_OWN),
        "scores": {
            "queries that count": f"{metrics['num_valid_queries']} of {metrics['num_queries']}",
            "mAP": AP_CONVENTIONS["mAP"],
            "mAP (trapezoid)": AP_CONVENTIONS["mAP_trapezoid"],
            "mINP": "mean inverse negative penalty (AGW)",
        },
        "software": dict(report.software),
    }


def _describe(dataset: Mapping[str, Any]) -> dict[str, str]:
    """What a report says of its data set; of the mean over partitions, what each says of itself."""
    described = {"name": str(dataset.get("name"))}
    for name, value in dataset.items():
        if name == "partitions":
            for part in value:
                described[str(part.get("name"))] = str(part.get("fingerprint", "not recorded"))
        elif isinstance(value, Mapping):
            described[name] = ", ".join(f"{n} {what}" for what, n in value.items())
        else:
            described[name.replace("_", " ")] = str(value)
    return described


def _text(name: str, value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name == "img_size":
        return "x".join(map(str, value))
    if isinstance(value, (tuple, list)):
        return ", ".join(map(str, value))
    return str(value)
