"""From a PIL image to the network's input.

The training transform is that of the paper's code: resize, or in half of the cases enlarge by 1/8
and crop at random; flip; erase a rectangle (Zhong et al., "Random Erasing Data Augmentation",
AAAI 2020) after the normalisation, so that the erased part is grey.
"""

from collections.abc import Sequence

import torch
from PIL import Image
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import str_to_interp_mode
from torch import nn
from torchvision import transforms as T
from torchvision.transforms import functional as TF

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def train_transform(
    img_size: tuple[int, int] = (256, 128),
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    interpolation: str = "bilinear",
    *,
    enlarge_prob: float = 0.5,
    enlarge_factor: float = 1.125,
    flip_prob: float = 0.5,
    erase_prob: float = 0.5,
    erase_area: tuple[float, float] = (0.02, 0.4),
    erase_aspect: tuple[float, float] = (0.3, 3.3),
) -> T.Compose:
    """The augmentation of the paper's recipe.

    Args:
        img_size: (height, width) in pixels.
        mean: Of each channel, in 0..1.
        std: Of each channel, in 0..1.
        interpolation: As timm names them: ``"bilinear"``, ``"bicubic"``, …
        enlarge_prob: How often the image is enlarged and cropped instead of just resized.
        enlarge_factor: By how much, of either side.
        flip_prob: How often left and right are swapped.
        erase_prob: How often a rectangle is erased.
        erase_area: Least and greatest area of the rectangle, as fractions of the image's.
        erase_aspect: Least and greatest height / width of it. timm draws the logarithm uniformly,
            the paper's code the ratio itself: here upright and lying rectangles are equally likely.

    Returns:
        From a PIL RGB image to a tensor (3, height, width) float32. Draws from torch's and from
        Python's random numbers.
    """
    erase = RandomErasing(
        probability=erase_prob,
        min_area=erase_area[0],
        max_area=erase_area[1],
        min_aspect=erase_aspect[0],
        max_aspect=erase_aspect[1],
        mode="const",  # to 0, which is the mean
        device="cpu",
    )
    return T.Compose(
        [
            RandomEnlarge(img_size, enlarge_prob, enlarge_factor, interpolation),
            T.RandomHorizontalFlip(flip_prob),
            T.ToTensor(),
            T.Normalize(mean, std),
            erase,
        ]
    )


def eval_transform(
    img_size: tuple[int, int] = (256, 128),
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    interpolation: str = "bilinear",
) -> T.Compose:
    """Resize and normalise: the whole person, nothing cropped. Arguments as `train_transform`."""
    return T.Compose(
        [
            T.Resize(img_size, str_to_interp_mode(interpolation)),
            T.ToTensor(),
            T.Normalize(mean, std),
        ]
    )


class RandomEnlarge(nn.Module):
    """Resize to ``img_size``; with probability ``p`` to ``factor`` times that, and crop at random.

    The paper's code calls it Random2DTranslation. There the outermost crops come up half as often
    as the others; here all are equally likely.

    Args:
        img_size: (height, width) of the result in pixels.
        p: How often to enlarge.
        factor: By how much, at least 1.
        interpolation: As timm names them.

    Raises:
        ValueError: ``factor`` is below 1.
    """

    def __init__(
        self,
        img_size: tuple[int, int],
        p: float = 0.5,
        factor: float = 1.125,
        interpolation: str = "bilinear",
    ) -> None:
        super().__init__()
        if factor < 1:
            raise ValueError(f"images are enlarged by a factor of at least 1, not {factor}")
        self.img_size = tuple(img_size)
        self.enlarged_size = tuple(round(side * factor) for side in img_size)
        self.p = p
        self.interpolation = str_to_interp_mode(interpolation)

    def forward(self, image: Image.Image) -> Image.Image:
        """Resize, or enlarge and crop."""
        if torch.rand(()) >= self.p:
            return TF.resize(image, self.img_size, self.interpolation)
        image = TF.resize(image, self.enlarged_size, self.interpolation)
        return TF.crop(image, *T.RandomCrop.get_params(image, self.img_size))

    def extra_repr(self) -> str:
        """Show the settings in ``repr``."""
        return f"{self.img_size}, p={self.p}, enlarged_size={self.enlarged_size}"
