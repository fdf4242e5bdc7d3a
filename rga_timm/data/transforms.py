"""From a PIL image to the network's input.

Random erasing (Zhong et al., AAAI 2020) comes after the normalisation, so that the erased part is
grey. Drawing at random is separate from applying: to one image from its file, or to a batch on a
GPU.
"""

from collections.abc import Callable, Sequence
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
    return TrainTransform(
        RandomEnlarge(img_size, enlarge_prob, enlarge_factor, interpolation),
        T.RandomHorizontalFlip(flip_prob),
        T.Normalize(mean, std),
        RandomErasing(
            probability=erase_prob,
            min_area=erase_area[0],
            max_area=erase_area[1],
            min_aspect=erase_aspect[0],
            max_aspect=erase_aspect[1],
            mode="const",  # to 0, which is the mean
            device="cpu",
        ),
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
        """Top and left of the crop from the enlarged image; None where it is just resized."""
        if torch.rand(()) >= self.p:
            return None
        sheet = torch.empty(()).expand(1, *self.enlarged_size)  # has a size, and takes no memory
        top, left, _, _ = T.RandomCrop.get_params(sheet, self.img_size)
        return int(top), int(left)

    def resize(self, image: Image.Image, corner: tuple[int, int] | None) -> Image.Image:
        """Resize, or enlarge and crop at the corner."""
        if corner is None:
            return TF.resize(image, self.img_size, self.interpolation)
        image = TF.resize(image, self.enlarged_size, self.interpolation)
        return TF.crop(image, *corner, *self.img_size)

    def forward(self, image: Image.Image) -> Image.Image:
        """Draw, and resize."""
        return self.resize(image, self.draw())

    def extra_repr(self) -> str:
        """Show the settings in ``repr``."""
        return f"{self.img_size}, p={self.p}, enlarged_size={self.enlarged_size}"


class Augmentation(NamedTuple):
    """What is done to one image. All numbers, so that a tensor can be made of it."""

    enlarge: bool
    top: int  # of the crop from the enlarged image
    left: int
    flip: bool
    erase_top: int  # of the erased rectangle, after flipping
    erase_left: int
    erase_height: int  # 0 where nothing is erased
    erase_width: int


class TrainTransform:
    """Enlarge or resize, flip, normalise, erase: what `train_transform` returns.

    Enlarging and flipping draw from torch's random numbers, erasing from Python's.
    """

    def __init__(
        self,
        enlarge: RandomEnlarge,
        flip: T.RandomHorizontalFlip,
        normalise: T.Normalize,
        erase: RandomErasing,
    ) -> None:
        self.enlarge = enlarge
        self.flip = flip
        self.normalise = normalise
        self.erase = erase

    @property
    def img_size(self) -> tuple[int, int]:
        """(height, width) of the result in pixels."""
        return self.enlarge.img_size

    @property
    def transforms(self) -> list[Callable]:
        """The same, step by step, as torchvision's Compose has them."""
        return [self.enlarge, self.flip, T.ToTensor(), self.normalise, self.erase]

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """Draw and apply."""
        return self.apply(image, self.draw())

    def draw(self) -> Augmentation:
        """Draw for one image: all randomness of the augmentation is here.

        Flip and erasing are torchvision's and timm's, which do not return what they draw. They are
        applied to small images that show it.
        """
        corner = self.enlarge.draw()
        flipped = self.flip(torch.tensor([[[0, 1]]]))[0, 0, 0] == 1
        sheet = self.erase(torch.ones(1, *self.img_size, dtype=torch.uint8))[0].numpy() == 0
        rows, columns = sheet.any(1).nonzero()[0], sheet.any(0).nonzero()[0]
        top_left = (int(rows[0]), int(columns[0])) if len(rows) else (0, 0)
        box = (*top_left, len(rows), len(columns))
        return Augmentation(corner is not None, *(corner or (0, 0)), bool(flipped), *box)

    def apply(self, image: Image.Image, drawn: Augmentation) -> torch.Tensor:
        """Augment a PIL RGB image of any size, to (3, height, width) float32."""
        image = self.enlarge.resize(image, (drawn.top, drawn.left) if drawn.enlarge else None)
        if drawn.flip:
            image = TF.hflip(image)
        result = self.normalise(TF.to_tensor(image))
        bottom = drawn.erase_top + drawn.erase_height
        right = drawn.erase_left + drawn.erase_width
        result[:, drawn.erase_top : bottom, drawn.erase_left : right] = 0
        return result

    def apply_batch(
        self, images: torch.Tensor, drawn: Sequence[Augmentation] | torch.Tensor
    ) -> torch.Tensor:
        """Augment a batch of resized images, on the device that they are on.

        The result is that of `apply` on the originals, except where images are enlarged: here from
        the resized image, and bilinearly whatever the interpolation. Where the original has the
        size ``img_size``, a bilinear `apply` differs by a level of 255 at most, as Pillow rounds
        between its two passes; elsewhere the result is a bit softer.

        Args:
            images: (B, 3, height, width) uint8, resized to ``img_size``.
            drawn: What `draw` returns for each; or as a tensor (B, 8), best in the CPU's memory,
                as otherwise the CPU has to wait for it.

        Returns:
            (B, 3, height, width) float32.

        Raises:
            ValueError: The images have another size, type or number.
        """
        _check_batch(images, self.img_size, len(drawn))
        plan = torch.as_tensor(drawn, dtype=torch.int64).cpu()  # (B, 8)
        # On the CPU, which would otherwise wait for the GPU.
        enlarged, flipped = plan[:, 0].nonzero()[:, 0], plan[:, 3].nonzero()[:, 0]
        corners = send(plan[enlarged, 1:3], images.device)
        enlarged, flipped = send(enlarged, images.device), send(flipped, images.device)
        plan = send(plan, images.device)

        pixels = images.float()
        if len(enlarged):
            crops = self._enlarge_batch(pixels.index_select(0, enlarged), corners)
            pixels.index_copy_(0, enlarged, crops)
        pixels.index_copy_(0, flipped, pixels.index_select(0, flipped).flip(-1))
        # In ToTensor's and Normalize's order, which decides the rounding.
        mean, std = (
            send(torch.tensor(values, dtype=torch.float32), images.device)[:, None, None]
            for values in (self.normalise.mean, self.normalise.std)
        )
        pixels = pixels.div_(255).sub_(mean).div_(std)

        top, left, height, width = plan[:, 4:, None].unbind(1)  # (B, 1) each
        y, x = (torch.arange(side, device=images.device) for side in self.img_size)
        rows = (y >= top) & (y < top + height)  # (B, H)
        columns = (x >= left) & (x < left + width)  # (B, W)
        return pixels.masked_fill_((rows[:, :, None] & columns[:, None, :])[:, None], 0)

    def _enlarge_batch(self, pixels: torch.Tensor, corners: torch.Tensor) -> torch.Tensor:
        """Crops (E, 3, H, W) at ``corners`` (E, 2) from the enlarged ``pixels`` (E, 3, H, W)."""
        # Positions of the crop's pixels in the enlarged image, whose edges are at -1 and 1.
        y, x = (
            (2 * (torch.arange(side, device=pixels.device) + corners[:, i, None]) + 1) / large - 1
            for i, (side, large) in enumerate(
                zip(self.img_size, self.enlarge.enlarged_size, strict=True)
            )
        )  # (E, H), (E, W)
        shape = (len(pixels), *self.img_size)
        grid = torch.stack([x[:, None, :].expand(shape), y[:, :, None].expand(shape)], dim=-1)
        crops = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
        return crops.round_()

    def __repr__(self) -> str:
        steps = "".join(f"    {step}\n" for step in self.transforms)
        return f"{type(self).__name__}(\n{steps})"


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor from the CPU to a device, without waiting for what a GPU still has to do."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    pinned = tensor if tensor.is_pinned() else tensor.pin_memory()
    return pinned.to(device, non_blocking=True)


def _check_batch(images: torch.Tensor, img_size: tuple[int, int], count: int) -> None:
    if images.dtype != torch.uint8 or images.shape[1:] != (3, *img_size):
        raise ValueError(
            f"a batch to augment is (B, 3, {img_size[0]}, {img_size[1]}) of uint8, "
            f"not {tuple(images.shape)} of {images.dtype}"
        )
    if len(images) != count:
        raise ValueError(f"there are {count} augmentations for {len(images)} images")
