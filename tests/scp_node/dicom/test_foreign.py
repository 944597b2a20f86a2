"""Whatever a library raises over the bytes of a peer becomes one error of the node's own."""

from __future__ import annotations

import traceback
from io import BytesIO

import pytest
from pydicom.filereader import read_dataset

from scp_node.dicom.encoding import DamagedError
from scp_node.dicom.foreign import foreign_bytes


@pytest.mark.parametrize("raised", [KeyError, RecursionError, MemoryError, StopIteration, AssertionError, OSError])
def test_whatever_a_library_raises_is_the_error_that_was_asked_for(raised: type[Exception]) -> None:
    with (
        pytest.raises(DamagedError, match=r"^report is not well formed$"),
        foreign_bytes(as_=DamagedError("report is not well formed")),
    ):
        raise raised


def test_bytes_that_pydicom_cannot_read_are_an_example() -> None:
    cut = b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 192\x10\x00\x10\x00SQ\x00\x00\x08\x00\x00\x00\xfe"
    with pytest.raises(DamagedError), foreign_bytes(as_=DamagedError("header cannot be decoded")):
        read_dataset(BytesIO(cut), is_implicit_VR=False, is_little_endian=True).walk(lambda _, element: element.value)


def test_the_error_may_be_made_of_the_library_s() -> None:
    with (
        pytest.raises(DamagedError, match=r"^malformed PDU: IndexError$"),
        foreign_bytes(as_=lambda error: DamagedError(f"malformed PDU: {type(error).__name__}")),
    ):
        raise IndexError


def test_what_a_library_says_of_the_values_stands_in_no_traceback() -> None:
    with pytest.raises(DamagedError) as caught, foreign_bytes(as_=DamagedError("not a DICOM file")):
        raise ValueError("Doe^Jane is not a date")
    assert "Doe" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("raised", [OSError, FileNotFoundError, MemoryError])
def test_errors_that_do_not_speak_of_the_bytes_pass_where_that_is_said(raised: type[Exception]) -> None:
    with pytest.raises(raised), foreign_bytes(as_=DamagedError("damaged"), passing=(OSError, MemoryError)):
        raise raised


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit])
def test_the_end_of_the_process_always_passes(raised: type[BaseException]) -> None:
    with pytest.raises(raised), foreign_bytes(as_=DamagedError("damaged")):
        raise raised


def test_without_an_error_nothing_is_raised() -> None:
    with foreign_bytes(as_=DamagedError("damaged")):
        value = 3
    assert value == 3
