"""Storage commitment as both associations speak it: the request, and the N-EVENT-REPORT (PS3.4 Annex J)."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from io import BytesIO
from typing import Final

from pydicom import Dataset, Sequence
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.dsutils import decode, encode

from scp_node.dicom.encoding import DamagedError, Walker
from scp_node.dicom.foreign import foreign_bytes
from scp_node.dicom.inspection import is_uid
from scp_node.dicom.syntaxes import IMPLICIT_VR_LITTLE_ENDIAN
from scp_node.domain import LARGEST_REPORT, LARGEST_REQUEST, CommitmentReport, Reference

PUSH_MODEL: Final = "1.2.840.10008.1.20.1"  # Storage Commitment Push Model SOP Class
WELL_KNOWN_INSTANCE: Final = "1.2.840.10008.1.20.1.1"  # PS3.4 section J.3.5
REQUEST_STORAGE_COMMITMENT: Final = 1  # Action Type ID, PS3.4 Table J.3-1
# Event Type IDs, PS3.4 Table J.3-2
ALL_COMMITTED: Final = 1
FAILURES_EXIST: Final = 2

_TRANSACTION_UID: Final = 0x0008_1195
_FAILED_SOP_SEQUENCE: Final = 0x0008_1198
_REFERENCED_SOP_SEQUENCE: Final = 0x0008_1199
_REFERENCED_SOP_CLASS_UID: Final = 0x0008_1150
_REFERENCED_SOP_INSTANCE_UID: Final = 0x0008_1155
_FAILURE_REASON: Final = 0x0008_1197


class EventStatus(IntEnum):
    """The answers to an N-EVENT-REPORT, PS3.7 section 10.1.1.1.8."""

    SUCCESS = 0x0000
    PROCESSING_FAILURE = 0x0110  # the one that reports is not a destination
    NO_SUCH_SOP_INSTANCE = 0x0112
    NO_SUCH_EVENT_TYPE = 0x0113
    INVALID_ARGUMENT_VALUE = 0x0115
    NO_SUCH_SOP_CLASS = 0x0118
    RESOURCE_LIMITATION = 0x0213  # the report is too long, or the node cannot take it now


class EventRefusedError(Exception):
    """The N-EVENT-REPORT is refused; the message does not quote its contents."""

    def __init__(self, status: EventStatus, reason: str) -> None:
        """Refuse with `status`."""
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRequest:
    """An N-EVENT-REPORT request, PS3.7 Table 10.1-1."""

    message_id: int | None
    sop_class_uid: str  # empty where it is missing
    sop_instance_uid: str  # empty where it is missing
    event_type_id: int | None
    information: memoryview | None  # None: larger than the receiver keeps
    transfer_syntax: str  # of the information


def event_request(request: N_EVENT_REPORT, information: memoryview | None, transfer_syntax: str) -> EventRequest:
    """Return pynetdicom's primitive as a value, with its Event Information as the receiver kept it."""
    return EventRequest(
        message_id=request.MessageID,
        sop_class_uid=str(request.AffectedSOPClassUID or ""),
        sop_instance_uid=str(request.AffectedSOPInstanceUID or ""),
        event_type_id=request.EventTypeID,
        information=information,
        transfer_syntax=transfer_syntax,
    )


def new_transaction_uid() -> str:
    """Return a new, unique UID, PS3.5 section B.2."""
    return f"2.25.{uuid.uuid4().int}"


def encoded_request(transaction_uid: str, references: Iterable[Reference], transfer_syntax: str) -> bytes:
    """Return the Action Information of a request, PS3.4 Table J.3-1."""
    information = Dataset()
    information.TransactionUID = transaction_uid
    information.ReferencedSOPSequence = [_item(reference) for reference in references]
    return encoded(information, transfer_syntax)


def encoded(dataset: Dataset, transfer_syntax: str) -> bytes:
    """Return a dataset as bytes in a native transfer syntax."""
    data = encode(dataset, transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN, is_little_endian=True)
    if data is None:
        raise ValueError("dataset cannot be encoded")
    return data


def read_event(event: EventRequest) -> CommitmentReport:
    """Return what the request reports.

    Raises:
        EventRefusedError: the event is not of the Storage Commitment Push Model, or not well formed.
    """
    if event.sop_class_uid != PUSH_MODEL:
        raise EventRefusedError(EventStatus.NO_SUCH_SOP_CLASS, "SOP class of the event is not storage commitment")
    if event.sop_instance_uid != WELL_KNOWN_INSTANCE:
        raise EventRefusedError(EventStatus.NO_SUCH_SOP_INSTANCE, "SOP instance of the event is not the well-known one")
    if event.event_type_id not in (ALL_COMMITTED, FAILURES_EXIST):
        raise EventRefusedError(EventStatus.NO_SUCH_EVENT_TYPE, "event type is unknown")
    if event.information is None or len(event.information) > LARGEST_REPORT:
        raise EventRefusedError(EventStatus.RESOURCE_LIMITATION, "report is larger than any that we asked for")
    with foreign_bytes(as_=EventRefusedError(EventStatus.INVALID_ARGUMENT_VALUE, "report is not well formed")):
        report = _read(event.information, event.transfer_syntax)
    if report.failed and event.event_type_id == ALL_COMMITTED:
        raise EventRefusedError(EventStatus.INVALID_ARGUMENT_VALUE, "report of success names failures")
    return report


def event_response(event: EventRequest, status: EventStatus) -> N_EVENT_REPORT:
    """Return the answer to the request as pynetdicom's primitive."""
    response = N_EVENT_REPORT()
    response.MessageIDBeingRespondedTo = event.message_id
    if event.sop_class_uid == PUSH_MODEL:
        response.AffectedSOPClassUID = PUSH_MODEL
    if event.sop_instance_uid == WELL_KNOWN_INSTANCE:
        response.AffectedSOPInstanceUID = WELL_KNOWN_INSTANCE
    if event.event_type_id in (ALL_COMMITTED, FAILURES_EXIST):
        response.EventTypeID = event.event_type_id
    response.Status = int(status)
    return response


def _read(data: memoryview, transfer_syntax: str) -> CommitmentReport:
    implicit = transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN
    for _ in Walker(data, implicit=implicit).elements():  # bounds and depth, before pydicom recurses
        pass
    information = decode(BytesIO(data), implicit, is_little_endian=True)
    failed = {_reference(item): _failure_reason(item) for item in _items(information, _FAILED_SOP_SEQUENCE)}
    stored = {_reference(item) for item in _items(information, _REFERENCED_SOP_SEQUENCE)}
    return CommitmentReport(
        transaction_uid=_uid(information, _TRANSACTION_UID), committed=frozenset(stored - set(failed)), failed=failed
    )


def _items(information: Dataset, tag: int) -> Sequence:
    items = information[tag].value if tag in information else Sequence()
    if not isinstance(items, Sequence) or len(items) > LARGEST_REQUEST:
        raise DamagedError("not a sequence, or more than was asked for")
    return items


def _reference(item: Dataset) -> Reference:
    return Reference(
        sop_class_uid=_uid(item, _REFERENCED_SOP_CLASS_UID),
        sop_instance_uid=_uid(item, _REFERENCED_SOP_INSTANCE_UID),
    )


def _failure_reason(item: Dataset) -> int:
    value = _raw(item, _FAILURE_REASON)
    if len(value) != 2:  # US
        raise DamagedError("Failure Reason is malformed")
    return int.from_bytes(value, "little")


def _uid(dataset: Dataset, tag: int) -> str:
    value = _raw(dataset, tag).rstrip(b"\0 ").decode("ascii")
    if not is_uid(value):
        raise DamagedError("UID is malformed")
    return value


def _raw(dataset: Dataset, tag: int) -> bytes:
    """Return the bytes of a value: pydicom would convert it, and quote a bad value in a warning."""
    value = dataset.get_item(tag).value
    if not isinstance(value, bytes):
        raise DamagedError("a sequence in place of a value")
    return value


def _item(reference: Reference) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    return item
