"""Measure the cost of a checkpoint: size, arithmetic, and time on this machine."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import timm
import torch

from rga_timm.evaluation.cost import (
    count_flops,
    create_images,
    describe_machine,
    make_step,
    take_turns,
)

BATCH_SIZES = (1, 16)
ROUNDS = 15


def measure_cost(
    model: Any, model_args: Mapping[str, Any], device: str, rounds: int = ROUNDS
) -> dict[str, Any]:
    """Measure a model without its classifier, in turns with the same network without attention.

    ``model_args`` are the arguments that it was made with. Times and ratios are medians.

    Returns:
        ``parameters``; ``gflops`` per image, with a multiplication and an addition as two;
        ``latency``, a list of ``batch_size``, ``ms`` and, for a model with attention, ``ratio`` to
        the network without; ``machine``.
    """
    cfg = timm.data.resolve_data_config({}, model=model)
    size = cfg["input_size"][1:]
    # Testing may have changed the model's memory format.
    model = copy.deepcopy(model).to(device, memory_format=torch.contiguous_format)
    model.reset_classifier(0)
    forms = {"model": model}
    if getattr(model, "relation", "none") != "none":
        options = {**model_args, "img_size": size, "num_classes": 0, "relation": "none"}
        plain = timm.create_model(model.pretrained_cfg["architecture"], **options)
        forms = {"plain": plain.to(device), **forms}
    latency = []
    for batch_size in BATCH_SIZES:
        images = create_images(batch_size, size, device)
        steps = {form: make_step(network, images) for form, network in forms.items()}
        for step in steps.values():
            step()  # warm up, settle the caches
        ms, ratio = take_turns(steps, rounds, device)["model"]
        row = {"batch_size": batch_size, "ms": ms}
        latency.append(row | ({"ratio": ratio} if len(forms) > 1 else {}))
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "gflops": count_flops(model, images[:1]) / 1e9,
        "img_size": list(size),
        "latency": latency,
        "machine": describe_machine(device),
    }
