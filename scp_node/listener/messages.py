"""pynetdicom's message exchange (PS3.7), made fit for a hostile network: no dataset of an image is held in memory."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ, DIMSEMessage
from pynetdicom.dimse_primitives import C_CANCEL, C_STORE, DimsePrimitiveType, DimseServiceType
from pynetdicom.pdu_primitives import P_DATA

from scp_node.dicom.encoding import DamagedError
from scp_node.dicom.foreign import foreign_bytes
from scp_node.domain import LARGEST_REPORT
from scp_node.incoming import Incoming
from scp_node.listener.commands import store_request
from scp_node.listener.faults import attempt
from scp_node.listener.store import LARGEST_HEADER, Missing
from scp_node.listener.transfers import Cut, cut_dataset
from scp_node.listener.upper_layer import WAIT_SECONDS, NodeDUL, SignallingQueue
from scp_node.spool import SpoolError

LEAST_RATE: Final = 1_000  # bytes a second; a telephone line of 1990 has more
_USUAL_TIMEOUT: Final = 30.0  # seconds
_RESPONSE: Final = 0x8000  # in a Command Field, PS3.7 section E.1
_COMMAND: Final = 0x01  # bits of a message control header, PS3.8 section E.2
_LAST: Final = 0x02
_VALUE_HEADER_BYTES: Final = 6  # before the data of a presentation data value: length, context, control header
LARGEST_COMMAND: Final = 1 << 16  # bytes; a C-STORE command has some 200

_QueuedMessage = tuple[None, None] | tuple[int, DimseServiceType]  # with the ID of its presentation context


class BoundedBuffer(io.BytesIO):
    """A buffer that forgets everything once more than `limit` bytes were written to it."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit
        self.received = 0  # bytes

    @property
    def overflowed(self) -> bool:
        """Whether more than the limit was written."""
        return self.received > self._limit

    @property
    def content(self) -> memoryview | None:
        """What was written; None where it was more than the limit."""
        return None if self.overflowed else self.getbuffer()

    def write(self, data: Any, /) -> int:  # Any: what the base takes has a name from Python 3.12 on, Buffer
        """Append, or count only."""
        self.received += len(data)
        if not self.overflowed:
            return super().write(data)
        self.seek(0)
        self.truncate()
        return len(data)


class ReceivedDataset(BoundedBuffer):
    """The dataset of a message: that of a C-STORE goes to the disk as it comes, another one stays in memory.

    What is larger than allowed, or cannot be written, is thrown away at once; the rest of it is only counted.
    """

    def __init__(self, largest: int, begin: Callable[[], Incoming | None]) -> None:
        """Ask `begin` for a file when the first bytes come: None leaves the dataset in memory, if it is small."""
        super().__init__(LARGEST_REPORT)
        self._largest = largest
        self._begin = begin
        self._has_begun = False
        self.stored: Incoming | None = None
        self.missing: Missing | None = Missing.NOT_SENT  # why there is no file

    @property
    def endless(self) -> bool:
        """Whether it is time to stop listening to this peer."""
        return self.received > 2 * self._largest

    def write(self, data: Any, /) -> int:
        """Append to the file or to the memory, or count only."""
        if not self._has_begun:
            self._has_begun = True
            self._store(self._open)
        if self.stored is None:
            return super().write(data)
        self.received += len(data)
        if self.received > self._largest:
            self._throw_away(Missing.TOO_LARGE)
        else:
            self._store(partial(self.stored.write, data))
        return len(data)

    def beginning(self, size: int) -> bytes:
        """Return the first bytes, at most `size`, of what is not thrown away."""
        return self.stored.beginning(size) if self.stored else bytes(self.getbuffer()[:size])

    def discard(self) -> None:
        """Remove the file, unless it was kept."""
        if self.stored:
            self._throw_away(Missing.NOT_SENT)

    def _open(self) -> None:
        self.stored = self._begin()
        self.missing = None if self.stored else Missing.NOT_SENT

    def _store(self, step: Callable[[], None]) -> None:
        def carried_out() -> bool:
            try:
                step()
            except OSError as error:
                raise SpoolError(f"file not stored: {error.strerror}") from error
            return True

        if not attempt(carried_out, "spool failed"):  # whatever it was, it is not the sender's fault
            self._throw_away(Missing.NOT_WRITTEN)

    def _throw_away(self, why: Missing) -> None:
        self.missing = why
        if self.stored:
            self.stored.discard()
            self.stored = None


def received_by(dataset: io.BytesIO | None) -> ReceivedDataset:
    """Return the dataset of a message that `NodeDIMSE` put together."""
    if not isinstance(dataset, ReceivedDataset):
        raise TypeError("message was put together by something else")
    return dataset


class _Message:
    """A message on its way in: the command set first, then the dataset if there is one."""

    def __init__(self, largest_dataset: int, begin: Callable[[C_STORE, int], Incoming | None]) -> None:
        self.began = time.monotonic()
        self.context_id = 0  # once the command set has come
        self.request: DimsePrimitiveType | None = None  # the same, where a dataset follows or may
        self.dataset = ReceivedDataset(largest_dataset, self._file)
        self._command = BoundedBuffer(LARGEST_COMMAND)
        self._library: DIMSEMessage | None = None  # reads what is not of the usual form
        self._begin = begin

    def take(self, primitive: P_DATA) -> bool:
        """Add a part, and return whether the message is complete.

        Raises:
            DamagedError: it has no end. What pynetdicom raises comes through.
        """
        for context_id, value in primitive.presentation_data_value_list:
            header = value[0]
            if header & _COMMAND:
                self._command.write(value[1:])
                is_complete = bool(header & _LAST) and self._read_command(context_id)
            else:
                self.dataset.write(value[1:])
                is_complete = bool(header & _LAST)
            if self._command.overflowed or self.dataset.endless:
                raise DamagedError("message without an end")
            if is_complete:
                return True
        return False

    def whole(self) -> DimsePrimitiveType:
        """Return the request, once it is complete.

        Raises:
            DamagedError: it is a response. What pynetdicom raises comes through.
        """
        if self.request is not None:
            return self.request
        if self._library is None:
            raise DamagedError("dataset without a command set")
        if int(self._library.command_set.CommandField) & _RESPONSE:
            raise DamagedError("response to no request")  # pynetdicom hands it on as a request
        return self._library.message_to_primitive()

    def _read_command(self, context_id: int) -> bool:
        """Read the command set, and return whether the message ends with it."""
        self.context_id = context_id
        command = bytes(self._command.content or b"")
        if (request := store_request(command)) is not None:
            request.DataSet = self.dataset
            self.request = request
            return False
        self.request, self._library = None, DIMSEMessage()
        self._library.data_set = self.dataset
        whole = P_DATA()
        whole.presentation_data_value_list.append((context_id, bytes([_COMMAND | _LAST]) + command))
        is_complete = self._library.decode_msg(whole)
        if isinstance(self._library, C_STORE_RQ):
            with suppress(DamagedError), foreign_bytes(as_=lambda error: DamagedError(type(error).__name__)):
                self.request = self._library.message_to_primitive()  # else `whole` raises, once its dataset has come
        return is_complete

    def _file(self) -> Incoming | None:
        return self._begin(self.request, self.context_id) if isinstance(self.request, C_STORE) else None


class NodeDIMSE(DIMSEServiceProvider):
    """Puts messages together, one at a time."""

    dul: NodeDUL

    def __init__(
        self,
        assoc: Association,
        activity: threading.Event,
        *,
        largest_dataset: int,
        begin: Callable[[C_STORE, int], Incoming | None],
    ) -> None:
        """Ask `begin` for a file for the dataset of a request in a presentation context."""
        super().__init__(assoc)
        self._activity = activity
        self._largest_dataset = largest_dataset
        self._begin = begin
        self._writing = threading.Lock()  # held while a part of a message is taken
        self._is_over = False
        self._current: _Message | None = None
        self.msg_queue = SignallingQueue(activity)
        self._moved = 0.0  # monotonic; when a part of it came

    @property
    def cut(self) -> Cut | None:
        """The message that has begun and not ended, as far as it came; only once the connection is over."""
        if (message := self._current) is None:
            return None
        context = self.assoc._accepted_cx.get(message.context_id)  # noqa: SLF001 - as elsewhere, a seam
        syntax = str(context.transfer_syntax[0]) if context else ""
        if not isinstance(message.request, C_STORE):
            return Cut(message.began, "", "")  # no more than its command has come
        uid = str(message.request.AffectedSOPInstanceUID or "")
        return cut_dataset(message.dataset.beginning(LARGEST_HEADER), uid, syntax, began=message.began)

    @property
    def busy(self) -> bool:
        """Whether a message is on its way in or not yet answered."""
        return self._current is not None or self.is_serving

    @property
    def is_late(self) -> bool:
        """Whether the message on its way has stood still for the DIMSE time-out, or is slower than `LEAST_RATE`."""
        if (message := self._current) is None or self.is_serving:
            return False
        now, patience = time.monotonic(), self.assoc.dimse_timeout or _USUAL_TIMEOUT
        if now - self._moved > patience:
            return True
        return now - message.began > patience + message.dataset.received / LEAST_RATE

    @property
    def is_serving(self) -> bool:
        """Whether a request is not yet answered: until it is, nothing more is read."""
        return self.msg_queue.unfinished_tasks > 0

    @property
    def has_unserved(self) -> bool:
        """Whether a whole request waits: when the connection is over, pynetdicom queues an empty one."""
        return any(request is not None for _, request in list(self.msg_queue.queue))

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Add a part to the current message, and queue the message once it is complete.

        pynetdicom's starts a thread for each N-EVENT-REPORT: here it waits its turn like any other request.
        """
        with self._writing:
            self._moved = time.monotonic()
            if not self._is_over:
                self._take(primitive)

    def _take(self, primitive: P_DATA) -> None:
        if (message := self._current) is None:
            self._current = message = _Message(self._largest_dataset, self._begin)
        if message.take(primitive):
            request = message.whole()
            if isinstance(request, C_CANCEL):  # nothing here takes long enough to be cancelled
                message.dataset.discard()
            else:
                self.msg_queue.put((message.context_id, request))
            self._current = None

    def give_back(self) -> None:
        """Remove every dataset that was not stored, and take no more of them."""
        with self._writing:
            self._is_over = True
            waiting = [request for _, request in list(self.msg_queue.queue) if isinstance(request, C_STORE)]
            for dataset in (self._current.dataset if self._current else None, *(each.DataSet for each in waiting)):
                if isinstance(dataset, ReceivedDataset):
                    dataset.discard()
            self._current = None

    def send_command(self, command: bytes, context_id: int) -> None:
        """Send a message that is a command set alone, in as many fragments as the requestor's limit asks for."""
        size = max(0, self.maximum_pdu_size - _VALUE_HEADER_BYTES) or len(command)
        for begin in range(0, len(command), size):
            header = (_COMMAND | _LAST) if begin + size >= len(command) else _COMMAND
            self.dul.send_value(context_id, bytes([header]) + command[begin : begin + size])

    def get_msg(self, block: bool = False) -> _QueuedMessage:  # noqa: FBT001, FBT002 - as in the base class
        """Return the next message and its context, after a wait for something to happen."""
        if not block and self.msg_queue.empty() and self.dul.peek_next_pdu() is None:
            self._activity.wait(WAIT_SECONDS)
            self._activity.clear()
        return super().get_msg(block)
