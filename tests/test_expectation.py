import dataclasses

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from segdata.inspection import expectation, fit, misfits
from segdata.inspection.expectation import Agreement


def scenes(count: int, *, seed: int = 0) -> tuple[list[Image.Image], list[np.ndarray]]:
    """Rough discs, darker or brighter than what is around them, so that brightness says nothing."""
    rng = np.random.default_rng(seed)
    images, masks = [], []
    for number in range(count):
        row, column, radius = rng.uniform(30, 66), rng.uniform(30, 66), rng.uniform(14, 24)
        rows, columns = np.ogrid[:96, :96]
        mask = np.hypot(rows - row, columns - column) < radius
        rough = 40 * ndimage.gaussian_filter(rng.standard_normal((96, 96)), 1)
        levels = 128 + mask * (60 * (-1) ** number + rough) + rng.normal(0, 2, (96, 96))
        images.append(Image.fromarray(levels.clip(0, 255).astype(np.uint8)).convert("RGB"))
        masks.append(mask.astype(np.uint8))
    return images, masks


def agreements(images: list[Image.Image], masks: list[np.ndarray]) -> list[Agreement]:
    pairs = zip(images, masks, strict=True)
    kept = np.stack([expectation.cells(*fit.reduced(image, mask)) for image, mask in pairs])
    return expectation.agreements(kept, indices=range(len(kept)))


def test_right_masks_agree_and_wrong_ones_do_not():
    images, masks = scenes(48)
    half = masks[37].copy()
    half[:, int(np.median(np.nonzero(half)[1])) :] = 0
    wrong = {5: 1 - masks[5], 21: masks[22], 37: half}
    found = agreements(images, [wrong.get(i, mask) for i, mask in enumerate(masks)])
    right = [each for i, each in enumerate(found) if i not in wrong]
    assert min(each.separation for each in right) > 0.985
    assert min(each.overlap for each in right) > 0.75
    assert found[5].separation < 0.05
    assert max(found[21].overlap, found[37].overlap) < 0.7


def test_a_mask_is_judged_by_what_the_others_teach():
    images, masks = scenes(8)
    masks[3] = 1 - masks[3]
    assert agreements(images, masks)[3].separation < 0.2


def test_cells_hold_colours_and_the_part_that_is_inside():
    image = Image.new("RGB", (64, 64), (10, 20, 30))
    mask = np.zeros((64, 64), np.uint8)
    mask[:, :31], mask[:2], mask[62:] = 1, 255, 255
    kept = expectation.cells(image, mask)
    assert kept.shape == expectation.SHAPE
    assert (kept[..., :4] == (10, 20, 30, 0)).all()
    assert (kept[1:-1, :15, 4] == 250).all()
    assert (kept[1:-1, 15, 4] == 125).all()
    assert (kept[1:-1, 16:, 4] == 0).all()
    assert (kept[[0, -1], :, 4] == 255).all()


def test_pixels_without_a_label_are_not_judged():
    images, masks = scenes(24)
    half = np.arange(96) < 48
    given = agreements(images, [np.where(half, mask, 255).astype(np.uint8) for mask in masks])
    assert np.median([each.separation for each in given]) > 0.95


def test_an_example_has_the_same_agreement_whatever_else_is_kept():
    images, masks = scenes(24)
    pairs = zip(images, masks, strict=True)
    kept = np.stack([expectation.cells(*fit.reduced(image, mask)) for image, mask in pairs])
    other = np.concatenate([kept[::-1], kept])
    one = expectation.agreements(kept, indices=range(24))
    again = expectation.agreements(other, indices=range(24, 48))
    values = [[dataclasses.astuple(each) for each in found] for found in (one, again)]
    np.testing.assert_allclose(values[0], values[1], rtol=1e-5)


RIGHT = Agreement(separation=0.997, overlap=0.93)


@pytest.mark.parametrize(
    ("agreement", "doubt"),
    [
        (Agreement(0.01, 0.2), "inverted"),
        (Agreement(0.95, 0.6), "of another image, or unfinished: it shares 60%"),
        (Agreement(0.96, 0.8), "of another image, or unfinished"),
        (Agreement(0.99, 0.6), "of another image, or unfinished"),
        (Agreement(0.98, 0.75), ""),
        (None, ""),
    ],
)
def test_a_doubt_says_how_a_mask_disagrees(agreement, doubt):
    found = misfits._Taught([RIGHT] * 20).doubt(agreement)
    assert found.startswith(doubt) if doubt else found == ""


@pytest.mark.parametrize(
    "usual",
    [
        [RIGHT] * 19,
        [Agreement(0.88, 0.9)] * 20,
        [RIGHT] * 15 + [Agreement(0.7, 0.5)] * 5,
    ],
)
def test_what_is_not_learned_accuses_nobody(usual):
    assert misfits._Taught(usual).doubt(Agreement(0.01, 0.2)) == ""


def test_where_masks_are_hard_to_learn_only_an_inverted_one_is_doubted():
    hard = misfits._Taught([Agreement(0.95, 0.6)] * 20)
    assert hard.doubt(Agreement(0.5, 0.1)) == ""
    assert hard.doubt(Agreement(0.1, 0.1)).startswith("inverted")
