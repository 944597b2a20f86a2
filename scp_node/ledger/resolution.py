"""Lets a person decide which of several images with one SOP Instance UID is read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select

from scp_node.domain import Actor
from scp_node.ledger.analyses import open_report
from scp_node.ledger.database.errors import LedgerError
from scp_node.ledger.database.schema import Use, instance
from scp_node.ledger.replacement import images_of, read_instead
from scp_node.ledger.transactions import Policy, Transactions


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One of the images with the same SOP Instance UID."""

    number: int  # in order of arrival, from 1
    use: Use
    study_uid: str
    patient_id: str
    accession: str
    calling_ae: str
    peer: str  # address of the sender
    received_at: datetime
    sha256: str
    size: int  # bytes of the dataset
    kept: bool  # whether its original is kept: without it there is nothing to analyse

    @property
    def may_be_read(self) -> bool:
        """Return whether it can be chosen in place of the one that is read."""
        return self.kept and self.use in {Use.CONFLICT, Use.SET_ASIDE}


class Resolution:
    """Shows the images of a SOP Instance UID, and chooses one of them."""

    def __init__(self, transactions: Transactions, policy: Policy) -> None:
        """Work on `transactions` by `policy`."""
        self._transactions = transactions
        self._policy = policy

    def candidates(self, sop_instance_uid: str) -> list[Candidate]:
        """Return the images with this UID, in order of arrival; none where it is unknown."""
        with self._transactions.reading() as (connection, _now):
            rows = images_of(connection, sop_instance_uid)
        return [
            Candidate(
                number=number,
                use=Use(row.use),
                study_uid=row.study_uid,
                patient_id=row.patient_id,
                accession=row.accession,
                calling_ae=row.calling_ae,
                peer=row.peer,
                received_at=row.received_at,
                sha256=row.sha256,
                size=row.size,
                kept=row.purging_at is None,
            )
            for number, row in enumerate(rows, start=1)
        ]

    def unresolved(self) -> int:
        """Return the number of images that wait for a person's decision."""
        counted = select(func.count()).select_from(instance).where(instance.c.use == Use.CONFLICT)
        with self._transactions.reading() as (connection, _now):
            return connection.execute(counted).scalar_one()

    def choose(self, sop_instance_uid: str, number: int, *, actor: Actor) -> None:
        """Have image `number` read in place of the others, which are set aside; `actor` is who decided.

        Every report that names one of them is made anew.

        Raises:
            LedgerError: there is no such image, it is the only one, or its original is no longer kept.
        """
        with self._transactions.writing() as (connection, now):
            rows = images_of(connection, sop_instance_uid, lock=True)
            if not 1 <= number <= len(rows):
                raise LedgerError(f"{sop_instance_uid} has {len(rows)} images: there is no number {number}")
            chosen = rows[number - 1]
            others = [row for row in rows if row is not chosen and row.use != Use.DUPLICATE]
            if chosen.use == Use.DUPLICATE:
                raise LedgerError(f"image {number} is another one of these in another encoding: choose that one")
            if not others:
                raise LedgerError(f"{sop_instance_uid} has one image: there is nothing to choose")
            if chosen.use != Use.READ and chosen.purging_at is not None:
                raise LedgerError(f"the original of image {number} is no longer kept: it cannot be analysed")
            read_instead(connection, self._policy, chosen, others, now, number=number, by=actor.detail)
            for patient in sorted({row.study_patient_id for row in (chosen, *others)}):
                open_report(connection, self._policy, patient, now)
