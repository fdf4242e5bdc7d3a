"""What the training transform draws, and that batches are augmented as single images are."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.random_erasing import RandomErasing
from torchvision import transforms as T
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as TF

from rga_timm.data import Augmentation, train_transform

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
SIZE = (48, 24)
LEVEL = 1 / 255 / torch.tensor(STD)[:, None, None]  # of a byte, in normalised images


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def seed_all(seed: int) -> None:
    random.seed(seed)
    torch.manual_seed(seed)


def stream() -> tuple[float, float]:
    """The next random numbers: the same only if as many were taken before."""
    return random.random(), float(torch.rand(()))


def composed(interpolation: str, p: tuple[float, float, float], factor: float) -> T.Compose:
    """The augmentation as a chain of torchvision's and timm's own steps."""
    mode = InterpolationMode(interpolation)
    large = tuple(round(side * factor) for side in SIZE)

    def enlarge(image: Image.Image) -> Image.Image:
        if torch.rand(()) >= p[0]:
            return TF.resize(image, SIZE, mode)
        return T.RandomCrop(SIZE)(TF.resize(image, large, mode))

    erase = RandomErasing(p[2], 0.02, 0.4, 0.3, 3.3, mode="const", device="cpu")
    steps = [enlarge, T.RandomHorizontalFlip(p[1]), T.ToTensor(), T.Normalize(MEAN, STD), erase]
    return T.Compose(steps)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("p", [(0.5, 0.5, 0.5), (1.0, 0.2, 0.9), (0.0, 0.7, 0.1)])
@pytest.mark.parametrize("factor", [1.125, 1.0])
def test_draws_and_applies_what_a_chain_of_the_libraries_own_steps_does(interpolation, p, factor):
    expected = composed(interpolation, p, factor)
    found = train_transform(
        SIZE, MEAN, STD, interpolation,
        enlarge_prob=p[0], enlarge_factor=factor, flip_prob=p[1], erase_prob=p[2],
    )  # fmt: skip
    for seed in range(40):
        image = noise(*((96, 40), SIZE)[seed % 2], seed=seed)
        seed_all(seed)
        wanted, next_wanted = expected(image), stream()
        for transform in (found, T.Compose(found.transforms)):
            seed_all(seed)
            assert torch.equal(transform(image), wanted)
            assert stream() == next_wanted


def test_applying_takes_no_random_numbers():
    transform = train_transform(SIZE, MEAN, STD)
    drawn = Augmentation(True, 3, 2, True, 5, 6, 7, 8)
    before = random.getstate(), torch.get_rng_state()
    first = transform.apply(noise(96, 40), drawn)
    transform.apply_batch(torch.zeros(1, 3, *SIZE, dtype=torch.uint8), [drawn])
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert torch.equal(transform.apply(noise(96, 40), drawn), first)


def test_one_image_is_augmented_as_drawn():
    transform = train_transform(SIZE, MEAN, STD)
    image = noise(96, 40)
    found = transform.apply(image, Augmentation(True, 6, 1, True, 10, 4, 20, 15))
    large = np.asarray(image.resize((27, 54), Image.Resampling.BILINEAR))
    pixels = large[6 : 6 + 48, 1 : 1 + 24][:, ::-1] / 255
    expected = ((pixels - MEAN) / STD).transpose(2, 0, 1)
    expected[:, 10:30, 4:19] = 0
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def draw_all(transform, count: int) -> list[Augmentation]:
    drawn = []
    for seed in range(count):
        seed_all(seed)
        drawn.append(transform.draw())
    return drawn


@pytest.mark.parametrize("size", [SIZE, (33, 50)])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_a_batch_is_augmented_as_its_images_are_one_by_one(size, as_tensor):
    transform = train_transform(size, MEAN, STD)
    images = [noise(*size, seed=seed) for seed in range(100)]
    drawn = draw_all(transform, 100)
    expected = torch.stack([transform.apply(*pair) for pair in zip(images, drawn, strict=True)])
    batch = torch.stack([TF.pil_to_tensor(image) for image in images])
    kept = batch.clone()
    found = transform.apply_batch(batch, torch.tensor(drawn) if as_tensor else drawn)
    assert torch.equal(batch, kept)
    assert found.dtype == torch.float32

    enlarged = torch.tensor([one.enlarge for one in drawn])
    flipped = torch.tensor([one.flip for one in drawn])
    erased = torch.tensor([one.erase_height > 0 for one in drawn])
    for kind in (enlarged & flipped & erased, ~enlarged & flipped & ~erased, ~enlarged & ~flipped):
        assert kind.any()
    assert torch.equal(found[~enlarged], expected[~enlarged])
    # Pillow rounds between its two passes: a level at most, and seldom.
    difference = (found - expected)[enlarged].abs() / LEVEL
    assert difference.max() < 1.001
    assert (difference > 0.001).float().mean() < 0.3
    gone = (expected == 0).all(1)
    assert torch.equal((found == 0).all(1)[erased], gone[erased])


def test_where_everything_or_nothing_is_enlarged_the_batch_is_whole():
    batch = torch.stack([TF.pil_to_tensor(noise(*SIZE, seed=seed)) for seed in range(3)])
    for p in (0.0, 1.0):
        transform = train_transform(SIZE, MEAN, STD, enlarge_prob=p)
        drawn = draw_all(transform, 3)
        assert [one.enlarge for one in drawn] == [p == 1] * 3
        assert transform.apply_batch(batch, drawn).shape == (3, 3, *SIZE)


@pytest.mark.parametrize(
    ("images", "count", "message"),
    [
        (torch.zeros(2, 3, *SIZE), 2, r"\(B, 3, 48, 24\) of uint8, not .* of torch.float32"),
        (torch.zeros(2, 3, 24, 48, dtype=torch.uint8), 2, r"not \(2, 3, 24, 48\) of"),
        (torch.zeros(2, 3, *SIZE, dtype=torch.uint8), 3, "there are 3 augmentations for 2 images"),
    ],
)
def test_batches_that_do_not_fit_are_refused(images, count, message):
    transform = train_transform(SIZE)
    with pytest.raises(ValueError, match=message):
        transform.apply_batch(images, draw_all(transform, count))


def test_repr_shows_the_settings():
    text = repr(train_transform(SIZE, MEAN, STD, flip_prob=0.25, enlarge_prob=0.75))
    assert text.startswith("TrainTransform(")
    for setting in ("(48, 24), p=0.75, enlarged_size=(54, 27)", "p=0.25", str(MEAN), "const"):
        assert setting in text
