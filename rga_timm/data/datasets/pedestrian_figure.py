"""The people of the drawn data set: what they wear, and how it looks from one side in mid-step.

A figure is drawn in units of its own height: ``y`` runs down from 0 (the crown) to 1 (the soles),
``x`` to the right from the body's axis. The numbers below are those of an artist's manikin, about
seven and a half heads tall.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]
Fill = Colour | Image.Image  # a plain colour, or a pattern as large as the canvas

VIEWS = ("front", "back", "left", "right")  # "left": the person walks to the left of the image

# Few colours, shared by everyone: what tells people apart is where a colour is worn, not which
# colours there are. A histogram, which does not know where, is meant to fail.
CLOTHES: tuple[Colour, ...] = (
    (32, 32, 38),  # black
    (226, 224, 218),  # white
    (184, 38, 42),  # red
    (38, 74, 160),  # blue
    (46, 122, 66),  # green
    (214, 178, 52),  # yellow
)
LOWER_CLOTHES: tuple[Colour, ...] = (
    (32, 32, 38),  # black
    (38, 54, 104),  # denim
    (124, 124, 128),  # grey
    (176, 150, 108),  # khaki
)
_SHOES: tuple[Colour, ...] = ((36, 32, 32), (232, 230, 226), (150, 44, 40))
_SKIN: tuple[Colour, ...] = ((240, 202, 172), (214, 164, 128), (150, 104, 74), (96, 66, 50))
_HAIR: tuple[Colour, ...] = ((28, 24, 24), (96, 62, 36), (206, 170, 98), (168, 168, 170))

_UPPERS = ("t-shirt", "jumper", "vest", "coat")
_LOWERS = ("trousers", "shorts", "skirt", "long skirt")
_BAGS = ("none", "backpack", "handbag", "suitcase")
_HATS = ("none", "none", "cap", "beanie")
_HAIR_STYLES = ("short", "long", "bun", "bald")

# Where the second colour of a pattern goes, as a function of the figure's coordinates.
_PATTERNS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "stripes": lambda x, y: (y / 0.085) % 1 < 0.5,
    "bars": lambda x, y: (x / 0.075) % 1 < 0.5,
    "checks": lambda x, y: ((x / 0.10) % 1 < 0.5) ^ ((y / 0.10) % 1 < 0.5),
    "two-tone": lambda x, y: y < 0.33,
    "band": lambda x, y: (y > 0.27) & (y < 0.36),
}
_UPPER_PATTERNS = ("plain", "logo", "back print", *_PATTERNS)
_LOWER_PATTERNS = ("plain", "plain", "piped", "checks")

T = TypeVar("T")


@dataclass(frozen=True)
class Person:
    """What stays the same about somebody from camera to camera."""

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
        """Draw somebody: every attribute independently of the others."""
        first, second = rng.permutation(len(CLOTHES))[:2]
        return cls(
            height=float(rng.uniform(0.86, 1.0)),
            build=float(rng.choice([0.85, 1.0, 1.2])),
            skin=_pick(rng, _SKIN),
            hair=_pick(rng, _HAIR),
            hair_style=_pick(rng, _HAIR_STYLES),
            hat=_pick(rng, _HATS),
            hat_colour=_pick(rng, CLOTHES),
            upper=_pick(rng, _UPPERS),
            upper_pattern=_pick(rng, _UPPER_PATTERNS),
            upper_colours=(CLOTHES[first], CLOTHES[second]),
            lower=_pick(rng, _LOWERS),
            lower_pattern=_pick(rng, _LOWER_PATTERNS),
            lower_colours=(_pick(rng, LOWER_CLOTHES), _pick(rng, CLOTHES)),
            shoes=_pick(rng, _SHOES),
            bag=_pick(rng, _BAGS),
            bag_colour=_pick(rng, CLOTHES),
        )


@dataclass(frozen=True)
class Pose:
    """One moment of a walk: the side that is seen, and the phase of the step in radians."""

    view: str
    phase: float


def draw_person(
    canvas: Image.Image, person: Person, pose: Pose, feet: Point, height: float
) -> None:
    """Paint a person onto ``canvas``.

    Args:
        canvas: RGB image, changed in place.
        person: Who.
        pose: The moment and the side.
        feet: Where the soles stand between the feet, in pixels (x, y).
        height: Of an average adult, in pixels.
    """
    brush = _Brush(canvas, feet, height * person.height, person.build)
    upper = brush.pattern(person.upper_pattern, *person.upper_colours)
    lower = brush.pattern(person.lower_pattern, *person.lower_colours)
    if pose.view in ("front", "back"):
        _draw_facing(brush, person, pose, upper, lower)
    else:
        _draw_sideways(brush, person, pose, upper, lower)


def _draw_facing(brush: "_Brush", person: Person, pose: Pose, upper: Fill, lower: Fill) -> None:
    """Towards the camera or away from it: limbs move in depth, so a step shows as a lifted foot."""
    front = pose.view == "front"
    step = math.sin(pose.phase)
    # The right hand carries the bag; seen from the front it is at the left of the image.
    bag_side = -1 if front else 1
    if person.bag == "suitcase":
        brush.bag((bag_side * 0.27, 0.80), 0.075, 0.13, person.bag_colour)
    for side in (-1, 1):
        lift = 0.035 * max(0.0, side * step)
        _draw_leg(
            brush,
            person,
            lower,
            [(side * 0.055, 0.50), (side * 0.062, 0.74 - lift / 2), (side * 0.065, 0.955 - lift)],
            toe=side * 0.02,
            seam=side * 0.035,
        )
    _draw_hips(brush, person, lower, half_width=0.100, flare=0.02)
    hem = 0.68 if person.upper == "coat" else 0.53
    torso = [(-0.112, 0.178), (-0.05, 0.15), (0.05, 0.15), (0.112, 0.178), (0.098, 0.36)]
    brush.polygon([*torso, (0.112, hem), (-0.112, hem), (-0.098, 0.36)], upper)
    for side in (-1, 1):
        swing = 0.02 * side * step
        hand = (side * (0.165 + abs(swing)), 0.53 + swing)
        _draw_arm(brush, person, upper, [(side * 0.105, 0.19), (side * 0.150, 0.36), hand])
    if front and person.upper == "coat":
        brush.limb([(0, 0.16), (0, hem)], [0.004, 0.004], (24, 24, 24))
    if front and person.upper_pattern == "logo":
        brush.ellipse((0, 0.29), 0.055, 0.05, person.upper_colours[1])
    if not front and person.upper_pattern == "back print":
        brush.polygon(_box((0, 0.30), 0.075, 0.05), person.upper_colours[1])
    if person.bag == "backpack":
        if front:
            for side in (-1, 1):
                strap = [(side * 0.085, 0.155), (side * 0.085, 0.36)]
                brush.limb(strap, [0.016, 0.016], person.bag_colour)
        else:
            brush.bag((0, 0.32), 0.088, 0.135, person.bag_colour)
    if person.bag == "handbag":
        brush.bag((bag_side * 0.20, 0.60), 0.065, 0.06, person.bag_colour)
    _draw_head(brush, person, facing=0, face=front)


def _draw_sideways(brush: "_Brush", person: Person, pose: Pose, upper: Fill, lower: Fill) -> None:
    """In profile: limbs swing fully, a backpack stands out, what is on chest and back is hidden."""
    ahead = -1 if pose.view == "left" else 1
    step = math.sin(pose.phase)
    # Walking to the right of the image shows one's right side, hence the bag in the right hand.
    bag_is_near = pose.view == "right"
    if person.bag == "suitcase":
        brush.bag((-ahead * 0.20, 0.82), 0.06, 0.12, person.bag_colour)
    _draw_arm(brush, person, _darker(upper), _arm_in_profile(ahead, -step))
    if person.bag == "handbag" and not bag_is_near:
        brush.bag((-ahead * step * 0.10, 0.60), 0.075, 0.06, person.bag_colour)
    for side in (1, -1):  # the far leg, then the near one
        swing = side * step
        knee = (ahead * 0.10 * swing, 0.735)
        # The leg that is behind is bent: its foot trails the knee.
        ankle = (ahead * (0.17 * swing - 0.05 * max(0.0, -swing)), 0.955 - 0.03 * max(0.0, -swing))
        fill = lower if side < 0 else _darker(lower)
        _draw_leg(brush, person, fill, [(0, 0.50), knee, ankle], toe=ahead * 0.05, seam=0)
    _draw_hips(brush, person, lower, half_width=0.078, flare=0.02 + 0.06 * abs(step))
    hem = 0.68 if person.upper == "coat" else 0.53
    torso = [(-0.055, 0.155), (0.055, 0.155), (0.085, 0.25), (0.080, hem), (-0.080, hem)]
    brush.polygon([*torso, (-0.085, 0.25)], upper)
    if person.bag == "backpack":
        brush.bag((-ahead * 0.115, 0.30), 0.055, 0.125, person.bag_colour)
    _draw_arm(brush, person, _darker(upper, 0.86), _arm_in_profile(ahead, step))
    if person.bag == "handbag" and bag_is_near:
        brush.bag((ahead * step * 0.10, 0.60), 0.075, 0.06, person.bag_colour)
    _draw_head(brush, person, facing=ahead, face=True)


def _arm_in_profile(ahead: int, swing: float) -> list[Point]:
    return [(0, 0.19), (ahead * 0.06 * swing, 0.36), (ahead * (0.15 * swing + 0.02), 0.52)]


def _draw_arm(brush: "_Brush", person: Person, sleeve: Fill, joints: list[Point]) -> None:
    """An arm through shoulder, elbow and hand; ``joints`` are those three."""
    shoulder, elbow, hand = joints
    brush.limb(joints, [0.034, 0.028, 0.022], person.skin)
    if person.upper in ("jumper", "coat"):
        wrist = _between(elbow, hand, 0.85)
        brush.limb([shoulder, elbow, wrist], [0.042, 0.036, 0.032], sleeve)
    elif person.upper == "t-shirt":
        brush.limb([shoulder, _between(shoulder, elbow, 0.75)], [0.042, 0.042], sleeve)


def _draw_leg(
    brush: "_Brush", person: Person, fill: Fill, joints: list[Point], toe: float, seam: float
) -> None:
    """A leg through hip, knee and ankle, with its trouser leg and its shoe."""
    hip, knee, ankle = joints
    brush.limb(joints, [0.05, 0.036, 0.026], person.skin)
    brush.limb([ankle, (ankle[0] + toe, ankle[1] + 0.025)], [0.028, 0.022], person.shoes)
    if person.lower == "trousers":
        covered, widths = [hip, knee, ankle], [0.062, 0.050, 0.042]
    elif person.lower == "shorts":
        covered, widths = [hip, _between(hip, knee, 0.85)], [0.064, 0.060]
    else:
        return
    brush.limb(covered, widths, fill)
    if person.lower_pattern == "piped":
        line = [(x + seam, y) for x, y in covered]
        brush.limb(line, [0.012] * len(line), person.lower_colours[1])


def _draw_hips(
    brush: "_Brush", person: Person, fill: Fill, half_width: float, flare: float
) -> None:
    """What closes trousers at the top, or the whole skirt."""
    hem = {"trousers": 0.55, "shorts": 0.56, "skirt": 0.72, "long skirt": 0.90}[person.lower]
    if "skirt" not in person.lower:
        flare = 0.0
    outline = [(-half_width, 0.46), (half_width, 0.46), (half_width + flare, hem)]
    brush.polygon([*outline, (-half_width - flare, hem)], fill)
    if "skirt" in person.lower and person.lower_pattern == "piped":
        rim = _box((0, hem - 0.012), half_width + flare, 0.012)
        brush.polygon(rim, person.lower_colours[1])


def _draw_head(brush: "_Brush", person: Person, facing: int, face: bool) -> None:
    """The head; ``facing`` is -1 or 1 in profile, ``face`` is False when seen from behind."""
    brush.limb([(0, 0.12), (0, 0.16)], [0.026, 0.030], person.skin)
    if person.hair_style == "long":
        brush.polygon(_box((-facing * 0.02, 0.12), 0.058 - 0.012 * abs(facing), 0.075), person.hair)
    brush.ellipse((0, 0.072), 0.050, 0.064, person.skin)
    if person.hair_style != "bald":
        if face:  # the hair frames a face: crown, and the back of the head in profile
            brush.ellipse((-facing * 0.016, 0.040), 0.052 - 0.006 * abs(facing), 0.038, person.hair)
            if facing:
                brush.ellipse((-facing * 0.030, 0.066), 0.024, 0.046, person.hair)
        else:
            brush.ellipse((0, 0.064), 0.054, 0.062, person.hair)
    if person.hair_style == "bun":
        brush.ellipse((-facing * 0.05, 0.012 if not facing else 0.03), 0.024, 0.024, person.hair)
    if person.hat != "none":
        brush.ellipse((0, 0.030), 0.058, 0.040, person.hat_colour)
    if person.hat == "cap" and face:
        brush.polygon(_box((facing * 0.055, 0.050), 0.055, 0.010), person.hat_colour)


class _Brush:
    """Paints in a figure's coordinates."""

    def __init__(self, canvas: Image.Image, feet: Point, height: float, build: float) -> None:
        self.canvas = canvas
        self.draw = ImageDraw.Draw(canvas)
        self.left, self.top = feet[0], feet[1] - height
        self.x_scale, self.y_scale = height * build, height

    def polygon(self, points: Sequence[Point], fill: Fill) -> None:
        pixels = [self._pixel(point) for point in points]
        self._paint(fill, lambda draw, ink: draw.polygon(pixels, fill=ink))

    def ellipse(self, centre: Point, rx: float, ry: float, fill: Fill) -> None:
        (x, y), rx, ry = self._pixel(centre), rx * self.y_scale, ry * self.y_scale
        self._paint(fill, lambda draw, ink: draw.ellipse((x - rx, y - ry, x + rx, y + ry), ink))

    def limb(self, joints: Sequence[Point], radii: Sequence[float], fill: Fill) -> None:
        """A round-ended tube through ``joints``, each with its radius."""
        pixels = [self._pixel(joint) for joint in joints]
        widths = [radius * math.sqrt(self.x_scale * self.y_scale) for radius in radii]

        def tube(draw: ImageDraw.ImageDraw, ink: Colour | int) -> None:
            for (x, y), r in zip(pixels, widths, strict=True):
                draw.ellipse((x - r, y - r, x + r, y + r), fill=ink)
            for i in range(len(pixels) - 1):
                (x0, y0), (x1, y1), r0, r1 = pixels[i], pixels[i + 1], widths[i], widths[i + 1]
                length = math.hypot(x1 - x0, y1 - y0) or 1.0
                nx, ny = -(y1 - y0) / length, (x1 - x0) / length
                corners = [(x0 + nx * r0, y0 + ny * r0), (x1 + nx * r1, y1 + ny * r1)]
                corners += [(x1 - nx * r1, y1 - ny * r1), (x0 - nx * r0, y0 - ny * r0)]
                draw.polygon(corners, fill=ink)

        self._paint(fill, tube)

    def bag(self, centre: Point, half_width: float, half_height: float, fill: Colour) -> None:
        """A box with a darker flap, so that it stands out from clothes of its own colour."""
        x, y = centre
        self.polygon(_box(centre, half_width, half_height), _scale(fill, 0.75))
        self.polygon(_box((x, y + half_height * 0.2), half_width * 0.85, half_height * 0.7), fill)

    def pattern(self, name: str, first: Colour, second: Colour) -> Fill:
        """The fill for a garment: ``first``, with ``second`` where the pattern puts it."""
        if name not in _PATTERNS:
            return first
        width, height = self.canvas.size
        x = ((np.arange(width) - self.left) / self.x_scale)[None, :]
        y = ((np.arange(height) - self.top) / self.y_scale)[:, None]
        where = np.broadcast_to(_PATTERNS[name](x, y), (height, width))
        return Image.fromarray(np.where(where[..., None], second, first).astype(np.uint8))

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


def _pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]


def _box(centre: Point, half_width: float, half_height: float) -> list[Point]:
    (x, y), w, h = centre, half_width, half_height
    return [(x - w, y - h), (x + w, y - h), (x + w, y + h), (x - w, y + h)]


def _between(start: Point, end: Point, t: float) -> Point:
    return start[0] + t * (end[0] - start[0]), start[1] + t * (end[1] - start[1])


def _scale(colour: Colour, factor: float) -> Colour:
    red, green, blue = (round(channel * factor) for channel in colour)
    return red, green, blue


def _darker(fill: Fill, factor: float = 0.72) -> Fill:
    """The same cloth in the shade: what keeps a far limb apart from a near one."""
    if isinstance(fill, tuple):
        return _scale(fill, factor)
    return fill.point(lambda value: value * factor)
