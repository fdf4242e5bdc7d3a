import copy

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from rga_timm.layers import RGA, bn_neck, resample_grid_weight
from rga_timm.layers.materialized import materialize


@pytest.mark.parametrize(
    ("relation", "spatial", "channel"),
    [
        ("s", True, False),
        ("c", False, True),
        ("sc", True, True),
        ("cs", True, True),
        ("parallel", True, True),
    ],
)
def test_parameters_exist_for_the_attentions_in_use_alone(relation, spatial, channel):
    names = {n.split(".")[0] for n in RGA(16, (4, 3), relation).state_dict()}
    assert names == {n for n, used in (("spatial", spatial), ("channel", channel)) if used}


def test_widths_are_those_of_the_paper():
    rga = RGA(256, (64, 32), "sc")
    shapes = {n: tuple(p.shape) for n, p in rga.named_parameters() if p.ndim == 4}
    assert shapes == {
        "spatial.embed.weight": (3 * 32, 256, 1, 1),
        "spatial.relation.weight": (256, 2 * 2048, 1, 1),
        "spatial.hidden.weight": (257 // 8, 257, 1, 1),
        "spatial.weight.weight": (1, 257 // 8, 1, 1),
        "channel.embed.weight": (3 * 256, 2048, 1, 1),
        "channel.relation.weight": (32, 2 * 256, 1, 1),
        "channel.hidden.weight": (33 // 8, 33, 1, 1),
        "channel.weight.weight": (1, 33 // 8, 1, 1),
    }


@pytest.mark.parametrize("relation", ["none", "x", "SC", ""])
def test_unknown_relation_is_refused_with_the_known_ones(relation):
    with pytest.raises(ValueError, match=r"unknown relation.*s, c, sc, cs, parallel"):
        RGA(16, (4, 3), relation)


@pytest.mark.parametrize("size", [(3, 4), (4, 4), (5, 3), (2, 6)])
@pytest.mark.parametrize("relation", ["s", "c", "sc", "cs", "parallel"])
def test_map_of_another_size_is_refused_with_the_expected_one(relation, size):
    rga = RGA(16, (4, 3), relation)
    with pytest.raises(Exception, match=r"4x3.*img_size.*set_input_size"):
        rga(torch.randn(2, 16, *size))


def test_message_follows_the_feature_size():
    rga = RGA(16, (4, 3))
    rga.set_feat_size((6, 5))
    with pytest.raises(Exception, match="6x5"):
        rga(torch.randn(2, 16, 4, 3))


@pytest.mark.parametrize("relation", ["s", "c", "sc", "cs", "parallel"])
def test_set_feat_size_takes_maps_of_the_new_size_and_trains(relation):
    rga = RGA(16, (4, 3), relation).train()
    widths = {n: p.shape[0] for n, p in rga.named_parameters()}
    rga.set_feat_size((8, 5))
    out = rga(torch.randn(2, 16, 8, 5))
    assert out.shape == (2, 16, 8, 5)
    out.sum().backward()
    assert all(p.grad is not None for p in rga.parameters())
    assert {n: p.shape[0] for n, p in rga.named_parameters()} == widths
    for conv in (m for m in rga.modules() if isinstance(m, torch.nn.Conv2d)):
        assert conv.weight.shape[:2] == (conv.out_channels, conv.in_channels)


def test_set_feat_size_equals_resampling_by_hand_and_keeps_requires_grad():
    rga = RGA(16, (4, 3)).double()
    rga.spatial.relation.weight.requires_grad_(False)
    old = rga.spatial.relation.weight.detach().clone()
    rga.set_feat_size((8, 6))
    halves = [
        resample_grid_weight(half, (4, 3), (8, 6)) for half in old.flatten(1).split(12, dim=1)
    ]
    torch.testing.assert_close(rga.spatial.relation.weight.flatten(1), torch.cat(halves, dim=1))
    assert not rga.spatial.relation.weight.requires_grad
    assert rga.channel.embed.weight.requires_grad


def test_same_feat_size_changes_no_value():
    rga = RGA(16, (4, 3))
    before = {n: p.clone() for n, p in rga.named_parameters()}
    rga.set_feat_size((4, 3))
    assert all(torch.equal(p, before[n]) for n, p in rga.named_parameters())


def test_smooth_map_keeps_its_attention_at_another_size():
    # Weights smooth over the grid, an image of four times the positions: nearly the same attention.
    torch.manual_seed(0)
    rga = RGA(8, (8, 4), "sc").double().eval()
    for name, count in (("spatial.relation", 2), ("channel.embed", 1)):
        conv = rga.get_submodule(name)
        coarse = torch.randn(conv.out_channels * count, 1, 2, 2).double()
        smooth = F.interpolate(coarse, (8, 4), mode="bilinear", align_corners=False)
        conv.weight.data = smooth.reshape(conv.weight.shape) / 32
    coarse = torch.randn(2, 8, 2, 2).double()
    small = F.interpolate(coarse, (8, 4), mode="bilinear", align_corners=False)
    large = F.interpolate(coarse, (16, 8), mode="bilinear", align_corners=False)
    before = rga.channel_attention(small)
    rga.set_feat_size((16, 8))
    after = rga.channel_attention(large)
    torch.testing.assert_close(after, before, rtol=0.01, atol=0)


def test_native_feat_size_sets_the_widths():
    rga = RGA(16, (4, 3), native_feat_size=(8, 4))
    assert rga.spatial.relation.weight.shape == (32 // 8, 2 * 12, 1, 1)
    assert rga.channel.embed.weight.shape == (3 * 32 // 8, 12, 1, 1)
    assert rga(torch.randn(2, 16, 4, 3)).shape == (2, 16, 4, 3)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_memory_format_of_the_map_is_kept(memory_format):
    x = torch.randn(2, 16, 4, 3).contiguous(memory_format=memory_format)
    assert RGA(16, (4, 3))(x).is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("grid", [(4, 3), (16, 8)])
def test_resampling_to_the_same_grid_is_identity(grid):
    weight = torch.randn(5, 2 * grid[0] * grid[1])
    assert torch.equal(resample_grid_weight(weight, grid, grid), weight)


@pytest.mark.parametrize("new", [(8, 6), (2, 2), (5, 9), (3, 4)])
def test_resampling_a_constant_keeps_its_sum(new):
    weight = torch.full((3, 2 * 12), 0.7)
    out = resample_grid_weight(weight, (4, 3), new)
    assert out.shape == (3, 2 * new[0] * new[1])
    torch.testing.assert_close(out.sum(1), weight.sum(1))
    torch.testing.assert_close(out, torch.full_like(out, 0.7 * 12 / (new[0] * new[1])))


def test_resampling_up_and_down_gives_a_smooth_weight_back():
    y, x = torch.meshgrid(torch.linspace(0, 1, 16), torch.linspace(0, 1, 8), indexing="ij")
    weight = torch.stack([torch.cos(3 * y) * x, y * y - x]).reshape(1, -1)  # two images, one row
    up = resample_grid_weight(weight, (16, 8), (32, 16))
    assert up.shape == (1, 2 * 512)
    down = resample_grid_weight(up, (32, 16), (16, 8))
    assert (down - weight).abs().max() < 0.03


def test_resampling_keeps_images_and_rows_apart():
    weight = torch.randn(4, 3, 2 * 12)
    out = resample_grid_weight(weight, (4, 3), (6, 5)).reshape(4, 3, 2, 30)
    for i in range(4):
        for j in range(3):
            for k, half in enumerate(weight[i, j].split(12)):
                alone = resample_grid_weight(half, (4, 3), (6, 5))
                torch.testing.assert_close(out[i, j, k], alone)


def test_resampling_is_raster_order():
    # Weight on the top row alone stays at the top, which a transposed grid would not give.
    image = torch.zeros(6, 4)
    image[0] = 1
    out = resample_grid_weight(image.reshape(1, -1), (6, 4), (12, 8)).reshape(12, 8)
    assert out[:2].sum() > 0.8 * out.abs().sum()
    torch.testing.assert_close(out[0], out[0, :1].expand(8))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_resampling_keeps_the_data_type(dtype):
    assert resample_grid_weight(torch.ones(2, 12).to(dtype), (4, 3), (2, 2)).dtype == dtype


def test_resampling_in_float64_keeps_its_precision():
    weight = torch.full((1, 12), 1 / 3, dtype=torch.float64)
    out = resample_grid_weight(weight, (4, 3), (8, 6))
    assert (out - 1 / 12).abs().max() < 1e-12


def test_weight_off_the_grid_is_refused():
    with pytest.raises(ValueError, match=r"13 inputs.*4x3 = 12"):
        resample_grid_weight(torch.ones(2, 13), (4, 3), (8, 6))


def test_neck_has_no_bias_and_is_batch_norm():
    neck = bn_neck(6).double()
    assert [n for n, _ in neck.named_parameters()] == ["weight"]
    neck.weight.data.uniform_(0.5, 2)
    x = torch.randn(5, 6).double()
    mean, var = torch.zeros(6).double(), torch.ones(6).double()
    expected = F.batch_norm(x, mean, var, neck.weight, training=True)
    torch.testing.assert_close(neck(x), expected)
    torch.testing.assert_close(neck.running_mean, mean)
    torch.testing.assert_close(neck.running_var, var)
    expected = F.batch_norm(x, mean, var, neck.weight)
    torch.testing.assert_close(neck.eval()(x), expected)
    assert bn_neck(3, dtype=torch.bfloat16).weight.dtype == torch.bfloat16
    assert bn_neck(3, device=torch.device("meta")).weight.is_meta


@pytest.mark.parametrize("relation", ["sc", "cs", "parallel"])
def test_materialized_form_is_materialized_in_training_too(relation: str) -> None:
    rga = materialize(RGA(16, (8, 4), relation))
    x = torch.randn(2, 16, 8, 4)
    flops = []
    for training in (True, False):
        with FlopCounterMode(display=False) as counter:
            rga.train(training)(x)
        flops.append(counter.get_total_flops())
    assert flops[0] == flops[1]


def test_synchronised_batch_norms_are_plain_ones_in_a_single_process() -> None:
    torch.manual_seed(0)
    plain = RGA(16, (8, 4)).train()
    synchronised = torch.nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(plain)).train()
    x = torch.randn(2, 16, 8, 4)
    for rga in (plain, synchronised):  # without a process group they compute the same
        rga(x).square().sum().backward()
    for a, b in zip(plain.parameters(), synchronised.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad)
    for a, b in zip(plain.buffers(), synchronised.buffers(), strict=True):
        torch.testing.assert_close(b, a)
