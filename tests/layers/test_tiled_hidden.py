import copy
import os

import pytest
import timm
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from test_relation_attention import assert_same, make_input, scramble, step
from torch import Tensor, nn
from torch.nn import functional as F
from watch_tensors import TensorSizes, saved_bytes

from rga_timm.layers import RGA, RelationAttention, relation_attention, tiled_hidden
from rga_timm.layers.materialized import materialize
from rga_timm.layers.tiled_hidden import hidden_of_relations, is_worthwhile

TOLERANCES = [(torch.float64, 1e-10), (torch.float32, 1e-4)]


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tiles, also of a few relations."""
    monkeypatch.setattr(relation_attention, "is_worthwhile", lambda *_: True)
    monkeypatch.setattr(tiled_hidden, "_TILE", 16)


def make(relation: str, dim: int, grid: tuple[int, int], dtype: torch.dtype, **kwargs) -> RGA:
    rga = RGA(dim, grid, relation, **kwargs).to(dtype)
    scramble(rga)
    return rga


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES, ids=["float64", "float32"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("dim", "grid"), [(16, (4, 3)), (8, (5, 7)), (5, (1, 13))])
@pytest.mark.parametrize("relation", ["s", "c", "sc", "cs", "parallel"])
def test_step_by_tiles_equals_materialized_form(
    relation, dim, grid, batch, dtype, tolerance, training
):
    rga = make(relation, dim, grid, dtype, reduction=2).train(training)
    twin = materialize(copy.deepcopy(rga))
    x = make_input(dim, grid, dtype, batch)
    actual = step(rga, x, torch.channels_last)
    assert_same(actual, step(twin, x, torch.contiguous_format), tolerance)


NATIVE = (64, 32)  # grid of the first stage for images of 256x128
SHAPES = [
    *((dim, NATIVE) for dim in (24, 48, 64, 72, 96, 256)),
    *((dim, (32, 16)) for dim in (24, 48, 64, 72, 96)),  # of 128x64
]


def test_these_are_the_attentions_of_the_zoo_that_go_by_tiles():
    found = set()
    for name in timm.list_models("rga_*"):
        for img_size in ((256, 128), (128, 64)):
            with torch.device("meta"):
                model = timm.create_model(name, img_size=img_size, num_classes=0)
            for module in model.modules():
                if isinstance(module, RGA):
                    spatial = module.spatial
                    sizes = (spatial.nodes, spatial.embed_dim, spatial.relation_dim)
                    if is_worthwhile(*sizes):
                        found.add((spatial.features, (module.height, module.width)))
    assert found == set(SHAPES)


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES, ids=["float64", "float32"])
@pytest.mark.parametrize(("dim", "grid"), SHAPES, ids=str)
def test_step_equals_the_plain_form_for_shapes_of_the_zoo(dim, grid, dtype, tolerance, monkeypatch):
    rga = make("s", dim, grid, dtype, native_feat_size=NATIVE).train()
    twin = copy.deepcopy(rga)
    x = make_input(dim, grid, dtype, batch=2)
    actual = step(rga, x, torch.channels_last)
    monkeypatch.setattr(relation_attention, "is_worthwhile", lambda *_: False)
    assert_same(actual, step(twin, x, torch.channels_last), tolerance)


@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
def test_no_tensor_holds_the_relations_of_all_nodes(training, monkeypatch):
    rga = RGA(24, (64, 32), "s").train(training)
    x = torch.randn(3, 24, 64, 32, requires_grad=True)
    relations = 3 * rga.spatial.relation_dim * rga.spatial.nodes  # more than the layer's weights
    with TensorSizes() as sizes:
        rga(x).sum().backward()
    assert not sizes.of_at_least(relations)
    with saved_bytes(exclude=[x, *rga.parameters()]) as kept:
        rga(x)
    assert sum(kept.values()) < relations * x.itemsize / 2

    # The same eyes see them in the plain form.
    monkeypatch.setattr(relation_attention, "is_worthwhile", lambda *_: False)
    with TensorSizes() as sizes:
        rga(x)
    assert sizes.of_at_least(relations)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics_are_those_of_batch_norm(momentum):
    norm = nn.BatchNorm2d(6, momentum=momentum).double()
    twin = copy.deepcopy(norm)
    mix, z, weight = parts()
    for factor in (1, 2):
        hidden_of_relations(factor * mix, z, norm, weight)
        twin((factor * mix @ z).unsqueeze(2))
    for name, value in twin.named_buffers():
        torch.testing.assert_close(dict(norm.named_buffers())[name], value)


@pytest.mark.usefixtures("always")
def test_variance_of_a_large_mean_survives_float32():
    mix, z, weight = (t.float() for t in parts())
    norm = nn.BatchNorm2d(6)
    found = hidden_of_relations(mix, z + 1000, norm, weight)
    exact = nn.BatchNorm2d(6).double()
    r = (mix.double() @ (z + 1000).double()).unsqueeze(2)
    expected = weight.double() @ exact(r).squeeze(2).relu()
    torch.testing.assert_close(found.double(), expected, atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(norm.running_var.double(), exact.running_var, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("track", [True, False])
def test_norm_without_running_statistics_takes_those_of_the_batch(track):
    norm = nn.BatchNorm2d(6, track_running_stats=track).double().train(track)
    mix, z, weight = parts()
    expected = (
        weight @ F.batch_norm((mix @ z).unsqueeze(2), None, None, training=True).squeeze(2).relu()
    )
    torch.testing.assert_close(hidden_of_relations(mix, z, norm, weight), expected)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
def test_gradcheck(training):
    norm = nn.BatchNorm2d(6, momentum=0.0).double().train(training)
    inputs = tuple(t.requires_grad_() for t in parts())
    assert torch.autograd.gradcheck(lambda m, z, w: hidden_of_relations(m, z, norm, w), inputs)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_as_exact_as_the_plain_form(dtype, monkeypatch):
    rga = make("s", 16, (8, 4), torch.float32)
    x = make_input(16, (8, 4), torch.float32)
    exact = step(copy.deepcopy(rga), x, torch.contiguous_format)
    errors = []
    for tiled in (True, False):
        monkeypatch.setattr(relation_attention, "is_worthwhile", lambda *_, t=tiled: t)
        with torch.autocast("cpu", dtype):
            found = step(copy.deepcopy(rga), x, torch.contiguous_format)
        errors.append(
            max(
                ((found[name] - want).float().norm() / want.float().norm()).item()
                for name, want in exact.items()
                if name in ("output", "input gradient", "spatial.relation.weight gradient")
            )
        )
    assert errors[0] < 1.5 * errors[1] < 0.3


@pytest.mark.usefixtures("always")
def test_traced_and_exported_models_have_the_plain_form():
    rga = RGA(16, (4, 3), "s").eval()
    x = make_input(16, (4, 3), torch.float32)
    expected = rga(x)
    for traced in (
        torch.jit.trace(rga, x),
        torch.jit.script(rga),
        torch.export.export(rga, (x,)).module(),
        torch.fx.symbolic_trace(rga),
    ):
        torch.testing.assert_close(traced(x), expected)


def parts() -> tuple[Tensor, Tensor, Tensor]:
    """The weights of the embeddings, the embeddings and the hidden layer's weight, float64."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((4, 6, 3), (4, 3, 10), (2, 6))
    mix, z, weight = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    return mix, z, weight


def step_of_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    norm = nn.SyncBatchNorm(6).double()
    # Shares of different sizes.
    mix, z, weight = parts()
    mix, z = (t.split([3, 1])[rank].requires_grad_() for t in (mix, z))
    h = hidden_of_relations(mix, z, norm, weight)
    (h * torch.arange(10.0)).sin().sum().backward()
    result = {"h": h.detach(), "mix": mix.grad, "z": z.grad, **dict(norm.named_buffers())}
    torch.save(result | {"scale": norm.weight.grad}, os.path.join(folder, f"{rank}.pt"))
    dist.destroy_process_group()


@pytest.mark.script
def test_synchronised_norm_of_two_processes_equals_one_with_all_images(tmp_path):
    mp.spawn(step_of_rank, args=(str(tmp_path),), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    norm = nn.BatchNorm2d(6).double()
    mix, z, weight = parts()
    mix.requires_grad_()
    z.requires_grad_()
    h = hidden_of_relations(mix, z, norm, weight)
    (h * torch.arange(10.0)).sin().sum().backward()
    for name, value in (("h", h.detach()), ("mix", mix.grad), ("z", z.grad)):
        torch.testing.assert_close(torch.cat([rank[name] for rank in ranks]), value)
    torch.testing.assert_close(sum(rank["scale"] for rank in ranks), norm.weight.grad)
    for rank in ranks:
        torch.testing.assert_close(rank["running_mean"], norm.running_mean)
        torch.testing.assert_close(rank["running_var"], norm.running_var)


def test_a_layer_of_few_relations_is_plain():
    attention = RelationAttention(512, 512, 64, 64, 8)  # ResNet-50, second stage
    assert not attention.is_tiled(torch.randn(1, 128, 512))
    assert RelationAttention(256, 2048, 32, 256, 32).is_tiled(torch.randn(1, 64, 2048))
    assert not RelationAttention(256, 2048, 32, 256, 32).is_tiled(torch.empty(1, device="meta"))
