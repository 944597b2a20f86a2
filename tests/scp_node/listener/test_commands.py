"""Command sets of C-STORE are the same bytes, and the same values, as pynetdicom's."""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pynetdicom.dimse_messages import C_STORE_RQ, C_STORE_RSP, DIMSEMessage
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode
from pynetdicom.pdu_primitives import P_DATA

from scp_node.listener.commands import store_request, store_response

NUMBERS: Final = st.integers(min_value=0, max_value=0xFFFF)
UIDS: Final = st.from_regex(r"1(\.[1-9][0-9]{0,7}){1,6}", fullmatch=True)
COMMENTS: Final = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="\\"), max_size=64)
READ: Final = ("MessageID", "Priority", "AffectedSOPClassUID", "AffectedSOPInstanceUID")


def command_set(**changed: Any) -> Dataset:
    """Return the command set of a usual request."""
    command = Dataset()
    command.AffectedSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    command.CommandField = 0x0001
    command.MessageID = 7
    command.Priority = 0
    command.CommandDataSetType = 0x0000
    command.AffectedSOPInstanceUID = "1.2.3"
    for keyword, value in changed.items():
        if value is None:
            delattr(command, keyword)
        else:
            setattr(command, keyword, value)
    return command


def encoded(command: Dataset) -> bytes:
    """Return a command set with its group length, as pynetdicom writes it."""
    command.CommandGroupLength = len(encode(command, True, True) or b"")
    return encode(command, True, True) or b""


def by_pynetdicom(command: bytes) -> Any:
    """Return the request that pynetdicom reads."""
    message, primitive = DIMSEMessage(), P_DATA()
    primitive.presentation_data_value_list.append((1, b"\x03" + command))
    message.decode_msg(primitive)
    assert isinstance(message, C_STORE_RQ)
    return message.message_to_primitive()


@given(uid=UIDS, sop_class=UIDS, number=NUMBERS, priority=st.sampled_from([0, 1, 2]), move=st.booleans())
def test_a_store_request_says_what_pynetdicom_reads(
    uid: str, sop_class: str, number: int, priority: int, *, move: bool
) -> None:
    moved = {"MoveOriginatorApplicationEntityTitle": "PACS", "MoveOriginatorMessageID": number} if move else {}
    command = encoded(
        command_set(
            AffectedSOPClassUID=sop_class, AffectedSOPInstanceUID=uid, MessageID=number, Priority=priority, **moved
        )
    )

    request = store_request(command)

    expected = by_pynetdicom(command)
    assert request is not None
    assert [getattr(request, name) for name in READ] == [getattr(expected, name) for name in READ]


@pytest.mark.parametrize(
    "command",
    [
        encoded(command_set(CommandField=0x0030)),
        encoded(command_set(CommandDataSetType=0x0101)),
        encoded(command_set(MessageID=None)),
        encoded(command_set(Priority=None)),
        encoded(command_set(Priority=3)),
        encoded(command_set(AffectedSOPInstanceUID=None)),
        encoded(command_set()).replace(b"1.2.3\0", b"1.2\\3\0"),
        encoded(command_set()).replace(b"1.2.3\0", b"1.2.x\0"),
        encoded(command_set())[:-1],
        encoded(command_set()) + b"\0",
        encoded(command_set()) + encoded(command_set()),
        b"",
    ],
)
def test_a_command_set_that_is_not_of_the_usual_form_is_left_to_pynetdicom(command: bytes) -> None:
    assert store_request(command) is None


@given(uid=st.none() | UIDS, sop_class=st.none() | UIDS, number=NUMBERS, status=NUMBERS, comment=COMMENTS)
def test_a_store_response_is_the_bytes_that_pynetdicom_writes(
    uid: str | None, sop_class: str | None, number: int, status: int, comment: str
) -> None:
    response: Any = C_STORE()
    response.MessageIDBeingRespondedTo = number
    response.AffectedSOPClassUID = sop_class
    response.AffectedSOPInstanceUID = uid
    response.Status = status
    response.ErrorComment = comment or None
    message = C_STORE_RSP()
    message.primitive_to_message(response)

    written = store_response(
        message_id=number, sop_class_uid=sop_class, sop_instance_uid=uid, status=status, comment=comment
    )

    assert written == encode(message.command_set, True, True)
