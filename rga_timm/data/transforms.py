"""From a PIL image to the network's input.

Random erasing (Zhong et al., AAAI 2020) comes after the normalisation, so that the erased part is
grey. Drawing the augmentation is separate from applying it, to one image or to a batch on a GPU.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
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
) -> "TrainTransform":
    """Make the augmentation of the paper's recipe.

    Args:
        img_size: (height, width) in pixels.
        mean: Mean of each channel, in 0..1.
        std: Standard deviation of each channel, in 0..1.
        interpolation: As timm names it: ``"bilinear"``, ``"bicubic"``, …
        enlarge_prob: How often the image is enlarged and cropped instead of just resized.
        enlarge_factor: By how much, of either side.
        flip_prob: How often left and right are swapped.
        erase_prob: How often a rectangle is erased.
        erase_area: Range of the rectangle's area, as fractions of the image's.
        erase_aspect: Range of its height / width. timm draws the logarithm uniformly, the paper's
            code the ratio itself: here upright and lying rectangles are equally likely.

    Returns:
        From a PIL RGB image to a tensor (3, height, width) float32. Draws from torch's and from
        Python's random numbers.
    """
    return TrainTransform(
        RandomEnlarge(img_size, enlarge_prob, enlarge_factor, interpolation),
        T.RandomHorizontalFlip(flip_prob),
        T.Normalize(mean, std),
        # "const" erases to 0, which is the mean.
        RandomErasing(erase_prob, *erase_area, *erase_aspect, mode="const", device="cpu"),
    )


def eval_transform(
    img_size: tuple[int, int] = (256, 128),
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    interpolation: str = "bilinear",
) -> T.Compose:
    """Resize and normalise: the whole person, nothing cropped. Arguments as `train_transform`."""
    resize = T.Resize(img_size, str_to_interp_mode(interpolation))
    return T.Compose([resize, T.ToTensor(), T.Normalize(mean, std)])


class RandomEnlarge(nn.Module):
    """Resize to ``img_size``; with probability ``p`` to ``factor`` times that, and crop at random.

    The paper's code calls it Random2DTranslation, where the outermost crops come up half as often
    as the others. Here all are equally likely.
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
        self.img_size = (img_size[0], img_size[1])
        self.enlarged_size = tuple(round(side * factor) for side in img_size)
        self.p = p
        self.interpolation = str_to_interp_mode(interpolation)

    def draw(self) -> tuple[int, int] | None:
        """Draw top and left of the crop from the enlarged image; None to resize only."""
        if torch.rand(()) >= self.p:
            return None
        sheet = torch.empty(()).expand(1, *self.enlarged_size)  # has a size, and takes no memory
        return T.RandomCrop.get_params(sheet, self.img_size)[:2]

    def resize(self, image: Image.Image, corner: tuple[int, int] | None) -> Image.Image:
        """Resize, or enlarge and crop at the corner."""
        size = self.enlarged_size if corner else self.img_size
        image = TF.resize(image, size, self.interpolation)
        return TF.crop(image, *corner, *self.img_size) if corner else image

    def forward(self, image: Image.Image) -> Image.Image:
        """Draw, and resize."""
        return self.resize(image, self.draw())

    def extra_repr(self) -> str:
        """Show the settings in ``repr``."""
        return f"{self.img_size}, p={self.p}, enlarged_size={self.enlarged_size}"


class Augmentation(NamedTuple):
    """What is done to one image. All fields are numbers, so that a tensor can hold them."""

    enlarge: bool
    top: int  # of the crop from the enlarged image
    left: int
    flip: bool
    erase_top: int  # of the erased rectangle, after flipping
    erase_left: int
    erase_height: int  # 0 where nothing is erased
    erase_width: int


@dataclass(eq=False)
class TrainTransform:
    """Enlarge or resize, flip, normalise, erase: what `train_transform` returns.

    Enlarging and flipping draw from torch's random numbers, erasing from Python's.
    """

    enlarge: RandomEnlarge
    flip: T.RandomHorizontalFlip
    normalise: T.Normalize
    erase: RandomErasing

    @property
    def img_size(self) -> tuple[int, int]:
        """(height, width) of the result in pixels."""
        return self.enlarge.img_size

    @property
    def transforms(self) -> list[Callable]:
        """The steps, as torchvision's Compose has them."""
        return [self.enlarge, self.flip, T.ToTensor(), self.normalise, self.erase]

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Draw and apply."""
        return self.apply(image, self.draw())

    def draw(self) -> Augmentation:
        """Draw for one image: all randomness of the augmentation is here."""
        # torchvision and timm do not return what they draw: apply them to images that show it.
        corner = self.enlarge.draw()
        flipped = self.flip(torch.tensor([[[0, 1]]]))[0, 0, 0] == 1
        sheet = self.erase(torch.ones(1, *self.img_size, dtype=torch.uint8))[0].numpy() == 0
        rows, columns = sheet.any(1).nonzero()[0], sheet.any(0).nonzero()[0]
        top_left = (int(rows[0]), int(columns[0])) if len(rows) else (0, 0)
        box = (*top_left, len(rows), len(columns))
        return Augmentation(corner is not None, *(corner or (0, 0)), bool(flipped), *box)

    def apply(self, image: Image.Image, drawn: Augmentation) -> torch.Tensor:
        """Augment a PIL RGB image of any size, to (3, height, width) float32."""
        enlarge, crop_top, crop_left, flip, top, left, height, width = drawn
        image = self.enlarge.resize(image, (crop_top, crop_left) if enlarge else None)
        result = self.normalise(TF.to_tensor(TF.hflip(image) if flip else image))
        result[:, top : top + height, left : left + width] = 0
        return result

    def apply_batch(
        self, images: torch.Tensor, drawn: Sequence[Augmentation] | torch.Tensor
    ) -> torch.Tensor:
        """Augment a batch (B, 3, height, width) uint8 of resized images, on their device.

        The result, float32, is that of `apply` on the originals, except that images are enlarged
        from the resized image, always bilinearly. For originals of the size ``img_size``, a
        bilinear `apply` differs by one level of 255 at most, as Pillow rounds between its two
        passes; for others the result is a bit softer. ``drawn`` is what `draw` returns for each, or
        a tensor (B, 8), best on the CPU. Images of another size, type or number are a ValueError.
        """
        height, width = self.img_size
        if images.dtype != torch.uint8 or images.shape[1:] != (3, height, width):
            found = f"{tuple(images.shape)} of {images.dtype}"
            raise ValueError(f"a batch is (B, 3, {height}, {width}) of uint8, not {found}")
        if len(images) != len(drawn):
            raise ValueError(f"there are {len(drawn)} augmentations for {len(images)} images")
        plan = torch.as_tensor(drawn, dtype=torch.int64).cpu()  # (B, 8)
        # nonzero() on the CPU, which would otherwise wait for the GPU.
        enlarged, flipped = plan[:, 0].nonzero()[:, 0], plan[:, 3].nonzero()[:, 0]
        moved = (plan, plan[enlarged, 1:3], enlarged, flipped)
        plan, corners, enlarged, flipped = (send(tensor, images.device) for tensor in moved)

        pixels = images.float()
        if len(enlarged):
            crops = self._enlarge_batch(pixels.index_select(0, enlarged), corners)
            pixels.index_copy_(0, enlarged, crops)
        pixels.index_copy_(0, flipped, pixels.index_select(0, flipped).flip(-1))
        # In ToTensor's and Normalize's order, which decides the rounding.
        norm = torch.tensor([self.normalise.mean, self.normalise.std], dtype=torch.float32)
        mean, std = send(norm, images.device)[:, :, None, None]
        pixels = pixels.div_(255).sub_(mean).div_(std)

        top, left, rows_erased, columns_erased = plan[:, 4:, None].unbind(1)  # (B, 1) each
        y, x = (torch.arange(side, device=images.device) for side in self.img_size)
        rows = (y >= top) & (y < top + rows_erased)  # (B, H)
        columns = (x >= left) & (x < left + columns_erased)  # (B, W)
        return pixels.masked_fill_((rows[:, :, None] & columns[:, None, :])[:, None], 0)

    def _enlarge_batch(self, pixels: torch.Tensor, corners: torch.Tensor) -> torch.Tensor:
        """Crops (E, 3, H, W) at ``corners`` (E, 2) from the enlarged ``pixels`` (E, 3, H, W)."""
        # Positions of the crop's pixels in the enlarged image, whose edges are at -1 and 1.
        (H, W), (height, width) = self.img_size, self.enlarge.enlarged_size
        top, left = corners[:, :, None].unbind(1)  # (E, 1) each
        y = (2 * (torch.arange(H, device=pixels.device) + top) + 1) / height - 1  # (E, H)
        x = (2 * (torch.arange(W, device=pixels.device) + left) + 1) / width - 1  # (E, W)
        grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=-1)
        return F.grid_sample(pixels, grid, padding_mode="border", align_corners=False).round_()


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor from the CPU to a device, without waiting for what a GPU still has to do."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)  # a pinned tensor stays as it is
