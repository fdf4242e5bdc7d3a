"""Small checkpoints, as rga-timm publish packs them."""

from pathlib import Path
from typing import Any

import timm
import torch
from models.random_weights import scramble
from torch import nn

from rga_timm.evaluation import Protocol, Report
from rga_timm.hub import pack_checkpoint


def make_model(name: str = "test_rga_resnet", seed: int = 0, **kwargs: Any) -> nn.Module:
    """A model in evaluation mode, with weights as if trained."""
    torch.manual_seed(0)
    return scramble(timm.create_model(name, **kwargs), seed).eval()


def make_report(name: str, mean_average_precision: float = 0.5, **protocol: Any) -> Report:
    """A report on a data set that never was."""
    counts = {"images": 20, "ids": 10, "cameras": 2}
    return Report(
        model=name,
        dataset={"name": "market1501", "query": counts, "gallery": counts, "fingerprint": "f0"},
        protocol=Protocol((64, 32), "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        if not protocol
        else Protocol((64, 32), "bilinear", (0.5,) * 3, (0.5,) * 3, **protocol),
        metrics={
            "mAP": mean_average_precision,
            "mAP_trapezoid": 0.45,
            "mINP": 0.25,
            "cmc": [0.625, 0.75, 0.875],
            "num_queries": 20,
            "num_valid_queries": 20,
        },
    )


def make_records(name: str, **changes: Any) -> dict[str, Any]:
    """What a checkpoint must record."""
    return {
        **make_report(name).to_dict(),
        "also_tested_on": [make_report(name, 0.55, flip=True).to_dict()],
        "name": name,
        "repository": f"someone/{name}",
        "version": 1,
        "license": "research-use-only",
        "trained_on": [{"name": "market1501", "train": {"images": 40, "ids": 10, "cameras": 2}}],
        "code_version": "0.1.0 (abc)",
        "command": "rga-timm finetune --config recipe.yaml",
        **changes,
    }


def make_checkpoint(
    weights: Path,
    name: str = "test_rga_resnet.pedestrians",
    *,
    seed: int = 0,
    half: bool = True,
    **changes: Any,
) -> Path:
    """The folder of a checkpoint with random weights."""
    model = make_model(name.partition(".")[0], seed)
    return pack_checkpoint(model, weights / name, reid=make_records(name, **changes), half=half)
