"""The class activation map of a finding, read back from the bytes that the ledger keeps."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

MAP_SHAPE: Final = (14, 14)
CONTOUR: Final = 0.0  # logit: beyond it the place by itself speaks rather for an opacity than against one

_FINE: Final = 16  # steps of an outline in one place of the map


def activation_map(attention: bytes) -> NDArray[np.float32]:
    """Return the map, shape (14, 14), in logit units; its places cover the whole film."""
    return np.frombuffer(attention, dtype="<f4").reshape(MAP_SHAPE)


def attention_outlines(attention: bytes) -> list[list[tuple[float, float]]]:
    """Return closed lines round places above `CONTOUR`, the largest first; points are shares of width and height."""
    side = MAP_SHAPE[0] * _FINE
    fine = cv2.resize(activation_map(attention), (side, side), interpolation=cv2.INTER_LINEAR)
    found, _ = cv2.findContours((fine > CONTOUR).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    lines = [cv2.approxPolyDP(line, 1.0, closed=True)[:, 0] for line in sorted(found, key=cv2.contourArea)[::-1]]
    shares = [[((x + 0.5) / side, (y + 0.5) / side) for x, y in line.tolist()] for line in lines if len(line) > 2]
    return [[*points, points[0]] for points in shares]
