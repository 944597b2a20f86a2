"""Stores files safely on disk before a peer hears Success. The spool is the truth, and the ledger follows it.

A file is written under `tmp/` as it comes, synced, renamed to `YYYY-MM-DD/<time>Z-<random>-<priority>.dcm`, and its
folder synced.
Paths in and out of this module are relative to the spool folder. The spool chooses the names, never a peer.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from scp_node.dicom.encoding import DamagedError
from scp_node.dicom.inspection import Inspected, Origin, describe, inspect
from scp_node.dicom.part10 import decode_head, encode_head
from scp_node.domain import Clock, NodeError, Priority, ReceivedInstance, utc_now
from scp_node.incoming import Incoming, mapped
from scp_node.private_files import FOLDER_MODE, make_private_folder

_TEMPORARY: Final = "tmp"
_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_PAST: Final = timedelta(days=2)  # nobody writes into the folder of a day that is this old
_NAME: Final = re.compile(r"(?P<time>\d{6}\.\d{6})Z-[0-9a-f]{16}-(?P<priority>stat|high|routine)\.dcm")
_PATH: Final = re.compile(f"(?P<day>{_DAY.pattern})/{_NAME.pattern}")


class SpoolError(NodeError):
    """A file could not be stored, or differs from what the spool stored."""


class SpoolFileGoneError(SpoolError):
    """The file is gone."""


class SpoolFullError(SpoolError):
    """To store the file would leave less than the required free space."""


class _Place(NamedTuple):
    file: Path
    received_at: datetime
    priority: Priority


class StoredFiles(Protocol):
    """The only way to the stored files for other parts of the node; see `SpoolFiles`."""

    def open(self, paths: Sequence[str]) -> AbstractContextManager[list[Path]]:
        """Return local files for reading, one for each path, valid inside the block."""


class SpoolFiles:
    """The files of a spool for those that only read: nothing is created, and the folder may be another's."""

    def __init__(self, folder: Path) -> None:
        """Read below `folder`."""
        self._folder = folder

    @contextlib.contextmanager
    def open(self, paths: Sequence[str]) -> Iterator[list[Path]]:
        """Yield local files for reading, one for each path, valid inside the block. A file may have been removed.

        Raises:
            SpoolError: a path does not name a file of the spool.
        """
        yield [self._place(path).file for path in paths]

    def holds(self, path: str) -> bool:
        """Return whether the file exists.

        Raises:
            SpoolError: the file cannot be looked at.
        """
        try:
            return stat.S_ISREG(self._place(path).file.stat().st_mode)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise SpoolError(f"{path}: cannot be looked at: {error.strerror}") from error

    def _place(self, path: str) -> _Place:
        if not (parts := _PATH.fullmatch(path)):
            raise SpoolError(f"{path!r}: is no path of the spool")
        received_at = datetime.strptime(parts["day"] + parts["time"], "%Y-%m-%d%H%M%S.%f").replace(tzinfo=UTC)
        return _Place(self._folder / path, received_at, Priority[parts["priority"].upper()])


class Spool(SpoolFiles):
    """One folder of received instances; safe for many threads and processes."""

    def __init__(self, folder: Path, *, low_water_bytes: int, clock: Clock = utc_now) -> None:
        """Create the folder if it is missing; `low_water_bytes` of its disk stay free.

        Raises:
            SpoolError: the folder cannot be created.
        """
        super().__init__(folder)
        self._temporary = folder / _TEMPORARY
        self._low_water_bytes = low_water_bytes
        self._clock = clock
        self._synced_days: set[str] = set()
        try:
            make_private_folder(self._temporary)
            folder.chmod(FOLDER_MODE)
            self._sync_folder(folder)
            self._sync_folder(folder.parent)
        except OSError as error:
            raise SpoolError(f"{folder}: cannot be used as spool: {error.strerror}") from error

    def begin(self, sop_class_uid: str, sop_instance_uid: str, origin: Origin) -> Incoming:
        """Return a file for a dataset that is about to come: somebody must `keep` or discard it.

        Its `write` may also raise SpoolFullError.

        Raises:
            SpoolFullError: too little space is left.
            SpoolError: the file cannot be written.
        """
        day = _path(self._clock(), origin.priority).parent
        try:
            self._require_space()
            self._require_day(day)
            return Incoming(
                self._temporary / f"{secrets.token_hex(16)}.dcm",
                encode_head(sop_class_uid, sop_instance_uid, origin),
                require_space=self._require_space,
            )
        except OSError as error:
            self._synced_days.discard(day.name)
            raise SpoolError(f"file not stored: {error.strerror}") from error

    def keep(self, incoming: Incoming, inspected: Inspected, origin: Origin) -> ReceivedInstance:
        """Make a file of the spool out of what has come; after the return, it survives a power cut.

        Raises:
            SpoolFullError: too little space is left.
            SpoolError: the file could not be stored; nothing of it remains.
        """
        received_at = self._clock()
        path = _path(received_at, origin.priority)
        try:
            self._require_space()
            with incoming.dataset() as dataset:
                received = describe(
                    dataset,
                    inspected,
                    origin,
                    sha256=incoming.sha256,
                    spool_path=str(path),
                    received_at=received_at,
                )
            incoming.sync(self._sync_file)
            self._move_into_day(incoming.path, path)
        except OSError as error:
            self._synced_days.discard(path.parent.name)  # somebody may have removed the folder
            raise SpoolError(f"file not stored: {error.strerror}") from error
        finally:
            incoming.discard()  # closes it, and finds nothing to remove where it was moved
        return received

    def has_space(self) -> bool:
        """Return whether there is room for any file."""
        try:
            self._require_space()
        except (SpoolFullError, OSError):
            return False
        return True

    def sweep(self) -> int:
        """Remove the unfinished files of earlier processes; return their number."""
        return sum(_remove_if_abandoned(path) for path in self._temporary.iterdir())

    def paths(self, since: date | None = None) -> Iterator[str]:
        """Yield the finished files, oldest first; with `since`, folders of earlier days (UTC) are not read."""
        days = sorted(entry.name for entry in self._folder.iterdir() if _DAY.fullmatch(entry.name))
        for day in days:
            if since is None or day >= since.isoformat():
                with contextlib.suppress(FileNotFoundError):  # removed since it was listed
                    names = sorted(entry.name for entry in (self._folder / day).iterdir())
                    yield from (f"{day}/{name}" for name in names if _NAME.fullmatch(name))

    def read(self, path: str) -> ReceivedInstance:
        """Return the same value that `write` returned for this file, from the file alone.

        Raises:
            SpoolFileGoneError: the file is gone.
            SpoolError: the file cannot be read, or is not as the spool wrote it.
        """
        place = self._place(path)
        try:
            with place.file.open("rb", buffering=0) as file, mapped(file) as content:
                head = decode_head(content)
                dataset = content[head.offset :]
                return describe(
                    dataset,
                    inspect(dataset, head.transfer_syntax),
                    head.origin(place.priority),
                    sha256=hashlib.sha256(dataset).hexdigest(),
                    spool_path=path,
                    received_at=place.received_at,
                )
        except FileNotFoundError as error:
            raise SpoolFileGoneError(f"{path}: is gone") from error
        except OSError as error:
            raise SpoolError(f"{path}: cannot be read: {error.strerror}") from error
        except DamagedError as error:
            raise SpoolError(f"{path}: is damaged: {error}") from error

    def received_at(self, path: str) -> datetime:
        """Return the instant of reception, which the file's name holds."""
        return self._place(path).received_at

    def digest(self, path: str) -> str:
        """Return the SHA-256 of the whole file, whatever its contents; "" if it cannot be read."""
        try:
            with self._place(path).file.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return ""

    def remove(self, path: str) -> None:
        """Remove a file if it exists, and its day's folder once that is empty and past.

        Raises:
            SpoolError: the file cannot be removed.
        """
        place = self._place(path)
        try:
            place.file.unlink(missing_ok=True)
        except OSError as error:
            raise SpoolError(f"{path}: cannot be removed: {error.strerror}") from error
        if place.received_at < self._clock() - _PAST:
            with contextlib.suppress(OSError):  # not empty
                place.file.parent.rmdir()

    def remove_for_good(self, paths: Collection[str]) -> None:
        """Remove files so that a power cut cannot bring any of them back; missing files are ignored.

        Raises:
            SpoolError: a file cannot be removed.
        """
        for path in paths:
            self.remove(path)
        for day in {self._place(path).file.parent for path in paths}:
            try:
                self._sync_folder(day if day.exists() else self._folder)
            except FileNotFoundError:
                self._sync_folder(self._folder)  # the day's folder has gone meanwhile
            except OSError as error:
                raise SpoolError(f"{day.name}: cannot be synced: {error.strerror}") from error

    def remove_empty_days(self) -> None:
        """Remove the empty folders of past days."""
        last = (self._clock() - _PAST).date().isoformat()
        for entry in list(self._folder.iterdir()):
            if _DAY.fullmatch(entry.name) and entry.name < last:
                with contextlib.suppress(OSError):  # not empty
                    entry.rmdir()

    def _require_space(self) -> None:
        if shutil.disk_usage(self._folder).free < self._low_water_bytes:
            raise SpoolFullError("disk is full")

    def _require_day(self, day: Path) -> None:
        if day.name not in self._synced_days:
            make_private_folder(self._folder / day)
            self._sync_folder(self._folder)
            self._synced_days.add(day.name)

    def _move_into_day(self, temporary: Path, path: Path) -> None:
        self._require_day(path.parent)
        finished = self._folder / path
        try:
            try:
                temporary.rename(finished)
            except FileNotFoundError:  # the clock was set back, and the empty folder had been removed as past
                self._synced_days.discard(path.parent.name)
                self._require_day(path.parent)
                temporary.rename(finished)
            self._sync_folder(finished.parent)
        except OSError:
            with contextlib.suppress(OSError):
                finished.unlink()
            raise

    def _sync_file(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def _sync_folder(self, folder: Path) -> None:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _path(received_at: datetime, priority: Priority) -> Path:
    at = received_at.astimezone(UTC)
    return Path(f"{at:%Y-%m-%d}", f"{at:%H%M%S.%f}Z-{secrets.token_hex(8)}-{priority.name.lower()}.dcm")


def _remove_if_abandoned(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except OSError:  # another process is writing it, or has just finished
        return False
    return True
