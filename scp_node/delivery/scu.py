"""The Storage SCU that takes reports, and what goes with them, to one destination."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO

from pydicom import dcmread
from pynetdicom.dsutils import encode

from scp_node.delivery.association import VERIFICATION, Accepted, RequestedAssociation
from scp_node.delivery.connection import AssociationError, ConnectionLostError
from scp_node.delivery.disposition import Disposition, classify, remark
from scp_node.dicom.part10 import decode_head
from scp_node.dicom.syntaxes import IMPLICIT_VR_LITTLE_ENDIAN, NATIVE
from scp_node.logs import get_logger
from scp_node.settings import DeliverySettings, DestinationSettings
from scp_node.tls.contexts import ClientTls

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SendResult:
    """What became of one object."""

    disposition: Disposition
    status: int | None  # of the C-STORE response; None: there was none
    sop_class_uid: str  # in which it was sent; empty: it was not sent
    detail: str  # why it was not delivered, or with which remark: no text of the peer, nothing of the patient's


class StorageScu:
    """Sends to one destination over an association that is kept while there is work; for one thread."""

    def __init__(
        self,
        destination: DestinationSettings,
        *,
        calling_ae: str,
        sop_classes: Sequence[str],
        other_sop_classes: Sequence[str] = (),
        settings: DeliverySettings,
        recast: Callable[[bytes, str], bytes],
        tls: ClientTls | None = None,
    ) -> None:
        """Offer `sop_classes`, best first, and `other_sop_classes`; `recast` returns a file as another of the first."""
        self._destination = destination
        self._tls = tls
        self._calling_ae = calling_ae
        self._sop_classes = tuple(sop_classes)
        self._other_sop_classes = tuple(other_sop_classes)
        self._settings = settings
        self._recast = recast
        self._association: RequestedAssociation | None = None
        self._used_at = 0.0  # monotonic

    def send(self, file: bytes) -> SendResult:
        """Send one object, a DICOM file, within `delivery.send_seconds`; never raises for network reasons."""
        deadline = time.monotonic() + self._settings.send_seconds
        was_open = self._drop_if_stale()
        try:
            return self._send(file, deadline)
        except ConnectionLostError as error:
            if not was_open:
                return self._not_sent(error)
            self.abort()
        except AssociationError as error:
            return self._not_sent(error)
        try:  # the peer had left the association that we kept: the same bytes again on a new one
            return self._send(file, deadline)
        except AssociationError as error:
            return self._not_sent(error)

    def open(self, *, seconds: float) -> str:
        """Open the association within `seconds` if there is none; return why it is not open, "" where it is."""
        self._drop_if_stale()
        try:
            self._open(time.monotonic() + seconds)
        except AssociationError as error:
            return str(error)
        return ""

    def echo(self) -> bool:
        """Return whether the destination answers a C-ECHO with Success, within `delivery.send_seconds`."""
        deadline = time.monotonic() + self._settings.send_seconds
        self._drop_if_stale()
        try:
            status = self._open(deadline).echo(seconds=_seconds_left(deadline))
        except AssociationError as error:
            log.debug("no answer to C-ECHO", destination=self._destination.name, reason=str(error))
            self.abort()
            return False
        self._used_at = time.monotonic()
        return status == 0

    def close_if_idle(self) -> None:
        """Release the association when it was not used for a while."""
        if self._association and time.monotonic() - self._used_at >= self._settings.keep_open_seconds:
            self.close()

    def close(self) -> None:
        """Release the association, if there is one."""
        if self._association:
            self._association.release()
            self._association = None

    def abort(self) -> None:
        """End the association at once, if there is one."""
        if self._association:
            self._association.abort()
            self._association = None

    def _send(self, file: bytes, deadline: float) -> SendResult:
        association = self._open(deadline)
        own = decode_head(memoryview(file)).sop_class_uid
        wanted = (own,) if own in self._other_sop_classes else self._sop_classes
        contexts = [found for uid in wanted if (found := association.context_for(uid))]
        if not contexts:
            association.release(seconds=_seconds_left(deadline))
            self._association = None
            return SendResult(
                disposition=Disposition.PERMANENT, status=None, sop_class_uid="", detail="no SOP class is accepted"
            )
        for context in contexts:
            result = self._store(association, file, context, deadline)
            if not _refuses_sop_class(result.status):
                self._remember(context.abstract_syntax)
                break
        return result

    def _remember(self, sop_class_uid: str) -> None:
        """Try the SOP class of a report that the destination took first from now on."""
        if sop_class_uid in self._sop_classes:
            others = (uid for uid in self._sop_classes if uid != sop_class_uid)
            self._sop_classes = (sop_class_uid, *others)

    def _store(self, association: RequestedAssociation, file: bytes, context: Accepted, deadline: float) -> SendResult:
        dataset, sop_instance_uid = self._encoded(file, context)
        status = association.store(dataset, sop_instance_uid, context, seconds=_seconds_left(deadline))
        self._used_at = time.monotonic()
        disposition = classify(status)
        return SendResult(
            disposition=disposition,
            status=status,
            sop_class_uid=context.abstract_syntax,
            detail=remark(status) if disposition is Disposition.DELIVERED else f"status 0x{status:04X}",
        )

    def _encoded(self, file: bytes, context: Accepted) -> tuple[bytes | memoryview, str]:
        head = decode_head(memoryview(file))
        if head.sop_class_uid != context.abstract_syntax:
            file = self._recast(file, context.abstract_syntax)
            head = decode_head(memoryview(file))
        if head.transfer_syntax != context.transfer_syntax:
            return _transcoded(file, context.transfer_syntax), head.sop_instance_uid
        return memoryview(file)[head.offset :], head.sop_instance_uid

    def _not_sent(self, error: AssociationError) -> SendResult:
        """Abort the association, if there is one, and return how far the sending came."""
        disposition = Disposition.UNANSWERED if self._association else Disposition.UNREACHABLE
        self.abort()
        return SendResult(disposition=disposition, status=None, sop_class_uid="", detail=str(error))

    def _open(self, deadline: float) -> RequestedAssociation:
        if self._association is None:
            self._association = RequestedAssociation.request(
                self._destination.host,
                self._destination.port,
                calling_ae=self._calling_ae,
                called_ae=self._destination.ae_title,
                contexts=[(uid, list(NATIVE)) for uid in (*self._sop_classes, *self._other_sop_classes, VERIFICATION)],
                seconds=min(self._settings.connect_seconds, _seconds_left(deadline)),
                tls=self._tls,
            )
        return self._association

    def _drop_if_stale(self) -> bool:
        """Return whether an association is open that looks alive."""
        if self._association and self._association.is_stale():
            self.abort()
        return self._association is not None


def _refuses_sop_class(status: int | None) -> bool:
    # SOP class not supported (PS3.7 Section C.5.6), data set does not match SOP class (PS3.4 Table B.2-1)
    return status is not None and (status == 0x0122 or status >> 8 == 0xA9)


def _seconds_left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())


def _transcoded(file: bytes, transfer_syntax: str) -> bytes:
    """Return the dataset of an uncompressed file in another uncompressed transfer syntax."""
    encoded = encode(dcmread(BytesIO(file)), transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN, is_little_endian=True)
    if encoded is None:
        raise ValueError("report cannot be encoded in the transfer syntax of the destination")
    return encoded
