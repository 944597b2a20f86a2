"""The peer of these tests: MODALITY1, which calls PNEUMONIA. It speaks, well and badly, as `scp-node torture` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from scp_node.delivery.connection import ABORT, ASSOCIATE_AC, ASSOCIATE_RJ, ASSOCIATE_RQ, P_DATA, RELEASE_RP
from scp_node.torture.peer import (
    C_ECHO_RQ,
    CLOSED,
    COMMAND_FIELD,
    CR,
    DATASET_TYPE,
    DX,
    EXPLICIT,
    IMPLICIT,
    MESSAGE_ID,
    NO_DATASET,
    PRIORITY,
    SOP_CLASS,
    SOP_INSTANCE,
    USUAL_CONTEXTS,
    VERIFICATION,
    Answer,
    associate_request,
    encoded_command,
    encoded_item,
)
from scp_node.torture.peer import Peer as AnyPeer

__all__ = [
    "ABORT",
    "ASSOCIATE_AC",
    "ASSOCIATE_RJ",
    "ASSOCIATE_RQ",
    "CLOSED",
    "COMMAND_FIELD",
    "CR",
    "C_ECHO_RQ",
    "C_FIND_RQ",
    "DATASET_TYPE",
    "DX",
    "EVENT_TYPE",
    "EXPLICIT",
    "IMPLICIT",
    "MESSAGE_ID",
    "NO_DATASET",
    "N_ACTION_RQ",
    "N_EVENT_REPORT_RQ",
    "PRIORITY",
    "PUSH_MODEL",
    "P_DATA",
    "RELEASE_RP",
    "SOP_CLASS",
    "SOP_INSTANCE",
    "VERIFICATION",
    "Answer",
    "Peer",
    "associate_request",
    "encoded_command",
    "encoded_item",
]

PUSH_MODEL: Final = "1.2.840.10008.1.20.1"  # Storage Commitment
EVENT_TYPE: Final = 0x1002
C_FIND_RQ: Final = 0x0020
N_EVENT_REPORT_RQ: Final = 0x0100
N_ACTION_RQ: Final = 0x0130


class Peer(AnyPeer):
    """One connection; a context manager."""

    @staticmethod
    def request(contexts: Sequence[tuple[str, Sequence[str]]] = ((VERIFICATION, [IMPLICIT]),)) -> bytes:
        """Return the payload of an association request by a modality."""
        return associate_request(contexts, calling="MODALITY1", called="PNEUMONIA")

    def associate(
        self,
        contexts: Sequence[tuple[str, Sequence[str]]] = USUAL_CONTEXTS,
        *,
        calling: str = "MODALITY1",
        called: str = "PNEUMONIA",
        **options: Any,
    ) -> tuple[int, bytes]:
        """Request an association, by these titles unless others are given."""
        return super().associate(contexts, calling=calling, called=called, **options)

    def event(
        self, information: bytes | None, command: Mapping[int, object] | None = None, *, context: int = 1
    ) -> Answer:
        """Send an N-EVENT-REPORT and return the answer; `command` replaces elements of the usual one."""
        usual = {
            SOP_CLASS: PUSH_MODEL,
            COMMAND_FIELD: N_EVENT_REPORT_RQ,
            MESSAGE_ID: 9,
            DATASET_TYPE: NO_DATASET if information is None else 1,
            SOP_INSTANCE: PUSH_MODEL + ".1",
            EVENT_TYPE: 1,
        }
        self.send_pdv(context, encoded_command({**usual, **(command or {})}), is_command=True)
        if information is not None:
            for start in range(0, max(len(information), 1), 60_000):
                part = information[start : start + 60_000]
                self.send_pdv(context, part, is_last=start + 60_000 >= len(information))
        return self.answer()
