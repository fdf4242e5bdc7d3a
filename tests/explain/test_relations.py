import pytest
import torch
from checkpoints import make_model
from watch_tensors import TensorSizes

from rga_timm.explain import relations_of
from rga_timm.layers import RGA
from rga_timm.layers.materialized import materialize

NEAR = {"rtol": 1e-4, "atol": 1e-4}  # float32 sums of large numbers, in another order


def images_for(model, count=2):
    torch.manual_seed(1)
    return torch.randn(count, model.in_chans, *model.img_size)


def affinities(model, images):
    """G of each spatial attention, (B, N, N), from the published form's own matrix product."""
    found = []
    product = torch.bmm

    def remember(a, b):
        out = product(a, b)
        found.append(out)
        return out

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(torch, "bmm", remember)
        materialize(model).forward_features(images)
    stages = [m for m in model.modules() if isinstance(m, RGA)]
    matrices = iter(found)
    return [[next(matrices) for _ in m.relation][m.relation.index("s")] for m in stages]


@pytest.mark.parametrize("relation", ["s", "sc", "cs"])
@pytest.mark.parametrize("stage", range(4))
def test_relations_are_a_row_and_a_column_of_the_affinity_matrix(relation, stage):
    model = make_model(relation=relation)
    images = images_for(model)
    rga = [m for m in model.modules() if isinstance(m, RGA)][stage]
    positions = {(0, 0), (1, 1), (rga.height - 1, rga.width - 1), (0, rga.width - 1)}
    ours = {p: relations_of(model, images, p, stage) for p in positions}
    matrix = affinities(model, images)[stage]
    assert matrix.shape[1:] == (rga.height * rga.width,) * 2
    for (row, column), relations in ours.items():
        p = row * rga.width + column
        torch.testing.assert_close(relations.outgoing.flatten(1), matrix[:, p, :], **NEAR)
        torch.testing.assert_close(relations.incoming.flatten(1), matrix[:, :, p], **NEAR)


def test_affinity_matrix_is_never_made():
    model = make_model(img_size=(256, 128))
    nodes = 64 * 32  # of the first stage
    with TensorSizes() as sizes:
        relations_of(model, images_for(model, 1), (3, 4), 0)
    assert sizes.of_at_least(nodes * nodes) == []


def test_stages_are_named_or_counted_from_either_end():
    model = make_model()
    images = images_for(model)
    first = relations_of(model, images, (2, 3), "layer1.rga").outgoing
    for stage in (0, -4):
        assert torch.equal(relations_of(model, images, (2, 3), stage).outgoing, first)
    last = relations_of(model, images, (2, 1)).outgoing
    assert torch.equal(relations_of(model, images, (2, 1), "layer4.rga").outgoing, last)


def test_model_is_left_as_it_was():
    model = make_model().train()
    relations_of(model, images_for(model), (0, 0))
    assert all(m.training for m in model.modules())
    assert not any(m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("position", [(4, 0), (0, 2), (-1, 0)])
def test_positions_off_the_map_are_refused(position):
    model = make_model()
    with pytest.raises(ValueError, match=r"is not on the map of layer4\.rga, 4x2"):
        relations_of(model, images_for(model), position)


@pytest.mark.parametrize("stage", [4, -5, "layer5.rga"])
def test_stages_that_are_not_there_are_refused(stage):
    model = make_model()
    with pytest.raises(ValueError, match=r"there are layer1\.rga, layer2\.rga"):
        relations_of(model, images_for(model), (0, 0), stage)


def test_channel_attention_has_no_positions():
    model = make_model(relation="c")
    with pytest.raises(ValueError, match="relates channels, not positions"):
        relations_of(model, images_for(model), (0, 0))
