"""The view of a stored header, whatever stands there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from scp_node.dicom.view import view_position

EXPLICIT: Final = "1.2.840.10008.1.2.1"
IMPLICIT: Final = "1.2.840.10008.1.2"
BEFORE: Final = b"\x08\x00\x60\x00CS\x02\x00DX"
AFTER: Final = b"\x20\x00\x0d\x00UI\x04\x001.2\x00"


def element(value: bytes) -> bytes:
    return b"\x18\x00\x01\x51CS" + len(value).to_bytes(2, "little") + value


@pytest.mark.parametrize(
    ("header", "view"),
    [
        (BEFORE + element(b"PA") + AFTER, "PA"),
        (BEFORE + element(b"ap \x00"), "AP"),
        (BEFORE + AFTER, ""),
        (b"", ""),
        (BEFORE + element(b""), ""),
        (BEFORE + element(b"P\xc4"), ""),
        (BEFORE + element(b"A\nB "), ""),
        (BEFORE + element(b"A-VIEW-LONGER-THAN-ALLOWED"), "A-VIEW-LONGER-TH"),
        (element(b"PA")[:-1], ""),
        (b"no header at all", ""),
    ],
)
def test_the_view_in_explicit_vr(header: bytes, view: str) -> None:
    assert view_position(header, EXPLICIT) == view


def test_the_view_in_implicit_vr() -> None:
    assert view_position(b"\x18\x00\x01\x51\x02\x00\x00\x00PA", IMPLICIT) == "PA"


def test_the_ledger_loads_no_dicom_library(repository: Path) -> None:
    code = "import sys, scp_node.ledger; print('pydicom' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
