"""The cameras of the drawn data set, each with a scene, colours and a lens of its own.

A scene is painted once, as a wide panorama; an image is a window into it with a person in front.
Everything is painted at twice the final size and then reduced, which smooths the edges.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .pedestrian_figure import ALL_CLOTHES, VIEWS, Colour, Person, Pose, draw_person, pick, shade

WIDTH, HEIGHT = 64, 128  # of an image, in pixels
_SCALE = 2  # painted at this many times the size
_PANORAMA = 6 * WIDTH * _SCALE

# Wall, floor: chosen near the colours of clothes, so that the background misleads a histogram.
_SCENES: tuple[tuple[str, Colour, Colour], ...] = (
    ("windows", (150, 142, 130), (112, 112, 116)),
    ("bricks", (142, 74, 60), (128, 120, 108)),
    ("trees", (104, 146, 176), (74, 118, 60)),
    ("pillars", (206, 200, 188), (168, 160, 150)),
    ("shelves", (84, 84, 96), (190, 182, 164)),
    ("cars", (96, 112, 140), (72, 74, 80)),
)
NUM_CAMERAS = len(_SCENES)


@dataclass(frozen=True)
class Camera:
    """One fixed camera: what all of its images share."""

    panorama: Image.Image  # RGB, the scene
    cast: np.ndarray  # (3, 3) colour matrix
    gamma: float
    contrast: float
    brightness: float
    view_weights: np.ndarray  # (4,) how often people are seen from each of VIEWS
    tallness: float  # of an average adult, as a fraction of the image's height
    blur: float  # radius in final pixels
    noise: float  # standard deviation, of 255
    quality: int  # of the JPEG

    @classmethod
    def random(cls, camid: int, rng: np.random.Generator) -> "Camera":
        """Draw camera ``camid``, from 1: only its kind of scene is fixed by the number."""
        kind, wall, floor = _SCENES[(camid - 1) % NUM_CAMERAS]
        gains = rng.uniform(0.87, 1.13, 3)
        crosstalk = rng.uniform(0.0, 0.06, (3, 3))
        np.fill_diagonal(crosstalk, 0.0)
        return cls(
            panorama=_paint_panorama(kind, wall, floor, rng),
            cast=np.diag(gains * (1 - crosstalk.sum(1))) + crosstalk,
            gamma=float(rng.uniform(0.8, 1.25)),
            contrast=float(rng.uniform(0.75, 1.1)),
            brightness=float(rng.uniform(-0.06, 0.08)),
            view_weights=rng.dirichlet(np.full(len(VIEWS), 1.5)),
            tallness=float(rng.uniform(0.86, 0.98)),
            blur=float(rng.uniform(0.2, 0.5)),
            noise=float(rng.uniform(2.0, 5.0)),
            quality=int(rng.integers(70, 92)),
        )

    def shoot(
        self, person: Person | None, view: str | None, rng: np.random.Generator
    ) -> Image.Image:
        """Take one RGB picture of `WIDTH` by `HEIGHT` pixels.

        Without ``person`` it is a false alarm of the detector. ``view`` is one of `VIEWS`, or None
        for a random one.
        """
        width, height = WIDTH * _SCALE, HEIGHT * _SCALE
        left = int(rng.integers(_PANORAMA - width))
        canvas = self.panorama.crop((left, 0, left + width, height))
        if rng.random() < 0.15:  # somebody further away
            size, feet_y = rng.uniform(0.45, 0.7), rng.uniform(0.75, 0.9)
            pose = Pose.random(rng)
            feet = (width * rng.uniform(0.0, 1.0), height * feet_y)
            draw_person(canvas, Person.random(rng), pose, feet, height * size)
        if person is not None:
            feet = (width * rng.normal(0.5, 0.05), height * rng.normal(0.965, 0.015))
            size = height * self.tallness * rng.uniform(0.94, 1.06)
            pose = Pose(view or self.usual_view(rng), rng.uniform(0, 2 * np.pi))
            shadow = (feet[0] - size * 0.2, feet[1] - 5, feet[0] + size * 0.2, feet[1] + 5)
            ImageDraw.Draw(canvas).ellipse(shadow, fill=(48, 48, 50))
            draw_person(canvas, person, pose, feet, size)
        if rng.random() < 0.15:
            _add_occluder(canvas, rng)
        return self._develop(canvas.resize((WIDTH, HEIGHT), Image.Resampling.BOX), rng)

    def usual_view(self, rng: np.random.Generator) -> str:
        """A side from which this camera sees people."""
        return VIEWS[int(rng.choice(len(VIEWS), p=self.view_weights))]

    def _develop(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Apply lens, colours, exposure and noise to the scene."""
        image = image.filter(ImageFilter.GaussianBlur(self.blur * rng.uniform(0.6, 1.6)))
        light = np.asarray(image, dtype=np.float32) / 255  # (H, W, 3)
        light = light**self.gamma @ self.cast.T.astype(np.float32)
        light = (light - 0.45) * self.contrast + 0.45 + self.brightness
        light *= rng.uniform(0.85, 1.15)  # the exposure wanders
        light += rng.standard_normal(light.shape, dtype=np.float32) * (self.noise / 255)
        return Image.fromarray((light.clip(0, 1) * 255).round().astype(np.uint8))


def _add_occluder(canvas: Image.Image, rng: np.random.Generator) -> None:
    """Paint a pole, a bush or bin, or a passer-by in front of the person."""
    draw = ImageDraw.Draw(canvas)
    width, height = canvas.size
    colour = pick(rng, ALL_CLOTHES)
    match int(rng.integers(3)):
        case 0:
            x, half = width * rng.uniform(0.1, 0.9), width * rng.uniform(0.03, 0.07)
            draw.rectangle((x - half, 0, x + half, height), fill=shade(colour, 0.7))
        case 1:
            x, top = width * rng.uniform(0.0, 1.0), height * rng.uniform(0.62, 0.85)
            half = width * rng.uniform(0.15, 0.4)
            draw.rounded_rectangle((x - half, top, x + half, height), 12, fill=colour)
        case _:
            pose = Pose.random(rng)
            x = rng.uniform(-0.12, 0.04) if rng.random() < 0.5 else rng.uniform(0.96, 1.12)
            feet = (width * x, height * 1.02)
            draw_person(canvas, Person.random(rng), pose, feet, height)


def _paint_panorama(
    kind: str, wall: Colour, floor: Colour, rng: np.random.Generator
) -> Image.Image:
    """The scene of a camera, `_PANORAMA` pixels wide."""
    height = HEIGHT * _SCALE
    image = Image.new("RGB", (_PANORAMA, height), wall)
    draw = ImageDraw.Draw(image)
    horizon = int(height * rng.uniform(0.50, 0.68))
    draw.rectangle((0, horizon, _PANORAMA, height), fill=floor)
    for y in range(horizon, height, 22):  # joints in the paving
        draw.line((0, y, _PANORAMA, y), fill=shade(floor, 0.88), width=2)
    match kind:
        case "windows":
            for x in range(10, _PANORAMA, 70):
                draw.rectangle((x, 20, x + 40, horizon - 34), fill=(70, 92, 118))
                draw.line((x + 20, 20, x + 20, horizon - 34), fill=(220, 216, 208), width=3)
        case "bricks":
            for row, y in enumerate(range(0, horizon, 14)):
                draw.line((0, y, _PANORAMA, y), fill=shade(wall, 1.3), width=2)
                for x in range(14 * (row % 2), _PANORAMA, 28):
                    draw.line((x, y, x, y + 14), fill=shade(wall, 1.3), width=2)
        case "trees":
            for x in range(20, _PANORAMA, 84):
                draw.rectangle((x - 7, 60, x + 7, horizon + 8), fill=(92, 66, 46))
                draw.ellipse((x - 44, -40, x + 44, 84), fill=(46, 104, 56))
        case "pillars":
            for x in range(0, _PANORAMA, 96):
                draw.rectangle((x, 0, x + 26, horizon + 10), fill=shade(wall, 0.8))
                draw.rectangle((x, 0, x + 8, horizon + 10), fill=shade(wall, 1.12))
        case "shelves":
            for y in range(8, horizon - 20, 44):
                for x in range(0, _PANORAMA, 22):
                    top = y + int(rng.integers(4, 20))
                    draw.rectangle((x, top, x + 17, y + 38), fill=pick(rng, ALL_CLOTHES))
                draw.rectangle((0, y + 38, _PANORAMA, y + 43), fill=(206, 202, 196))
        case _:
            for x in range(0, _PANORAMA, 190):
                colour = pick(rng, ALL_CLOTHES)
                draw.rounded_rectangle((x, horizon - 46, x + 160, horizon + 8), 12, fill=colour)
                draw.rounded_rectangle(
                    (x + 34, horizon - 80, x + 124, horizon - 40), 14, fill=colour
                )
                for wheel in (x + 34, x + 126):
                    box = (wheel - 15, horizon - 8, wheel + 15, horizon + 22)
                    draw.ellipse(box, fill=(28, 28, 30))
    for _ in range(10):  # posters, boxes, benches: in the colours that people wear
        x, y = int(rng.integers(_PANORAMA)), int(rng.integers(10, height - 70))
        w, h = int(rng.integers(14, 46)), int(rng.integers(14, 60))
        draw.rectangle((x, y, x + w, y + h), fill=pick(rng, ALL_CLOTHES))
    return image.filter(ImageFilter.GaussianBlur(1.2))  # out of focus
