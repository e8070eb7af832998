import ctypes
import dataclasses
import mmap

import numpy as np
import pytest
import reference

from segdata.core import kernels, plan, stream
from segdata.core import records as records_
from segdata.core.augment import Augment

EVERYTHING = {
    "horizontal_flip": 0.5,
    "vertical_flip": 0.5,
    "rotation_range": (-360, 360),
    "scale_range": (0.25, 4),
    "shift_range": (-1, 1),
    "elastic_range": (0, 0.1),
    "blur_range": (0, 2),
    "brightness_range": (-0.3, 0.3),
    "contrast_range": (0.5, 2),
    "saturation_range": (0, 2),
    "hue_range": (-180, 180),
    "channel_shuffle": 0.5,
    "grey": 0.3,
    "noise_range": (0, 0.1),
    "gamma_range": (0.5, 2),
    "cutout": 0.7,
    "cutmix": 0.7,
    "foreground": 0.7,
}
ALONE = {name: Augment(**{name: value}) for name, value in EVERYTHING.items()}
TOGETHER = {
    "nothing": Augment(),
    "everything": Augment(**EVERYTHING),
    "everything, constant": Augment(**EVERYTHING, border="constant", elastic_grid=5),
    "all colours": Augment(
        **{n: v for n, v in EVERYTHING.items() if n not in ("noise_range", "shift_range")}
    ),
    "flips and crops and colours": Augment(
        horizontal_flip=0.5, vertical_flip=0.5, contrast_range=(0.5, 2), noise_range=(0, 0.1)
    ),
}
SETTINGS = ALONE | TOGETHER


def records(count, height, width, seed=0):
    """Noise, and what is as dark and as bright as can be."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, height, width, 4), np.uint8)
    pixels[0], pixels[-1] = 0, 255
    return pixels


def means_of(pixels):
    """int32 [count, 3], 16 binary places."""
    total = pixels[..., :3].sum(axis=(1, 2), dtype=np.int64)
    area = pixels.shape[1] * pixels.shape[2]
    return ((2 * total * 65536 + area) // (2 * area)).astype(np.int32)


def index_of(pixels):
    """As a packed file's, of records uint8 [H, W, 4] that lie one after the other, a word apart."""
    index = np.zeros(len(pixels), records_.index_type(4))
    start = 0
    for row, each in zip(index, pixels, strict=True):
        row["start"], row["height"], row["width"] = start, *each.shape[:2]
        row["means"] = means_of(each[None])[0]
        row["places"] = records_.places_of(each[..., 3], 4)
        start += each.shape[0] * each.shape[1] + 1
    return index


def planned(pixels, augment, *, batch=4, seed=3, size=None):
    """Of records uint8 [count, H, W, 4], or of a list of some that differ in size."""
    varies = isinstance(pixels, list)
    if not varies and size in (None, pixels.shape[1:3]):
        augment = dataclasses.replace(augment, foreground=0.0)
    return plan.Plan(
        rows=range(len(pixels)),
        record=None if varies else pixels.shape[1:3],
        size=size or pixels.shape[1:3],
        batch=batch,
        augment=augment,
        seed=seed,
        index=index_of(pixels),
    )


def words_of(pixels):
    """uint32 [L]: what `index_of` describes."""
    parts = [np.append(each.reshape(-1).view(np.uint32), np.uint32(9)) for each in pixels]
    return np.concatenate(parts)


def rendered(pixels, step, *, size, is_constant=False):
    index = index_of(pixels)
    places = np.stack([index[name].astype(np.int64) for name in ("start", "height", "width")], 1)
    image = np.empty((len(step.own.row), *size, 3), np.uint8)
    mask = np.empty((len(step.own.row), *size, 1), np.uint8)
    kernels.render(
        words_of(pixels),
        places[step.own.row],
        step,
        is_constant=is_constant,
        image=image,
        mask=mask,
        partner_places=places[step.partner.row],
    )
    return image, mask


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((12, 17), (12, 17)),
        ((1, 1), (1, 1)),
        ((9, 8), (5, 4)),
        ((2, 31), (1, 20)),
        ((19, 6), (4, 6)),  # as wide as the record
    ],
)
def test_the_kernels_make_the_pixels_of_the_plain_reference(name, shape, size):
    pixels, augment = records(5, *shape), SETTINGS[name]
    made = planned(pixels, augment, size=size)
    is_constant = augment.border == "constant"
    for first, steps in ((0, 2), (10**6, 1)):
        step = made.steps(first, steps)
        image, mask = rendered(pixels, step, size=size, is_constant=is_constant)
        expected = reference.batch(pixels, step, size=size, is_constant=is_constant)
        np.testing.assert_array_equal(image, expected[0])
        np.testing.assert_array_equal(mask, expected[1])


VARIED = [(9, 17), (31, 5), (1, 1), (12, 12), (5, 40)]


def varied(seed=0):
    """Records of several sizes."""
    return [records(3, *shape, seed=seed)[1] for shape in VARIED]


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("size", [(11, 13), (1, 1), (40, 7)])
def test_crops_of_records_of_any_size_are_those_of_the_plain_reference(name, size):
    """Also of records that are smaller."""
    pixels, augment = varied(), SETTINGS[name]
    is_constant = augment.border == "constant"
    step = planned(pixels, augment, size=size, batch=5).steps(3, 2)
    image, mask = rendered(pixels, step, size=size, is_constant=is_constant)
    expected = reference.batch(pixels, step, size=size, is_constant=is_constant)
    np.testing.assert_array_equal(image, expected[0])
    np.testing.assert_array_equal(mask, expected[1])


@pytest.mark.parametrize("border", ["mirror", "constant"])
@pytest.mark.parametrize("turned", [False, True])
def test_crops_of_smaller_records_show_what_the_border_says(border, turned):
    pixels = varied()
    augment = Augment(border=border, quarter_turns=turned, horizontal_flip=0.5 * turned)
    step = planned(pixels, augment, size=(14, 14), batch=25).steps(0)
    is_constant = border == "constant"
    _, mask = rendered(pixels, step, size=(14, 14), is_constant=is_constant)
    expected = reference.batch(pixels, step, size=(14, 14), is_constant=is_constant)
    np.testing.assert_array_equal(mask, expected[1])
    for row, held in zip(step.own.row, mask, strict=True):
        inside = min(14, VARIED[row][0]) * min(14, VARIED[row][1])
        if is_constant:
            own = (pixels[row][..., 3] == 255).sum()
            assert 14 * 14 - inside <= (held == 255).sum() <= 14 * 14 - inside + own


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"quarter_turns": True, "vertical_flip": 0.5},
        {"rotation_range": (-360, 360), "scale_range": (0.25, 4), "shift_range": (-1, 1)},
        {"rotation_range": (-360, 360), "border": "constant", "horizontal_flip": 0.5},
    ],
)
def test_crops_hold_the_classes_that_they_are_to_hold(more):
    """One pixel of a class in a large record is found, wherever it lies."""
    rng = np.random.default_rng(0)
    pixels = np.zeros((40, 61, 83, 4), np.uint8)
    for number, record in enumerate(pixels[:-1]):
        for label in {1, 2 + number % 2}:
            record[rng.integers(61), rng.integers(83), 3] = label
    augment = Augment(foreground=1, foreground_classes=(2, 3), **more)
    made = planned(pixels, augment, size=(8, 8), batch=40)
    found = []
    for epoch in range(5):
        step = made.steps(epoch)
        _, mask = rendered(pixels, step, size=(8, 8), is_constant=augment.border == "constant")
        for row, held in zip(step.own.row, mask, strict=True):
            there = set(np.unique(pixels[row][..., 3])) & {2, 3}
            if there:
                assert there & set(np.unique(held)), row
                found.append(np.argwhere((held == 2) | (held == 3))[0][:2])
    # Wherever in the crop: neither always in its middle nor at its edge.
    assert len({tuple(place) for place in found}) > 12


def test_a_share_of_crops_holds_the_foreground_and_the_others_are_as_without_it():
    pixels = np.zeros((4, 64, 64, 4), np.uint8)
    pixels[:, 60:, 60:, 3] = 1
    made = planned(pixels, Augment(foreground=0.3), size=(8, 8), batch=4000)
    plain = planned(pixels, Augment(), size=(8, 8), batch=4000)
    windows, others = (plan_.steps(0).own.window for plan_ in (made, plain))
    changed = (windows != others).any(axis=1)
    assert 0.26 < changed.mean() < 0.34
    assert (windows[changed] >= 53 - 4).all()


def test_foreground_that_the_index_does_not_know_is_refused():
    pixels = records(3, 9, 9)
    augment = Augment(foreground=0.5, foreground_classes=(4,))
    with pytest.raises(ValueError, match=r"foreground=0.5 of the classes \[4\]: .* below 4"):
        planned(pixels, augment, size=(4, 4))
    with pytest.raises(ValueError, match=r"foreground=0.5 is for crops"):
        plan.require_fit(augment, record=(9, 9), size=(9, 9), classes=5)


def test_the_ignore_label_is_no_foreground():
    assert plan.foreground_classes(Augment(foreground=1), 256) == tuple(range(1, 255))
    assert plan.foreground_classes(Augment(foreground=1, foreground_classes=(0, 3)), 4) == (0, 3)


@pytest.mark.parametrize("classes", [5, 40])
def test_the_places_of_a_class_are_spread_evenly_over_its_pixels(classes):
    rng = np.random.default_rng(0)
    mask = rng.integers(0, classes + 1, (90, 61), np.uint8)
    mask[mask == 3] = 0
    mask[7, 9] = 3
    places = records_.places_of(mask, classes)
    for label in range(classes):
        own = np.flatnonzero(mask == label)
        expected = [own[(2 * k + 1) * len(own) // 64] for k in range(32)]
        y, x = np.divmod(expected, 61)
        np.testing.assert_array_equal(places[label], y << 16 | x)
    assert (records_.places_of(mask[:5] * 0, 2)[1] == records_.NOWHERE).all()


@pytest.mark.parametrize("shape", [(8, 8), (7, 7)])
def test_quarter_turns_are_those_of_numpy(shape):
    pixels = records(9, *shape)
    step = planned(pixels, Augment(quarter_turns=True, horizontal_flip=0.5), batch=64).steps(0)
    image, mask = rendered(pixels, step, size=shape)
    expected = reference.batch(pixels, step, size=shape)
    np.testing.assert_array_equal(image, expected[0])
    np.testing.assert_array_equal(mask, expected[1])
    found = {
        (turns, flip)
        for row, turned in zip(step.own.row, image, strict=True)
        for turns in range(4)
        for flip in (1, -1)
        if (np.rot90(pixels[row, :, ::flip, :3], turns) == turned).all() and 0 < row < 8
    }
    assert len(found) == 8


@pytest.mark.parametrize("degrees", [120, -120, 180])
def test_hue_turns_colours_about_the_grey_axis(degrees):
    pixels = records(3, 4, 4)
    augment = Augment(hue_range=(degrees, degrees))
    found = stream.apply(augment, pixels, seed=0, epoch=np.zeros(3), example=np.arange(3))
    if abs(degrees) == 120:  # red becomes green, or blue
        order = [2, 0, 1] if degrees > 0 else [1, 2, 0]
        np.testing.assert_array_equal(found[..., :3], pixels[..., order])
    else:  # what is left of grey is turned round
        colour = pixels[..., :3].astype(float)
        expected = np.clip(2 * colour.mean(axis=-1, keepdims=True) - colour, 0, 255)
        np.testing.assert_allclose(found[..., :3], expected, atol=0.51)


def test_nothing_beyond_the_examples_in_memory_is_read():
    """They end with a page, and the next one may not be touched."""
    page = mmap.PAGESIZE
    memory = mmap.mmap(-1, 3 * page)
    held = np.frombuffer(memory, np.uint8)
    protect = ctypes.CDLL(None).mprotect
    after = ctypes.c_void_p(held.ctypes.data + 2 * page)
    assert protect(after, page, mmap.PROT_NONE if hasattr(mmap, "PROT_NONE") else 0) == 0
    pixels = held[: 2 * page].reshape(2, -1, 4)[:, : page // 4].reshape(2, 32, page // 128, 4)
    pixels[:] = 7
    turned = Augment(rotation_range=(180, 180))
    found = stream.apply(turned, pixels, seed=0, epoch=np.zeros(2), example=np.arange(2))
    assert (found == 7).all()
    assert protect(after, page, mmap.PROT_READ | mmap.PROT_WRITE) == 0
