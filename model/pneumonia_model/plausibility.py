"""Whether the stored words fit the Columns and the Bits Stored that the attributes declare.

Neighbouring pixels of a film are much alike. Where other columns, or more bits, make them clearly more alike, the
attributes are wrong.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint8] | NDArray[np.uint16]

_ROWS: Final = 256  # most rows that are compared
_APART: Final = 128  # compared rows are 1/128 of the height apart, so that noise weighs little
_OTHER_LENGTHS: Final = 8  # row lengths tried on either side, in pixels
# Of the difference between rows: real films at their true columns 1.00, with 1 column too few or too many up to 0.86
_CLEARLY: Final = 0.93
_BLOCK: Final = 256  # rows at once, for the sake of memory
_SHORTEST_CONTOUR: Final = 1 / 64  # of rows and columns together


def has_other_columns(words: Words, surplus: int) -> bool:
    """Return whether rows of another length than the declared one fit together clearly better.

    Args:
        words: the stored values without sign and without other bits, shape (rows, columns).
        surplus: number of pixels behind the image: `surplus // rows` columns may be missing.
    """
    rows, columns = words.shape
    apart = max(1, rows // _APART)
    flat = words.ravel()
    first = np.linspace(0, rows - 1, min(rows, _ROWS), dtype=np.int64)
    missing = surplus // rows
    others = {*range(-_OTHER_LENGTHS, _OTHER_LENGTHS + 1), *range(missing - 2, missing + 3)}

    def unlike(length: int) -> float:
        compared = first[first * columns + columns + apart * length <= flat.size]
        if length < 1 or not compared.size:
            return np.inf
        at = compared[:, None] * columns + np.arange(columns)
        return float(np.mean(np.abs(flat[at].astype(np.int32) - flat[at + apart * length])))

    declared = unlike(columns)
    return np.isfinite(declared) and min(unlike(columns + other) for other in others) < _CLEARLY * declared


def continues_above(
    words: Words, values: NDArray[np.int64], whole: NDArray[np.int64], compared: NDArray[np.bool_]
) -> bool:
    """Return whether the bits above those stored belong to the picture, which would wrap without them.

    Only neighbours that differ in these bits tell. In a picture of more bits they are nearly alike with the bits, and
    far apart without; with an overlay, a constant or noise in the bits it is the other way round.

    Args:
        words: shape (rows, columns).
        values: the stored value of each word that the container can hold.
        whole: the value of each word with the bits above.
        compared: whether each word is compared.
    """
    above = whole - values  # a multiple of 2 ** BitsStored; 0 where the bits above repeat the sign
    telling = nearer = 0
    for top in range(0, len(words), _BLOCK):
        block = words[top : top + _BLOCK + 1]
        for one, other in ((block[:-1], block[1:]), (block[:_BLOCK, :-1], block[:_BLOCK, 1:])):
            differ = (above[one] != above[other]) & compared[one] & compared[other]
            left, right = one[differ], other[differ]
            telling += left.size
            nearer += int((np.abs(whole[left] - whole[right]) < np.abs(values[left] - values[right])).sum())
    return nearer > telling / 2 and nearer > _SHORTEST_CONTOUR * sum(words.shape)
