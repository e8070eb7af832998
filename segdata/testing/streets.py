"""Pictures of streets through a windscreen, with the true class of each pixel.

Shapes are painted back to front, labels and colours together. Arrays in, arrays out; no file format
and no palette is known here: the caller numbers the names of the classes.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

# RGB in the photo, about as the camera of the real ones sees it, and how rough, in grey levels.
_LOOKS = {
    "sky": ((196, 206, 210), 2),
    "building": ((104, 98, 92), 11),
    "vegetation": ((52, 74, 44), 17),
    "terrain": ((92, 106, 66), 11),
    "road": ((98, 99, 101), 4),
    "sidewalk": ((134, 128, 124), 6),
    "parking": ((116, 112, 110), 5),
    "wall": ((120, 112, 104), 8),
    "fence": ((92, 90, 84), 14),
    "pole": ((86, 88, 88), 4),
    "traffic sign": ((46, 84, 150), 8),
    "traffic light": ((40, 44, 40), 6),
    "car": ((62, 66, 74), 9),
    "truck": ((150, 140, 120), 7),
    "bus": ((170, 150, 60), 7),
    "person": ((70, 52, 52), 12),
    "rider": ((84, 54, 50), 12),
    "bicycle": ((48, 48, 50), 12),
    "motorcycle": ((40, 40, 46), 12),
    "unlabeled": ((34, 36, 40), 3),
}


class Scene(NamedTuple):
    """A photo and its true classes."""

    photo: np.ndarray  # uint8 [H, W, 3]
    labels: np.ndarray  # uint8 [H, W]


def scene(classes: Mapping[str, int], *, side: int, rng: np.random.Generator) -> Scene:
    """A random street: houses, trees, a road to the horizon, objects and traffic on it.

    Args:
        classes: Class name to the number it has in the labels.
        side: Height and width in pixels.
        rng: For everything random.
    """
    canvas = _Canvas(classes, side, rng)
    _background(canvas)
    _ground(canvas)
    _verges(canvas)
    for depth in np.sort(rng.uniform(0.04, 0.8, int(rng.integers(4, 10)))):
        _traffic(canvas, float(depth))
    for depth in np.sort(rng.uniform(0.08, 0.9, int(rng.integers(3, 8)))):
        _roadside(canvas, float(depth))
    if rng.random() < 0.8:  # the bonnet of the car that carries the camera
        canvas.ellipse("unlabeled", 0.5, 1.06, 0.62, 0.13)
    return canvas.finished()


class _Canvas:
    """Labels and colours, painted at once; places are shares of the side."""

    def __init__(self, classes: Mapping[str, int], side: int, rng: np.random.Generator):
        self.rng, self.side, self._classes = rng, side, classes
        self.horizon = rng.uniform(0.38, 0.47)
        self.vanishing = rng.uniform(0.42, 0.58)
        self.kerbs = (-rng.uniform(0.5, 0.85), rng.uniform(0.5, 0.85))  # in widths, at the bottom
        self._labels = Image.new("L", (side, side), classes["sky"])
        self._photo = Image.new("RGB", (side, side), _LOOKS["sky"][0])
        self._pens = ImageDraw.Draw(self._labels), ImageDraw.Draw(self._photo)

    def polygon(
        self, name: str, points: Sequence[tuple[float, float]], *, shade: float = 1
    ) -> None:
        scaled = [(x * self.side, y * self.side) for x, y in points]
        self._pens[0].polygon(scaled, fill=self._classes[name])
        self._pens[1].polygon(scaled, fill=self._colour(name, shade))

    def ellipse(self, name: str, x: float, y: float, width: float, height: float) -> None:
        turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        points = [(x + width * np.cos(t), y + height * np.sin(t)) for t in turn]
        self.polygon(name, [(float(a), float(b)) for a, b in points])

    def box(self, name: str, x: float, y: float, width: float, height: float) -> None:
        self.polygon(name, [(x, y), (x + width, y), (x + width, y - height), (x, y - height)])

    def paint(self, points: Sequence[tuple[float, float]], colour: tuple[int, int, int]) -> None:
        """Changes the colour and not the class: windows, lines, lamps."""
        self._pens[1].polygon([(x * self.side, y * self.side) for x, y in points], fill=colour)

    def row(self, depth: float) -> float:
        """Where the ground is at a depth: 0 at the horizon, 1 at the lower edge."""
        return self.horizon + depth * (1 - self.horizon)

    def column(self, depth: float, offset: float) -> float:
        """Where the ground is that many widths beside the middle, as measured at the lower edge."""
        return self.vanishing + depth * offset

    def finished(self) -> Scene:
        labels = np.asarray(self._labels)
        rough = np.zeros(256)
        for name, (_, roughness) in _LOOKS.items():
            rough[self._classes[name]] = roughness
        grain = self.rng.standard_normal((self.side, self.side))
        grain = grain + 2.5 * ndimage.gaussian_filter(self.rng.standard_normal(grain.shape), 2)
        photo = np.asarray(self._photo) + (rough[labels] * grain * 0.6)[..., None]
        photo = ndimage.gaussian_filter(photo, (0.6, 0.6, 0)) + self.rng.normal(0, 1, photo.shape)
        return Scene(np.clip(photo, 0, 255).astype(np.uint8), labels)

    def _colour(self, name: str, shade: float) -> tuple[int, int, int]:
        tint = self.rng.normal(0, 9, 3) if name in ("building", "car", "person") else np.zeros(3)
        bright = shade * self.rng.uniform(0.75, 1.3) if name != "sky" else 1
        red, green, blue = np.clip(bright * np.array(_LOOKS[name][0]) + tint, 0, 255).astype(int)
        return int(red), int(green), int(blue)


def _background(canvas: _Canvas) -> None:
    rng, horizon = canvas.rng, canvas.horizon
    for side in (-1, 1):
        edge = canvas.vanishing
        while 0 < edge < 1:
            width, top = rng.uniform(0.06, 0.2), horizon - rng.uniform(0.08, 0.2)
            top -= abs(edge - canvas.vanishing) * rng.uniform(0.2, 0.7)
            far = edge + side * width
            canvas.polygon("building", [(edge, 1), (edge, top), (far, top - 0.03), (far, 1)])
            for x in np.arange(min(edge, far) + 0.012, max(edge, far) - 0.02, 0.028):
                for y in np.arange(max(top, 0) + 0.02, horizon - 0.03, 0.045):
                    canvas.paint(
                        [(x, y), (x + 0.014, y), (x + 0.014, y + 0.024), (x, y + 0.024)],
                        (58, 64, 72),
                    )
            edge = far
    for _ in range(int(rng.integers(2, 7))):
        x, size = rng.uniform(0, 1), rng.uniform(0.04, 0.13)
        for _ in range(5):
            dx, dy = rng.normal(0, size / 2, 2)
            canvas.ellipse("vegetation", x + dx, horizon - size + dy, size * 0.7, size * 0.6)


def _ground(canvas: _Canvas) -> None:
    left, right = canvas.kerbs
    outer = canvas.rng.uniform(0.25, 0.6)
    verge = str(canvas.rng.choice(["terrain", "parking", "sidewalk"]))
    canvas.polygon(verge, [(-1, 1), _at(canvas, 0, 0), (2, 1)])
    canvas.polygon(
        "sidewalk", [_at(canvas, 1, left - outer), _at(canvas, 0, 0), _at(canvas, 1, left)]
    )
    canvas.polygon(
        "sidewalk", [_at(canvas, 1, right), _at(canvas, 0, 0), _at(canvas, 1, right + outer)]
    )
    canvas.polygon("road", [_at(canvas, 1, left), _at(canvas, 0, 0), _at(canvas, 1, right)])
    middle = (left + right) / 2
    for near in (0.9, 0.55, 0.34, 0.2, 0.12):
        far = near * 0.72
        line = [_at(canvas, near, middle - 0.012), _at(canvas, far, middle - 0.012)]
        line += [_at(canvas, far, middle + 0.012), _at(canvas, near, middle + 0.012)]
        canvas.paint(line, (196, 196, 194))


def _verges(canvas: _Canvas) -> None:
    """Walls and fences along the pavement."""
    for side, kerb in zip((-1, 1), canvas.kerbs, strict=True):
        if canvas.rng.random() < 0.4:
            name = str(canvas.rng.choice(["wall", "fence"]))
            offset, high = kerb + side * 0.7, canvas.rng.uniform(0.2, 0.5)
            near, far = 0.6, 0.12
            foot, back = _at(canvas, near, offset), _at(canvas, far, offset)
            canvas.polygon(
                name,
                [foot, back, (back[0], back[1] - high * far), (foot[0], foot[1] - high * near)],
            )


def _traffic(canvas: _Canvas, depth: float) -> None:
    """A car, or seldom a bus or a lorry, on a lane or parked at the kerb."""
    rng = canvas.rng
    left, right = canvas.kerbs
    name = str(rng.choice(["car", "truck", "bus"], p=[0.84, 0.08, 0.08]))
    lane = rng.choice([left + 0.12, left / 2, right / 2, right - 0.12])
    wide, high = {"car": (0.34, 0.28), "truck": (0.42, 0.52), "bus": (0.44, 0.6)}[name]
    width, height = wide * depth, high * depth
    x, y = canvas.column(depth, float(lane)) - width / 2, canvas.row(depth)
    for wheel in (0.08, 0.72):
        canvas.box(name, x + wheel * width, y, 0.2 * width, 0.25 * height)
    canvas.box(name, x, y - 0.1 * height, width, 0.5 * height)
    canvas.polygon(
        name,
        [
            (x + 0.06 * width, y - 0.58 * height),
            (x + 0.18 * width, y - height),
            (x + 0.82 * width, y - height),
            (x + 0.94 * width, y - 0.58 * height),
        ],
    )
    canvas.paint(
        [
            (x + 0.14 * width, y - 0.62 * height),
            (x + 0.22 * width, y - 0.94 * height),
            (x + 0.78 * width, y - 0.94 * height),
            (x + 0.86 * width, y - 0.62 * height),
        ],
        (30, 36, 44),
    )


def _roadside(canvas: _Canvas, depth: float) -> None:
    """Someone, a bicycle, a pole with or without a sign, on the pavement."""
    rng = canvas.rng
    side = int(rng.integers(2))
    x = canvas.column(depth, canvas.kerbs[side] + (2 * side - 1) * rng.uniform(0.05, 0.25))
    y = canvas.row(depth * 0.96)
    match str(rng.choice(["pole", "sign", "light", "person", "cyclist"])):
        case "person":
            _person(canvas, "person", x, y, 0.34 * depth)
        case "cyclist":
            ridden = str(rng.choice(["bicycle", "motorcycle"]))
            for wheel in (-0.07, 0.07):
                canvas.ellipse(ridden, x + wheel * depth, y, 0.055 * depth, 0.06 * depth)
            _person(canvas, "rider", x, y - 0.04 * depth, 0.3 * depth)
        case kind:
            canvas.box("pole", x, y, max(0.012 * depth, 0.005), 0.75 * depth)
            if kind == "sign":
                canvas.ellipse("traffic sign", x, y - 0.7 * depth, 0.05 * depth, 0.05 * depth)
            if kind == "light":
                canvas.box(
                    "traffic light", x - 0.02 * depth, y - 0.5 * depth, 0.05 * depth, 0.15 * depth
                )


def _person(canvas: _Canvas, name: str, x: float, y: float, height: float) -> None:
    canvas.box(name, x - 0.1 * height, y, 0.2 * height, 0.5 * height)
    canvas.ellipse(name, x, y - 0.62 * height, 0.15 * height, 0.22 * height)
    canvas.ellipse(name, x, y - 0.92 * height, 0.07 * height, 0.09 * height)


def _at(canvas: _Canvas, depth: float, offset: float) -> tuple[float, float]:
    return canvas.column(depth, offset), canvas.row(depth)
