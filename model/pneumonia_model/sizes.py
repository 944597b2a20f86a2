"""Sizes that every part agrees on. This module needs only the standard library."""

from typing import Final

INPUT_SIDE: Final = 224
"""Rows and columns of the network's input."""

MAX_SIDE: Final = 8192
"""Largest Rows or Columns decoded: twice the widest detector on the market."""

MAX_SAMPLES: Final = MAX_SIDE * MAX_SIDE
"""Most samples decoded. No detector is coloured: a picture with three samples for each pixel is a screen or a scan."""
