"""Whether compressed bytes are LZW as TIFF has it.

imagecodecs 2026.3.6 checks all codes but the one after a clear code. Above 255 it is none; there it
reads and writes wherever stale entries of its table point, which ends the process. So codes are
looked through before such bytes are given to it.

Source: TIFF 6.0, section 13; the old order of bits as in libtiff's `tif_lzw.c`.
"""

import numpy as np

from segdata.core.system.compiling import compiled

_CLEAR, _END, _FIRST = 256, 257, 258
_MOST = 5120  # entries of the decoder's table; codes of 12 bits name 4,096


def is_sound(data: bytes | bytearray, *, most: int) -> bool:
    """Whether each code, up to a number of decoded bytes, is one that may stand there.

    Data may end early, and need no code for their end.

    Args:
        data: A strip or tile, as it is compressed.
        most: How many bytes are decoded.
    """
    return bool(_is_sound(np.frombuffer(data, np.uint8), most))


@compiled
def _is_sound(data: np.ndarray, most: int) -> bool:
    is_old = len(data) > 1 and data[0] == 0 and data[1] & 1 == 1
    lengths = np.ones(_MOST, np.int64)
    count, width, at, made, before = _FIRST, 9, 0, 0, -1
    while made < most and at + width <= 8 * len(data):
        word = 0
        for k in range(3):
            byte = int(data[at // 8 + k]) if at // 8 + k < len(data) else 0
            word |= byte << (8 * k if is_old else 16 - 8 * k)
        word >>= at % 8 if is_old else 24 - at % 8 - width
        code = word & ((1 << width) - 1)
        at += width
        if code == _END:
            return True
        if code == _CLEAR:
            count, width = _FIRST, 9
        elif before < 0 or (before == _CLEAR and code > 255) or code > count or count == _MOST:
            return False
        elif before == _CLEAR:
            made += 1
        else:
            lengths[count] = lengths[before] + 1
            made += lengths[code]
            count += 1
            if width < 12 and count + (not is_old) == 1 << width:
                width += 1
        before = code
    return True
