import ctypes
import mmap

import numpy as np
import pytest
import reference

from segdata.core import kernels, plan, stream
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


def planned(pixels, augment, *, batch=4, seed=3, size=None):
    return plan.Plan(
        count=len(pixels),
        record=pixels.shape[1:3],
        size=size or pixels.shape[1:3],
        batch=batch,
        augment=augment,
        seed=seed,
        means=means_of(pixels),
    )


def rendered(pixels, step, *, size, is_constant=False):
    count, height, width, _ = pixels.shape
    rows = np.zeros((count, height * width + 4), np.uint32)  # as a packed file has them
    rows[:, 3:-1] = pixels.reshape(count, -1).view(np.uint32)
    image = np.empty((len(step.own.row), *size, 3), np.uint8)
    mask = np.empty((len(step.own.row), *size, 1), np.uint8)
    kernels.render(
        rows.reshape(-1),
        3 + step.own.row * rows.shape[1],
        step,
        record=(height, width),
        is_constant=is_constant,
        image=image,
        mask=mask,
        partner_starts=3 + step.partner.row * rows.shape[1],
    )
    return image, mask


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize(
    ("shape", "size"),
    [((12, 17), (12, 17)), ((1, 1), (1, 1)), ((9, 8), (5, 4)), ((2, 31), (1, 20))],
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
