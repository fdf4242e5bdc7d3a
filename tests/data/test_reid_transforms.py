import random

import numpy as np
import pytest
import torch
from PIL import Image

from rga_timm.data import eval_transform, train_transform
from rga_timm.data.transforms import RandomEnlarge

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
SIZE = (48, 24)
OFF = {"enlarge_prob": 0.0, "flip_prob": 0.0, "erase_prob": 0.0}


@pytest.fixture(autouse=True)
def _seeds():
    random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def image() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (96, 40, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def reference(image: Image.Image, resample: Image.Resampling) -> torch.Tensor:
    """Resized and normalised by Pillow and numpy alone."""
    pixels = np.asarray(image.resize(SIZE[::-1], resample), dtype=np.float64) / 255
    return torch.from_numpy(((pixels - MEAN) / STD).transpose(2, 0, 1)).float()


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
def test_without_randomness_both_transforms_resize_and_normalise(image, name):
    expected = reference(image, Image.Resampling[name.upper()])
    for transform in (eval_transform, lambda *args: train_transform(*args, **OFF)):
        found = transform(SIZE, MEAN, STD, name)(image)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_the_defaults_are_the_papers(image):
    assert train_transform()(image).shape == eval_transform()(image).shape == (3, 256, 128)
    enlarge, flip, _, normalise, erase = train_transform().transforms
    assert (enlarge.p, enlarge.enlarged_size) == (0.5, (288, 144))
    assert flip.p == 0.5
    assert tuple(normalise.mean) == (0.485, 0.456, 0.406)
    assert (erase.probability, erase.min_area, erase.max_area) == (0.5, 0.02, 0.4)
    assert np.exp(erase.log_aspect_ratio) == pytest.approx((0.3, 3.3))


def test_an_enlarged_image_is_a_crop_of_one_an_eighth_larger(image):
    large = np.asarray(image.resize((27, 54), Image.Resampling.BILINEAR))
    windows = np.lib.stride_tricks.sliding_window_view(large, (48, 24, 3)).squeeze(2)  # (7, 4, …)
    enlarge = RandomEnlarge(SIZE, p=1.0)
    corners = set()
    for _ in range(300):
        crop = np.asarray(enlarge(image))
        ((y, x),) = np.argwhere((windows == crop).all(axis=(2, 3, 4)))
        corners.add((y, x))
    assert len(corners) == 7 * 4  # every place comes up


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_images_are_enlarged_as_often_as_asked(image, p):
    plain = np.asarray(image.resize(SIZE[::-1], Image.Resampling.BILINEAR))
    enlarge = RandomEnlarge(SIZE, p=p)
    enlarged = [not np.array_equal(np.asarray(enlarge(image)), plain) for _ in range(500)]
    assert np.mean(enlarged) == pytest.approx(p, abs=0.07 if 0 < p < 1 else 0)


def test_shrinking_is_no_enlarging():
    with pytest.raises(ValueError, match=r"at least 1, not 0\.9"):
        RandomEnlarge(SIZE, factor=0.9)


def test_flipping_swaps_left_and_right(image):
    plain = eval_transform(SIZE, MEAN, STD)(image)
    flipped = train_transform(SIZE, MEAN, STD, **{**OFF, "flip_prob": 1.0})(image)
    torch.testing.assert_close(flipped, plain.flip(-1))


def erased_boxes(transform, image: Image.Image, draws: int) -> list[tuple[int, int]]:
    """Height and width of what was set to exactly 0 in each draw; checks that it is a box."""
    boxes = []
    for _ in range(draws):
        gone = (transform(image) == 0).all(0)
        if gone.any():
            rows, columns = gone.any(1).nonzero(), gone.any(0).nonzero()
            box = gone[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert box.all()
            assert gone.sum() == box.numel()
            boxes.append(tuple(box.shape))
    return boxes


def test_the_erased_box_has_the_papers_area_and_aspect():
    white = Image.new("RGB", (24, 48), (255, 255, 255))  # nowhere 0 after normalising
    transform = train_transform((96, 48), MEAN, STD, **{**OFF, "erase_prob": 0.5})
    boxes = np.array(erased_boxes(transform, white, draws=1500))
    assert len(boxes) / 1500 == pytest.approx(0.5, abs=0.05)
    heights, widths = boxes.T
    areas, aspects = heights * widths / (96 * 48), heights / widths
    # Sides are whole pixels: the least box, of 92 pixels, may be off by a tenth.
    assert 0.018 < areas.min() < 0.04
    assert 0.36 < areas.max() < 0.41
    assert 0.25 < aspects.min() < 0.4
    assert 2.7 < aspects.max() < 3.8


def test_nothing_is_erased_where_the_probability_is_0():
    white = Image.new("RGB", (24, 48), (255, 255, 255))
    assert not erased_boxes(train_transform(SIZE, MEAN, STD, **OFF), white, draws=50)
