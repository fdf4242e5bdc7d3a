"""The people of the drawn data set: what they wear, and how it looks from one side.

A figure is drawn in units of its own height: ``y`` runs down from 0 (the crown) to 1 (the soles),
``x`` to the right from the body's axis. Proportions are about seven and a half heads.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]
Fill = Colour | Image.Image  # a plain colour, or a pattern as large as the canvas

VIEWS = ("front", "back", "left", "right")  # "left": the person walks to the left of the image

# Few colours, shared by everyone: people differ in where they wear a colour, so that a colour
# histogram fails.
CLOTHES: tuple[Colour, ...] = (  # black, white, red, blue, green, yellow
    (32, 32, 38), (226, 224, 218), (184, 38, 42), (38, 74, 160), (46, 122, 66), (214, 178, 52),
)  # fmt: skip
LOWER_CLOTHES: tuple[Colour, ...] = (  # black, denim, grey, khaki
    (32, 32, 38), (38, 54, 104), (124, 124, 128), (176, 150, 108),
)  # fmt: skip
ALL_CLOTHES = CLOTHES + LOWER_CLOTHES
_SHOES = ((36, 32, 32), (232, 230, 226), (150, 44, 40))
_SKIN = ((240, 202, 172), (214, 164, 128), (150, 104, 74), (96, 66, 50))
_HAIR = ((28, 24, 24), (96, 62, 36), (206, 170, 98), (168, 168, 170))

# Where the second colour of a pattern goes, as a function of the figure's coordinates.
_PATTERNS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "stripes": lambda x, y: (y / 0.085) % 1 < 0.5,
    "bars": lambda x, y: (x / 0.075) % 1 < 0.5,
    "checks": lambda x, y: ((x / 0.10) % 1 < 0.5) ^ ((y / 0.10) % 1 < 0.5),
    "two-tone": lambda x, y: y < 0.33,
    "band": lambda x, y: (y > 0.27) & (y < 0.36),
}

T = TypeVar("T")


@dataclass(frozen=True)
class Person:
    """What a person looks like under every camera."""

    height: float  # relative to the average
    build: float  # width relative to the average
    skin: Colour
    hair: Colour
    hair_style: str
    hat: str
    hat_colour: Colour
    upper: str
    upper_pattern: str
    upper_colours: tuple[Colour, Colour]
    lower: str
    lower_pattern: str
    lower_colours: tuple[Colour, Colour]
    shoes: Colour
    bag: str
    bag_colour: Colour

    @classmethod
    def random(cls, rng: np.random.Generator) -> "Person":
        """Draw each attribute independently of the others."""
        first, second = rng.permutation(len(CLOTHES))[:2]
        return cls(
            height=float(rng.uniform(0.86, 1.0)),
            build=float(rng.choice([0.85, 1.0, 1.2])),
            skin=pick(rng, _SKIN),
            hair=pick(rng, _HAIR),
            hair_style=pick(rng, ("short", "long", "bun", "bald")),
            hat=pick(rng, ("none", "none", "cap", "beanie")),
            hat_colour=pick(rng, CLOTHES),
            upper=pick(rng, ("t-shirt", "jumper", "vest", "coat")),
            upper_pattern=pick(rng, ("plain", "logo", "back print", *_PATTERNS)),
            upper_colours=(CLOTHES[first], CLOTHES[second]),
            lower=pick(rng, ("trousers", "shorts", "skirt", "long skirt")),
            lower_pattern=pick(rng, ("plain", "plain", "piped", "checks")),
            lower_colours=(pick(rng, LOWER_CLOTHES), pick(rng, CLOTHES)),
            shoes=pick(rng, _SHOES),
            bag=pick(rng, ("none", "backpack", "handbag", "suitcase")),
            bag_colour=pick(rng, CLOTHES),
        )


@dataclass(frozen=True)
class Pose:
    """One moment of a walk."""

    view: str  # one of VIEWS
    phase: float  # of the step, in radians

    @classmethod
    def random(cls, rng: np.random.Generator) -> "Pose":
        """Draw a side and a phase."""
        return cls(pick(rng, VIEWS), rng.uniform(0, 2 * np.pi))


def draw_person(
    canvas: Image.Image, person: Person, pose: Pose, feet: Point, height: float
) -> None:
    """Paint a person onto an RGB image, in place.

    ``feet`` is where they stand, and ``height`` that of an average adult, in pixels.
    """
    figure = _Figure(canvas, person, pose, feet, height)
    if pose.view in ("front", "back"):
        figure.draw_facing(front=pose.view == "front")
    else:
        figure.draw_sideways(ahead=-1 if pose.view == "left" else 1)


def shade(colour: Colour, factor: float) -> Colour:
    """A brighter or darker version of a colour."""
    red, green, blue = (min(255, round(channel * factor)) for channel in colour)
    return red, green, blue


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of the options, at random."""
    return options[int(rng.integers(len(options)))]


class _Figure:
    """Paints one person; all sizes are in units of their height."""

    def __init__(
        self, canvas: Image.Image, person: Person, pose: Pose, feet: Point, height: float
    ) -> None:
        self.canvas, self.draw = canvas, ImageDraw.Draw(canvas)
        self.person, self.step = person, math.sin(pose.phase)
        self.y_scale = height * person.height
        self.x_scale = self.y_scale * person.build
        self.left, self.top = feet[0], feet[1] - self.y_scale
        self.hem = 0.68 if person.upper == "coat" else 0.53
        self.upper = self._pattern(person.upper_pattern, *person.upper_colours)
        self.lower = self._pattern(person.lower_pattern, *person.lower_colours)

    def draw_facing(self, front: bool) -> None:
        """From the front or back: limbs move in depth, so a step shows as a lifted foot."""
        person, step, hem = self.person, self.step, self.hem
        # The right hand carries the bag; seen from the front it is at the left of the image.
        bag_side = -1 if front else 1
        if person.bag == "suitcase":
            self._bag((bag_side * 0.27, 0.80), 0.075, 0.13)
        for side in (-1, 1):
            lift = 0.035 * max(0.0, side * step)
            knee, ankle = (side * 0.062, 0.74 - lift / 2), (side * 0.065, 0.955 - lift)
            joints = [(side * 0.055, 0.50), knee, ankle]
            self._leg(self.lower, joints, toe=side * 0.02, seam=side * 0.035)
        self._hips(half_width=0.100, flare=0.02)
        torso = [(-0.112, 0.178), (-0.05, 0.15), (0.05, 0.15), (0.112, 0.178), (0.098, 0.36)]
        self._polygon([*torso, (0.112, hem), (-0.112, hem), (-0.098, 0.36)], self.upper)
        for side in (-1, 1):
            swing = 0.02 * side * step
            hand = (side * (0.165 + abs(swing)), 0.53 + swing)
            self._arm(self.upper, [(side * 0.105, 0.19), (side * 0.150, 0.36), hand])
        if front and person.upper == "coat":
            self._limb([(0, 0.16), (0, hem)], [0.004, 0.004], (24, 24, 24))
        if front and person.upper_pattern == "logo":
            self._ellipse((0, 0.29), 0.055, 0.05, person.upper_colours[1])
        if not front and person.upper_pattern == "back print":
            self._box((0, 0.30), 0.075, 0.05, person.upper_colours[1])
        if person.bag == "backpack" and front:
            for side in (-1, 1):
                strap = [(side * 0.085, 0.155), (side * 0.085, 0.36)]
                self._limb(strap, [0.016, 0.016], person.bag_colour)
        elif person.bag == "backpack":
            self._bag((0, 0.32), 0.088, 0.135)
        if person.bag == "handbag":
            self._bag((bag_side * 0.20, 0.60), 0.065, 0.06)
        self._head(facing=0, face=front)

    def draw_sideways(self, ahead: int) -> None:
        """In profile: limbs swing fully, a backpack stands out, chest and back are hidden."""
        bag, step, hem = self.person.bag, self.step, self.hem
        # Walking to the right of the image shows the right side, hence the bag in the right hand.
        bag_is_near = ahead == 1
        if bag == "suitcase":
            self._bag((-ahead * 0.20, 0.82), 0.06, 0.12)
        self._arm_in_profile(ahead, -step, 0.72)
        if bag == "handbag" and not bag_is_near:
            self._bag((-ahead * step * 0.10, 0.60), 0.075, 0.06)
        for side in (1, -1):  # the far leg, then the near one
            swing = side * step
            behind = max(0.0, -swing)  # the leg behind is bent: its foot trails the knee
            knee = (ahead * 0.10 * swing, 0.735)
            ankle = (ahead * (0.17 * swing - 0.05 * behind), 0.955 - 0.03 * behind)
            fill = self.lower if side < 0 else _darker(self.lower, 0.72)
            self._leg(fill, [(0, 0.50), knee, ankle], toe=ahead * 0.05, seam=0)
        self._hips(half_width=0.078, flare=0.02 + 0.06 * abs(step))
        torso = [(-0.055, 0.155), (0.055, 0.155), (0.085, 0.25), (0.080, hem), (-0.080, hem)]
        self._polygon([*torso, (-0.085, 0.25)], self.upper)
        if bag == "backpack":
            self._bag((-ahead * 0.115, 0.30), 0.055, 0.125)
        self._arm_in_profile(ahead, step, 0.86)
        if bag == "handbag" and bag_is_near:
            self._bag((ahead * step * 0.10, 0.60), 0.075, 0.06)
        self._head(facing=ahead, face=True)

    def _arm_in_profile(self, ahead: int, swing: float, light: float) -> None:
        hand = (ahead * (0.15 * swing + 0.02), 0.52)
        self._arm(_darker(self.upper, light), [(0, 0.19), (ahead * 0.06 * swing, 0.36), hand])

    def _arm(self, sleeve: Fill, joints: list[Point]) -> None:
        """An arm; ``joints`` are shoulder, elbow and hand."""
        shoulder, elbow, hand = joints
        self._limb(joints, [0.034, 0.028, 0.022], self.person.skin)
        if self.person.upper in ("jumper", "coat"):
            wrist = _between(elbow, hand, 0.85)
            self._limb([shoulder, elbow, wrist], [0.042, 0.036, 0.032], sleeve)
        elif self.person.upper == "t-shirt":
            self._limb([shoulder, _between(shoulder, elbow, 0.75)], [0.042, 0.042], sleeve)

    def _leg(self, fill: Fill, joints: list[Point], toe: float, seam: float) -> None:
        """A leg with trouser and shoe; ``joints`` are hip, knee and ankle."""
        hip, knee, ankle = joints
        self._limb(joints, [0.05, 0.036, 0.026], self.person.skin)
        self._limb([ankle, (ankle[0] + toe, ankle[1] + 0.025)], [0.028, 0.022], self.person.shoes)
        if self.person.lower == "trousers":
            covered, widths = joints, [0.062, 0.050, 0.042]
        elif self.person.lower == "shorts":
            covered, widths = [hip, _between(hip, knee, 0.85)], [0.064, 0.060]
        else:
            return
        self._limb(covered, widths, fill)
        if self.person.lower_pattern == "piped":
            line = [(x + seam, y) for x, y in covered]
            self._limb(line, [0.012] * len(line), self.person.lower_colours[1])

    def _hips(self, half_width: float, flare: float) -> None:
        """The top of trousers, or the whole skirt."""
        lower = self.person.lower
        hem = {"trousers": 0.55, "shorts": 0.56, "skirt": 0.72, "long skirt": 0.90}[lower]
        wide = half_width + flare if "skirt" in lower else half_width
        outline = [(-half_width, 0.46), (half_width, 0.46), (wide, hem), (-wide, hem)]
        self._polygon(outline, self.lower)
        if "skirt" in lower and self.person.lower_pattern == "piped":
            self._box((0, hem - 0.012), wide, 0.012, self.person.lower_colours[1])

    def _head(self, facing: int, face: bool) -> None:
        """The head; ``facing`` is -1 or 1 in profile, ``face`` is False when seen from behind."""
        person, hair = self.person, self.person.hair
        self._limb([(0, 0.12), (0, 0.16)], [0.026, 0.030], person.skin)
        if person.hair_style == "long":
            self._box((-facing * 0.02, 0.12), 0.058 - 0.012 * abs(facing), 0.075, hair)
        self._ellipse((0, 0.072), 0.050, 0.064, person.skin)
        if person.hair_style != "bald" and face:  # the crown, and in profile the back of the head
            self._ellipse((-facing * 0.016, 0.040), 0.052 - 0.006 * abs(facing), 0.038, hair)
            if facing:
                self._ellipse((-facing * 0.030, 0.066), 0.024, 0.046, hair)
        elif person.hair_style != "bald":
            self._ellipse((0, 0.064), 0.054, 0.062, hair)
        if person.hair_style == "bun":
            self._ellipse((-facing * 0.05, 0.03 if facing else 0.012), 0.024, 0.024, hair)
        if person.hat != "none":
            self._ellipse((0, 0.030), 0.058, 0.040, person.hat_colour)
        if person.hat == "cap" and face:
            self._box((facing * 0.055, 0.050), 0.055, 0.010, person.hat_colour)

    def _bag(self, centre: Point, half_width: float, half_height: float) -> None:
        """A box with a darker flap, so that it stands out from clothes of its own colour."""
        x, y = centre
        colour = self.person.bag_colour
        self._box(centre, half_width, half_height, shade(colour, 0.75))
        self._box((x, y + half_height * 0.2), half_width * 0.85, half_height * 0.7, colour)

    def _pattern(self, name: str, first: Colour, second: Colour) -> Fill:
        """The fill for a garment: ``first``, with ``second`` where the pattern puts it."""
        if name not in _PATTERNS:
            return first
        width, height = self.canvas.size
        x = ((np.arange(width) - self.left) / self.x_scale)[None, :]
        y = ((np.arange(height) - self.top) / self.y_scale)[:, None]
        where = np.broadcast_to(_PATTERNS[name](x, y), (height, width))
        return Image.fromarray(np.where(where[..., None], second, first).astype(np.uint8))

    def _box(self, centre: Point, half_width: float, half_height: float, fill: Fill) -> None:
        (x, y), w, h = centre, half_width, half_height
        self._polygon([(x - w, y - h), (x + w, y - h), (x + w, y + h), (x - w, y + h)], fill)

    def _polygon(self, points: Sequence[Point], fill: Fill) -> None:
        pixels = [self._pixel(point) for point in points]
        self._paint(fill, lambda draw, ink: draw.polygon(pixels, fill=ink))

    def _ellipse(self, centre: Point, rx: float, ry: float, fill: Fill) -> None:
        (x, y), rx, ry = self._pixel(centre), rx * self.y_scale, ry * self.y_scale
        self._paint(fill, lambda draw, ink: draw.ellipse((x - rx, y - ry, x + rx, y + ry), ink))

    def _limb(self, joints: Sequence[Point], radii: Sequence[float], fill: Fill) -> None:
        """A round-ended tube through ``joints``, each with its radius."""
        scale = math.sqrt(self.x_scale * self.y_scale)
        circles = [(*self._pixel(joint), r * scale) for joint, r in zip(joints, radii, strict=True)]

        def tube(draw: ImageDraw.ImageDraw, ink: Colour | int) -> None:
            for x, y, r in circles:
                draw.ellipse((x - r, y - r, x + r, y + r), fill=ink)
            for (x0, y0, r0), (x1, y1, r1) in pairwise(circles):
                length = math.hypot(x1 - x0, y1 - y0) or 1.0
                nx, ny = -(y1 - y0) / length, (x1 - x0) / length
                corners = [(x0 + nx * r0, y0 + ny * r0), (x1 + nx * r1, y1 + ny * r1)]
                corners += [(x1 - nx * r1, y1 - ny * r1), (x0 - nx * r0, y0 - ny * r0)]
                draw.polygon(corners, fill=ink)

        self._paint(fill, tube)

    def _pixel(self, point: Point) -> Point:
        return self.left + point[0] * self.x_scale, self.top + point[1] * self.y_scale

    def _paint(
        self, fill: Fill, shape: Callable[[ImageDraw.ImageDraw, Colour | int], None]
    ) -> None:
        if isinstance(fill, tuple):
            shape(self.draw, fill)
        else:  # the shape is the hole through which the pattern shows
            mask = Image.new("L", self.canvas.size)
            shape(ImageDraw.Draw(mask), 255)
            self.canvas.paste(fill, mask=mask)


def _between(start: Point, end: Point, t: float) -> Point:
    return start[0] + t * (end[0] - start[0]), start[1] + t * (end[1] - start[1])


def _darker(fill: Fill, factor: float) -> Fill:
    """The same cloth in the shade: this tells a far limb from a near one."""
    if isinstance(fill, tuple):
        return shade(fill, factor)
    return fill.point(lambda value: value * factor)
