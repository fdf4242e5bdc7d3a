import copy

import pytest
import torch
from paper_reference import slow_rga
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from watch_tensors import TensorSizes, saved_bytes

from rga_timm.layers import RELATIONS, RGA, RelationAttention
from rga_timm.layers.materialized import MaterializedRelationAttention, materialize

KINDS = RELATIONS[1:]
# Channels, grid, reduction: more channels than positions, more positions than channels, fewer
# positions than the reduction, all widths 1.
SIZES = [(16, (4, 3), 2), (8, (5, 4), 2), (12, (3, 2), 8), (5, (1, 3), 8)]


def scramble(module: nn.Module, seed: int = 0) -> None:
    """No parameter or statistic at its initial value, so that none can be overlooked."""
    generator = torch.Generator().manual_seed(seed)
    for m in module.modules():
        if isinstance(m, _BatchNorm):
            for t, low in ((m.weight, 0.5), (m.bias, 0.1), (m.running_mean, -0.5)):
                t.data.copy_(torch.rand(t.shape, generator=generator) + low)
            m.running_var.copy_(torch.rand(m.running_var.shape, generator=generator) + 0.5)
            m.num_batches_tracked.fill_(7)
        elif isinstance(m, nn.Conv2d):
            fan_in = m.weight[0].numel()
            noise = torch.randn(m.weight.shape, generator=generator)
            m.weight.data.copy_(noise / fan_in**0.5)


def make(relation, dim, grid, dtype=torch.float64, reduction=2) -> RGA:
    rga = RGA(dim, grid, relation, reduction=reduction).to(dtype)
    scramble(rga)
    return rga


def make_input(dim, grid, dtype=torch.float64, batch: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, dim, *grid, generator=generator, dtype=torch.float64).to(dtype)


def step(module, x: Tensor, memory_format: torch.memory_format) -> dict[str, Tensor]:
    """Output, every gradient and every buffer after one forward and backward."""
    x = x.clone().to(memory_format=memory_format).requires_grad_()
    out = module(x)
    direction = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape)
    (out * direction).sum().backward()
    results = {"output": out.detach(), "input gradient": x.grad}
    results |= {f"{n} gradient": p.grad for n, p in module.named_parameters()}
    return results | dict(module.named_buffers())


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """Every tensor, to ``tolerance`` of its own largest element."""
    assert actual.keys() == expected.keys()
    for name, want in expected.items():
        assert actual[name] is not None, f"no {name}"
        error = (actual[name] - want).abs().max()
        # Weights before a batch norm may have a gradient of 0 in exact arithmetic.
        scale = max(0.1, want.abs().max().item())
        assert error <= tolerance * scale, f"{name} is off by {error} of {scale}"


TOLERANCES = [(torch.float64, 1e-10), (torch.float32, 1e-4)]
FORMATS = [torch.contiguous_format, torch.channels_last]


@pytest.mark.parametrize("memory_format", FORMATS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES, ids=["float64", "float32"])
@pytest.mark.parametrize(("dim", "grid", "reduction"), SIZES)
@pytest.mark.parametrize("relation", KINDS)
def test_step_equals_materialized_form(
    relation, dim, grid, reduction, dtype, tolerance, training, memory_format
):
    rga = make(relation, dim, grid, dtype, reduction).train(training)
    twin = materialize(copy.deepcopy(rga))
    x = make_input(dim, grid, dtype)
    actual, expected = step(rga, x, memory_format), step(twin, x, torch.contiguous_format)
    assert_same(actual, expected, tolerance)


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
@pytest.mark.parametrize(("dim", "grid", "reduction"), SIZES)
@pytest.mark.parametrize("relation", KINDS)
def test_step_equals_paper_node_by_node(relation, dim, grid, reduction, training):
    rga = make(relation, dim, grid, torch.float64, reduction).train(training)
    twin = copy.deepcopy(rga)
    x = make_input(dim, grid)

    statistics = {}

    def reference(x: Tensor) -> Tensor:
        out, new = slow_rga(twin, x)
        statistics.update(new)
        return out

    reference.named_parameters = twin.named_parameters
    reference.named_buffers = twin.named_buffers
    expected = step(reference, x, torch.contiguous_format)
    for norm, (mean, var, batches) in statistics.items():
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(var)
        norm.num_batches_tracked.copy_(batches)
    norms = [m for m in twin.modules() if isinstance(m, _BatchNorm)]
    assert len(statistics) == (len(norms) if training else 0)
    assert_same(step(rga, x, torch.contiguous_format), expected, 1e-10)


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
@pytest.mark.parametrize(("dim", "grid", "reduction"), [s for s in SIZES if s[2] == 2])
def test_no_part_of_the_layers_compared_here_is_dead(dim, grid, reduction, training):
    rga = make("sc", dim, grid, reduction=reduction).train(training)
    x = make_input(dim, grid)
    assert rga.spatial_attention(x).std() > 1e-3
    assert rga.channel_attention(x).std() > 1e-3
    for name, gradient in step(rga, x, torch.contiguous_format).items():
        assert gradient.abs().sum() > 1e-3, name


def test_reference_tells_the_two_halves_of_the_relation_apart():
    rga = make("sc", 16, (4, 3)).eval()
    x = make_input(16, (4, 3))
    before = slow_rga(rga, x)[0]
    weight = rga.spatial.relation.weight.data
    rga.spatial.relation.weight.data = weight.roll(weight.shape[1] // 2, dims=1)
    assert (slow_rga(rga, x)[0] - before).abs().max() > 1e-3


@pytest.mark.parametrize("momentum", [0.1, None, 1.0])
@pytest.mark.parametrize("relation", ["s", "c", "sc"])
def test_training_step_updates_statistics_once(relation, momentum):
    rga = make(relation, 16, (4, 3)).train()
    for m in rga.modules():
        if isinstance(m, _BatchNorm):
            m.momentum = momentum
    twin = materialize(copy.deepcopy(rga))
    x = make_input(16, (4, 3))
    for _ in range(3):
        step(rga, x, torch.contiguous_format)
        step(twin, x, torch.contiguous_format)
    for (name, actual), expected in zip(rga.named_buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10, msg=name)
        if name.endswith("num_batches_tracked"):
            assert actual == 7 + 3
    momenta = {m.momentum for m in rga.modules() if isinstance(m, _BatchNorm)}
    assert momenta == {momentum}


def test_statistics_do_not_move_in_eval_mode_with_gradients():
    rga = make("sc", 16, (4, 3)).eval()
    before = {n: b.clone() for n, b in rga.named_buffers()}
    step(rga, make_input(16, (4, 3)), torch.contiguous_format)
    for name, buffer in rga.named_buffers():
        assert torch.equal(buffer, before[name]), name


def test_training_forward_without_gradients_updates_statistics():
    rga = make("sc", 16, (4, 3)).train()
    with torch.no_grad():
        rga(make_input(16, (4, 3)))
    assert rga.spatial.weight_bn.num_batches_tracked == 8
    assert rga.channel.weight_bn.num_batches_tracked == 8


def test_frozen_norms_of_a_training_layer_stay_frozen():
    rga = make("sc", 16, (4, 3)).train()
    for m in rga.modules():
        if isinstance(m, _BatchNorm):
            m.eval()
    twin = materialize(copy.deepcopy(rga))
    x = make_input(16, (4, 3))
    before = {n: b.clone() for n, b in rga.named_buffers()}
    actual = step(rga, x, torch.contiguous_format)
    assert_same(actual, step(twin, x, torch.contiguous_format), 1e-10)
    assert all(torch.equal(b, before[n]) for n, b in rga.named_buffers())


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
@pytest.mark.parametrize("relation", KINDS)
def test_gradcheck(relation, training):
    rga = make(relation, 6, (3, 2), reduction=2).train(training)
    parameters = dict(rga.named_parameters())
    x = make_input(6, (3, 2), batch=2).requires_grad_()

    def run(x, *values):
        named = dict(zip(parameters, values, strict=True))
        return torch.func.functional_call(rga, named, (x,))

    assert torch.autograd.gradcheck(run, (x, *parameters.values()), fast_mode=True)


@pytest.mark.parametrize("scale", [1.0, 1e3])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("relation", ["sc", "parallel"])
def test_autocast_is_finite(relation, dtype, scale):
    rga = RGA(64, (16, 8), relation)
    x = scale * make_input(64, (16, 8), torch.float32, batch=4)
    x.requires_grad_()
    for m in rga.modules():  # statistics of this very batch, for eval mode below
        if isinstance(m, _BatchNorm):
            m.momentum = 1.0
    with torch.autocast("cpu", dtype=dtype):
        out = rga.train()(x)
        out.float().mean().backward()
        evaluated = rga.eval()(x)
    assert out.isfinite().all()
    assert evaluated.isfinite().all()
    assert x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in rga.parameters())


def watch_step(rga: RGA, x: Tensor) -> TensorSizes:
    with TensorSizes() as sizes:
        rga(x).sum().backward()
    return sizes


# (channels, grid, nodes of the attention that dominates): nodes² exceeds every legitimate tensor.
WIDE = [("s", 16, (16, 12), 192), ("c", 192, (4, 4), 192), ("sc", 16, (16, 12), 192)]


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
@pytest.mark.parametrize(("relation", "dim", "grid", "nodes"), WIDE)
def test_no_affinity_matrix_exists(relation, dim, grid, nodes, training):
    rga = RGA(dim, grid, relation).train(training)
    x = torch.randn(2, dim, *grid, requires_grad=True)
    sizes = watch_step(rga, x)
    assert any("backward" in f for f, _ in sizes.shapes)  # it saw backward too
    assert not sizes.of_at_least(nodes * nodes)

    # The same eyes see it in the published form, so it is not for want of looking.
    seen = watch_step(materialize(rga), x).of_at_least(2 * nodes * nodes)
    assert any(s == (2, nodes, nodes) for _, s in seen)


@pytest.mark.parametrize(("relation", "dim", "grid"), [("s", 32, (16, 8)), ("c", 128, (8, 4))])
def test_training_keeps_little_for_backward(relation, dim, grid):
    rga = RGA(dim, grid, relation).train()
    x = torch.randn(4, dim, *grid)
    own = [x, *rga.parameters(), *rga.buffers()]
    out = rga(x)
    with saved_bytes(exclude=own) as ours:
        out = rga(x)
    with saved_bytes(exclude=own) as published:
        materialize(rga)(x)
    # The embeddings (3/8 of x, twice), the relations (as many, twice) and the hidden layer.
    assert 0 < sum(ours.values()) <= 2.5 * out.nbytes
    assert sum(ours.values()) < sum(published.values()) / 3


def test_materialize_keeps_parameters_and_state_dict():
    rga = RGA(16, (4, 3), "sc")
    before = dict(rga.named_parameters())
    assert materialize(rga) is rga
    assert isinstance(rga.spatial, MaterializedRelationAttention)
    assert all(p is before[n] for n, p in rga.named_parameters())


@pytest.mark.parametrize("strides", ["contiguous", "transposed"])
@pytest.mark.parametrize(("features", "nodes"), [(6, 20), (20, 6)])
def test_attention_weights_are_one_a_node_in_0_1(features, nodes, strides):
    attention = RelationAttention(features, nodes, 3, 2, 2)
    x = torch.randn(2, nodes, features).transpose(1, 2)
    x = x.contiguous() if strides == "contiguous" else x
    weights = attention(x)
    assert weights.shape == (2, 1, nodes)
    assert ((weights > 0) & (weights < 1)).all()


def test_backward_through_a_retained_graph_gives_the_same_gradient_twice():
    rga = make("sc", 16, (4, 3)).train()
    x = make_input(16, (4, 3)).requires_grad_()
    out = rga(x).square().sum()
    (first,) = torch.autograd.grad(out, x, retain_graph=True)
    (second,) = torch.autograd.grad(out, x)
    assert torch.equal(first, second)
    assert rga.spatial.weight_bn.num_batches_tracked == 8


def test_zero_init_starts_with_equal_weights_that_learn() -> None:
    torch.manual_seed(0)
    attention = RelationAttention(8, 6, 4, 3, 2, zero_init=True)
    x = torch.randn(4, 8, 6)
    weights = attention(x)
    torch.testing.assert_close(weights, torch.full_like(weights, 0.5))
    (weights * torch.randn_like(weights)).sum().backward()
    assert attention.weight_bn.weight.grad.abs() > 0
