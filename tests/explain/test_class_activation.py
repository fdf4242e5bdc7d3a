import builtins

import pytest
import timm
import torch
import torch.nn.functional as F
from checkpoints import make_model

from rga_timm.explain import similarity_activation


@pytest.fixture
def trained():
    return timm.create_model("test_rga_resnet.pedestrians", pretrained=True).eval()


def images_for(model, count=2):
    torch.manual_seed(1)
    return torch.randn(count, 3, *model.pretrained_cfg["input_size"][1:])


# grad-cam scales maps to the image's size by OpenCV, which rounds in its own way.
def by_hand(model, images, wanted, layer):
    """Grad-CAM as its paper has it: maps weighed by the mean of their gradients, and rectified."""
    maps = []
    handle = layer.register_forward_hook(lambda *args: maps.append(args[2]))
    embedding = model.forward_head(model.forward_features(images), pre_logits=True)
    handle.remove()
    score = F.cosine_similarity(embedding, wanted).sum()
    (grad,) = torch.autograd.grad(score, maps[0])
    weighed = (grad.mean((2, 3), keepdim=True) * maps[0]).sum(1).relu()
    weighed = weighed - weighed.amin((1, 2), keepdim=True)
    weighed = weighed / (1e-7 + weighed.amax((1, 2), keepdim=True))
    return F.interpolate(weighed[:, None], images.shape[2:], mode="bilinear")[:, 0].detach()


def test_activation_is_grad_cam_of_the_similarity(trained):
    images, references = images_for(trained), images_for(trained, 4)[2:]
    found = similarity_activation(trained, images, references)
    with torch.no_grad():
        wanted = trained(references)
    expected = by_hand(trained, images, wanted, trained.layer4)
    assert found.shape == (2, 64, 32)
    assert 0 <= found.min() <= found.max() <= 1
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0)


def test_other_layer_gives_its_own_maps(trained):
    images, references = images_for(trained), images_for(trained, 4)[2:]
    found = similarity_activation(trained, images, references, layer=trained.layer2)
    with torch.no_grad():
        wanted = trained(references)
    expected = by_hand(trained, images, wanted, trained.layer2)
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_rga_mobilenet"])
def test_any_model_with_feature_maps_will_do(name):
    model = make_model(name)
    images = images_for(model, 1)
    found = similarity_activation(model, images)
    assert found.shape == (1, *images.shape[2:])
    assert found.isfinite().all()
    assert found.max() > 0.9  # something carries the embedding


def test_model_is_left_as_it_was(trained):
    model = trained.train()
    model.layer1.requires_grad_(False)
    model.conv1.weight.grad = torch.ones_like(model.conv1.weight)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    similarity_activation(model, images_for(model))
    assert all(m.training for m in model.modules())
    assert not model.layer1[0].conv1.weight.requires_grad
    assert model.layer2[0].conv1.weight.grad is None
    assert torch.equal(model.conv1.weight.grad, torch.ones_like(model.conv1.weight))
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._backward_hooks for m in model.modules())


def test_one_reference_is_wanted_for_each_image(trained):
    with pytest.raises(ValueError, match="2 images have 1 references"):
        similarity_activation(trained, images_for(trained), images_for(trained, 1))


def test_model_without_stages_needs_a_layer(trained):
    del trained.feature_info
    with pytest.raises(ValueError, match="names no stages: pass a layer"):
        similarity_activation(trained, images_for(trained))


def test_without_the_package_the_error_names_the_extra(trained, monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "pytorch_grad_cam":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"pip install 'rga-timm\[cam\]'"):
        similarity_activation(trained, images_for(trained))
