import benchmark
import pytest
import timm
import torch
from publish_cost import BATCH_SIZES, measure_cost

import rga_timm  # noqa: F401 - registers the models


def test_cost_is_of_the_model_and_its_times_are_compared_with_no_attention(monkeypatch):
    compared = []

    def take_turns(args, steps):
        compared.append([list(steps), args.rounds])
        for step in steps.values():
            step()
        return {"plain": (2.0, 1.0), "model": (3.0, 1.5)}

    monkeypatch.setattr(benchmark, "take_turns", take_turns)
    model = timm.create_model("test_rga_resnet", num_classes=0, img_size=(64, 32))
    cost = measure_cost(model, {"native_size": (64, 32)}, "cpu", rounds=2)
    # Counted by hand: what the optimizer would see, and what the meta device computes.
    assert cost["parameters"] == sum(p.numel() for p in model.parameters())
    on_meta = timm.create_model("test_rga_resnet", num_classes=0, device="meta")
    images = torch.empty(1, 3, 64, 32, device="meta")
    assert cost["gflops"] == pytest.approx(benchmark.count_flops(on_meta, images) / 1e9)
    assert cost["img_size"] == [64, 32]
    assert cost["latency"] == [{"batch_size": b, "ms": 3.0, "ratio": 1.5} for b in BATCH_SIZES]
    assert compared == [[["plain", "model"], 2]] * 2
    assert cost["machine"]["threads"] == str(torch.get_num_threads())


def test_a_network_without_attention_is_compared_with_nothing():
    for name, options in (("test_rga_resnet", {"relation": "none"}), ("test_resnet", {})):
        model = timm.create_model(name, num_classes=0, **options)
        for row in measure_cost(model, options, "cpu", rounds=1)["latency"]:
            assert row.keys() == {"batch_size", "ms"}
            assert row["ms"] > 0
