"""Pictures of cars on a turntable, with the exact outline of each.

A car is a handful of polygons in metres, x forwards, y to its left, z up, projected by a pinhole
camera. Arrays in, arrays out; no file format is known here.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

VIEWS = 16

_DISTANCE, _HEIGHT, _FOCAL = 9.0, 1.7, 1.6  # of the camera: metres, metres, widths of the picture
_HORIZON = 0.34  # of the picture's height, from above
_LIGHT = np.array([-0.25, -0.55, 0.8])  # from above, behind the camera's left shoulder
_GLASS, _RUBBER, _UNDER = (38, 44, 52), (24, 24, 26), (14, 14, 16)
_PAINTS = (
    (176, 178, 182),
    (235, 236, 238),
    (28, 29, 33),
    (96, 100, 106),
    (150, 24, 28),
    (30, 58, 120),
    (120, 104, 84),
    (28, 74, 60),
)


@dataclasses.dataclass(frozen=True)
class Car:
    """A car and the studio it stands in.

    Attributes:
        body: float [P, 2], the closed outline of the lower body from the side, as x and z.
        cabin: float [P, 2], the open outline of windscreen, roof and rear window, front to back.
        width: In metres.
        wheel: Radius of the wheels.
        axles: x of the front and the rear axle.
        paint: RGB.
        studio: RGB of the wall.
    """

    body: np.ndarray
    cabin: np.ndarray
    width: float
    wheel: float
    axles: tuple[float, float]
    paint: tuple[int, int, int]
    studio: tuple[int, int, int]


def car(rng: np.random.Generator) -> Car:
    """A random car: low or tall, with a boot or without, of any paint."""
    long, tall = rng.uniform(3.9, 5.1), rng.uniform(1.38, 1.85)
    belt = 0.62 * tall
    bonnet = belt - rng.uniform(0.04, 0.16)
    boot = rng.uniform(0.06, 0.2) * rng.integers(2)  # of the length; none is a hatchback
    front, back = long / 2, -long / 2
    screen, roof, end = 0.21 * long, rng.uniform(0.02, 0.08) * long, back + (0.06 + boot) * long
    body = [
        (front - 0.06, 0.24),
        (front, 0.5),
        (front - 0.1, bonnet - 0.12),
        (front - 0.35, bonnet),
        (screen, belt),
        (end, belt + 0.02),
        (back + 0.1, belt - 0.02),
        (back, 0.55),
        (back + 0.06, 0.26),
    ]
    cabin = [(screen + 0.05, belt - 0.02), (roof, tall), (end + 0.12 * long, tall - 0.02)]
    grey = int(rng.integers(205, 240))
    return Car(
        body=_rounded(body, closed=True),
        cabin=_rounded([*cabin, (end - 0.02, belt)], closed=False),
        width=rng.uniform(1.7, 1.98),
        wheel=rng.uniform(0.31, 0.37),
        axles=(0.31 * long, -0.29 * long),
        paint=_PAINTS[int(rng.integers(len(_PAINTS)))],
        studio=(grey, grey + int(rng.integers(-4, 5)), grey + int(rng.integers(-4, 9))),
    )


def photograph(
    subject: Car, view: int, *, size: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Photographs a car after turning the table.

    Args:
        subject: The car on the table.
        view: From 0 to 15, a sixteenth of a turn each.
        size: (H, W).
        rng: For the camera's noise.

    Returns:
        The photo, uint8 [H, W, 3], and the mask, uint8 [H, W], 1 on the car.
    """
    height, width = size
    camera = _Camera(2 * np.pi * (view + 0.3) / VIEWS, height, width)
    photo = _studio(subject, camera)
    mask = Image.new("L", (width, height))
    canvases = ImageDraw.Draw(photo), ImageDraw.Draw(mask)
    for outline, colour in _faces(subject, camera):
        points = [(float(x), float(y)) for x, y in outline]
        for canvas, fill in zip(canvases, (colour, 1), strict=True):
            canvas.polygon(points, fill=fill)
    soft = photo.filter(ImageFilter.GaussianBlur(width / 2400))
    grain = rng.normal(0, 1.5, (256, 256, 1)).round().astype(np.int16)
    tiles = (-(-height // 256), -(-width // 256), 1)
    noisy = np.asarray(soft) + np.tile(grain, tiles)[:height, :width]
    return np.clip(noisy, 0, 255).astype(np.uint8), np.asarray(mask)


class _Camera(NamedTuple):
    angle: float  # of the table, radians
    height: int  # of the picture, pixels
    width: int

    def turned(self, points: np.ndarray) -> np.ndarray:
        """Points [..., 3] of the car in the room: x to the right, y away from the camera, z up."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return points @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])

    def seen(self, points: np.ndarray) -> np.ndarray:
        """Points [..., 3] of the room in the picture: [..., 2], columns and rows."""
        scale = _FOCAL * self.width / (_DISTANCE + points[..., 1])
        columns = self.width / 2 + scale * points[..., 0]
        rows = _HORIZON * self.height + scale * (_HEIGHT - points[..., 2])
        return np.stack([columns, rows], axis=-1)

    def faces_us(self, centre: np.ndarray, normal: np.ndarray) -> bool:
        return bool(normal @ (np.array([0, -_DISTANCE, _HEIGHT]) - centre) > 0)


Face = tuple[np.ndarray, tuple[int, int, int]]


def _faces(subject: Car, camera: _Camera) -> list[Face]:
    """The polygons of a car in the order of painting, [P, 2] in pixels, each with its colour."""
    near = 1 if camera.turned(np.array([0.0, 1, 0]))[1] < 0 else -1
    tread = [face for side in (-near, near) for face in _tread(subject, camera, side)]
    under = subject.body * [0.94, 0.6] + [0, 0.06]
    middle = [_shown(camera, _at(under, side * 0.44 * subject.width), _UNDER) for side in (-1, 1)]
    lower = _shell(subject, camera, subject.body, closed=True)
    upper = _shell(subject, camera, subject.cabin, closed=False)
    details = _windows(subject, camera, near) + _lamps(subject, camera)
    return [*tread, *middle, *lower, *upper, *details, *_wheels(subject, camera, near)]


def _shell(subject: Car, camera: _Camera, outline: np.ndarray, *, closed: bool) -> list[Face]:
    """Both sides of an outline and the strips between them, those that face us, far ones first."""
    halves = _half_width(subject, outline)
    found: list[tuple[float, Face]] = []
    ends = range(len(outline) if closed else len(outline) - 1)
    for i, j in ((i, (i + 1) % len(outline)) for i in ends):
        step = outline[j] - outline[i]
        corners = [(i, 1), (j, 1), (j, -1), (i, -1)]
        strip = np.array([[outline[k, 0], s * halves[k], outline[k, 1]] for k, s in corners])
        normal = np.array([step[1], 0, -step[0]]) / max(float(np.hypot(*step)), 1e-9)
        found += _lit(camera, strip, normal, subject.paint)
    for side in (-1, 1):
        wall = np.column_stack([outline[:, 0], side * halves, outline[:, 1]])
        found += _lit(camera, wall, np.array([0, side, 0.12]), subject.paint)
    return [face for _, face in sorted(found, key=lambda item: -item[0])]


def _lit(
    camera: _Camera, points: np.ndarray, normal: np.ndarray, colour: Sequence[int]
) -> list[tuple[float, Face]]:
    """A polygon that faces us, with its distance and its colour under the studio's light."""
    points, normal = camera.turned(points), camera.turned(normal)
    centre = points.mean(axis=0)
    if not camera.faces_us(centre, normal):
        return []
    light = 0.42 + 0.5 * max(0.0, float(normal @ _LIGHT))
    gloss = 46 * max(0.0, float(normal[2])) ** 3  # the ceiling's lamps
    red, green, blue = (int(min(255, part * light + gloss)) for part in colour)
    return [(float(centre[1]), (camera.seen(points), (red, green, blue)))]


def _tread(subject: Car, camera: _Camera, side: int) -> list[Face]:
    hubs = [np.array([axle, subject.wheel]) for axle in subject.axles]
    return [
        _shown(camera, _at(hub + subject.wheel * _circle(), side * depth * subject.width), _RUBBER)
        for hub in hubs
        for depth in np.linspace(0.38, 0.49, 12)  # so near that they close up
    ]


def _wheels(subject: Car, camera: _Camera, side: int) -> list[Face]:
    """What of the wheels of one side is seen from that side."""
    spokes = _circle()[::4] * np.where(np.arange(12) % 2, 0.12, 0.6)[:, None]
    faces = []
    for axle in subject.axles:
        hub = np.array([axle, subject.wheel])
        for shape, colour in (
            (_circle(), _RUBBER),
            (0.66 * _circle(), (148, 150, 154)),
            (spokes, (70, 72, 76)),
        ):
            disc = _at(hub + subject.wheel * shape, side * 0.49 * subject.width)
            faces.append(_shown(camera, disc, colour))
    return faces


def _windows(subject: Car, camera: _Camera, near: int) -> list[Face]:
    """Glass in the near side, in front and behind."""
    cabin = subject.cabin
    halves = _half_width(subject, cabin)
    middle = cabin.mean(axis=0)
    pane = middle + (cabin - middle) * [0.84, 0.76]
    post = float(middle[0])
    faces = []
    for part in (pane[:, 0] > post, pane[:, 0] <= post):
        edge = pane[part]
        sill = [(edge[-1, 0], pane[0, 1]), (edge[0, 0], pane[0, 1])]
        apart = np.array([0.03 if part[0] else -0.03, 0])
        panes = np.vstack([edge + apart, sill])
        wall = np.column_stack([panes[:, 0], near * _half_width(subject, panes), panes[:, 1]])
        if camera.faces_us(
            camera.turned(wall).mean(axis=0), camera.turned(np.array([0.0, near, 0]))
        ):
            faces.append((camera.seen(camera.turned(wall)), _GLASS))
    top = int(np.argmax(cabin[:, 1] > 0.97 * cabin[:, 1].max()))
    tail = len(cabin) - 1 - int(np.argmax(cabin[::-1, 1] > 0.97 * cabin[:, 1].max()))
    for first, last, ahead in ((0, top, 1), (tail, len(cabin) - 1, -1)):
        ends = np.array([cabin[first], cabin[last]])
        ends = ends.mean(axis=0) + 0.84 * (ends - ends.mean(axis=0))
        reach = 0.86 * np.array([halves[first], halves[last]])
        quad = np.array([[*ends[k][:1], s * reach[k], ends[k][1]] for k, s in _RING])
        if camera.faces_us(
            camera.turned(quad).mean(axis=0), camera.turned(np.array([ahead, 0, 0.5]))
        ):
            faces.append((camera.seen(camera.turned(quad)), _GLASS))
    return faces


_RING = ((0, 1), (1, 1), (1, -1), (0, -1))  # end and side of a pane's corners, in order


def _lamps(subject: Car, camera: _Camera) -> list[Face]:
    """Two lamps and a plate at each end."""
    faces = []
    for ahead, colour in ((1, (232, 236, 240)), (-1, (140, 16, 18))):
        reach = subject.body[:, 0].max() if ahead > 0 else subject.body[:, 0].min()
        if not camera.faces_us(
            camera.turned(np.array([reach, 0, 0.6])), camera.turned(np.array([ahead, 0.0, 0]))
        ):
            continue
        for left, right, low, high, fill in (
            (0.26, 0.4, 0.58, 0.7, colour),
            (-0.4, -0.26, 0.58, 0.7, colour),
            (-0.14, 0.14, 0.4, 0.5, (214, 214, 208)),
        ):
            spans = np.array([left, right, right, left]) * subject.width
            depth = reach - ahead * 0.06 * np.ones(4)
            plate = np.column_stack([depth, spans, [low, low, high, high]])
            faces.append(_shown(camera, plate, fill))
    return faces


def _studio(subject: Car, camera: _Camera) -> Image.Image:
    """Wall, floor, turntable and shadow. All is smooth, so it is made at an eighth and enlarged."""
    height, width = max(2, camera.height // 8), max(2, camera.width // 8)
    row, column = np.mgrid[:height, :width] / np.array([height, width]).reshape(2, 1, 1)
    floor = 1 / (1 + np.exp(-(row - _HORIZON - 0.14) * 40))
    light = 1 - 0.24 * floor + 0.1 * floor * row - 0.28 * ((column - 0.5) ** 2 + (row - 0.5) ** 2)
    table = ((column - 0.5) / 0.47) ** 2 + ((row - 0.74) / 0.2) ** 2
    light *= 1 - 0.05 / (1 + np.exp((table - 1) * 30))
    light *= 1 - 0.12 * np.exp(-(((table - 1) * 22) ** 2))  # its rim
    ground = camera.seen(camera.turned(_at(subject.body, 0.0) * [1, 1, 0]))
    half = np.ptp(ground[:, 0]) / camera.width / 2 + 0.09
    shadow = ((column - 0.5) / half) ** 2 + (
        (row - ground[:, 1].mean() / camera.height) / 0.09
    ) ** 2
    light *= 1 - 0.62 * np.exp(-(shadow**1.5))
    colours = np.clip(light[..., None] * np.array(subject.studio), 0, 255).astype(np.uint8)
    return Image.fromarray(colours).resize((camera.width, camera.height), Image.Resampling.BICUBIC)


def _shown(camera: _Camera, points: np.ndarray, colour: tuple[int, int, int]) -> Face:
    return camera.seen(camera.turned(points)), colour


def _circle() -> np.ndarray:
    turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    return np.column_stack([np.cos(turn), np.sin(turn)])


def _at(outline: np.ndarray, y: float) -> np.ndarray:
    """An outline [P, 2] of x and z as points [P, 3] in a plane."""
    return np.column_stack([outline[:, 0], np.full(len(outline), y), outline[:, 1]])


def _half_width(subject: Car, outline: np.ndarray) -> np.ndarray:
    """Half the car's width at points [P, 2]: narrower at the ends and towards the roof."""
    reach = np.abs(subject.body[:, 0]).max()
    belt = float(subject.body[:, 1].max())
    tall = float(subject.cabin[:, 1].max())
    above = np.clip((outline[:, 1] - belt) / (tall - belt), 0, 1)
    return subject.width / 2 * (1 - 0.22 * np.abs(outline[:, 0] / reach) ** 4) * (1 - 0.27 * above)


def _rounded(corners: Sequence[tuple[float, float]], *, closed: bool) -> np.ndarray:
    """Cuts corners three times, as Chaikin does: [P, 2]; an open outline keeps its ends."""
    points = np.array(corners)
    for _ in range(3):
        after = np.roll(points, -1, axis=0)
        cut = np.stack([0.8 * points + 0.2 * after, 0.2 * points + 0.8 * after], axis=1)
        if closed:
            points = cut.reshape(-1, 2)
        else:
            points = np.vstack([points[:1], cut[:-1].reshape(-1, 2)[1:-1], points[-1:]])
    return points
