"""What the demo shows: the gallery images nearest to a query, and where the model looks."""

from __future__ import annotations

import html
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from rga_timm.data import ReidReader, create_eval_loader, eval_transform, find_bad_images
from rga_timm.data.plain_folder import UNKNOWN
from rga_timm.data.reader import NO_TRACKLET
from rga_timm.evaluation import embed
from rga_timm.explain import attention_maps, overlay
from rga_timm.report_page.pictures import has_spatial_attention, read_picture, thumbnail

_logger = logging.getLogger("demo")

NO_STAGE = "none"
_DISTRACTOR = 0


class UnreadableImageError(ValueError):
    """A query that is no image, or a broken one."""


@dataclass(frozen=True)
class Ranking:
    """Gallery images by their similarity with a query.

    Attributes:
        indices: (n,) int64, of the gallery, the nearest first.
        similarities: (n,) float32 cosines, falling.
    """

    indices: np.ndarray
    similarities: np.ndarray

    def at_least(self, threshold: float) -> Ranking:
        """Those that are as similar as that, or more."""
        count = int((self.similarities >= threshold).sum())
        return Ranking(self.indices[:count], self.similarities[:count])

    def __len__(self) -> int:
        return len(self.indices)


class Searcher:
    """A gallery, embedded once, in which people are looked for.

    Args:
        model: Any timm model.
        config: Its data config, as timm resolves it.
        gallery: Images of tracklets count one by one. Those that cannot be read are left out, with
            a warning.
        has_cameras: Whether the gallery's camera ids mean cameras.
        batch_size: Images in a batch.
        workers: Processes that read the gallery.
        options: Arguments of `rga_timm.evaluation.embed`, the same for gallery and queries.

    Raises:
        ValueError: No image of the gallery can be read, or the model cannot take them.
    """

    def __init__(
        self,
        model: nn.Module,
        config: dict[str, Any],
        gallery: ReidReader,
        *,
        has_cameras: bool = True,
        batch_size: int = 128,
        workers: int = 0,
        options: dict[str, Any] | None = None,
    ) -> None:
        self.model = model.eval()
        self.options = options or {}
        self.has_cameras = has_cameras
        self.gallery = _readable(_one_by_one(gallery), workers)
        self.transform = eval_transform(
            config["input_size"][1:], config["mean"], config["std"], config["interpolation"]
        )
        loader = create_eval_loader(self.gallery, self.transform, batch_size, num_workers=workers)
        self.features = F.normalize(embed(model, loader, **self.options).features)  # (n, D)
        self.stages = self._find_stages(torch.zeros(1, *config["input_size"]))

    def rank(self, query: Image.Image) -> Ranking:
        """The whole gallery by cosine similarity with an RGB image."""
        batch = [(self.transform(query)[None], torch.zeros(1, 2, dtype=torch.int64))]
        found = embed(self.model, batch, progress=False, **self.options).features
        similarities = (self.features @ F.normalize(found)[0]).clamp(-1, 1).numpy()
        order = np.argsort(-similarities, kind="stable")
        return Ranking(order, similarities[order])

    def picture(self, index: int) -> Image.Image:
        """A gallery image."""
        return read_picture(self.gallery, index)

    def known(self, index: int) -> str:
        """What is known of the person and the camera of a gallery image; often nothing."""
        return describe(self.gallery, index, self.has_cameras)

    def look(self, images: Sequence[Image.Image], stage: str) -> list[Image.Image]:
        """RGB images with the spatial attention of a stage laid over them.

        Args:
            images: Of any size.
            stage: One of ``stages``; any other leaves the images as they are.
        """
        if stage not in self.stages or not images:
            return [*images]
        batch = torch.stack([self.transform(image) for image in images])
        maps = self._spatial(batch)[self.stages.index(stage)]
        return [overlay(image, weights) for image, weights in zip(images, maps, strict=True)]

    def _find_stages(self, image: Tensor) -> list[str]:
        """The numbers of the stages that have spatial attention, counted from 1."""
        if not has_spatial_attention(self.model):
            return []
        return [str(number) for number, _ in enumerate(self._spatial(image), start=1)]

    def _spatial(self, batch: Tensor) -> list[Tensor]:
        """The spatial attention of each stage that has it, (B, H, W)."""
        device = next(self.model.parameters()).device
        stages = attention_maps(self.model, batch.to(device))
        return [stage.spatial for stage in stages if stage.spatial is not None]


def describe(reader: ReidReader, index: int, has_cameras: bool) -> str:
    """What is known of the person and the camera of an image, in words."""
    image = reader.images[index]
    if image.pid == UNKNOWN:
        return ""
    person = "distractor" if image.pid == _DISTRACTOR else f"person {image.pid}"
    return f"{person}, camera {image.camid}" if has_cameras else person


def read_query(path: str | Path) -> Image.Image:
    """The image of a file that somebody gave, in RGB.

    Raises:
        UnreadableImageError: It is none, or a broken or a huge one.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError as error:
        raise UnreadableImageError("This image has been deleted. Give it once more.") from error
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(f"This image has too many pixels: {error}") from error
    # What Pillow raises on a broken file depends on the format and on where it is broken.
    except (OSError, SyntaxError, ValueError) as error:
        # The name of the upload, without the server's folder.
        reason = str(error).replace(str(path), Path(path).name)
        raise UnreadableImageError(
            f"{Path(path).name} cannot be read as an image ({reason}). "
            "Choose a JPEG, PNG, BMP, WebP or TIFF file."
        ) from error


def results_page(
    searcher: Searcher,
    query: Image.Image,
    stage: str = NO_STAGE,
    threshold: float = -1.0,
    top: int = 24,
    known: str = "",
) -> str:
    """The query and the nearest gallery images as HTML, the pictures in it.

    Args:
        searcher: The gallery.
        query: RGB.
        stage: Whose attention is laid over the pictures; see `Searcher.look`.
        threshold: The least similarity.
        top: How many images are shown at the most.
        known: What is known of the query.
    """
    ranking = searcher.rank(query)
    above = ranking.at_least(threshold)
    shown = above.indices[:top].tolist()
    pictures = searcher.look([query, *map(searcher.picture, shown)], stage)
    cards = [_card(pictures[0], "query", "", known)]
    for rank, index in enumerate(shown, start=1):
        similarity = above.similarities[rank - 1]
        lines = (searcher.known(index), searcher.gallery.images[index].path)
        cards.append(_card(pictures[rank], f"{rank}", f"{similarity:.3f}", *lines))
    count = (
        f"{len(above)} of {len(ranking)} gallery images have a similarity of {threshold:.2f} or "
        "more"
    )
    if not len(above):
        count += f"; the nearest has {ranking.similarities[0]:.3f}"
    elif len(above) > top:
        count += f"; the nearest {top} are shown"
    return f'<p class="count" role="status">{count}.</p>\n<div class="cards">{"".join(cards)}</div>'


def message_page(message: str, *, is_error: bool = False) -> str:
    """A message in the place of results, as HTML."""
    kind = 'class="message error" role="alert"' if is_error else 'class="message"'
    return f"<p {kind}>{html.escape(message)}</p>"


def _card(picture: Image.Image, rank: str, similarity: str, known: str = "", path: str = "") -> str:
    """A picture with what is said of it. File names are anybody's, so they are escaped."""
    name = html.escape(path.rpartition("/")[2])
    alt = "query" if rank == "query" else f"rank {rank}"
    return (
        f'<figure class="card{" query" if rank == "query" else ""}">'
        f'<img src="{thumbnail(picture)}" alt="{alt}">'
        f'<figcaption><span class="line"><b>{rank}</b> <span>{similarity}</span></span>'
        f'<span class="known">{html.escape(known)}</span>'
        f'<span class="name" title="{html.escape(path)}">{name}</span></figcaption></figure>'
    )


def _one_by_one(reader: ReidReader) -> ReidReader:
    """The images of tracklets as images of their own."""
    images = (image._replace(tracklet=NO_TRACKLET) for image in reader.images)
    return ReidReader(reader.root, images, opener=reader.opener)


def _readable(reader: ReidReader, workers: int) -> ReidReader:
    """Without images that cannot be decoded.

    Raises:
        ValueError: None is left.
    """
    bad = find_bad_images(reader, workers, name="read")
    for index, reason in bad.items():
        _logger.warning("left out: %s: %s", reader.images[index].path, reason)
    if len(bad) == len(reader):
        raise ValueError(f"none of the {len(reader)} images of the gallery can be read")
    return reader.without(bad) if bad else reader
