"""pynetdicom's message exchange (PS3.7), made fit for a hostile network: no dataset of an image is held in memory."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ, DIMSEMessage
from pynetdicom.dimse_primitives import C_CANCEL, C_STORE, DimseServiceType
from pynetdicom.pdu_primitives import P_DATA

from scp_node.dicom.encoding import DamagedError
from scp_node.dicom.foreign import foreign_bytes
from scp_node.domain import LARGEST_REPORT
from scp_node.incoming import Incoming
from scp_node.listener.faults import attempt
from scp_node.listener.store import LARGEST_HEADER, Missing
from scp_node.listener.transfers import Cut, cut_dataset
from scp_node.listener.upper_layer import WAIT_SECONDS, SignallingQueue
from scp_node.spool import SpoolError

LEAST_RATE: Final = 1_000  # bytes a second; a telephone line of 1990 has more
_USUAL_TIMEOUT: Final = 30.0  # seconds
_RESPONSE: Final = 0x8000  # in a Command Field, PS3.7 section E.1
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


class NodeDIMSE(DIMSEServiceProvider):
    """Puts messages together, one at a time."""

    def __init__(
        self,
        assoc: Association,
        activity: threading.Event,
        *,
        largest_dataset: int,
        begin: Callable[[int, C_STORE], Incoming | None],
    ) -> None:
        """Ask `begin` for a file, with the ID of the presentation context and the request whose dataset begins."""
        super().__init__(assoc)
        self._activity = activity
        self._largest_dataset = largest_dataset
        self._begin = begin
        self._writing = threading.Lock()  # held while a part of a message is taken
        self._is_over = False
        self._command = BoundedBuffer(LARGEST_COMMAND)  # of the current message
        self._request: C_STORE | None = None  # of the current message, from the first bytes of its dataset on
        self.msg_queue = SignallingQueue(activity)
        self.message_began = 0.0  # monotonic; of the newest message
        self._moved = 0.0  # monotonic; when a part of it came

    @property
    def cut(self) -> Cut | None:
        """The message that has begun and not ended, as far as it came; only once the connection is over."""
        if (message := self.message) is None:
            return None
        context = self.assoc._accepted_cx.get(message.context_id or 0)  # noqa: SLF001 - as elsewhere, a seam
        syntax = str(context.transfer_syntax[0]) if context else ""
        if not isinstance(message, C_STORE_RQ) or not isinstance(message.data_set, ReceivedDataset):
            return Cut(self.message_began, "", "")  # no more than its command has come
        uid = str(message.command_set.get("AffectedSOPInstanceUID", ""))
        return cut_dataset(message.data_set.beginning(LARGEST_HEADER), uid, syntax, began=self.message_began)

    @property
    def busy(self) -> bool:
        """Whether a message is on its way in or not yet answered."""
        return self.message is not None or self.is_serving

    @property
    def is_late(self) -> bool:
        """Whether the message on its way has stood still for the DIMSE time-out, or is slower than `LEAST_RATE`."""
        if (message := self.message) is None or self.is_serving:
            return False
        now, patience = time.monotonic(), self.assoc.dimse_timeout or _USUAL_TIMEOUT
        if now - self._moved > patience:
            return True
        came = message.data_set.received if isinstance(message.data_set, ReceivedDataset) else 0
        return now - self.message_began > patience + came / LEAST_RATE

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
        if (message := self.message) is None:
            self.message = message = DIMSEMessage()
            self._request = None
            self.message_began = time.monotonic()
            message.encoded_command_set = self._command = BoundedBuffer(LARGEST_COMMAND)
            message.data_set = ReceivedDataset(self._largest_dataset, partial(self._file_for, message))
        dataset = received_by(message.data_set)
        is_complete = message.decode_msg(primitive, self.assoc)
        if self._command.overflowed or dataset.endless:
            raise DamagedError("message without an end")
        if is_complete:
            if int(message.command_set.CommandField) & _RESPONSE:
                raise DamagedError("response to no request")  # pynetdicom hands it on as a request
            request = self._request or message.message_to_primitive()
            if isinstance(request, C_CANCEL):  # nothing here takes long enough to be cancelled
                dataset.discard()
            else:
                self.msg_queue.put((message.context_id or 0, request))
            self.message = None

    def _file_for(self, message: DIMSEMessage) -> Incoming | None:
        """Return a file for the dataset of a C-STORE request; None for another one, or a command that is damaged."""
        if not isinstance(message, C_STORE_RQ):
            return None
        try:
            with foreign_bytes(as_=lambda error: DamagedError(type(error).__name__)):
                request = message.message_to_primitive()
        except DamagedError:  # the association is aborted once the message is complete
            return None
        if not isinstance(request, C_STORE):
            raise TypeError("message of a C-STORE request gives another primitive")
        self._request = request
        return self._begin(message.context_id or 0, request)

    def give_back(self) -> None:
        """Remove every dataset that was not stored, and take no more of them."""
        with self._writing:
            self._is_over = True
            waiting = [request for _, request in list(self.msg_queue.queue) if isinstance(request, C_STORE)]
            for dataset in (self.message.data_set if self.message else None, *(each.DataSet for each in waiting)):
                if isinstance(dataset, ReceivedDataset):
                    dataset.discard()
            self.message = None

    def get_msg(self, block: bool = False) -> _QueuedMessage:  # noqa: FBT001, FBT002 - as in the base class
        """Return the next message and its context, after a wait for something to happen."""
        if not block and self.msg_queue.empty() and self.dul.peek_next_pdu() is None:
            self._activity.wait(WAIT_SECONDS)
            self._activity.clear()
        return super().get_msg(block)
