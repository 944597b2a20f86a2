"""pynetdicom's message exchange (PS3.7), made fit for a hostile network: a message has a largest size."""

from __future__ import annotations

import io
import threading
import time
from typing import Any, Final

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dimse_primitives import C_CANCEL, DimseServiceType
from pynetdicom.pdu_primitives import P_DATA

from scp_node.listener.transfers import Cut, cut_message
from scp_node.listener.upper_layer import WAIT_SECONDS, SignallingQueue

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

    @property
    def endless(self) -> bool:
        """Whether it is time to stop listening to this peer."""
        return self.received > 2 * self._limit

    def write(self, data: Any, /) -> int:  # Any: what the base takes has a name from Python 3.12 on, Buffer
        """Append, or count only."""
        self.received += len(data)
        if not self.overflowed:
            return super().write(data)
        self.seek(0)
        self.truncate()
        return len(data)


def content_of(received: io.BytesIO | None) -> memoryview | None:
    """Return the dataset of a message that `NodeDIMSE` put together; None where it was larger than allowed."""
    if not isinstance(received, BoundedBuffer):
        raise TypeError("message was put together by something else")
    return received.content


class NodeDIMSE(DIMSEServiceProvider):
    """Puts messages together; one that is too large is counted, not kept."""

    def __init__(self, assoc: Association, activity: threading.Event, *, largest_dataset: int) -> None:
        super().__init__(assoc)
        self._activity = activity
        self._largest_dataset = largest_dataset
        self.msg_queue = SignallingQueue(activity)
        self.message_began = 0.0  # monotonic; of the newest message

    @property
    def cut(self) -> Cut | None:
        """The message that has begun and not ended, as far as it came; only once the connection is over."""
        if (message := self.message) is None:
            return None
        context = self.assoc._accepted_cx.get(message.context_id or 0)  # noqa: SLF001 - as elsewhere, a seam
        syntax = str(context.transfer_syntax[0]) if context else ""
        return cut_message(message, self.message_began, syntax)

    @property
    def busy(self) -> bool:
        """Whether a message is on its way in or not yet answered."""
        return self.message is not None or self.msg_queue.unfinished_tasks > 0

    @property
    def has_unserved(self) -> bool:
        """Whether a whole request waits: when the connection is over, pynetdicom queues an empty one."""
        return any(request is not None for _, request in list(self.msg_queue.queue))

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Add a part to the current message, and queue the message once it is complete.

        pynetdicom's starts a thread for each N-EVENT-REPORT: here it waits its turn like any other request.
        """
        if self.message is None:
            self.message = DIMSEMessage()
            self.message_began = time.monotonic()
            self._buffers = BoundedBuffer(LARGEST_COMMAND), BoundedBuffer(self._largest_dataset)
            self.message.encoded_command_set, self.message.data_set = self._buffers
        is_complete = self.message.decode_msg(primitive, self.assoc)
        command, dataset = self._buffers
        if command.overflowed or dataset.endless:
            raise ValueError("message without an end")
        if is_complete:
            request = self.message.message_to_primitive()
            if not isinstance(request, C_CANCEL):  # nothing here takes long enough to be cancelled
                self.msg_queue.put((self.message.context_id or 0, request))
            self.message = None

    def get_msg(self, block: bool = False) -> _QueuedMessage:  # noqa: FBT001, FBT002 - as in the base class
        """Return the next message and its context, after a wait for something to happen."""
        if not block and self.msg_queue.empty() and self.dul.peek_next_pdu() is None:
            self._activity.wait(WAIT_SECONDS)
            self._activity.clear()
        return super().get_msg(block)
