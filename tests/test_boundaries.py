import math

import numpy as np
import pytest

from unet import boundaries


def contour(labels, known, number):
    """The pixels of a class that touch another labelled one by a side."""
    height, width = labels.shape
    found = []
    for y in range(height):
        for x in range(width):
            if labels[y, x] != number or not known[y, x]:
                continue
            around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            inside = [(a, b) for a, b in around if 0 <= a < height and 0 <= b < width]
            if any(known[place] and labels[place] != number for place in inside):
                found.append((y, x))
    return found


def plain(mask, found, numbers, reach):
    """Boundary F1 by comparing every pixel with every other."""
    known, scores = mask != 255, []
    for number in numbers:
        true, seen = (contour(x, known, number) for x in (mask, found))

        def share(points, others):
            near = [any(math.dist(p, q) <= reach for q in others) for p in points]
            return sum(near) / len(near)

        if true and seen:
            p, r = share(seen, true), share(true, seen)
            scores.append(2 * p * r / (p + r) if p + r else 0)
        elif true or seen:
            scores.append(0)
    return sum(scores) / len(scores) if scores else math.nan


@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize("shape", [(7, 12), (13, 5), (1, 9), (9, 9)])
@pytest.mark.parametrize("tolerance", [None, 0.0, 1.0, 1.5, math.sqrt(5), 40.0])
def test_it_is_that_of_comparing_every_pixel_with_every_other(channels, shape, tolerance):
    rng = np.random.default_rng([channels, *shape])
    classes = max(channels, 2)
    numbers = range(channels) if channels > 1 else (1,)
    reach = 0.0075 * math.hypot(*shape) if tolerance is None else tolerance
    for share in (0.03, 0.5):
        mask, found = (
            np.where(rng.random(shape) < share, rng.integers(0, classes, shape), 0).astype(np.uint8)
            for _ in range(2)
        )
        mask[rng.random(shape) < 0.1] = 255
        wanted = plain(mask, found, numbers, reach)
        score = boundaries.f1(mask, found, channels=channels, tolerance=tolerance)
        assert score == pytest.approx(wanted, nan_ok=True)


def square(shift, side=40):
    mask = np.zeros((side, side + 10), np.uint8)
    mask[10:20, 10 + shift : 20 + shift] = 1
    return mask


def test_a_contour_that_is_off_by_the_tolerance_scores_one():
    assert boundaries.f1(square(0), square(0), tolerance=0) == 1
    assert boundaries.f1(square(0), square(2), tolerance=2) == 1
    assert boundaries.f1(square(0), square(2), tolerance=1.9) < 1


def test_without_a_contour_there_is_no_score_and_with_one_alone_it_is_zero():
    empty, full = square(0) * 0, square(0) * 0 + 1
    for same in (empty, full):
        assert math.isnan(boundaries.f1(same, same))
    assert boundaries.f1(empty, square(0)) == boundaries.f1(square(0), full) == 0
    assert math.isnan(boundaries.f1(np.full_like(empty, 255), square(0)))


def test_what_has_the_ignore_label_makes_no_contour_and_hides_that_of_the_prediction():
    mask = square(0)
    mask[:, 20:] = 255  # the right side of the square is not known
    inside = boundaries._contour(mask, mask != 255)[0]
    assert inside[:, 1].max() == 19
    found = mask.copy()
    found[:, 20:] = 0
    found[30:35, 25:30] = 1
    assert boundaries.f1(mask, found, tolerance=0) == 1
