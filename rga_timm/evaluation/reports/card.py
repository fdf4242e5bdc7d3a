"""The protocol card: everything that a report's scores depend on, as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from rga_timm.evaluation.reports.report import AP_CONVENTIONS, Report

# The fields of a protocol that belong to the model; all others, also future ones, to the test.
MODELS_OWN = ("img_size", "interpolation", "mean", "std", "feature", "amp_dtype")

_LABELS = {
    "img_size": "image size",
    "amp_dtype": "mixed precision",
    "metric": "distance",
    "rerank": "re-ranking",
    "cameras": "cameras known",
}


def format_card(report: Report) -> str:
    """Format what was tested, how, and with what, a line each."""
    sections = card(report)
    width = max(len(name) for items in sections.values() for name in items)
    lines = []
    for section, items in sections.items():
        lines += [section, *(f"  {name:<{width}}  {text}" for name, text in items.items()), ""]
    return "\n".join(lines[:-1])


def card(report: Report) -> dict[str, dict[str, str]]:
    """Return the sections ``model``, ``data set``, ``test``, ``scores`` and ``software``."""
    protocol = {}
    for name in (field.name for field in fields(report.protocol)):
        label = _LABELS.get(name, name.replace("_", " "))
        protocol[name] = label, _text(name, getattr(report.protocol, name))
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
