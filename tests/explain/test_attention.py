import pytest
import timm
import torch
from checkpoints import make_model
from torch import nn

from rga_timm.explain import attention_maps
from rga_timm.layers import RGA

FAMILIES = [
    "test_rga_convnext", "test_rga_efficientnet", "test_rga_mobilenet", "test_rga_regnet",
    "test_rga_resnet", "test_rga_resnet_ibn", "test_rga_vit",
]  # fmt: skip


def ins_and_outs(model: nn.Module, images: torch.Tensor) -> dict[str, tuple]:
    """What goes into each attention module, and what comes out."""
    seen = {}
    handles = [
        m.register_forward_hook(lambda _, args, out, name=name: seen.update({name: (args[0], out)}))
        for name, m in model.named_modules()
        if isinstance(m, RGA)
    ]
    with torch.no_grad():
        model.forward_features(images)
    for handle in handles:
        handle.remove()
    return seen


def images_for(model: nn.Module, count: int = 2) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(count, model.in_chans, *model.img_size)


@pytest.mark.parametrize("relation", ["s", "c", "sc", "cs", "parallel"])
def test_weights_are_those_by_which_the_stage_is_multiplied(relation):
    model = make_model(relation=relation)
    images = images_for(model)
    stages = attention_maps(model, images)
    seen = ins_and_outs(model, images)
    assert [stage.name for stage in stages] == list(seen)
    for stage in stages:
        x, out = seen[stage.name]
        weighed = x
        if stage.spatial is not None:
            assert stage.spatial.shape == (2, *x.shape[2:])
            weighed = weighed * stage.spatial[:, None]
        if stage.channel is not None:
            assert stage.channel.shape == x.shape[:2]
            weighed = weighed * stage.channel[:, :, None, None]
        torch.testing.assert_close(weighed, out)
    assert all((stage.spatial is None) == (relation == "c") for stage in stages)
    assert all((stage.channel is None) == (relation == "s") for stage in stages)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_four_stages_to_look_at(name):
    model = make_model(name)
    stages = attention_maps(model, images_for(model))
    assert len(stages) == 4
    assert all(stage.name.endswith(".rga") for stage in stages)
    assert all(0 <= stage.spatial.min() <= stage.spatial.max() <= 1 for stage in stages)


def test_model_is_left_as_it_was():
    model = make_model(num_classes=5).train()
    model.layer2.eval()
    modes = {name: m.training for name, m in model.named_modules()}
    state = {name: value.clone() for name, value in model.state_dict().items()}
    images = images_for(model)
    attention_maps(model, images)
    assert {name: m.training for name, m in model.named_modules()} == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())


def test_nothing_is_left_behind_when_the_model_fails():
    model = make_model()

    def fail(*_):
        raise RuntimeError("no memory")

    handle = model.layer4.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="no memory"):
        attention_maps(model.train(), images_for(model))
    handle.remove()
    assert model.training
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_no_gradients_are_kept():
    model = make_model()
    (stage, *_) = attention_maps(model, images_for(model).requires_grad_())
    assert not stage.spatial.requires_grad


@pytest.mark.parametrize("name", ["test_resnet", "test_rga_resnet"])
def test_models_without_attention_are_refused(name):
    model = make_model(name, **({"relation": "none"} if "rga" in name else {}))
    with pytest.raises(ValueError, match="has no relation-aware attention"):
        attention_maps(model, torch.randn(1, 3, 64, 32))


@pytest.mark.parametrize("shape", [(3, 64, 32), (1, 3, 32, 64), (1, 1, 64, 32)])
def test_images_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"images must be \(B, 3, 64, 32\)"):
        attention_maps(make_model(), torch.randn(shape))


def test_model_of_features_only_is_refused():
    model = timm.create_model("test_rga_resnet", features_only=True)
    with pytest.raises(ValueError, match="make it without features_only"):
        attention_maps(model, torch.randn(1, 3, 64, 32))
