import base64
from io import BytesIO

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torchvision.transforms import functional as TF

from rga_timm.explain import attention_maps
from rga_timm.report_page.pictures import HEIGHT, attention_of, has_spatial_attention, thumbnail


def decode(src: str) -> Image.Image:
    head, _, text = src.partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(BytesIO(base64.b64decode(text)))


def noise(width=60, height=150):
    return Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    )


def test_thumbnail_keeps_the_shape_and_is_small():
    src = thumbnail(noise())
    assert decode(src).size == (round(60 * HEIGHT / 150), HEIGHT)
    assert len(src) < 12_000


def test_blurred_face_leaves_nothing_of_the_upper_fifth_and_all_of_the_rest():
    stripes = np.zeros((HEIGHT, 64, 3), np.uint8)
    stripes[:, ::8] = stripes[:, 1::8] = stripes[:, 2::8] = stripes[:, 3::8] = 255
    plain, blurred = (
        np.asarray(decode(thumbnail(Image.fromarray(stripes), blur)).convert("L"), float)
        for blur in (False, True)
    )
    head = round(HEIGHT / 5)
    assert plain[: head - 2].std(axis=1).mean() > 100
    assert blurred[: head - 2].std(axis=1).mean() < 20  # two soft colours
    assert np.abs(plain[head + 8 :] - blurred[head + 8 :]).max() < 12


def test_maps_are_the_models_attention():
    model = timm.create_model("test_rga_resnet.pedestrians", pretrained=True).eval()
    images = [noise(32, 64), noise(40, 80)]

    def transform(image):
        return TF.to_tensor(image.resize((32, 64)))

    maps = attention_of(model, transform, images)
    expected = attention_maps(model, torch.stack([transform(image) for image in images]))
    assert [len(stages) for stages in maps] == [4, 4]
    for i, stages in enumerate(maps):
        for found, stage in zip(stages, expected, strict=True):
            weights = stage.spatial[i]
            shape = (found["height"], found["width"])
            assert shape == tuple(weights.shape)
            assert found["low"] == pytest.approx(float(weights.min()), abs=1e-4)
            assert found["high"] == pytest.approx(float(weights.max()), abs=1e-4)
            values = np.frombuffer(base64.b64decode(found["values"]), np.uint8).reshape(shape)
            low, high = weights.min(), weights.max()
            scaled = 255 * (weights - low) / (high - low)
            assert np.abs(values - scaled.numpy()).max() <= 0.51


def test_large_maps_are_made_smaller():
    torch.manual_seed(0)
    model = timm.create_model("test_rga_resnet", img_size=(256, 128)).eval()
    (stages,) = attention_of(model, lambda image: torch.rand(3, 256, 128), [noise()])
    assert [(stage["height"], stage["width"]) for stage in stages][:2] == [(32, 16), (32, 16)]


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("test_rga_resnet", {}, True),
        ("test_rga_resnet", {"relation": "s"}, True),
        ("test_rga_resnet", {"relation": "c"}, False),
        ("test_rga_resnet", {"relation": "none"}, False),
        ("test_resnet", {}, False),
    ],
)
def test_models_with_maps_to_show(name, options, expected):
    assert has_spatial_attention(timm.create_model(name, **options)) is expected
