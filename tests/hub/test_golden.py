import copy

import numpy as np
import pytest
import timm
import torch
from checkpoints import make_model
from PIL import Image
from timm.data import create_transform, resolve_data_config

from rga_timm.hub.publish.golden import check_golden, golden_embedding, golden_image


def test_golden_image_is_the_formula_everywhere():
    image = golden_image(40, 30)
    assert image.dtype == torch.uint8
    assert image.shape == (3, 40, 30)
    for c, y, x in [(0, 0, 0), (1, 7, 3), (2, 39, 29), (0, 25, 29)]:
        assert image[c, y, x] == (3 * x * (c + 1) + 5 * y + 7 * (x * y // 16) + 60 * c) % 256


@pytest.mark.parametrize("name", ["test_rga_resnet", "test_resnet"])
def test_golden_embedding_is_that_of_the_image_read_as_timm_reads_it(name):
    model = make_model(name, num_classes=7)
    config = resolve_data_config({}, model=model)
    _, height, width = config["input_size"]
    picture = Image.fromarray(golden_image(height, width).permute(1, 2, 0).numpy())
    image = create_transform(**{**config, "crop_pct": 1.0})(picture)
    with torch.inference_mode():
        features = model.forward_features(image[None])
        expected = model.forward_head(features, pre_logits=True)[0].numpy()

    golden = golden_embedding(model)

    assert golden["width"] == len(expected)
    assert golden["norm"] == pytest.approx(np.linalg.norm(expected), rel=1e-4)
    np.testing.assert_allclose(golden["values"], expected[:16], rtol=1e-3, atol=1e-4)


def test_golden_embedding_leaves_the_model_alone():
    model = make_model().train()
    before = copy.deepcopy(model.state_dict())
    golden_embedding(model)
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.fixture
def trained():
    """In a network that was not trained, attention and norms hide much of what changes."""
    return timm.create_model("test_rga_resnet.pedestrians", pretrained=True).eval()


@pytest.mark.parametrize("parameter", ["conv1.weight", "layer4.0.conv3.weight", "neck.weight"])
def test_changed_weights_are_noticed(trained, parameter):
    model = trained
    recorded = golden_embedding(model)
    check_golden(recorded, model)
    with torch.no_grad():
        model.get_parameter(parameter).mul_(1.05)
    with pytest.raises(ValueError, match="differs by"):
        check_golden(recorded, model)


def test_changed_preprocessing_is_noticed(trained):
    model = trained
    recorded = golden_embedding(model)
    model.pretrained_cfg = {**model.pretrained_cfg, "mean": (0.5, 0.5, 0.5)}
    with pytest.raises(ValueError, match="differs by"):
        check_golden(recorded, model)


def test_another_width_and_broken_numbers_are_noticed():
    model = make_model()
    recorded = golden_embedding(model)
    with pytest.raises(ValueError, match="has 96 values, and 12 are recorded"):
        check_golden({**recorded, "width": 12}, model)
    with torch.no_grad():
        model.neck.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="differs by nan"):
        check_golden(recorded, model)


def test_rounding_to_other_kernels_is_within_the_tolerance(trained):
    model = trained
    recorded = golden_embedding(model)
    check_golden(recorded, model.to(memory_format=torch.channels_last))
