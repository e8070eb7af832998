import itertools

import numpy as np
import pytest

from segdata.archives import resizing

SIZES = [
    ((16, 16), (8, 8)),
    ((12, 18), (4, 9)),
    ((15, 9), (5, 3)),
    ((17, 13), (8, 6)),
    ((7, 11), (7, 4)),
    ((5, 8), (9, 8)),
    ((6, 4), (9, 3)),
    ((1, 1), (3, 2)),
    ((3, 2), (1, 1)),
    ((1, 9), (4, 4)),
    ((31, 29), (30, 28)),
]


def symmetries(image):
    """The eight ways to flip and turn an image."""
    for transposed, up, left in itertools.product((False, True), repeat=3):
        turned = image.swapaxes(0, 1) if transposed else image
        yield transposed, turned[:: -1 if up else 1, :: -1 if left else 1]


def blobs(shape, seed):
    """Some classes, and places that have none."""
    small = np.random.default_rng(seed).choice(np.array([0, 1, 2, 255], np.uint8), shape)
    return np.kron(small, np.ones((3, 3), np.uint8))[: shape[0], : shape[1]]


def shares(new, old):
    """How much of each new pixel every old one covers: whole numbers [new, old], each row `old`."""
    lower = np.maximum(np.arange(new)[:, None] * old, np.arange(old) * new)
    upper = np.minimum((np.arange(new)[:, None] + 1) * old, (np.arange(old) + 1) * new)
    return np.maximum(upper - lower, 0)


@pytest.mark.parametrize(("old", "new"), SIZES)
@pytest.mark.parametrize("seed", range(3))
def test_a_pixel_of_a_mask_is_of_the_class_that_covers_most_of_it(old, new, seed):
    mask = blobs(old, seed)
    rows, columns = (shares(n, o) for n, o in zip(new, old, strict=True))
    covered = np.stack([rows @ (mask == k) @ columns.T for k in range(256)])
    np.testing.assert_array_equal(resizing.mask(mask, new), covered.argmax(axis=0))


@pytest.mark.parametrize(("old", "new"), [s for s in SIZES if min(np.subtract(*s)) >= 0])
def test_a_pixel_of_a_smaller_image_is_the_mean_of_what_it_covers(old, new):
    image = np.random.default_rng(0).integers(0, 256, (*old, 3), np.uint8)
    rows, columns = (shares(n, o) for n, o in zip(new, old, strict=True))
    total = np.einsum("yj,jic,xi->yxc", rows, image.astype(np.int64), columns)
    area = old[0] * old[1]
    np.testing.assert_array_equal(resizing.image(image, new), (2 * total + area) // (2 * area))


@pytest.mark.parametrize(("old", "new"), [((5, 8), (9, 20)), ((1, 3), (4, 7)), ((6, 4), (13, 4))])
def test_a_larger_image_is_bilinear(old, new):
    """As SciPy has it, with the edge going on beyond the outermost centres."""
    import scipy.ndimage

    image = np.random.default_rng(1).integers(0, 256, (*old, 3), np.uint8)
    places = np.meshgrid(
        *((np.arange(n) + 0.5) * o / n - 0.5 for n, o in zip(new, old, strict=True)), indexing="ij"
    )
    out = resizing.image(image, new)
    for c in range(3):
        expected = scipy.ndimage.map_coordinates(
            image[..., c].astype(float), places, order=1, mode="nearest"
        )
        np.testing.assert_allclose(out[..., c], expected, atol=0.5 + 1e-9)


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_what_is_flipped_or_turned_before_is_flipped_or_turned_after(old, new):
    image = np.random.default_rng(2).integers(0, 256, (*old, 3), np.uint8)
    mask = blobs(old, 5)
    for resize, whole in ((resizing.image, image), (resizing.mask, mask)):
        after = [symmetric for _, symmetric in symmetries(resize(whole, new))]
        for (transposed, before), expected in zip(symmetries(whole), after, strict=True):
            found = resize(before, new[::-1] if transposed else new)
            np.testing.assert_array_equal(found, expected)


def test_nothing_moves_where_the_size_stays():
    image = np.random.default_rng(3).integers(0, 256, (9, 7, 3), np.uint8)
    assert resizing.image(image, (9, 7)) is image
    np.testing.assert_array_equal(resizing.mask(image[..., 0], (9, 7)), image[..., 0])


@pytest.mark.parametrize("step", [2, 4, 8])
@pytest.mark.parametrize("full", [(64, 64), (37, 51), (130, 9)])
def test_what_a_decoder_has_reduced_lies_where_the_whole_image_does(step, full):
    """Its last row and column reach beyond the image; as far as they do they do not count."""
    reduced = tuple(-(-side // step) for side in full)
    pixels = np.random.default_rng(4).integers(0, 256, (*reduced, 3), np.uint8)
    whole = np.kron(pixels, np.ones((step, step, 1), np.uint8))[: full[0], : full[1]]
    height, width = (max(1, side // (2 * step)) for side in full)
    for size in ((1, 1), (height, width)):
        found = resizing.image(pixels, size, full=full, step=step)
        np.testing.assert_array_equal(found, resizing.image(whole, size))


@pytest.mark.parametrize("pixels", [np.zeros((4, 6, 3)), np.ones((4, 6, 1))])
def test_views_and_any_number_of_channels(pixels):
    image = np.random.default_rng(5).integers(0, 256, pixels.shape, np.uint8)
    np.testing.assert_array_equal(
        resizing.image(image[::-1, ::-1], (2, 3)), resizing.image(image, (2, 3))[::-1, ::-1]
    )


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4), np.int16),
        np.full((4, 4), 300.0),
        np.zeros((4, 4, 3), np.int8),
        np.zeros((4, 4), bool),
        np.zeros((0, 4), np.uint8),
    ],
)
def test_other_kinds_of_arrays_are_refused(array):
    """What is compiled would write beyond its own memory."""
    for resize in (resizing.image, resizing.mask):
        with pytest.raises(ValueError, match=r"is no array of uint8.* with \d dim"):
            resize(array, (2, 2))


def test_the_longest_sides_do_not_overflow():
    image = np.full((65_535, 1, 3), 255, np.uint8)
    assert (resizing.image(image, (7, 3)) == 255).all()
    assert (resizing.image(image, (65_534, 2)) == 255).all()
    assert (resizing.mask(image[..., 0], (65_534, 1)) == 255).all()
