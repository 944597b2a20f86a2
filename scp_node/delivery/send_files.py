"""Send DICOM files as they are: the test sender."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydicom.uid import UID

from scp_node.delivery.association import MAXIMUM_CONTEXTS, RequestedAssociation
from scp_node.delivery.connection import AssociationError
from scp_node.dicom.encoding import DamagedError
from scp_node.dicom.inspection import is_uid
from scp_node.dicom.part10 import FileHead, decode_head
from scp_node.tls.contexts import ClientTls

CONNECT_SECONDS: Final = 10.0
SEND_SECONDS: Final = 120.0  # for one file

_HEAD_BYTES: Final = 65_536  # more than any file meta information
_Kind = tuple[str, str]  # SOP class, transfer syntax


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsent:
    """Why a file got no response; one of the two is set."""

    file_fault: str = ""  # of the file, or of what the peer accepts
    error: AssociationError | None = None  # of the connection


def send_files(
    paths: Iterable[Path],
    *,
    host: str,
    port: int,
    called_ae: str,
    calling_ae: str,
    on_progress: Callable[[Path, int | None], None],
    on_unsent: Callable[[Path, Unsent], None] = lambda _path, _unsent: None,
    tls: ClientTls | None = None,
) -> list[tuple[Path, int | None]]:
    """Send the files, each in its own transfer syntax; return each with the status of its C-STORE response.

    The status is None for a file that is not DICOM, was not accepted, or was not answered; `on_unsent` learns why.
    """
    ordered = list(paths)
    heads = {path: _head(path) for path in ordered}
    results: dict[Path, int | None] = {}
    for kinds in _batches(heads):
        sender = _BatchSender(host, port, called_ae, calling_ae, kinds=kinds, tls=tls)
        for path in ordered:
            head = heads[path]
            if path not in results and (isinstance(head, Unsent) or _kind(head) in kinds):
                outcome = head if isinstance(head, Unsent) else sender.send(path, head)
                if isinstance(outcome, Unsent):
                    on_unsent(path, outcome)
                results[path] = None if isinstance(outcome, Unsent) else outcome
                on_progress(path, results[path])
        sender.close()
    return [(path, results[path]) for path in ordered]


class _BatchSender:
    """Sends files of a set of kinds; replaces an association that is lost, and gives up once none can be opened."""

    def __init__(
        self, host: str, port: int, called_ae: str, calling_ae: str, *, kinds: list[_Kind], tls: ClientTls | None
    ) -> None:
        self._host, self._port = host, port
        self._called_ae, self._calling_ae = called_ae, calling_ae
        self._kinds = kinds
        self._tls = tls
        self._association: RequestedAssociation | None = None
        self._unreachable: AssociationError | None = None

    def send(self, path: Path, head: FileHead) -> int | Unsent:
        try:
            association = self._open()
        except AssociationError as error:
            return Unsent(error=error)
        if (context := association.context_for(*_kind(head))) is None:
            sop_class, syntax = (UID(uid).name for uid in _kind(head))
            return Unsent(file_fault=f"{sop_class} in {syntax} is not accepted there")
        try:
            dataset = path.read_bytes()[head.offset :]
        except OSError as error:
            return Unsent(file_fault=_unreadable(error))
        try:
            return association.store(dataset, head.sop_instance_uid, context, seconds=SEND_SECONDS)
        except AssociationError as error:
            association.abort()
            self._association = None
            return Unsent(error=error)

    def close(self) -> None:
        if self._association:
            self._association.release()

    def _open(self) -> RequestedAssociation:
        if self._unreachable:
            raise self._unreachable
        if self._association is None:
            try:
                self._association = RequestedAssociation.request(
                    self._host,
                    self._port,
                    calling_ae=self._calling_ae,
                    called_ae=self._called_ae,
                    contexts=[(sop_class, [syntax]) for sop_class, syntax in self._kinds],
                    seconds=CONNECT_SECONDS,
                    tls=self._tls,
                )
            except AssociationError as error:
                self._unreachable = error
                raise
        return self._association


def _batches(heads: Mapping[Path, FileHead | Unsent]) -> Iterator[list[_Kind]]:
    """Yield the kinds of the files in lists that fit into one association; at least one, may be empty."""
    kinds = list(dict.fromkeys(_kind(head) for head in heads.values() if isinstance(head, FileHead)))
    yield kinds[:MAXIMUM_CONTEXTS]
    for start in range(MAXIMUM_CONTEXTS, len(kinds), MAXIMUM_CONTEXTS):
        yield kinds[start : start + MAXIMUM_CONTEXTS]


def _kind(head: FileHead) -> _Kind:
    return head.sop_class_uid, head.transfer_syntax


def _head(path: Path) -> FileHead | Unsent:
    try:
        with path.open("rb") as file:
            head = decode_head(memoryview(file.read(_HEAD_BYTES)))
    except OSError as error:
        return Unsent(file_fault=_unreadable(error))
    except DamagedError as error:
        return Unsent(file_fault=str(error))
    uids = {
        "SOP Class": head.sop_class_uid,
        "SOP Instance": head.sop_instance_uid,
        "Transfer Syntax": head.transfer_syntax,
    }
    wrong = [name for name, uid in uids.items() if not is_uid(uid)]
    return Unsent(file_fault=f"file meta information has no valid {wrong[0]} UID") if wrong else head


def _unreadable(error: OSError) -> str:
    return f"cannot be read: {error.strerror}"
