"""pynetdicom's upper layer (PS3.8), made fit for a hostile network; `association` builds on it.

What differs, and why:

* a PDU has an absolute deadline and a largest length: a silent peer holds nothing for long, a loud one no memory;
* threads wait for events instead of looking around a thousand times a second, with `poll` instead of `select`;
* timers follow the monotonic clock;
* whatever a peer sends, the worst that follows is an A-ABORT.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import select
import socket
import threading
import time
from typing import Final, TypeVar

from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu import A_ABORT_RQ
from pynetdicom.pdu_primitives import A_ABORT, A_ASSOCIATE, A_P_ABORT, A_RELEASE, P_DATA
from pynetdicom.timer import Timer
from pynetdicom.transport import AssociationSocket

from scp_node.dicom.encoding import DamagedError
from scp_node.dicom.foreign import foreign_bytes

LARGEST_PDU: Final = 1 << 20  # bytes; more than any maximum that the settings allow
WAIT_SECONDS: Final = 0.25  # how often timers are looked at when nothing happens

_WAITING_STATES: Final = frozenset({"Sta2", "Sta3", "Sta6", "Sta8"})  # PS3.8 section 9.2: an open connection

_Item = TypeVar("_Item")
_AssociationPrimitive = A_ASSOCIATE | A_RELEASE | A_ABORT | A_P_ABORT

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


class SignallingQueue(queue.Queue[_Item]):
    """A queue that sets an event for whoever waits for several of them."""

    def __init__(self, filled: threading.Event) -> None:
        super().__init__()
        self._filled = filled

    def put(self, item: _Item, block: bool = True, timeout: float | None = None) -> None:  # noqa: FBT001, FBT002 - Queue's
        super().put(item, block, timeout)
        self._filled.set()


class NodeDUL(DULServiceProvider):
    """The protocol machine's thread; sleeps until the peer or the association wants something."""

    def __init__(self, assoc: Association, activity: threading.Event) -> None:
        super().__init__(assoc)
        self._activity = activity  # set when the association has something to look at
        self.to_user_queue = SignallingQueue(activity)
        self._idle_timer = MonotonicTimer(60)
        self.artim_timer = MonotonicTimer(30)
        self._was_open = False
        self.was_idle = False  # the association was given up because nothing came
        self.daemon = True  # a connection does not keep the process
        self._wake, self._woken = socket.socketpair()
        self._woken.setblocking(False)  # noqa: FBT003 - socket's own signature

    def send_pdu(self, primitive: _AssociationPrimitive | P_DATA) -> None:
        """Queue a primitive and wake the thread for it."""
        super().send_pdu(primitive)
        self._rouse()

    def receive_pdu(
        self,
        wait: bool = False,  # noqa: FBT001, FBT002 - as in the base class
        timeout: float | None = None,
    ) -> _AssociationPrimitive | None:
        """Return the next primitive; None when nothing comes in time, or the connection is over."""
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
            with foreign_bytes(as_=lambda error: DamagedError(type(error).__name__)):
                super().run_reactor()
        except DamagedError as error:
            log.warning("association broken error=%s", error)
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
