"""pynetdicom's upper layer (PS3.8), made fit for a hostile network; `association` builds on it.

What differs, and why:

* a PDU has an absolute deadline and a largest length: a silent peer holds nothing for long, a loud one no memory;
* a message has a largest size and is thrown away beyond it;
* threads wait for events instead of looking around a thousand times a second, with `poll` instead of `select`;
* timers follow the monotonic clock;
* whatever a peer sends, the worst that follows is an A-ABORT.
"""

from __future__ import annotations

import contextlib
import io
import logging
import queue
import select
import socket
import threading
import time
from typing import Any, Final

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dimse_primitives import C_CANCEL
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu import A_ABORT_RQ
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.timer import Timer
from pynetdicom.transport import AssociationSocket

from scp_node.listener.transfers import Cut, cut_store

LARGEST_PDU: Final = 1 << 20  # bytes; more than any maximum that the settings allow
LARGEST_COMMAND: Final = 1 << 16  # bytes; a C-STORE command has some 200
WAIT_SECONDS: Final = 0.25  # how often timers are looked at when nothing happens

_WAITING_STATES: Final = frozenset({"Sta2", "Sta3", "Sta6", "Sta8"})  # PS3.8 section 9.2: an open connection

log = logging.getLogger(__name__)


class MonotonicTimer(Timer):
    """A timer that a change of the wall clock does not touch."""

    def start(self) -> None:
        """Start, or start again."""
        self._start_time = time.monotonic()
        self._end_time = None

    def stop(self) -> None:
        """Stop the timer."""
        self._end_time = time.monotonic()

    @property
    def remaining(self) -> float:
        """Seconds until it expires; 1 if it never does."""
        if self.timeout is None:
            return 1
        if self._start_time is None:
            return self.timeout
        end = time.monotonic() if self._end_time is None else self._end_time
        return self.timeout - (end - self._start_time)


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
    def endless(self) -> bool:
        """Whether it is time to stop listening to this peer."""
        return self.received > 2 * self._limit

    def write(self, data: Any, /) -> int:
        """Append, or count only."""
        self.received += len(data)
        if not self.overflowed:
            return super().write(data)
        self.seek(0)
        self.truncate()
        return len(data)


class NodeSocket(AssociationSocket):
    """A socket whose reads have an absolute deadline and a largest size."""

    @property
    def ready(self) -> bool:
        """Whether a read would not block; `select` cannot say it above 1,024 descriptors."""
        return self.wait(0)

    def wait(self, seconds: float, also: socket.socket | None = None) -> bool:
        """Wait until there is something to read, or `also` has; return whether there is."""
        if self.socket is None or not self._is_connected:
            return False
        try:
            poller = select.poll()
            descriptor = self.socket.fileno()
            poller.register(descriptor, select.POLLIN)
            if also is not None:
                poller.register(also.fileno(), select.POLLIN)
            return any(ready == descriptor for ready, _ in poller.poll(seconds * 1000))
        except (OSError, ValueError):  # closed by another thread
            self.event_queue.put("Evt17")
            return False

    def recv(self, nr_bytes: int) -> bytearray:
        """Return that many bytes, or fewer at the end of the connection.

        Raises:
            OSError: they are too many, or did not come in time.
        """
        if nr_bytes > LARGEST_PDU:
            raise OSError("PDU is longer than allowed")
        if (connection := self.socket) is None:
            raise OSError("connection is closed")
        seconds = self.assoc.dimse_timeout or 30
        deadline = time.monotonic() + seconds
        received, data = 0, bytearray(nr_bytes)
        view = memoryview(data)
        while received < nr_bytes:
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
            count = connection.recv_into(view[received:])
            if count == 0:
                return data[:received]
            received += count
        connection.settimeout(seconds)  # for sends
        return data


class _SignallingQueue(queue.Queue[Any]):
    def __init__(self, filled: threading.Event) -> None:
        super().__init__()
        self._filled = filled

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: FBT001, FBT002 - Queue's
        super().put(item, block, timeout)
        self._filled.set()


class NodeDUL(DULServiceProvider):
    """The protocol machine's thread; sleeps until the peer or the association wants something."""

    def __init__(self, assoc: Association, activity: threading.Event) -> None:
        super().__init__(assoc)
        self._activity = activity  # set when the association has something to look at
        self.to_user_queue = _SignallingQueue(activity)
        self._idle_timer = MonotonicTimer(60)
        self.artim_timer = MonotonicTimer(30)
        self._was_open = False
        self.was_idle = False  # the association was given up because nothing came
        self.daemon = True  # a connection does not keep the process
        self._wake, self._woken = socket.socketpair()
        self._woken.setblocking(False)  # noqa: FBT003 - socket's own signature

    def send_pdu(self, primitive: Any) -> None:
        """Queue a primitive and wake the thread for it."""
        super().send_pdu(primitive)
        self._rouse()

    def receive_pdu(self, wait: bool = False, timeout: float | None = None) -> Any:  # noqa: FBT001, FBT002 - the base's
        """Return the next primitive; None when there is none, none comes in time, or the connection is over."""
        deadline = time.monotonic() + (timeout or 0)
        primitive = super().receive_pdu(wait=False)
        while wait and primitive is None and not self._is_over and (left := deadline - time.monotonic()) > 0:
            primitive = super().receive_pdu(wait=True, timeout=min(left, WAIT_SECONDS))
        return primitive

    def idle_timer_expired(self) -> bool:
        """Return whether nothing came for the network time-out: the association is then given up."""
        self.was_idle = self.was_idle or super().idle_timer_expired()
        return self.was_idle

    def kill_dul(self) -> None:
        """End the thread."""
        super().kill_dul()
        self._rouse()

    def run_reactor(self) -> None:
        """Run the protocol machine; what it cannot digest ends in an A-ABORT."""
        try:
            super().run_reactor()
        except Exception as error:  # noqa: BLE001 - any input of a peer; its text may be in the message
            log.warning("association broken error=%s", type(error).__name__)
            self._abort_now()
        finally:
            self._activity.set()
            self._wake.close()
            self._woken.close()

    def _abort_now(self) -> None:
        abort = A_ABORT_RQ()
        abort.source = 0x02  # the service provider, PS3.8 Table 9-26
        abort.reason_diagnostic = 0x00
        if self.socket is not None and self.socket.socket is not None:
            with contextlib.suppress(OSError):
                self.socket.socket.sendall(abort.encode())
            self.socket.close()
        self.assoc.is_aborted = True
        self.assoc.is_established = False

    def _rouse(self) -> None:
        with contextlib.suppress(OSError):  # the thread has ended
            self._wake.send(b"\0")

    @property
    def _is_over(self) -> bool:
        return self._was_open and self.state_machine.current_state == "Sta1"

    def _is_transport_event(self) -> bool:
        self._was_open = self._was_open or self.state_machine.current_state in _WAITING_STATES
        if self.state_machine.current_state not in _WAITING_STATES or not self.event_queue.empty():
            return super()._is_transport_event()
        if isinstance(self.socket, NodeSocket) and self.socket.wait(WAIT_SECONDS, self._woken):
            return super()._is_transport_event()
        with contextlib.suppress(OSError):
            self._woken.recv(64)
        return self._process_recv_primitive()


class NodeDIMSE(DIMSEServiceProvider):
    """Puts messages together; one that is too large is counted, not kept."""

    def __init__(self, assoc: Association, activity: threading.Event, *, largest_dataset: int) -> None:
        super().__init__(assoc)
        self._activity = activity
        self._largest_dataset = largest_dataset
        self.msg_queue = _SignallingQueue(activity)
        self.message_began = 0.0  # monotonic; of the newest message

    @property
    def cut(self) -> Cut | None:
        """What is known of a message that has begun and not ended; only once the connection is over."""
        if (message := self.message) is None:
            return None
        context = self.assoc._accepted_cx.get(message.context_id or 0)  # noqa: SLF001 - as elsewhere, a seam
        syntax = str(context.transfer_syntax[0]) if context else ""
        return cut_store(message, self.message_began, syntax)

    @property
    def busy(self) -> bool:
        """Whether a message is on its way in or not yet answered."""
        return self.message is not None or self.msg_queue.unfinished_tasks > 0

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Add what has come to the current message, and queue it when it is complete.

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

    def get_msg(self, block: bool = False) -> Any:  # noqa: FBT001, FBT002 - as in the base class
        """Return the next message and its context, after a wait for something to happen."""
        if not block and self.msg_queue.empty() and self.dul.peek_next_pdu() is None:
            self._activity.wait(WAIT_SECONDS)
            self._activity.clear()
        return super().get_msg(block)
