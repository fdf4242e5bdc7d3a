"""What the demo shows: the gallery images nearest to a query, and where the model looks."""

import html
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from rga_timm.cli.result_cards import card
from rga_timm.data import ReidReader, find_bad_images
from rga_timm.data.image import UnreadableImageError, decode, reason_of
from rga_timm.data.plain_folder import UNKNOWN
from rga_timm.data.reader import NO_TRACKLET
from rga_timm.evaluation import Compute, Protocol
from rga_timm.evaluation.dataset import embed_loader, embed_split
from rga_timm.explain import attention_maps, overlay
from rga_timm.report_page.pictures import has_spatial_attention, read_picture

_logger = logging.getLogger("demo")

NO_STAGE = "none"
MOST_PIXELS = 50_000_000  # of a query; a small file can hold many more
_DISTRACTOR = 0


class Searcher:
    """A gallery, embedded once, in which people are looked for.

    Args:
        model: Any timm model.
        protocol: How images are prepared, and which feature is taken.
        gallery: Images, each on its own. Unreadable ones are left out, with a warning.
        has_cameras: Whether the gallery's camera ids mean cameras.
        compute: Device and batches.

    Raises:
        ValueError: No image of the gallery is readable, or the model cannot take them.
    """

    def __init__(
        self,
        model: nn.Module,
        protocol: Protocol,
        gallery: ReidReader,
        *,
        has_cameras: bool = True,
        compute: Compute = Compute(num_workers=0),
    ) -> None:
        self.model, self.protocol, self.has_cameras = model.eval(), protocol, has_cameras
        self.gallery = _readable(gallery, compute.num_workers)
        self.transform = protocol.transform()
        found = embed_split(model, self.gallery, protocol, compute)
        self.features = F.normalize(found.features)  # (n, D)
        self.compute = replace(compute, progress=False)
        # Numbers of the stages that have spatial attention, from 1.
        self.stages: list[str] = []
        if has_spatial_attention(model):
            maps = self._spatial(torch.zeros(1, 3, *protocol.img_size))
            self.stages = [str(number) for number in range(1, len(maps) + 1)]

    def rank(self, query: Image.Image) -> tuple[np.ndarray, np.ndarray]:
        """Rank the whole gallery for an RGB image: indices, nearest first, and cosines."""
        batch = [(self.transform(query)[None], torch.zeros(1, 2, dtype=torch.int64))]
        found = embed_loader(self.model, batch, self.protocol, self.compute).features
        similarities = (self.features @ F.normalize(found)[0]).clamp(-1, 1).numpy()
        order = np.argsort(-similarities, kind="stable")
        return order, similarities[order]

    def picture(self, index: int) -> Image.Image:
        """Read a gallery image."""
        return read_picture(self.gallery, index)

    def look(self, images: Sequence[Image.Image], stage: str) -> list[Image.Image]:
        """Overlay RGB images with the spatial attention of a stage, if there is any."""
        if stage not in self.stages or not images:
            return [*images]
        batch = torch.stack([self.transform(image) for image in images])
        maps = self._spatial(batch)[self.stages.index(stage)]
        return [overlay(image, weights) for image, weights in zip(images, maps, strict=True)]

    def _spatial(self, batch: Tensor) -> list[Tensor]:
        """The spatial attention of each stage that has it, (B, H, W)."""
        device = next(self.model.parameters()).device
        stages = attention_maps(self.model, batch.to(device))
        return [stage.spatial for stage in stages if stage.spatial is not None]


def describe(reader: ReidReader, index: int, has_cameras: bool) -> str:
    """Describe the person and the camera of an image in words."""
    image = reader.images[index]
    if image.pid == UNKNOWN:
        return ""
    person = "distractor" if image.pid == _DISTRACTOR else f"person {image.pid}"
    return f"{person}, camera {image.camid}" if has_cameras else person


def read_query(path: str | Path) -> Image.Image:
    """Read an image file in RGB, or raise an UnreadableImageError for the user."""
    try:
        return decode(path, max_pixels=MOST_PIXELS)
    except FileNotFoundError as error:
        raise UnreadableImageError("This image has been deleted. Give it once more.") from error
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(f"This image has too many pixels: {error}") from error
    except Exception as error:
        reason = reason_of(error).replace(str(path), Path(path).name)  # without the server's folder
        text = f"{Path(path).name} cannot be read as an image ({reason})."
        advice = "Choose a JPEG, PNG, BMP, WebP or TIFF file."
        raise UnreadableImageError(f"{text} {advice}") from error


def results_page(
    searcher: Searcher, query: Image.Image, stage: str = NO_STAGE, threshold: float = -1.0,
    top: int = 24, known: str = "",
) -> str:  # fmt: skip
    """The query and the nearest gallery images, at most `top`, as HTML with the pictures in it.

    They have at least `threshold` similarity, and are shown with the attention of a `stage`.
    """
    order, similarities = searcher.rank(query)
    above = int((similarities >= threshold).sum())
    shown = order[: min(above, top)].tolist()
    pictures = searcher.look([query, *map(searcher.picture, shown)], stage)
    cards = [card(pictures[0], "query", known=known)]
    for rank, index in enumerate(shown, start=1):
        about = describe(searcher.gallery, index, searcher.has_cameras)
        path = searcher.gallery.images[index].path
        cards.append(card(pictures[rank], f"{rank}", f"{similarities[rank - 1]:.3f}", about, path))
    count = f"{above} of {len(order)} gallery images have a similarity of {threshold:.2f} or more"
    if not above:
        count += f"; the nearest has {similarities[0]:.3f}"
    elif above > top:
        count += f"; the nearest {top} are shown"
    return f'<p class="count" role="status">{count}.</p>\n<div class="cards">{"".join(cards)}</div>'


def message_page(message: str, *, is_error: bool = False) -> str:
    """A message in place of results, as HTML."""
    kind = 'class="message error" role="alert"' if is_error else 'class="message"'
    return f"<p {kind}>{html.escape(message)}</p>"


def _readable(reader: ReidReader, workers: int) -> ReidReader:
    """Return the images that can be decoded, those of tracklets one by one."""
    images = (image._replace(tracklet=NO_TRACKLET) for image in reader.images)
    reader = ReidReader(reader.root, images, opener=reader.opener)
    bad = find_bad_images(reader, workers, name="read")
    for index, reason in bad.items():
        _logger.warning("left out: %s: %s", reader.images[index].path, reason)
    if len(bad) == len(reader):
        raise ValueError(f"none of the {len(reader)} images of the gallery can be read")
    return reader.without(bad) if bad else reader
