import dataclasses
from typing import Any

import numpy as np
import pytest

from segdata.core import records, stream
from segdata.core.augment import Augment

EVERYTHING = Augment(
    horizontal_flip=0.5,
    vertical_flip=0.5,
    quarter_turns=True,
    rotation_range=(-30, 30),
    scale_range=(0.8, 1.25),
    shift_range=(-0.1, 0.1),
    brightness_range=(-0.2, 0.2),
    contrast_range=(0.5, 1.5),
    saturation_range=(0.5, 1.5),
    noise_range=(0, 0.1),
    elastic_range=(0, 0.05),
    blur_range=(0.5, 2),
    hue_range=(-90, 90),
    channel_shuffle=0.9,
    grey=0.5,
    gamma_range=(0.5, 2),
    cutout=0.9,
)
NAMES = [f.name for f in dataclasses.fields(Augment) if EVERYTHING.uses(f.name)]
EACH = [Augment(**{name: getattr(EVERYTHING, name)}) for name in NAMES]
COLOURS = [a for a in EACH if not a.warps and not a.uses(*NAMES[:3])]


def pixels(batch=16, height=32, width=32, seed=0):
    """Random colours; the class of a pixel is told by its red, so that parting them shows."""
    drawn = np.random.default_rng(seed).integers(0, 256, (batch, height, width, 4), np.uint8)
    drawn[..., 3] = drawn[..., 0] // 64
    return drawn


def apply(settings, batch, *, seed=1, epoch=0, first=0):
    count = len(batch)
    return stream.apply(
        settings,
        batch,
        seed=seed,
        epoch=np.full(count, epoch),
        example=np.arange(first, first + count),
    )


def smooth(batch, side):
    """Colours without edges, classes in halves."""
    y, x = np.mgrid[:side, :side] / (side - 1)
    one = np.stack([200 * x + 20, 200 * y + 20, 100 * (x + y) + 20, 3 * (x > 0.5)], axis=-1)
    return np.repeat(np.rint(one)[None].astype(np.uint8), batch, axis=0)


def test_nothing_is_the_default():
    batch = pixels()
    np.testing.assert_array_equal(apply(Augment(), batch), batch)


@pytest.mark.parametrize("settings", EACH)
def test_each_transform_does_something_and_repeats(settings):
    batch = pixels()
    once = apply(settings, batch)
    assert not np.array_equal(once, batch)
    np.testing.assert_array_equal(apply(settings, batch), once)
    assert not np.array_equal(apply(settings, batch, epoch=1), once)
    assert not np.array_equal(apply(settings, batch, seed=2), once)


def test_an_example_does_not_depend_on_its_batch():
    batch = pixels()
    whole = apply(EVERYTHING, batch)
    np.testing.assert_array_equal(apply(EVERYTHING, batch[5:9], first=5), whole[5:9])


def test_switching_one_transform_on_leaves_the_draws_of_others():
    batch = pixels()
    flipped = apply(Augment(horizontal_flip=0.5), batch)
    both = apply(Augment(horizontal_flip=0.5, brightness_range=(-0.2, 0.2)), batch)
    np.testing.assert_array_equal(flipped[..., 3], both[..., 3])


@pytest.mark.parametrize(("height", "width"), [(16, 16), (12, 20), (7, 5)])
def test_flips_move_image_and_mask_together(height, width):
    batch = pixels(32, height, width)
    out = apply(Augment(horizontal_flip=0.5, vertical_flip=0.5), batch)
    seen = set()
    for before, after in zip(batch, out, strict=True):
        options = [before, before[:, ::-1], before[::-1], before[::-1, ::-1]]
        seen.add(next(i for i, o in enumerate(options) if np.array_equal(o, after)))
    assert seen == {0, 1, 2, 3}


def test_quarter_turns_are_the_four_turns_equally_often():
    batch = pixels(200, 8, 8)
    out = apply(Augment(quarter_turns=True), batch)
    turns = [
        next(k for k in range(4) if np.array_equal(np.rot90(before, k), after))
        for before, after in zip(batch, out, strict=True)
    ]
    assert np.bincount(turns, minlength=4).min() > 30


def test_flips_and_turns_within_a_warp_are_exact():
    # A warp that is drawn as nearly nothing samples the same pixels as flips and turns alone.
    settings = Augment(horizontal_flip=0.5, vertical_flip=0.5, quarter_turns=True)
    batch = pixels(64, 16, 16)
    warped = dataclasses.replace(settings, shift_range=(0, 1e-9))
    np.testing.assert_array_equal(apply(warped, batch), apply(settings, batch))


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_rotation_by_quarters_is_rot90_counter_clockwise(turns):
    batch = pixels(3, 16, 16)
    out = apply(Augment(rotation_range=(90 * turns, 90 * turns + 1e-9)), batch)
    np.testing.assert_array_equal(out, np.rot90(batch, turns, axes=(1, 2)))


def test_shift_by_whole_pixels_moves_and_mirrors():
    batch = pixels(2, 16, 16)
    out = apply(Augment(shift_range=(0.25, 0.25 + 1e-12)), batch)
    np.testing.assert_array_equal(out[:, 4:, 4:], batch[:, :-4, :-4])
    np.testing.assert_array_equal(out[:, 3::-1, 4:], batch[:, :4, :-4])


def test_scale_magnifies_about_the_centre():
    batch = smooth(1, 33)
    out = apply(Augment(scale_range=(2, 2 + 1e-12)), batch)[0].astype(int)
    np.testing.assert_array_equal(out[16, 16], batch[0, 16, 16])
    np.testing.assert_allclose(
        out[..., 0], batch[0, 16, 16, 0] + (batch[0, ..., 0] - 120.0) / 2, atol=1
    )


def mirrored(place, side):
    """A whole place in endless mirror images of 0 to side - 1, edges doubled."""
    place = place % (2 * side)
    return np.where(place < side, place, 2 * side - 1 - place)


def sampled(image, x, y):
    """A slow warp: bilinear colours and the nearest class at places in endless mirror images.

    Returns:
        float64 [H, W, 4], and whether each pixel's class is clear, no tie between two pixels.
    """
    height, width, _ = image.shape
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    across, down = (x - left)[..., None], (y - top)[..., None]

    def at(row, column):
        return image[mirrored(row, height), mirrored(column, width)].astype(float)

    out = (
        at(top, left) * (1 - across) * (1 - down)
        + at(top, left + 1) * across * (1 - down)
        + at(top + 1, left) * (1 - across) * down
        + at(top + 1, left + 1) * across * down
    )
    out[..., 3] = at(np.rint(y).astype(int), np.rint(x).astype(int))[..., 3]
    clear = (np.abs(across - 0.5) > 0.01) & (np.abs(down - 0.5) > 0.01)
    return out, clear[..., 0]


def places(height, width, *, degrees=0.0, scale=1.0, shift=(0.0, 0.0)):
    """Where each pixel of the result comes from, as the settings are documented."""
    y, x = np.mgrid[:height, :width].astype(float)
    x, y = x - (width - 1) / 2 - shift[0] * width, y - (height - 1) / 2 - shift[1] * height
    cos, sin = np.cos(np.radians(degrees)) / scale, np.sin(np.radians(degrees)) / scale
    return cos * x - sin * y + (width - 1) / 2, sin * x + cos * y + (height - 1) / 2


@pytest.mark.parametrize(
    ("size", "degrees", "scale", "shift"),
    [
        ((16, 16), 0, 0.25, 0),
        ((16, 16), 0, 0.3, 0),
        ((16, 16), 0, 0.5, -1),
        ((17, 13), 0, 0.5, 1),
        ((8, 64), 90, 1, 0),
        ((64, 8), -90, 1, 0),
        ((8, 64), 45, 0.25, 1),
        ((3, 200), 77, 0.25, -1),
        ((1, 5), 30, 0.25, 0.3),
        ((21, 34), -133, 0.7, 0.4),
        ((34, 21), 12, 4, -0.2),
    ],
)
def test_what_moves_in_is_the_mirror_image_however_far(size, degrees, scale, shift):
    batch = pixels(1, *size)
    tiny = 1e-12
    out = apply(
        Augment(
            rotation_range=(degrees, degrees + tiny),
            scale_range=(scale, scale) if scale != 1 else (1, 1 + tiny),
            shift_range=(shift, shift) if shift else (0, tiny),
        ),
        batch,
    )[0].astype(float)
    x, y = places(*size, degrees=degrees, scale=scale, shift=(shift, shift))
    expected, clear = sampled(batch[0], x, y)
    off = np.abs(out - expected)
    assert off[..., :3].max() <= 2
    assert (off[..., :3] <= 1.0).mean() > 0.975
    np.testing.assert_array_equal(out[clear][:, 3], expected[clear][:, 3])


@pytest.mark.parametrize("size", [(4096, 2), (2, 4096)])
@pytest.mark.parametrize("shift", [-1, 1])
def test_the_largest_side_at_the_smallest_scale_does_not_overflow(size, shift):
    batch = pixels(1, *size)
    settings = Augment(
        scale_range=(0.25, 0.25), shift_range=(shift, shift), rotation_range=(45, 45)
    )
    out = apply(settings, batch)[0].astype(float)
    x, y = places(*size, degrees=45, scale=0.25, shift=(shift, shift))
    expected, clear = sampled(batch[0], x, y)
    off = np.abs(out - expected)[..., :3]
    # Here the last of sixteen binary places is 4,096 times as far out as in the centre.
    assert (off <= 2).mean() > 0.7
    assert off.max() < 40
    assert (out[clear][:, 3] == expected[clear][:, 3]).mean() > 0.97


def test_shifts_far_out_are_brought_back_before_they_overflow():
    """At this side 32 bits do not wrap to the same mirror image, as they do at 4,096."""
    batch = pixels(1, 4095, 4095)
    settings = Augment(
        scale_range=(0.25, 0.25), shift_range=(1, 1), rotation_range=(-135, -135 + 1e-12)
    )
    some = slice(None, None, 97)
    out = apply(settings, batch)[0][some, some].astype(float)
    x, y = places(4095, 4095, degrees=-135, scale=0.25, shift=(1, 1))
    expected, clear = sampled(batch[0], x[some, some], y[some, some])
    near = np.abs(out - expected)[..., :3] <= 20  # colours are noise, places a 16th of a pixel off
    assert near.mean() > 0.98
    assert (out[clear][:, 3] == expected[clear][:, 3]).mean() > 0.97


def test_shifts_along_the_axes_are_independent():
    side = 33
    y, x = np.mgrid[:side, :side] * 7
    one = np.stack([x, y, x, x * 0], axis=-1).astype(np.uint8)
    out = apply(Augment(shift_range=(-0.2, 0.2)), np.repeat(one[None], 300, axis=0))
    across, down = (out[:, side // 2, side // 2, channel].astype(float) for channel in (0, 1))
    assert min(np.ptp(across), np.ptp(down)) > 60
    assert abs(np.corrcoef(across, down)[0, 1]) < 0.25


def test_bilinear_is_within_a_grey_level_of_scipy_and_masks_stay_classes():
    import scipy.ndimage

    side, degrees = 48, 17.0
    rng = np.random.default_rng(3)
    batch = scipy.ndimage.gaussian_filter(rng.random((1, side, side, 4)) * 255, (0, 3, 3, 0))
    batch = ((batch - batch.min()) / np.ptp(batch) * 255).astype(np.uint8)
    batch[..., 3] = np.where(batch[..., 3] > 128, 255, 1)
    out = apply(Augment(rotation_range=(degrees, degrees + 1e-9)), batch)[0]
    turned = scipy.ndimage.rotate(
        batch[0].astype(float), degrees, reshape=False, order=1, mode="reflect"
    )
    # Another wrapping of far corners is another convention; the disc is the same everywhere.
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    disc = np.hypot(x, y) < side / 2 - 1
    assert np.abs(out[..., :3] - turned[..., :3])[disc].max() <= 1.5
    assert set(np.unique(out[..., 3])) == {1, 255}
    nearest = scipy.ndimage.rotate(batch[0, ..., 3], degrees, reshape=False, order=0)
    assert (out[..., 3] != nearest)[disc].mean() < 0.01


def test_image_and_mask_stay_together_under_every_geometry():
    # The mask is a coarse copy of the red channel; where red is flat they must agree.
    side = 64
    red = np.kron(np.random.default_rng(0).integers(0, 4, (40, 4, 4)), np.ones((16, 16), int))
    batch = np.zeros((40, side, side, 4), np.uint8)
    batch[..., 0], batch[..., 3] = red * 80, red
    colourless = Augment(**{name: getattr(EVERYTHING, name) for name in NAMES[:6]})
    out = apply(colourless, batch)
    distance = np.abs(out[..., 0].astype(int) - 80 * out[..., 3].astype(int))
    assert (distance == 0).mean() > 0.75
    # Between two classes a pixel is nearer to its own, but for corners where four meet.
    assert (distance > 121).mean() < 0.005


@pytest.mark.parametrize("settings", COLOURS)
def test_colour_leaves_the_mask(settings):
    batch = pixels()
    np.testing.assert_array_equal(apply(settings, batch)[..., 3], batch[..., 3])


def test_brightness_adds_a_fraction_of_255():
    batch = np.full((4, 8, 8, 4), 100, np.uint8)
    out = apply(Augment(brightness_range=(0.2, 0.2)), batch)
    assert set(np.unique(out[..., :3])) == {151}


def test_colour_matches_the_formula_in_floats():
    batch = pixels(4, 31, 17)
    settings = Augment(
        brightness_range=(0.1, 0.1), contrast_range=(1.3, 1.3), saturation_range=(0.6, 0.6)
    )
    colour = batch[..., :3].astype(float)
    grey = colour @ np.array([[0.299], [0.587], [0.114]])
    saturated = grey + 0.6 * (colour - grey)
    mean = saturated.mean(axis=(1, 2), keepdims=True)
    expected = np.clip(mean + 1.3 * (saturated - mean) + 25.5, 0, 255)
    out = apply(settings, batch)[..., :3]
    np.testing.assert_allclose(out, expected, atol=0.51)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (521, 3), (300, 257), (256, 256)])
def test_means_are_exact_for_every_height(height, width):
    batch = np.full((2, height, width, 4), 255, np.uint8)
    batch[1] = pixels(1, height, width)[0]
    total, area = batch[..., :3].astype(np.int64).sum(axis=(1, 2)), height * width
    expected = (2 * 65536 * total + area) // (2 * area)
    np.testing.assert_array_equal(records.means_of(batch), expected)
    np.testing.assert_array_equal(records.means_of(batch[1]), expected[1])


def test_noise_has_its_deviation_and_no_pattern():
    batch = np.full((4, 64, 64, 4), 128, np.uint8)
    out = apply(Augment(noise_range=(0.05, 0.05)), batch)[..., :3].astype(float) - 128
    assert abs(out.mean()) < 0.3
    assert out.std() == pytest.approx(0.05 * 255, rel=0.02)
    one, other = out[0, ..., 0].ravel(), out[1, ..., 0].ravel()
    later = apply(Augment(noise_range=(0.05, 0.05)), batch, epoch=1)[0, ..., 0].ravel()
    for pair in (
        (one, other),
        (one, later),
        (one, out[0, ..., 1].ravel()),
        (one[1:], one[:-1]),
    ):
        assert abs(np.corrcoef(pair)[0, 1]) < 0.05


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("horizontal_flip", 1.5),
        ("vertical_flip", -0.1),
        ("scale_range", (0, 1)),
        ("scale_range", (2, 1)),
        ("contrast_range", (1,)),
        ("noise_range", (0, float("nan"))),
        ("rotation_range", 15),
        ("rotation_range", None),
        ("rotation_range", "15"),
        ("rotation_range", ("0", "15")),
        ("shift_range", (0, None)),
        ("brightness_range", (0, 10**400)),
        ("contrast_range", np.ones((2, 2))),
        ("horizontal_flip", "0.5"),
        ("vertical_flip", None),
        ("quarter_turns", 1),
    ],
)
def test_a_bad_field_is_named_with_its_value(field, value):
    with pytest.raises(ValueError, match=f"^{field}="):
        Augment(**{field: value})


def test_lists_and_numbers_of_numpy_are_as_good_as_tuples():
    for kind in (list, np.array, lambda x: tuple(np.float64(y) for y in x)):
        given: dict[str, Any] = dataclasses.asdict(EVERYTHING)
        for name, value in given.items():
            given[name] = kind(value) if isinstance(value, tuple) else np.array([value])[0]
        assert Augment(**given) == EVERYTHING
        assert hash(Augment(**given)) == hash(EVERYTHING)


def test_quarter_turns_need_squares():
    with pytest.raises(ValueError, match="square"):
        apply(Augment(quarter_turns=True), pixels(1, 8, 16))


def test_warps_refuse_sides_their_numbers_cannot_hold():
    with pytest.raises(ValueError, match="4,096"):
        apply(Augment(rotation_range=(0, 1)), np.zeros((1, 1, 5000, 4), np.uint8))
