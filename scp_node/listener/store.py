"""The answer to a C-STORE request (PS3.4 Table B.2-1): values in, status out; nothing here knows a socket."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum, IntEnum, auto
from typing import Final

from scp_node.dicom.encoding import DamagedError
from scp_node.dicom.inspection import Inspected, Origin, inspect, is_uid
from scp_node.dicom.repairs import NONE
from scp_node.domain import Clock, Priority, ReceivedInstance, RejectedInstance
from scp_node.incoming import Incoming
from scp_node.listener.contexts import STORAGE_CLASSES
from scp_node.listener.faults import attempt
from scp_node.listener.text import escaped
from scp_node.logs import get_logger
from scp_node.runtime.repeated import RepeatedLines
from scp_node.spool import Spool, SpoolError

LARGEST_HEADER: Final = 1 << 20  # bytes before the pixel data; it is kept in the database with its image
HIGH: Final = 0x0001  # C-STORE Priority, PS3.7 Table 9.3-1

log = get_logger(__name__)


class StoreStatus(IntEnum):
    """The statuses that the node gives."""

    SUCCESS = 0x0000
    INVALID_SOP_INSTANCE = 0x0117  # PS3.7 section 9.1.1.1.9
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    NOT_AUTHORISED = 0x0124
    OUT_OF_RESOURCES = 0xA700  # PS3.4 Table B.2-1: a later try may succeed
    DATASET_DOES_NOT_MATCH = 0xA900
    CANNOT_UNDERSTAND = 0xC000


class Missing(Enum):
    """Why the dataset of a request is not there."""

    NOT_SENT = auto()
    TOO_LARGE = auto()
    NOT_WRITTEN = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRequest:
    """One C-STORE request: the command, the presentation context and the association it came in."""

    sop_class_uid: str
    sop_instance_uid: str
    abstract_syntax: str
    transfer_syntax: str
    priority: int
    dataset: Incoming | None
    missing: Missing | None  # why there is no dataset
    calling_ae: str
    called_ae: str
    peer: str
    may_store: bool  # False: the peer may only ask by C-ECHO whether the node answers


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAnswer:
    """What goes back to the sender."""

    status: StoreStatus
    comment: str = ""  # Error Comment (0000,0902): ASCII, at most 64 characters, nothing of the patient's
    study_uid: str = ""  # of an instance that was stored


class _Refusal(Exception):  # noqa: N818 - control flow of this module, not an error
    def __init__(self, status: StoreStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class StoreService:
    """Checks and spools what arrives; safe for many threads."""

    def __init__(
        self,
        spool: Spool,
        *,
        stat_calling_ae: Collection[str],
        on_received: Callable[[ReceivedInstance], None],
        on_rejected: Callable[[RejectedInstance], None],
        clock: Clock,
        lines: RepeatedLines,
    ) -> None:
        self._spool = spool
        self._lines = lines
        self._stat_calling_ae = frozenset(stat_calling_ae)
        self._on_received = on_received
        self._on_rejected = on_rejected
        self._clock = clock

    def begin(self, request: StoreRequest) -> Incoming | None:
        """Return a file for the dataset that follows; None where the request will be refused by its command.

        Raises:
            SpoolError: it cannot be written.
        """
        try:
            _check_command(request)
        except _Refusal:  # the answer follows the dataset
            return None
        return self._spool.begin(request.sop_class_uid, request.sop_instance_uid, _origin(request, Priority.ROUTINE))

    def store(self, request: StoreRequest) -> StoreAnswer:
        """Return the answer to a request; Success means that the file survives a power cut."""
        answer = attempt(
            lambda: self._answer(request), "store failed", sop_instance_uid=escaped(request.sop_instance_uid)
        )
        # a bug of the node must neither lose the image nor be taken for the sender's: let it come again
        return answer or self._refuse(request, StoreStatus.OUT_OF_RESOURCES, "internal error")

    def _answer(self, request: StoreRequest) -> StoreAnswer:
        try:
            received = self._accept(request)
        except _Refusal as refusal:
            return self._refuse(request, refusal.status, refusal.reason)
        log.info(
            "instance received",
            sop_instance_uid=received.sop_instance_uid,
            status=f"0x{StoreStatus.SUCCESS:04X}",
            size=received.size,
            calling_ae=escaped(received.calling_ae),
            peer=received.peer,
        )
        # the file is safe and is registered later: the store has not failed
        attempt(lambda: self._on_received(received), "registration failed", sop_instance_uid=received.sop_instance_uid)
        return StoreAnswer(status=StoreStatus.SUCCESS, study_uid=received.study_uid)

    def _accept(self, request: StoreRequest) -> ReceivedInstance:
        _check_command(request)
        dataset = _require_dataset(request)
        try:
            with dataset.dataset() as content:
                inspected = inspect(content, request.transfer_syntax)
        except DamagedError as error:
            raise _Refusal(StoreStatus.CANNOT_UNDERSTAND, str(error)) from error
        if inspected.lacking:  # all classes that are served are images: it was cut off between two elements
            raise _Refusal(StoreStatus.CANNOT_UNDERSTAND, f"{inspected.lacking} is missing")
        if inspected.header_length > LARGEST_HEADER:
            raise _Refusal(StoreStatus.CANNOT_UNDERSTAND, "header is larger than the node allows")
        if inspected.repairs != NONE:
            _log_repairs(inspected, dataset.size)
        if inspected.sop_class_uid != request.sop_class_uid:
            raise _Refusal(StoreStatus.DATASET_DOES_NOT_MATCH, "SOP Class UID differs between command and dataset")
        if inspected.sop_instance_uid != request.sop_instance_uid:
            raise _Refusal(StoreStatus.DATASET_DOES_NOT_MATCH, "SOP Instance UID differs between command and dataset")
        try:
            return self._spool.keep(dataset, inspected, _origin(request, self._priority(request, inspected)))
        except SpoolError as error:
            log.exception("spool failed", sop_instance_uid=inspected.sop_instance_uid)
            raise _Refusal(StoreStatus.OUT_OF_RESOURCES, "no space to store the instance") from error

    def _priority(self, request: StoreRequest, inspected: Inspected) -> Priority:
        if request.calling_ae in self._stat_calling_ae:
            return Priority.STAT
        return min(inspected.priority, Priority.HIGH if request.priority == HIGH else Priority.ROUTINE)

    def _refuse(self, request: StoreRequest, status: StoreStatus, reason: str) -> StoreAnswer:
        rejected = RejectedInstance(
            sop_instance_uid=escaped(request.sop_instance_uid),
            calling_ae=escaped(request.calling_ae),
            peer=request.peer,
            status=int(status),
            reason=reason,
            at=self._clock(),
        )
        self._lines.warn(
            "instance refused",
            sop_instance_uid=rejected.sop_instance_uid,
            status=f"0x{rejected.status:04X}",
            reason=rejected.reason,
            calling_ae=rejected.calling_ae,
            peer=rejected.peer,
        )
        attempt(  # an audit that cannot be written changes no answer
            lambda: self._on_rejected(rejected), "audit of a refusal failed", sop_instance_uid=rejected.sop_instance_uid
        )
        return StoreAnswer(status=status, comment=reason[:64])


def _origin(request: StoreRequest, priority: Priority) -> Origin:
    return Origin(
        calling_ae=request.calling_ae,
        called_ae=request.called_ae,
        peer=request.peer,
        transfer_syntax=request.transfer_syntax,
        priority=priority,
    )


def _require_dataset(request: StoreRequest) -> Incoming:
    match request.missing:
        case Missing.TOO_LARGE:
            raise _Refusal(StoreStatus.OUT_OF_RESOURCES, "instance is larger than the node allows")
        case Missing.NOT_WRITTEN:
            raise _Refusal(StoreStatus.OUT_OF_RESOURCES, "no space to store the instance")
    if request.dataset is None:
        raise _Refusal(StoreStatus.CANNOT_UNDERSTAND, "dataset is missing")
    return request.dataset


def _log_repairs(inspected: Inspected, size: int) -> None:
    repairs = inspected.repairs
    log.info(
        "dataset kept as it came, read without its oddities",
        sop_instance_uid=inspected.sop_instance_uid,
        foreign=len(repairs.left_out),
        without_vr=len(repairs.vrs),
        behind_end=size - (size if repairs.end is None else repairs.end),
    )


def _check_command(request: StoreRequest) -> None:
    if not request.may_store:
        raise _Refusal(StoreStatus.NOT_AUTHORISED, "peer may not store")
    if not is_uid(request.sop_instance_uid):
        raise _Refusal(StoreStatus.INVALID_SOP_INSTANCE, "SOP Instance UID of the command is malformed")
    if request.sop_class_uid not in STORAGE_CLASSES:
        raise _Refusal(StoreStatus.SOP_CLASS_NOT_SUPPORTED, "SOP class is not served")
    if request.sop_class_uid != request.abstract_syntax:
        raise _Refusal(StoreStatus.DATASET_DOES_NOT_MATCH, "SOP class is not the presentation context's")
