"""The Query SCU: looks by C-FIND whether a destination shows what it was sent (PS3.4 Annex C)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Final

from pydicom import Dataset
from pynetdicom.dimse_messages import C_FIND_RQ
from pynetdicom.dimse_primitives import C_FIND, DimsePrimitiveType
from pynetdicom.dsutils import decode

from scp_node.delivery.association import Accepted, RequestedAssociation
from scp_node.delivery.connection import AssociationError, ConnectionLostError, decoding
from scp_node.dicom.commitment_messages import encoded
from scp_node.dicom.syntaxes import IMPLICIT_VR_LITTLE_ENDIAN, NATIVE
from scp_node.settings import DeliverySettings, DestinationSettings
from scp_node.tls.contexts import ClientTls

STUDY_ROOT_FIND: Final = "1.2.840.10008.5.1.4.1.2.2.1"  # Study Root Query/Retrieve Information Model - FIND

_PENDING: Final = frozenset({0xFF00, 0xFF01})  # PS3.4 Table C.4-1
_MOST_MATCHES: Final = 100  # of a query for one UID, which has one answer
_SOP_INSTANCE_UID: Final = 0x0008_0018


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One instance with the unique keys above it, PS3.4 section C.6.2.1."""

    study_uid: str
    series_instance_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FindResult:
    """What was seen of the instances that were looked for; those in neither part were not looked for."""

    is_offered: bool
    found: frozenset[Wanted] = field(default_factory=frozenset)
    missing: frozenset[Wanted] = field(default_factory=frozenset)
    detail: str = ""  # why not all were looked for


class QueryScu:
    """Looks into one destination, each time over a new association; for one thread."""

    def __init__(
        self,
        destination: DestinationSettings,
        *,
        calling_ae: str,
        settings: DeliverySettings,
        tls: ClientTls | None = None,
    ) -> None:
        """Look into `destination` as `calling_ae`."""
        self._destination = destination
        self._tls = tls
        self._calling_ae = calling_ae
        self._settings = settings

    def find(self, instances: Sequence[Wanted]) -> FindResult:
        """Look for each of `instances`; never raises for network reasons."""
        try:
            association = self._open()
        except AssociationError as error:
            return FindResult(is_offered=True, detail=str(error))
        if (context := association.context_for(STUDY_ROOT_FIND)) is None:
            association.release()
            return FindResult(is_offered=False, detail="C-FIND is not offered")
        seen: dict[Wanted, bool] = {}
        detail = ""
        try:
            for wanted in instances:
                seen[wanted] = _is_shown(association, context, wanted, seconds=self._settings.send_seconds)
        except AssociationError as error:
            association.abort()
            detail = str(error)
        else:
            association.release()
        found = frozenset(wanted for wanted, shown in seen.items() if shown)
        return FindResult(is_offered=True, found=found, missing=frozenset(seen) - found, detail=detail)

    def _open(self) -> RequestedAssociation:
        return RequestedAssociation.request(
            self._destination.host,
            self._destination.port,
            calling_ae=self._calling_ae,
            called_ae=self._destination.ae_title,
            contexts=[(STUDY_ROOT_FIND, list(NATIVE))],
            seconds=self._settings.connect_seconds,
            tls=self._tls,
        )


def _is_shown(association: RequestedAssociation, context: Accepted, wanted: Wanted, *, seconds: float) -> bool:
    """Return whether a match with the UID comes: an archive that ignores the keys sends others.

    Raises:
        AssociationError: there was no end to the answer in time, or it was a failure.
    """
    deadline = time.monotonic() + seconds
    association.send(_request(association.next_message_id(), context, wanted), context, deadline)
    is_shown = False
    for _ in range(_MOST_MATCHES):
        response = association.receive(deadline)
        status = association.status(response)
        if status not in _PENDING:
            break
        if not is_shown:
            is_shown = _uid(response, context) == wanted.sop_instance_uid
    else:
        raise ConnectionLostError("more matches than there can be")
    if status != 0:
        raise AssociationError(f"C-FIND failed with status 0x{status:04X}")
    return is_shown


def _request(message_id: int, context: Accepted, wanted: Wanted) -> C_FIND_RQ:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "IMAGE"
    identifier.StudyInstanceUID = wanted.study_uid
    identifier.SeriesInstanceUID = wanted.series_instance_uid
    identifier.SOPInstanceUID = wanted.sop_instance_uid
    request = C_FIND()
    request.MessageID = message_id
    request.AffectedSOPClassUID = STUDY_ROOT_FIND
    request.Priority = 0
    request.Identifier = BytesIO(encoded(identifier, context.transfer_syntax))
    message = C_FIND_RQ()
    message.primitive_to_message(request)
    return message


def _uid(response: DimsePrimitiveType, context: Accepted) -> str:
    """Return the SOP Instance UID of a match.

    Raises:
        ConnectionLostError: it has none that can be read.
    """
    if not isinstance(response, C_FIND) or response.Identifier is None:
        raise ConnectionLostError("match without an identifier")
    implicit = context.transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN
    with decoding():
        identifier = decode(response.Identifier, implicit, is_little_endian=True)
        value: bytes = identifier.get_item(_SOP_INSTANCE_UID).value
        return value.rstrip(b"\0 ").decode("ascii")
