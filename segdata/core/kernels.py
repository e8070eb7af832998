"""The engine of the host's cores: a plan's numbers and packed records to images and masks.

Compiled by Numba, kept on disk, without the interpreter's lock: one call makes a batch, so several
threads make several. Pixels are 32-bit words: red the lowest byte, then green, blue and the class.
Each step of an example goes over a row of pixels in a loop of its own that becomes vector code; one
loop that does all of it runs at a sixth of the speed. Nothing is drawn here and no file is known.
"""

from typing import Any, NamedTuple

import numba
import numpy as np

from segdata.core import IGNORE_LABEL
from segdata.core.plan import CUTOUT, ONE, Parameters, Step
from segdata.core.system.compiling import compiled

# Only compiled code calls these: they need no wrappers, which take time to compile.
_bare: Any = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
_inlined = numba.njit(nogil=True, **_bare)

_HALF = ONE // 2
_STRIP = 4096  # pixels that are finished together: they stay in the first cache
_IGNORED = np.uint32(IGNORE_LABEL << 24)  # black, and the ignore label
_COLOURS = np.uint32(0x00FFFFFF)


def render(
    words: np.ndarray,
    places: np.ndarray,
    step: Step,
    *,
    is_constant: bool,
    image: np.ndarray,
    mask: np.ndarray,
    to: np.ndarray | None = None,
    partner_places: np.ndarray | None = None,
) -> None:
    """Makes a batch, or some rows of one.

    Args:
        words: uint32 [L], the packed file or what holds its records; behind each record there is
            one word or more, which is read and weighs nothing.
        places: int64 [N, 3], where the record of each example begins in it, its height and width.
        step: What happens to each.
        is_constant: Whether black of the ignore label moves in from outside, not the mirror image.
        image: uint8 [B, H, W, 3], written to.
        mask: uint8 [B, H, W, 1], written to.
        to: int64 [N], the row of each example; in order where None.
        partner_places: The same of the partners; needed where there is CutMix.
    """
    _, height, width, _ = image.shape
    own, partner = step
    to = np.arange(len(places)) if to is None else to
    flat = (height, width), to, image.reshape(-1), mask.reshape(-1)
    if not _is_rich(own):
        _render_moved(words, places, own, is_constant, *flat)
        return
    _render(
        words,
        places,
        places if partner_places is None else partner_places,
        own,
        partner,
        is_constant,
        bicubic(height, own.elastic.shape[1] - 2),
        bicubic(width, own.elastic.shape[2] - 2),
        *flat,
    )


def _is_rich(own: Parameters) -> bool:
    """Whether more happens than whole pixels moving and a matrix of colours."""
    return any(map(len, (own.map, own.blur, own.paste, own.gamma, own.cutout, own.deviation)))


def bicubic(side: int, grid: int) -> np.ndarray:
    """For each pixel the first of four points of a grid, and their weights; int32 [6, side].

    Last is the first pixel beyond those that have the same points.
    Catmull and Rom's, 12 binary places; in integers, so that every engine has the same.
    """
    if grid < 1:
        return np.zeros((6, 0), np.int32)
    place = np.arange(side, dtype=np.int64) * (grid - 1) * 4096 // max(side - 1, 1)
    first = np.minimum(place >> 12, max(grid - 2, 0))
    t = place - (first << 12)
    t2 = (t * t) >> 12
    t3 = (t2 * t) >> 12
    weights = [(-t + 2 * t2 - t3) >> 1, (8192 - 5 * t2 + 3 * t3) >> 1, (t + 4 * t2 - 3 * t3) >> 1]
    end = np.searchsorted(first, first, side="right")
    return np.stack([first, *weights, 4096 - sum(weights), end]).astype(np.int32)


@compiled
def _render_moved(
    words: np.ndarray,
    places: np.ndarray,
    own: Parameters,
    is_constant: bool,
    size: tuple[int, int],
    to: np.ndarray,
    image: np.ndarray,
    mask: np.ndarray,
) -> None:
    """`_render` of what is not rich: compiles in a third of the time."""
    height, width = size
    plane, strip = height * width, min(height, max(1, _STRIP // width))
    drawn, canvas = np.empty(strip * width, np.uint32), np.empty(strip * width, np.uint32)
    for i in range(len(places)):
        view = _viewed(places, own, i, size)
        for first in range(0, height, strip):
            rows = min(strip, height - first)
            begin, count = first * width, rows * width
            # Memory is read while colours are computed, or colours and classes parted.
            at = view.start + view.top * width + begin
            shown = words[at : at + count]
            if not view.is_straight:
                _move(words, view, is_constant, first, rows, drawn)
                shown = drawn[:count]
            if len(own.matrix):
                _linear(own.matrix[i], own.offset[i], shown, canvas[:count])
                shown = canvas[:count]
            _part(shown, to[i] * plane + begin, image, mask)


@compiled
def _render(
    words: np.ndarray,
    places: np.ndarray,
    partner_places: np.ndarray,
    own: Parameters,
    partner: Parameters,
    is_constant: bool,
    down: np.ndarray,
    along: np.ndarray,
    size: tuple[int, int],
    to: np.ndarray,
    image: np.ndarray,
    mask: np.ndarray,
) -> None:
    height, width = size
    needs_whole = len(own.blur) > 0 or len(own.paste) > 0
    strip = height if needs_whole else min(height, max(1, _STRIP // width))
    drawn, canvas = np.empty(strip * width, np.uint32), np.empty(strip * width, np.uint32)
    other = np.empty(strip * width if len(own.paste) else 0, np.uint32)
    buffers, none = np.empty((9, width), np.uint32), np.empty((0, 0, 2), np.int32)
    for i in range(len(places)):
        for first in range(0, height, strip):
            rows = min(strip, height - first)
            begin, count = first * width, rows * width
            has_partner = len(own.paste) > 0 and own.paste[i, 0] < own.paste[i, 1]
            for turn in range(1 + has_partner):  # in one place: compiled once
                part = own if turn == 0 else partner
                part_places = places if turn == 0 else partner_places
                out = canvas if turn == 0 else other
                view = _viewed(part_places, part, i, size)
                at = view.start + view.top * width + begin
                shown = words[at : at + count]
                if len(part.map) or len(part.blur) or not view.is_straight:
                    if len(part.map):
                        _warp(
                            words,
                            part_places[i],
                            part.map[i],
                            part.elastic[i] if len(part.elastic) else none,
                            is_constant,
                            size,
                            (down, along),
                            first,
                            rows,
                            drawn,
                            buffers,
                        )
                    else:
                        _move(words, view, is_constant, first, rows, drawn)
                    if len(part.blur):
                        _blur(drawn.reshape(size), part.blur[i])
                    shown = drawn[:count]
                _colour(_coloured(part, i), begin, height * width, shown, out[:count])
                _cover(part, i, size, first, rows, out)
            if has_partner:
                top, bottom, left, right = own.paste[i]
                for y in range(top, bottom):
                    for x in range(y * width + left, y * width + right):
                        canvas[x] = other[x]
            _part(canvas[:count], to[i] * height * width + begin, image, mask)


class _Colours(NamedTuple):
    """What is done to the colours of an example; a matrix of no rows stands for nothing."""

    matrix: np.ndarray
    offset: np.ndarray
    has_noise: bool
    deviation: Any
    key: Any


@_inlined
def _coloured(own, i):
    deviation, key = np.int32(0), np.uint32(0)
    has_noise = len(own.deviation) > 0
    if has_noise:
        deviation, key = own.deviation[i], own.noise_key[i]
    if len(own.matrix):
        return _Colours(own.matrix[i], own.offset[i], has_noise, deviation, key)
    return _Colours(np.empty((0, 3), np.int32), np.empty(0, np.int32), has_noise, deviation, key)


@_inlined
def _colour(colours, begin, plane, source, out):
    """Colours of pixels; `begin` is the first of them among the `plane` of the example."""
    matrix, offset, has_noise, deviation, key = colours
    if len(matrix) == 0:
        for x in range(len(out)):
            out[x] = source[x]
    elif has_noise:
        _noisy(matrix, offset, deviation, key, begin, plane, source, out)
    else:
        _linear(matrix, offset, source, out)


@_inlined
def _linear(matrix, offset, source, out):
    if len(matrix) == 1:
        _scaled(matrix[0, 0], offset, source, out)
    else:
        _mixed(matrix, offset, source, out)


@_inlined
def _cover(own, i, size, first, rows, canvas):
    """What comes after the colours."""
    width = size[1]
    if len(own.gamma):
        _look_up(own.gamma[i], canvas[: rows * width])
    if len(own.cutout):
        top, bottom, left, right = own.cutout[i]
        for y in range(max(top, first), min(bottom, first + rows)):
            begin = (y - first) * width
            for x in range(begin + left, begin + right):
                canvas[x] = (canvas[x] & _IGNORED) | np.uint32(CUTOUT)


class _View(NamedTuple):
    """Which pixels of a record an example shows, and how they are flipped and turned.

    Attributes:
        start: Where the record begins.
        record: Its height and width.
        size: The example's.
        top: Of the window.
        left: Of the window.
        transpose: Whether rows become columns.
        flip_x: Whether left and right are swapped.
        flip_y: Whether top and bottom are.
        is_inside: Whether the record holds the whole window.
        is_straight: Whether the example's pixels lie one after the other in the record.
    """

    start: int
    record: tuple[int, int]
    size: tuple[int, int]
    top: Any
    left: Any
    transpose: bool
    flip_x: bool
    flip_y: bool
    is_inside: bool
    is_straight: bool


@_inlined
def _viewed(places, own, i, size):
    record = places[i, 1], places[i, 2]
    top, left = np.int64(0), np.int64(0)
    transpose, flip_x, flip_y = False, False, False
    if len(own.window):
        top, left = np.int64(own.window[i, 0]), np.int64(own.window[i, 1])
    if len(own.symmetry):
        transpose = own.symmetry[i, 0] != 0
        flip_x, flip_y = own.symmetry[i, 1] != 0, own.symmetry[i, 2] != 0
    is_inside = top >= 0 and left >= 0
    is_inside &= top + size[0] <= record[0] and left + size[1] <= record[1]
    is_straight = is_inside and size[1] == record[1] and not (transpose or flip_x or flip_y)
    return _View(
        places[i, 0], record, size, top, left, transpose, flip_x, flip_y, is_inside, is_straight
    )


@_inlined
def _move(words, view, is_constant, first, rows, out):
    """Rows of the record, flipped and turned. An index without a sign needs no check of it."""
    start, record, size, top, left, transpose, flip_x, flip_y, is_inside, _ = view
    height, width = size
    last = np.uint64(width - 1)
    for k in range(rows):
        y = height - 1 - (first + k) if flip_y else first + k
        to = np.uint64(k * width)
        if not is_inside:  # the record is the smaller
            for x in range(width):
                along = width - 1 - x if flip_x else x
                row, column = (top + along, left + y) if transpose else (top + y, left + along)
                if is_constant and not (0 <= row < record[0] and 0 <= column < record[1]):
                    out[to + np.uint64(x)] = _IGNORED
                else:
                    row, column = _mirrored(row, record[0]), _mirrored(column, record[1])
                    out[to + np.uint64(x)] = words[start + row * record[1] + column]
        elif transpose:
            begin, by = start + top * record[1] + left + y, record[1]
            if flip_x:
                begin, by = begin + (width - 1) * by, -by
            at = np.uint64(begin)
            for x in range(width):
                out[to + np.uint64(x)] = words[at]
                at += np.uint64(by)
        else:
            begin = np.uint64(start + (top + y) * record[1] + left)
            if flip_x:
                for x in range(width):
                    out[to + last - np.uint64(x)] = words[begin + np.uint64(x)]
            else:
                for x in range(width):
                    out[to + np.uint64(x)] = words[begin + np.uint64(x)]


@_inlined
def _elastic(points, down, along, y, axis, coordinates):
    """Adds the displacements of a row of pixels, 16 binary places."""
    row = np.empty(points.shape[1], np.int32)
    for k in range(len(row)):
        total = np.int32(0)
        for n in range(4):
            total += np.int32(down[1 + n, y] * points[down[0, y] + n, k, axis])
        row[k] = np.int32(total + 2048) >> np.int32(12)
    begin = 0
    while begin < len(coordinates):  # pixels between the same points
        at, end = along[0, begin], along[5, begin]
        one, two, three, four = row[at], row[at + 1], row[at + 2], row[at + 3]
        a, b, c, d = (
            along[1, begin:end],
            along[2, begin:end],
            along[3, begin:end],
            along[4, begin:end],
        )
        part = coordinates[begin:end]
        for x in range(len(part)):
            near = np.int32(np.int32(b[x] * two) + np.int32(c[x] * three))
            far = np.int32(np.int32(a[x] * one) + np.int32(d[x] * four))
            total = np.int32(np.int32(near + far) + np.int32(8))
            part[x] = np.int32(part[x] + (total >> np.int32(4)))
        begin = end


@_inlined
def _warp(words, place, table, points, is_constant, size, grid, first, rows, canvas, buffers):
    """Samples each pixel once: colours bilinearly, the class from the nearest."""
    start, record_height, record_width = place[0], place[1], place[2]
    height, width = size
    down, along = grid
    xs, ys = buffers[0].view(np.int32), buffers[1].view(np.int32)
    across, below = buffers[2], buffers[3]  # fractions in 256ths; 512 outside of a constant border
    lefts, rights, lows, low_rights, places = (
        buffers[4],
        buffers[5],
        buffers[6],
        buffers[7],
        buffers[8],
    )
    by_x, by_y = np.int32(2 * table[0, 0]), np.int32(2 * table[1, 0])
    step, last = np.uint64(record_width), np.uint32((record_height - 1) * record_width)
    base, row_width = np.uint64(start), np.uint32(record_width)
    for k in range(rows):
        from_y = 2 * (first + k) - (height - 1)
        from_x = np.int32(table[0, 1] * from_y + table[0, 2] - table[0, 0] * (width - 1))
        begin_y = np.int32(table[1, 1] * from_y + table[1, 2] - table[1, 0] * (width - 1))
        for x in range(width):
            xs[x] = np.int32(from_x + np.int32(by_x * np.int32(x)))
            ys[x] = np.int32(begin_y + np.int32(by_y * np.int32(x)))
        if len(points):
            _elastic(points, down, along, first + k, np.int64(0), xs)
            _elastic(points, down, along, first + k, np.int64(1), ys)
        if is_constant:
            _bound(xs, record_width, across)
            _bound(ys, record_height, below)
        else:
            _reflect(xs, record_width, across)
            _reflect(ys, record_height, below)
        for x in range(width):
            places[x] = np.uint32(ys[x]) * row_width + np.uint32(xs[x])
        for x in range(width):
            at = base + np.uint64(places[x])
            lower = at + (step if places[x] < last else np.uint64(0))
            lefts[x] = words[at]
            rights[x] = words[at + np.uint64(1)]
            lows[x] = words[lower]
            low_rights[x] = words[lower + np.uint64(1)]
        out = canvas[k * width : (k + 1) * width]
        for x in range(width):
            a, d = across[x], below[x]
            top = _lerp(lefts[x], rights[x], a)
            low = _lerp(lows[x], low_rights[x], a)
            nearest_top = lefts[x] if a < np.uint32(128) else rights[x]
            nearest_low = lows[x] if a < np.uint32(128) else low_rights[x]
            nearest = nearest_top if d < np.uint32(128) else nearest_low
            out[x] = (_lerp(top, low, d) & _COLOURS) | (nearest & _IGNORED)
        if is_constant:
            for x in range(width):
                if across[x] > np.uint32(255) or below[x] > np.uint32(255):
                    out[x] = _IGNORED


@_inlined
def _lerp(a, b, fraction):
    """Blends the four bytes of two words, two at a time, in 256ths, rounding to nearest."""
    other = np.uint32(256) - fraction
    low = np.uint32(0xFF00FF)
    half = np.uint32(0x800080)
    even = (a & low) * other + (b & low) * fraction + half
    odd = ((a >> np.uint32(8)) & low) * other + ((b >> np.uint32(8)) & low) * fraction + half
    # Numba takes this for uint64, which would have its callers compiled for both.
    return np.uint32(((even >> np.uint32(8)) & low) | (odd & np.uint32(0xFF00FF00)))


@_inlined
def _bound(coordinates, side, fractions):
    """Coordinates to whole pixels inside, and fractions; what is outside is marked."""
    beyond, half = np.int32(side * ONE - _HALF), np.int32(_HALF)
    last = np.int32((side - 1) * ONE)
    for x in range(len(coordinates)):
        at = coordinates[x]
        rounded = np.int32(np.int32(min(max(at, np.int32(0)), last)) + np.int32(128))
        fraction = np.uint32(rounded >> np.int32(8)) & np.uint32(0xFF)
        fractions[x] = np.uint32(512) if at < -half or at >= beyond else fraction
        coordinates[x] = rounded >> np.int32(16)


@_inlined
def _reflect(coordinates, side, fractions):
    """Coordinates to whole pixels inside, and fractions; what is outside is mirrored."""
    whole, half, last = np.int32(side * ONE), np.int32(_HALF), np.int32((side - 1) * ONE)
    least, most, zero = coordinates[0], coordinates[0], np.int32(0)
    for x in range(len(coordinates)):
        at = coordinates[x]
        least = at if at < least else least
        most = at if at > most else most
    if least < -whole or most > np.int32(2 * whole - half):
        period = np.int32(2 * whole)
        for x in range(len(coordinates)):  # beyond the first mirror image
            coordinates[x] = np.int32((coordinates[x] + half) % period) - half
    for x in range(len(coordinates)):
        at = np.int32(coordinates[x] + half)
        back = np.int32(-at)
        beyond = np.int32(whole - (at if at > back else back))
        back = np.int32(-beyond)
        at = np.int32(np.int32(whole - (beyond if beyond > back else back)) - half)
        at = at if at > zero else zero
        at = np.int32((at if at < last else last) + np.int32(128))
        fractions[x] = np.uint32(at >> np.int32(8)) & np.uint32(0xFF)
        coordinates[x] = at >> np.int32(16)


@_inlined
def _mirrored(place, side):
    """The pixel that a place outside mirrors."""
    once = place % (2 * side)
    return once if once < side else 2 * side - 1 - once


@_inlined
def _blur(canvas, weights):
    """Colours by a separable kernel; classes stay."""
    height, width = canvas.shape
    radius = len(weights) - 1
    rows = np.empty((3, height, width), np.uint32)
    padded = np.empty(width + 2 * radius, np.uint32)
    total = np.empty(width, np.uint32)
    for channel in range(3):
        shift = np.uint32(8 * channel)
        for y in range(height):
            for x in range(width):
                padded[radius + x] = (canvas[y, x] >> shift) & np.uint32(0xFF)
            for k in range(1, radius + 1):
                padded[radius - k] = padded[radius + _mirrored(-k, width)]
                padded[radius + width - 1 + k] = padded[radius + _mirrored(width - 1 + k, width)]
            centre = padded[radius : radius + width]
            for x in range(width):
                total[x] = np.uint32(64) + np.uint32(weights[0]) * centre[x]
            for k in range(1, radius + 1):
                weight = np.uint32(weights[k])
                left, right = padded[radius - k : radius - k + width], padded[radius + k :]
                for x in range(width):
                    total[x] += weight * (left[x] + right[x])
            for x in range(width):
                rows[channel, y, x] = total[x] >> np.uint32(7)
    for y in range(height):
        for x in range(width):
            canvas[y, x] &= _IGNORED
        for channel in range(3):
            shift = np.uint32(8 * channel)
            for x in range(width):
                total[x] = np.uint32(1 << 22) + np.uint32(weights[0]) * rows[channel, y, x]
            for k in range(1, radius + 1):
                weight = np.uint32(weights[k])
                above = rows[channel, _mirrored(y - k, height)]
                below = rows[channel, _mirrored(y + k, height)]
                for x in range(width):
                    total[x] += weight * (above[x] + below[x])
            for x in range(width):
                canvas[y, x] |= min(total[x] >> np.uint32(23), np.uint32(255)) << shift


@_inlined
def _look_up(table, row):
    for x in range(len(row)):
        word = row[x]
        red = np.uint32(table[word & np.uint32(0xFF)])
        green = np.uint32(table[(word >> np.uint32(8)) & np.uint32(0xFF)])
        blue = np.uint32(table[(word >> np.uint32(16)) & np.uint32(0xFF)])
        row[x] = red | green << np.uint32(8) | blue << np.uint32(16) | (word & _IGNORED)


@_inlined
def _clipped(value):
    """Fixed point to a byte."""
    return np.uint32(min(max(np.int32(value) >> np.int32(16), np.int32(0)), np.int32(255)))


@_inlined
def _joined(red, green, blue, word):
    colours = _clipped(red) | _clipped(green) << np.uint32(8) | _clipped(blue) << np.uint32(16)
    return colours | (word & _IGNORED)


@_inlined
def _scaled(gain, offset, source, out):
    half = np.int32(_HALF)
    first, second, third = offset[0] + half, offset[1] + half, offset[2] + half
    add_red, add_green, add_blue = np.int32(first), np.int32(second), np.int32(third)
    for x in range(len(out)):
        word = source[x]
        red = np.int32(word & np.uint32(0xFF))
        green = np.int32((word >> np.uint32(8)) & np.uint32(0xFF))
        blue = np.int32((word >> np.uint32(16)) & np.uint32(0xFF))
        out[x] = _joined(
            np.int32(np.int32(gain * red) + add_red),
            np.int32(np.int32(gain * green) + add_green),
            np.int32(np.int32(gain * blue) + add_blue),
            word,
        )


@_inlined
def _mixed(matrix, offset, source, out):
    half = np.int32(_HALF)
    a, b, c = matrix[0, 0], matrix[0, 1], matrix[0, 2]
    d, e, f = matrix[-2, 0], matrix[-2, 1], matrix[-2, 2]
    g, h, k = matrix[-1, 0], matrix[-1, 1], matrix[-1, 2]
    first, second, third = (
        np.int32(offset[0] + half),
        np.int32(offset[1] + half),
        np.int32(offset[2] + half),
    )
    for x in range(len(out)):
        word = source[x]
        red = np.int32(word & np.uint32(0xFF))
        green = np.int32((word >> np.uint32(8)) & np.uint32(0xFF))
        blue = np.int32((word >> np.uint32(16)) & np.uint32(0xFF))
        out[x] = _joined(
            np.int32(np.int32(a * red) + np.int32(b * green) + np.int32(c * blue) + first),
            np.int32(np.int32(d * red) + np.int32(e * green) + np.int32(f * blue) + second),
            np.int32(np.int32(g * red) + np.int32(h * green) + np.int32(k * blue) + third),
            word,
        )


@_inlined
def _noisy(matrix, offset, deviation, key, begin, plane, source, out):
    """The same with noise; whatever the matrix."""
    mixes = matrix.shape[0] == 3
    half, zero = np.int32(_HALF), np.int32(0)
    gain = matrix[0, 0]
    a, b, c = gain, zero, zero
    d, e, f = zero, gain, zero
    g, h, k = zero, zero, gain
    if mixes:
        b, c = matrix[0, 1], matrix[0, 2]
        d, e, f = matrix[1, 0], matrix[1, 1], matrix[1, 2]
        g, h, k = matrix[2, 0], matrix[2, 1], matrix[2, 2]
    first, second, third = (
        np.int32(offset[0] + half),
        np.int32(offset[1] + half),
        np.int32(offset[2] + half),
    )
    plane, begin = np.uint32(plane), np.uint32(begin)
    for x in range(len(out)):
        word = source[x]
        place = begin + np.uint32(x)
        red = np.int32(word & np.uint32(0xFF))
        green = np.int32((word >> np.uint32(8)) & np.uint32(0xFF))
        blue = np.int32((word >> np.uint32(16)) & np.uint32(0xFF))
        grain = np.int32(deviation * _grain(key, place))
        red_sum = np.int32(a * red) + np.int32(b * green) + np.int32(c * blue) + first
        green_sum = np.int32(d * red) + np.int32(e * green) + np.int32(f * blue) + second
        blue_sum = np.int32(g * red) + np.int32(h * green) + np.int32(k * blue) + third
        out[x] = _joined(
            np.int32(red_sum + grain),
            np.int32(green_sum + np.int32(deviation * _grain(key, place + plane))),
            np.int32(blue_sum + np.int32(deviation * _grain(key, place + plane + plane))),
            word,
        )


@_inlined
def _grain(key, place):
    """A centred sum of four hashed bytes (Wellons' lowbias32); int32."""
    x = key ^ np.uint32(place * np.uint32(0x9E3779B1))
    x = np.uint32((x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D))
    x = np.uint32((x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B))
    x = x ^ (x >> np.uint32(16))
    pairs = (x & np.uint32(0xFF00FF)) + ((x >> np.uint32(8)) & np.uint32(0xFF00FF))
    return np.int32((pairs & np.uint32(0xFFFF)) + (pairs >> np.uint32(16))) - np.int32(510)


@_inlined
def _part(words, begin, image, mask):
    """Words to colours and classes, from some pixel of the batch on."""
    end = begin + len(words)
    colours, classes = image[3 * begin : 3 * end], mask[begin:end]
    for x in range(len(words)):
        word = words[x]
        colours[3 * x] = np.uint8(word)
        colours[3 * x + 1] = np.uint8(word >> np.uint32(8))
        colours[3 * x + 2] = np.uint8(word >> np.uint32(16))
        classes[x] = np.uint8(word >> np.uint32(24))
