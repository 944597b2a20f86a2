"""What libraries would misread of a received dataset, and the same dataset without it.

The bytes that a peer sent are kept. pydicom takes file meta information at the beginning of a dataset for that of the
file, and reads a VR of two NULs as if it were Implicit VR: so whoever reads a dataset with it reads the repaired one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_CHUNK: Final = 4096  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Repairs:
    """The places of a dataset to repair, as offsets in the bytes that were received."""

    end: int | None = None  # of the last element; None: the end of the dataset
    left_out: tuple[tuple[int, int], ...] = ()  # beginning and end of each element that does not belong there
    vrs: tuple[tuple[int, bytes], ...] = ()  # offset of a missing VR, and the VR

    def change(self, dataset: memoryview) -> bool:
        """Return whether they change anything of the dataset."""
        return bool(self.left_out or self.vrs) or self.end not in {None, len(dataset)}

    def applied(self, dataset: memoryview) -> bytes | memoryview:
        """Return the dataset, or the beginning of it, repaired."""
        if not self.change(dataset):
            return dataset
        named = bytearray(dataset[: self.end])
        for offset, vr in self.vrs:
            if offset + len(vr) <= len(named):
                named[offset : offset + len(vr)] = vr
        parts, begin = [], 0
        for start, end in self.left_out:
            parts.append(named[begin:start])
            begin = end
        return b"".join((*parts, named[begin:]))


NONE: Final = Repairs()


def end_of_data(dataset: memoryview) -> int:
    """Return the offset behind the last byte that is not NUL."""
    end = len(dataset)
    while end > 0:
        begin = max(0, end - _CHUNK)
        if content := bytes(dataset[begin:end]).rstrip(b"\0"):
            return begin + len(content)
        end = begin
    return 0
