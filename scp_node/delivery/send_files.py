"""Send DICOM files as they are: the test sender."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from scp_node.delivery.association import MAXIMUM_CONTEXTS, RequestedAssociation
from scp_node.delivery.connection import AssociationError
from scp_node.dicom.encoding import DamagedError
from scp_node.dicom.inspection import is_uid
from scp_node.dicom.part10 import FileHead, decode_head

CONNECT_SECONDS: Final = 10.0
SEND_SECONDS: Final = 120.0  # for one file

_HEAD_BYTES: Final = 65_536  # more than any file meta information
_Kind = tuple[str, str]  # SOP class, transfer syntax


def send_files(
    paths: Iterable[Path],
    *,
    host: str,
    port: int,
    called_ae: str,
    calling_ae: str,
    on_progress: Callable[[Path, int | None], None],
) -> list[tuple[Path, int | None]]:
    """Send the files, each in its own transfer syntax; return each with the status of its C-STORE response.

    The status is None for a file that is not DICOM, was not accepted, or was not answered.
    """
    ordered = list(paths)
    heads = {path: _head(path) for path in ordered}
    results: dict[Path, int | None] = {}
    for kinds in _batches(heads):
        sender = _BatchSender(host, port, called_ae, calling_ae, kinds)
        for path in ordered:
            head = heads[path]
            if path not in results and (head is None or _kind(head) in kinds):
                results[path] = sender.send(path, head) if head else None
                on_progress(path, results[path])
        sender.close()
    return [(path, results[path]) for path in ordered]


class _BatchSender:
    """Sends files of a set of kinds; replaces an association that is lost, and gives up once none can be opened."""

    def __init__(self, host: str, port: int, called_ae: str, calling_ae: str, kinds: list[_Kind]) -> None:
        self._host, self._port = host, port
        self._called_ae, self._calling_ae = called_ae, calling_ae
        self._kinds = kinds
        self._association: RequestedAssociation | None = None
        self._is_reachable = True

    def send(self, path: Path, head: FileHead) -> int | None:
        association = self._open()
        context = association.context_for(*_kind(head)) if association else None
        if association is None or context is None:
            return None
        try:
            dataset = path.read_bytes()[head.offset :]
            return association.store(dataset, head.sop_instance_uid, context, seconds=SEND_SECONDS)
        except (AssociationError, OSError):
            association.abort()
            self._association = None
            return None

    def close(self) -> None:
        if self._association:
            self._association.release()

    def _open(self) -> RequestedAssociation | None:
        if self._association is None and self._is_reachable:
            try:
                self._association = RequestedAssociation.request(
                    self._host,
                    self._port,
                    calling_ae=self._calling_ae,
                    called_ae=self._called_ae,
                    contexts=[(sop_class, [syntax]) for sop_class, syntax in self._kinds],
                    seconds=CONNECT_SECONDS,
                )
            except AssociationError:
                self._is_reachable = False
        return self._association


def _batches(heads: Mapping[Path, FileHead | None]) -> Iterator[list[_Kind]]:
    """Yield the kinds of the files in lists that fit into one association; at least one, may be empty."""
    kinds = list(dict.fromkeys(_kind(head) for head in heads.values() if head))
    yield kinds[:MAXIMUM_CONTEXTS]
    for start in range(MAXIMUM_CONTEXTS, len(kinds), MAXIMUM_CONTEXTS):
        yield kinds[start : start + MAXIMUM_CONTEXTS]


def _kind(head: FileHead) -> _Kind:
    return head.sop_class_uid, head.transfer_syntax


def _head(path: Path) -> FileHead | None:
    try:
        with path.open("rb") as file:
            head = decode_head(memoryview(file.read(_HEAD_BYTES)))
    except (OSError, DamagedError):
        return None
    uids = (head.sop_class_uid, head.sop_instance_uid, head.transfer_syntax)
    return head if all(map(is_uid, uids)) else None
