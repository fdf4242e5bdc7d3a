import numpy as np
import pytest
import torch
from matplotlib import colormaps
from PIL import Image

from rga_timm.explain import heat_map, overlay


def colour(value: float) -> np.ndarray:
    return (255 * np.array(colormaps["viridis"](float(value))[:3])).round()


def test_lowest_and_highest_weight_have_the_ends_of_the_scale():
    weights = torch.tensor([[0.2, 0.4], [0.3, 0.6]])
    picture = np.asarray(heat_map(weights, (2, 2)))
    assert np.abs(picture[0, 0] - colour(0)).max() <= 1
    assert np.abs(picture[1, 1] - colour(1)).max() <= 1
    assert np.abs(picture[0, 1] - colour(0.5)).max() <= 1


def test_map_lies_upright_over_the_image():
    weights = np.zeros((8, 4))
    weights[1, 3] = 1  # above, on the right
    picture = np.asarray(heat_map(weights, (40, 80))).astype(int)
    assert picture.shape == (80, 40, 3)
    row, column = np.unravel_index(picture[..., 0].argmax(), (80, 40))
    assert (row // 10, column // 10) == (1, 3)


def test_even_map_is_in_the_middle_of_the_scale():
    picture = np.asarray(heat_map(torch.full((3, 2), 0.7), (6, 9)))
    assert np.abs(picture - colour(0.5)).max() <= 1


def test_opacity_goes_from_the_image_to_the_map():
    image = Image.new("RGB", (8, 16), (200, 10, 30))
    weights = torch.rand(4, 2)
    assert overlay(image, weights, 0).tobytes() == image.tobytes()
    whole = overlay(image, weights, 1)
    assert whole.tobytes() == heat_map(weights, (8, 16)).tobytes()
    half = np.asarray(overlay(image, weights)).astype(float)
    assert np.abs(half - (np.asarray(image) + np.asarray(whole, float)) / 2).max() <= 1


@pytest.mark.parametrize(
    "weights", [torch.zeros(3), torch.zeros(1, 2, 3), torch.full((2, 2), np.nan)]
)
def test_what_is_no_map_is_refused(weights):
    with pytest.raises(ValueError, match=r"a map is \(H, W\) of finite numbers"):
        heat_map(weights, (2, 2))


def test_opacity_out_of_range_is_refused():
    with pytest.raises(ValueError, match="opacity is from 0 to 1"):
        overlay(Image.new("RGB", (2, 2)), torch.zeros(2, 2), 1.5)
