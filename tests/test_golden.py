"""Digests of plans and pixels: they are the same on every machine and in every release.

A digest that changes means that trainings which resume see other batches: then say so in CHANGELOG.
What is new gets a digest of its own and changes none of these.
"""

import hashlib

import numpy as np
import pytest
from test_kernels import EVERYTHING, SETTINGS, planned, records, rendered, varied

from segdata.core.augment import Augment

PLANS = {
    "nothing": "0fd7718644a8f0d0",
    "everything": "17a2e23f0921ff53",
    "everything, constant": "15ae1062ab02ad5a",
    "flips and crops and colours": "d5cf97765662dc4b",
}
PIXELS = {
    "nothing": "b9b6d6ea2f92162b",
    "flips and crops and colours": "fbd1cf05575d306b",
    "everything": "916fc10e9eafa39e",
    "varied": "d2b5a7a8bca8bd78",
}


OWN = {  # the parameters that a setting is part of
    **{
        name: {"map"}
        for name in (
            *("horizontal_flip", "vertical_flip", "foreground"),
            *("rotation_range", "scale_range", "shift_range"),
        )
    },
    **{
        name: {"matrix", "offset"}
        for name in (
            *("brightness_range", "contrast_range", "saturation_range", "hue_range"),
            *("channel_shuffle", "grey"),
        )
    },
    "elastic_range": {"elastic"},
    "blur_range": {"blur"},
    "gamma_range": {"gamma"},
    "noise_range": {"deviation", "noise_key"},
    "cutout": {"cutout"},
    "cutmix": {"paste"},
}


def digest(*arrays):
    hashed = hashlib.sha256()
    for array in arrays:
        hashed.update(f"{array.dtype.newbyteorder('<').str} {array.shape}".encode())
        hashed.update(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes())
    return hashed.hexdigest()[:16]


@pytest.mark.parametrize("name", PLANS)
def test_plans_are_those_they_have_always_been(name):
    pixels = records(7, 40, 56)
    made = planned(pixels, SETTINGS[name], batch=64, seed=-(2**70) + 3, size=(32, 40))
    steps = [made.steps(first, count) for first, count in ((0, 3), (10**12, 2))]
    found = digest(*(array for step in steps for part in step for array in part))
    assert found == PLANS[name]


@pytest.mark.parametrize("name", PIXELS)
def test_pixels_are_those_they_have_always_been(name):
    pixels = varied() if name == "varied" else records(7, 40, 56)
    augment = SETTINGS["everything" if name == "varied" else name]
    step = planned(pixels, augment, batch=16, seed=5, size=(32, 24)).steps(11)
    assert digest(*rendered(pixels, step, size=(32, 24))) == PIXELS[name]


@pytest.mark.parametrize("name", EVERYTHING)
def test_what_is_switched_on_changes_no_draw_of_the_others(name):
    """Each draw has its own place in the hash."""
    pixels = records(7, 40, 56)
    alone = planned(pixels, Augment(**{name: EVERYTHING[name]}), size=(32, 40)).steps(3).own
    without = planned(
        pixels, Augment(**{n: v for n, v in EVERYTHING.items() if n != name}), size=(32, 40)
    )
    whole = planned(pixels, Augment(**EVERYTHING), size=(32, 40))
    one, other = without.steps(3).own, whole.steps(3).own
    own = OWN[name]
    for field in one._fields:
        if field not in own:
            np.testing.assert_array_equal(getattr(one, field), getattr(other, field), field)
    for field in own - {"map", "matrix", "offset"}:
        np.testing.assert_array_equal(getattr(alone, field), getattr(other, field), field)
