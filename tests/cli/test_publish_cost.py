import pytest
import timm
import torch

import rga_timm  # noqa: F401 - registers the models
from rga_timm.hub.publish import cost as benchmark
from rga_timm.hub.publish.cost import BATCH_SIZES, measure_cost


def test_cost_is_of_the_model_and_its_times_are_compared_with_no_attention(monkeypatch):
    compared = []

    def take_turns(steps, rounds, device):
        compared.append([list(steps), rounds])
        for step in steps.values():
            step()
        return {"plain": (2.0, 1.0), "model": (3.0, 1.5)}

    monkeypatch.setattr(benchmark, "take_turns", take_turns)
    model = timm.create_model("test_rga_resnet", num_classes=5, img_size=(64, 32))
    model.to(memory_format=torch.channels_last)
    cost = measure_cost(model, {"native_size": (64, 32)}, "cpu", rounds=2)
    assert cost["img_size"] == [64, 32]
    assert cost["latency"] == [{"batch_size": b, "ms": 3.0, "ratio": 1.5} for b in BATCH_SIZES]
    assert compared == [[["plain", "model"], 2]] * 2
    assert cost["machine"]["threads"] == str(torch.get_num_threads())
    # The model that is published is not touched.
    assert model.num_classes == 5
    assert model.conv1.weight.is_contiguous(memory_format=torch.channels_last)


def test_size_and_arithmetic_are_those_of_the_paper_model_without_classifier():
    # As published and as the README's benchmark has them: 29.8 M, 10.1 GFLOPs.
    model = timm.create_model("rga_resnet50", num_classes=751)
    cost = measure_cost(model, {}, "cpu", rounds=1)
    assert cost["parameters"] == pytest.approx(29.8e6, abs=0.05e6)
    assert cost["gflops"] == pytest.approx(10.1, abs=0.1)


def test_both_networks_are_measured_alike(monkeypatch):
    measured = []
    make_step = benchmark.make_step

    def noted(network, images):
        measured.append((network.conv1.weight.stride(), images.stride(), network.num_classes))
        return make_step(network, images)

    monkeypatch.setattr(benchmark, "make_step", noted)
    model = timm.create_model("test_rga_resnet", num_classes=5)
    measure_cost(model.to(memory_format=torch.channels_last), {}, "cpu", rounds=1)
    assert measured[0::2] == measured[1::2]  # plain, model, plain, model


def test_a_network_without_attention_is_compared_with_nothing():
    for name, options in (("test_rga_resnet", {"relation": "none"}), ("test_resnet", {})):
        model = timm.create_model(name, num_classes=0, **options)
        for row in measure_cost(model, options, "cpu", rounds=1)["latency"]:
            assert row.keys() == {"batch_size", "ms"}
            assert row["ms"] > 0
