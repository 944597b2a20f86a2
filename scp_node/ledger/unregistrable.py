"""Files of the spool that cannot enter the ledger: each becomes an event, and the audit shows it as failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, exists, func, select

from scp_node.ledger.database.schema import event, instance
from scp_node.ledger.trail.events import record_event

KIND: Final = "unregistrable"
_PATH: Final = event.c.detail["path"].as_string()
_STILL: Final = (event.c.kind == KIND) & ~exists().where(instance.c.spool_path == _PATH)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnregistrableFile:
    """A received file that the ledger cannot take, with all that is known about it."""

    spool_path: str
    reason: str
    received_at: datetime
    sha256: str = ""  # of the dataset, or of the whole file if that is damaged; "" if it cannot be read at all
    sop_instance_uid: str = ""
    study_uid: str = ""
    calling_ae: str = ""
    peer: str = ""


def record_unregistrable(connection: Connection, file: UnregistrableFile, now: datetime) -> bool:
    """Note the file unless it was noted before; return whether it is new."""
    noted = select(event.c.id).where(event.c.kind == KIND, file.spool_path == _PATH)
    if connection.execute(noted.limit(1)).first() is not None:
        return False
    detail = {
        "path": file.spool_path,
        "reason": file.reason,
        "sha256": file.sha256,
        "received_at": file.received_at.isoformat(),
        "calling_ae": file.calling_ae,
        "peer": file.peer,
    }
    uids = {"study_uid": file.study_uid, "sop_instance_uid": file.sop_instance_uid}
    record_event(connection, now, KIND, detail=detail, **uids)
    return True


def unregistrable(connection: Connection) -> Sequence[Row[Any]]:
    """Return the events of the files that still have no row, oldest first."""
    return connection.execute(select(event).where(_STILL).order_by(event.c.id)).all()


def count_unregistrable(connection: Connection) -> int:
    """Return the number of files that still have no row."""
    number: int = connection.execute(select(func.count()).select_from(event).where(_STILL)).scalar_one()
    return number
