"""What one association sends of which studies, and what was cut off when it ended."""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime
from typing import NamedTuple

from scp_node.dicom.inspection import is_uid, study_uid_of


class Cut(NamedTuple):
    """A message that did not come to its end."""

    began: float  # monotonic
    sop_instance_uid: str  # empty: not known
    study_uid: str  # empty: not known


class Part(NamedTuple):
    """Some of the studies of an association, and how it ended for them."""

    study_uids: tuple[str, ...]
    complete: bool = True
    cut_instance: str = ""


class Transfers:
    """The studies that one association sends: one of which nothing came for a while counts as sent.

    A PACS may keep an association for hours and send study after study on it: when it ends early, those that were sent
    long ago are not in doubt.
    """

    def __init__(self, *, idle_seconds: float, began_at: datetime) -> None:
        """Count a study as sent after `idle_seconds`."""
        self.began_at = began_at
        self._idle_seconds = idle_seconds
        self._last: OrderedDict[str, float] = OrderedDict()  # study -> when something of it came, the oldest first

    def stored(self, study_uid: str, at: float) -> None:
        """Note an instance of a study that was stored `at`, in monotonic seconds."""
        self._last[study_uid] = at
        self._last.move_to_end(study_uid)

    def take_sent(self, at: float) -> tuple[str, ...]:
        """Remove and return the studies that count as sent `at`."""
        sent = []
        while self._last and next(iter(self._last.values())) < at - self._idle_seconds:
            sent.append(self._last.popitem(last=False)[0])
        return tuple(sent)

    def take_all(self) -> tuple[str, ...]:
        """Remove and return all studies."""
        studies = tuple(self._last)
        self._last.clear()
        return studies

    def interrupted(self, cut: Cut | None, at: float) -> list[Part]:
        """Remove and return the studies of an association that ended early: those in doubt are the second part."""
        sent = self.take_sent(cut.began if cut else at)
        doubtful = dict.fromkeys(self.take_all())
        if cut and cut.study_uid:
            doubtful[cut.study_uid] = None
        return [Part(sent), Part(tuple(doubtful), complete=False, cut_instance=cut.sop_instance_uid if cut else "")]


def cut_dataset(beginning: bytes, sop_instance_uid: str, transfer_syntax: str, *, began: float) -> Cut:
    """Return as much of a message as came before the association ended: the UID of its command, and its dataset."""
    study_uid = study_uid_of(memoryview(beginning), transfer_syntax)
    return Cut(began, sop_instance_uid if is_uid(sop_instance_uid) else "", study_uid)
