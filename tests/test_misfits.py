import dataclasses
import importlib
import pathlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segdata.inspection import fit, misfits, raw
from segdata.inspection.fit import Fit
from segdata.sources import dsb2018

TOOLS = pathlib.Path(__file__).parents[1] / "tools"


@pytest.fixture
def misfits_table(monkeypatch) -> Any:
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("misfits_table")


def disc(shape: tuple[int, int] = (96, 128), *, bright: bool) -> tuple[Image.Image, np.ndarray]:
    """A disc with some noise, and its mask."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    mask = (np.hypot(rows - 40, columns - 50) < 20).astype(np.uint8)
    levels = np.where(mask == bright, 180, 60) + np.random.default_rng(0).integers(0, 30, shape)
    return Image.fromarray(levels.astype(np.uint8)).convert("RGB"), mask


def measured(image: Image.Image, mask: np.ndarray) -> Fit:
    found = fit.measure(image, mask)
    assert found is not None
    return found


@pytest.mark.heavy
def test_every_mistake_is_found_in_nuclei_of_all_kinds_and_nobody_is_accused_falsely(
    misfits_table, tmp_path
):
    dsb2018.draw_zips(tmp_path, examples=60, seed=0)
    rows = misfits_table.rows(raw.collection("dsb2018", manual_dir=tmp_path), "nuclei")
    assert [row[1] for row in rows] == [*misfits_table.MISTAKES]
    assert "colour bright, grey bright, grey dark" in rows[0][0]
    assert [(row[1], row[3], row[5]) for row in rows] == [(row[1], 6, 0) for row in rows]


@pytest.mark.parametrize("bright", [False, True])
def test_a_right_mask_lies_best_where_it_is(bright):
    image, mask = disc(bright=bright)
    found = measured(image, mask)
    assert found.shift == (0, 0)
    assert found.here == found.best > misfits.EDGES
    assert found.separation == pytest.approx(1 if bright else 0)
    assert found.elsewhere == 0


def test_the_shift_back_is_measured():
    image, mask = disc(bright=True)
    found = measured(image, np.roll(mask, (5, -9), (0, 1)))
    assert found.shift == (-5 / 128, 9 / 128)
    assert found.here < 0.85 * found.best


def test_separation_is_the_share_of_pairs_that_are_brighter_inside():
    rng = np.random.default_rng(1)
    levels, mask = rng.integers(0, 9, (20, 20), np.uint8), rng.integers(0, 2, (20, 20), np.uint8)
    inside, outside = levels[mask == 1].astype(int), levels[mask == 0].astype(int)
    above = (inside[:, None] > outside).mean() + (inside[:, None] == outside).mean() / 2
    found = measured(Image.fromarray(levels).convert("RGB"), mask)
    assert found.separation == pytest.approx(above)


def test_nothing_is_measured_where_a_mask_is_empty_full_or_ignored():
    image, mask = disc(bright=True)
    for value in (0, 1, 255):
        assert fit.measure(image, np.full_like(mask, value)) is None
    ignored = np.where(np.arange(128) < 64, mask, 255).astype(np.uint8)
    assert measured(image, ignored).separation == pytest.approx(1)


RIGHT = Fit(separation=0.99, here=20.0, best=20.0, shift=(0.0, 0.0), elsewhere=0.0)


@pytest.mark.parametrize(
    ("changed", "doubt"),
    [
        ({"here": 8.0, "shift": (0.03, -0.01)}, "shifted: it fits better 3.0% lower and 1.0%"),
        ({"here": 2.0, "best": 3.0, "separation": 0.5}, "of another image"),
        ({"separation": 0.01}, "inverted"),
        ({"elsewhere": 0.5}, "unfinished: 50% of the strong edges"),
        ({"here": 8.0, "shift": (0.015, 0.01)}, ""),
        ({"here": 2.0, "best": 3.0, "separation": 0.95}, ""),
        ({"separation": 0.3}, ""),
        ({"elsewhere": 0.3}, ""),
    ],
)
def test_a_doubt_says_what_is_unusual(changed, doubt):
    stratum = misfits._Stratum([RIGHT] * 6, two_classes=True)
    found = stratum.doubt(dataclasses.replace(RIGHT, **changed))
    assert found.startswith(doubt) if doubt else found == ""


def test_few_or_mixed_examples_do_not_show_what_is_usual():
    wrong = dataclasses.replace(RIGHT, separation=0.01)
    for usual in ([RIGHT] * 3, [RIGHT, wrong] * 5):
        assert misfits._Stratum(usual, two_classes=True).doubt(wrong) == ""
    assert misfits._Stratum([RIGHT] * 9, two_classes=False).doubt(wrong) == ""


def test_an_object_in_two_places_is_found_and_a_slip_is_not():
    labels = np.zeros((40, 60), np.uint16)
    labels[4:10, 4:10], labels[20:26, 40:46] = 1, 1
    labels[4:10, 20:26], labels[30:32, 50:52] = 2, 2
    labels[30:36, 4:10], labels[30:36, 10:16] = 3, 3
    assert fit.apart(labels) == (1,)
