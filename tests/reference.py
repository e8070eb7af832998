"""What a plan's numbers mean for pixels, written plainly: Python's integers and no compiler.

Slow, and independent of every engine: each is compared with it.
"""

import itertools
from typing import Any

import numpy as np

ONE = 1 << 16


def batch(records, step, *, size, is_constant=False):
    """Images uint8 [N, H, W, 3] and masks uint8 [N, H, W, 1] of records uint8 [h, w, 4] each."""
    done = []
    for index in range(len(step.own.row)):
        pixels = example(records, step.own, index, size=size, is_constant=is_constant)
        if len(step.own.paste):
            top, bottom, left, right = map(int, step.own.paste[index])
            other = example(records, step.partner, index, size=size, is_constant=is_constant)
            pixels[top:bottom, left:right] = other[top:bottom, left:right]
        done.append(pixels)
    stacked = np.array(done, np.uint8).reshape(-1, *size, 4)
    return stacked[..., :3], stacked[..., 3:]


def example(records, numbers, index, *, size, is_constant):
    """One example, uint8 [H, W, 4]."""
    (height, width), record = size, records[numbers.row[index]].astype(np.int64)
    pixels = np.empty((height, width, 4), np.int64)
    places = itertools.product(range(height), range(width))
    if len(numbers.map):
        moves = displacements(numbers, index, size)
        table = numbers.map[index].astype(object)
        for y, x in places:
            from_x, from_y = 2 * x - (width - 1), 2 * y - (height - 1)
            at_x, at_y = (
                int(row[0] * from_x + row[1] * from_y + row[2]) + moves[y][x][axis]
                for axis, row in enumerate(table)
            )
            pixels[y, x] = sampled(record, at_y, at_x, is_constant)
    else:
        top, left = map(int, numbers.window[index]) if len(numbers.window) else (0, 0)
        window = np.array(
            [
                [at(record, top + y, left + x, is_constant) for x in range(width)]
                for y in range(height)
            ]
        )
        if len(numbers.symmetry):
            transpose, flip_x, flip_y = numbers.symmetry[index]
            if transpose:
                window = window.transpose(1, 0, 2)
            if flip_x:
                window = window[:, ::-1]
            if flip_y:
                window = window[::-1]
        pixels[:] = window
    if len(numbers.blur):
        pixels[..., :3] = blurred(pixels[..., :3], numbers.blur[index])
    if len(numbers.matrix):
        pixels[..., :3] = coloured(pixels[..., :3], numbers, index)
    if len(numbers.gamma):
        pixels[..., :3] = numbers.gamma[index][pixels[..., :3]]
    if len(numbers.cutout):
        top, bottom, left, right = numbers.cutout[index]
        pixels[top:bottom, left:right, :3] = 128
    return pixels.astype(np.uint8)


def at(record, y, x, is_constant):
    """A pixel at a whole place, which may lie outside."""
    height, width = record.shape[:2]
    if is_constant and not (0 <= y < height and 0 <= x < width):
        return np.array([0, 0, 0, 255])
    y, x = (place % (2 * side) for place, side in ((y, height), (x, width)))
    return record[min(y, 2 * height - 1 - y), min(x, 2 * width - 1 - x)]


def sampled(record, at_y, at_x, is_constant):
    """A pixel at a place with 16 binary places: colours bilinear, the class of the nearest."""
    height, width = record.shape[:2]
    whole, parts = [], []
    for at, side in ((at_y, height), (at_x, width)):
        if is_constant and not -ONE // 2 <= at < side * ONE - ONE // 2:
            return np.array([0, 0, 0, 255])
        at = (at + ONE // 2) % (2 * side * ONE)
        if at >= side * ONE:
            at = 2 * side * ONE - at
        at = min(max(at - ONE // 2, 0), (side - 1) * ONE) + 128
        whole.append(at // ONE)
        parts.append(at % ONE // 256)
    (y, x), (below, beside) = whole, parts
    low, right = min(y + 1, height - 1), min(x + 1, width - 1)

    def between(one, other, part):
        return (one * (256 - part) + other * part + 128) // 256

    top = between(record[y, x], record[y, right], beside)
    bottom = between(record[low, x], record[low, right], beside)
    pixel = between(top, bottom, below)
    pixel[3] = record[low if below >= 128 else y, right if beside >= 128 else x, 3]
    return pixel


def displacements(numbers, index, size):
    """Of each pixel in x and y, 16 binary places: bicubic between the points of a grid."""
    height, width = size
    if not len(numbers.elastic):
        return np.zeros((height, width, 2), int).tolist()
    points = numbers.elastic[index].astype(int)
    grid = points.shape[0] - 2

    def weights(place, side):
        at = place * (grid - 1) * 4096 // max(side - 1, 1)
        first = min(at // 4096, grid - 2)
        t = at - first * 4096
        t2 = t * t // 4096
        t3 = t2 * t // 4096
        three = [(-t + 2 * t2 - t3) // 2, (8192 - 5 * t2 + 3 * t3) // 2, (t + 4 * t2 - 3 * t3) // 2]
        return first, [*three, 4096 - sum(three)]

    moves = []
    for y in range(height):
        top, down = weights(y, height)
        rows: Any = sum(w * points[top + n] for n, w in enumerate(down))
        rows = (rows + 2048) // 4096
        line = []
        for x in range(width):
            left, along = weights(x, width)
            line.append((sum(w * rows[left + n] for n, w in enumerate(along)) + 8) // 16)
        moves.append(line)
    return np.array(moves).tolist()


def blurred(pixels, weights):
    """Rows, then columns; mirrored at the borders, the edge included."""
    for axis in (1, 0):
        side, radius = pixels.shape[axis], len(weights) - 1
        around = np.arange(-radius, side + radius) % (2 * side)
        around = np.where(around < side, around, 2 * side - 1 - around)
        padded = np.take(pixels, around, axis=axis)
        total = 0
        for k in range(-radius, radius + 1):
            part = np.take(padded, np.arange(radius + k, radius + k + side), axis=axis)
            total = total + int(weights[abs(k)]) * part
        pixels = (total + 64) >> 7 if axis == 1 else np.minimum((total + (1 << 22)) >> 23, 255)
    return pixels


def coloured(pixels, numbers, index):
    """An affine map of RGB, and noise."""
    matrix = numbers.matrix[index].astype(np.int64)
    if matrix.shape == (1, 1):
        matrix = matrix * np.eye(3, dtype=np.int64)
    total = pixels @ matrix.T + numbers.offset[index]
    if len(numbers.deviation):
        total = total + int(numbers.deviation[index]) * grain(
            int(numbers.noise_key[index]), pixels.shape
        )
    return np.clip((total + ONE // 2) >> 16, 0, 255)


def grain(key, shape):
    """Of each colour a centred sum of the four bytes of a hash."""
    height, width, _ = shape
    found = np.empty(shape, np.int64)
    for y, x, channel in itertools.product(range(height), range(width), range(3)):
        place = (channel * height + y) * width + x
        value = key ^ (place * 0x9E3779B1 % 2**32)
        value = (value ^ (value >> 16)) * 0x7FEB352D % 2**32
        value = (value ^ (value >> 15)) * 0x846CA68B % 2**32
        value ^= value >> 16
        found[y, x, channel] = sum(value.to_bytes(4)) - 510
    return found
