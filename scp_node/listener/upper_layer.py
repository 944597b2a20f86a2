"""pynetdicom's upper layer (PS3.8), made fit for a hostile network; `association` builds on it.

What differs, and why:

* a PDU has an absolute deadline and a largest length: a silent peer holds nothing for long, a loud one no memory;
* threads wait for events instead of looking around a thousand times a second, with `poll` instead of `select`;
* timers follow the monotonic clock;
* whatever a peer sends, the worst that follows is an A-ABORT, and the log says why.
"""

from __future__ import annotations

import contextlib
import queue
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from enum import Enum, auto
from typing import Final, TypeVar

from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import TRANSITION_TABLE, StateMachine
from pynetdicom.pdu import A_ABORT_RQ, _PDUType
from pynetdicom.pdu_primitives import A_ABORT, A_ASSOCIATE, A_P_ABORT, A_RELEASE, P_DATA
from pynetdicom.timer import Timer
from pynetdicom.transport import AssociationSocket
from structlog.contextvars import bind_contextvars

from scp_node.dicom.encoding import DamagedError
from scp_node.dicom.foreign import foreign_bytes
from scp_node.listener.connections import SPEAKS_TLS, UNKNOWN_CALLER, UNKNOWN_PDU
from scp_node.listener.policy import plain_address
from scp_node.listener.request import ASSOCIATE_RQ, Stated, read_request
from scp_node.listener.text import escaped
from scp_node.runtime.repeated import RepeatedLines
from scp_node.tls.sockets import TlsSocket, is_client_hello, tls_reason

LARGEST_REQUEST: Final = 1 << 17  # bytes; 128 presentation contexts with 20 transfer syntaxes each have 70,000
MOST_VALUES: Final = 1_024  # presentation data values in a PDU; a sender that fills it up has one
WAIT_SECONDS: Final = 0.25  # how often timers are looked at when nothing happens
LONG_WAIT_SECONDS: Final = 1.0  # the same before the association request: hundreds of connections may never send one

SERVICE_USER: Final = 0x00  # source of an A-ABORT, PS3.8 Table 9-26
SERVICE_PROVIDER: Final = 0x02

_LOOP_SECONDS: Final = 0.001
_EXCESS: Final = 12  # bytes by which a sender may miscount: PS3.8 Annex D counts without the header of the PDU
_VALUE_HEADER: Final = struct.Struct(">L")  # PS3.8 section 9.3.5.1: the length of what follows
_PDU_HEADER: Final = struct.Struct(">BxL")  # type and length
_HEADER_BYTES: Final = _PDU_HEADER.size
_P_DATA: Final = 0x04
_NO_CONNECTION: Final = "Sta1"
_REQUEST_AWAITED: Final = "Sta2"
_DATA_TRANSFER: Final = "Sta6"
_NODE_ABORTS: Final = "Evt15"
_TOO_LATE: Final = "Evt18"
_BAD_PDU: Final = "Evt19"
_WAITING_STATES: Final = frozenset({"Sta2", "Sta3", "Sta6", "Sta8"})  # PS3.8 section 9.2: an open connection

_Item = TypeVar("_Item")
_AssociationPrimitive = A_ASSOCIATE | A_RELEASE | A_ABORT | A_P_ABORT


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


class Ending(Enum):
    """How the peer, or the line, ended an open association without a release."""

    ABORTED = auto()  # the peer sent an A-ABORT
    CLOSED = auto()  # the peer closed the connection between two PDUs
    BROKEN = auto()  # the connection ended within a PDU, or the peer broke the protocol


class NodeSocket(AssociationSocket):
    """A socket whose reads have an absolute deadline and a largest size."""

    fault = ""  # why a read ended early: not because the peer closed between two PDUs
    begins_with = b""  # the first bytes that came
    _within_pdu = False  # its header was read, and nothing more yet

    def __init__(self, assoc: Association, client_socket: socket.socket) -> None:
        super().__init__(assoc, client_socket=client_socket)
        self.opened_at = time.monotonic()
        self._sending = threading.Lock()  # one PDU at a time: the association's thread sends as well

    def send(self, bytestream: bytes) -> None:
        """Send a whole PDU."""
        with self._sending:
            super().send(bytestream)

    @property
    def ready(self) -> bool:
        """Whether a read would not block."""
        return self.wait(0)

    def wait(self, seconds: float, also: socket.socket | None = None) -> bool:
        """Wait until there is something to read, or `also` has; return whether there is."""
        if self.socket is None or not self._is_connected:
            return False
        encrypted = self.socket if isinstance(self.socket, TlsSocket) else None
        try:
            if encrypted and encrypted.has_input():
                return True
            descriptor = self.socket.fileno()
            if descriptor not in _readable(seconds, self.socket, *([] if also is None else [also])):
                return False
            return encrypted is None or encrypted.has_input()
        except (OSError, ValueError):  # closed by another thread
            self.event_queue.put("Evt17")
            return False

    def recv(self, nr_bytes: int) -> bytearray:
        """Return that many bytes, or fewer at the end of the connection.

        Raises:
            OSError: they are too many, or did not come in time.
        """
        is_awaited = isinstance(self.assoc.dul, NodeDUL) and self.assoc.dul.stated is None
        if nr_bytes > (LARGEST_REQUEST if is_awaited else (self.assoc.acceptor.maximum_length or 0) + _EXCESS):
            self.fault = "PDU is longer than allowed"
            raise OSError(self.fault)
        if (connection := self.socket) is None:
            raise OSError("connection is closed")
        seconds = self.assoc.dimse_timeout or 30
        deadline = time.monotonic() + seconds
        if is_awaited:  # the whole request, from the first moment of the connection on
            deadline = self.opened_at + (self.assoc.acse_timeout or 5)
        received, data = 0, bytearray(nr_bytes)
        view = memoryview(data)
        try:
            while received < nr_bytes:
                connection.settimeout(max(deadline - time.monotonic(), 0.001))
                count = connection.recv_into(view[received:])
                if count == 0:
                    break
                received += count
        except TimeoutError:
            self.fault = "PDU does not come to its end in time"
            raise
        except ssl.SSLError as error:
            self.fault = tls_reason(error)
            raise
        finally:
            if received < nr_bytes and (received or self._within_pdu):
                self.fault = self.fault or "connection ended within a PDU"
        self.begins_with = self.begins_with or bytes(data[: min(received, _HEADER_BYTES)])
        self._within_pdu = not self._within_pdu and nr_bytes == _HEADER_BYTES and received == nr_bytes
        connection.settimeout(seconds)  # for sends
        return data[:received]

    def _shutdown_socket(self) -> None:
        connection = self.socket
        if isinstance(connection, TlsSocket):
            connection.say_goodbye()
        super()._shutdown_socket()
        if connection is not None:
            connection.close()  # which pynetdicom leaves out where the peer was gone first


class NodeStateMachine(StateMachine):
    """Tells the upper layer of each action before it is taken (PS3.8 section 9.2.3)."""

    def __init__(self, dul: NodeDUL) -> None:
        super().__init__(dul)
        self._node_dul = dul

    def do_action(self, event: str) -> None:
        """Take the action that follows `event`."""
        self._node_dul.note_action(TRANSITION_TABLE.get((event, self.current_state), ""), event)
        super().do_action(event)
        # seconds of sleep between two events: while the connection is open the thread waits for them anyway
        self._node_dul._run_loop_delay = 0.0 if self.current_state in _WAITING_STATES else _LOOP_SECONDS  # noqa: SLF001 - a seam
        if self.current_state == _NO_CONNECTION:
            self._node_dul.wake_user()


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

    def __init__(
        self,
        assoc: Association,
        activity: threading.Event,
        lines: RepeatedLines,
        *,
        is_serving: Callable[[], bool],
        is_late: Callable[[], bool],
    ) -> None:
        """Read nothing while `is_serving`: a peer that does not wait for answers fills no queue.

        An association whose message `is_late` is ended.
        """
        super().__init__(assoc)
        self._lines = lines
        self._is_serving = is_serving
        self._is_late = is_late
        self._activity = activity  # set when the association has something to look at
        self.state_machine = NodeStateMachine(self)
        self.stated: Stated | None = None  # once the association request has come
        self.ending: Ending | None = None  # unless the association was released, or the node ended it
        self._defect = ""  # of a PDU that cannot be decoded
        self.to_user_queue = SignallingQueue(activity)
        self._idle_timer = MonotonicTimer(60)
        self.artim_timer = MonotonicTimer(30)
        self._was_open = False
        self.was_idle = False  # the association was given up because nothing came
        self.daemon = True  # a connection does not keep the process
        self.name = "ReceiverThread"
        self._wake, self._woken = socket.socketpair()
        self._woken.setblocking(False)  # noqa: FBT003 - socket's own signature

    def send_pdu(self, primitive: _AssociationPrimitive | P_DATA) -> None:
        """Queue a primitive and wake the thread for it."""
        super().send_pdu(primitive)
        self.rouse()

    def send_value(self, context_id: int, value: bytes) -> None:
        """Send one presentation data value, with its message control header.

        While data are transferred the caller's thread does it: the action DT-1 (PS3.8 Table 9-8) is no more than that.
        """
        if self.state_machine.current_state == _DATA_TRANSFER and self.socket is not None:
            length = 1 + len(value)  # with the context's ID
            header = _PDU_HEADER.pack(_P_DATA, _VALUE_HEADER.size + length) + _VALUE_HEADER.pack(length)
            self.socket.send(header + bytes([context_id]) + value)
            return
        primitive = P_DATA()
        primitive.presentation_data_value_list.append((context_id, value))
        self.send_pdu(primitive)

    def receive_pdu(
        self,
        wait: bool = False,  # noqa: FBT001, FBT002 - as in the base class
        timeout: float | None = None,
    ) -> _AssociationPrimitive | None:
        """Return the next primitive; None when nothing comes in time, or the connection is over."""
        deadline = time.monotonic() + (timeout or 0)
        primitive = super().receive_pdu(wait=False)
        while wait and primitive is None and not self._is_over and (left := deadline - time.monotonic()) > 0:
            primitive = super().receive_pdu(wait=True, timeout=min(left, LONG_WAIT_SECONDS))
        return primitive

    def wake_user(self) -> None:
        """Let `receive_pdu` see that the connection is over: None stands for nothing received."""
        self.to_user_queue.put(None)

    def idle_timer_expired(self) -> bool:
        """Return whether nothing came for the network time-out: the association is then given up."""
        self.was_idle = self.was_idle or super().idle_timer_expired()
        return self.was_idle

    def kill_dul(self) -> None:
        """End the thread."""
        super().kill_dul()
        self.rouse()

    def run_reactor(self) -> None:
        """Run the protocol machine; what it cannot digest ends in an A-ABORT."""
        bind_contextvars(peer=self._peer)  # for each line of this thread
        try:
            with foreign_bytes(as_=lambda error: DamagedError(type(error).__name__), passing=DamagedError):
                super().run_reactor()
        except DamagedError as error:
            self.warn("association aborted", f"message cannot be read: {error}")
            self._abort_now()
        finally:
            self._activity.set()
            self.forgo()

    def forgo(self) -> None:
        """Give back what wakes the thread: it has ended, or is not to begin."""
        self._wake.close()
        self._woken.close()

    def note_action(self, action: str, event: str) -> None:
        """Note how the association ends, by the name of the action (PS3.8 Tables 9-6 to 9-9) and of its event."""
        fault = self.socket.fault if isinstance(self.socket, NodeSocket) else ""
        match action:
            case "AA-8":
                self.ending = Ending.BROKEN
                self.warn("association aborted", self._reason_of(event))
            case "AA-1" if event != _NODE_ABORTS:
                self.warn("association aborted", self._reason_of(event))
            case "AA-3":
                self.ending = Ending.ABORTED
            case "AA-4":
                self.ending = Ending.BROKEN if fault else Ending.CLOSED
            case "AA-2" if event == _TOO_LATE and self.state_machine.current_state == _REQUEST_AWAITED:
                fault = fault or "no association request in time"
        if fault and action in {"AA-2", "AA-4", "AA-5"}:
            self.warn("connection ended", fault)

    def who(self) -> dict[str, str]:
        """Return the AE title and the address of the peer, for a log line."""
        return {"calling_ae": escaped(self.stated.calling_ae) if self.stated else UNKNOWN_CALLER, "peer": self._peer}

    def warn(self, event: str, reason: str) -> None:
        """Write a line that names the peer and a reason, or count it."""
        self._lines.warn(event, **self.who(), reason=reason)

    @property
    def _peer(self) -> str:
        return plain_address(self.assoc.requestor.address)

    def _reason_of(self, event: str) -> str:
        if self.stated is None and isinstance(self.socket, NodeSocket) and is_client_hello(self.socket.begins_with):
            return SPEAKS_TLS
        return "unexpected PDU" if event != _BAD_PDU else self._defect or UNKNOWN_PDU

    def _decode_pdu(self, bytestream: bytearray) -> tuple[_PDUType, str]:
        try:
            with foreign_bytes(as_=lambda error: DamagedError(type(error).__name__), passing=DamagedError):
                if bytestream[0] == ASSOCIATE_RQ and self.stated is None:
                    mended, self.stated = read_request(bytes(bytestream))
                    bytestream = bytearray(mended)
                if bytestream[0] == _P_DATA:
                    _count_values(bytestream)
                return super()._decode_pdu(bytestream)
        except DamagedError as error:
            self._defect = f"PDU cannot be decoded: {error}"
            raise

    def _abort_now(self) -> None:
        if self.socket is not None and self.socket.socket is not None:
            with contextlib.suppress(OSError):
                self.socket.socket.sendall(abort_pdu(SERVICE_PROVIDER))
            self.socket.close()
        self.assoc.is_aborted = True
        self.assoc.is_established = False

    def rouse(self) -> None:
        """Wake the thread: there is something to send, or reason to read on."""
        with contextlib.suppress(OSError):  # the thread has ended
            self._wake.send(b"\0")

    @property
    def _is_over(self) -> bool:
        return self._was_open and self.state_machine.current_state == _NO_CONNECTION

    @property
    def _wait_seconds(self) -> float:
        """Seconds to the next look at the timers: before the request there is one, for the request."""
        if self.state_machine.current_state != _REQUEST_AWAITED:
            return WAIT_SECONDS
        return max(0.01, min(self.artim_timer.remaining, LONG_WAIT_SECONDS))

    def _is_transport_event(self) -> bool:
        self._was_open = self._was_open or self.state_machine.current_state in _WAITING_STATES
        if self.state_machine.current_state not in _WAITING_STATES or not self.event_queue.empty():
            return super()._is_transport_event()
        if self._is_late():
            raise DamagedError("it comes too slowly")
        if self._is_serving():
            _readable(WAIT_SECONDS, self._woken)
        elif (
            isinstance(self.socket, NodeSocket)
            and self.socket.wait(self._wait_seconds, self._woken)
            and self.to_provider_queue.empty()  # else what the node says goes first, as in pynetdicom
        ):
            return super()._is_transport_event()
        with contextlib.suppress(OSError):
            self._woken.recv(64)
        return self._process_recv_primitive()


def abort_pdu(source: int) -> bytes:
    """Return an A-ABORT PDU without a reason (PS3.8 section 9.3.8)."""
    abort = A_ABORT_RQ()
    abort.source, abort.reason_diagnostic = source, 0x00
    return bytes(abort.encode())


def _readable(seconds: float, *sockets: socket.socket) -> set[int]:
    """Return the descriptors of those that have something to read, after a wait of at most `seconds`."""
    poller = select.poll()  # `select` cannot tell above 1,024 descriptors
    for each in sockets:
        poller.register(each.fileno(), select.POLLIN)
    return {descriptor for descriptor, _ in poller.poll(seconds * 1000)}


def _count_values(pdu: bytearray) -> None:
    """Refuse a P-DATA-TF of very many values: to read them costs a thousand times what it costs to send them.

    Raises:
        DamagedError: there are more than `MOST_VALUES`.
    """
    begin, number = _HEADER_BYTES, 0
    while begin + _VALUE_HEADER.size <= len(pdu):
        number += 1
        if number > MOST_VALUES:
            raise DamagedError("too many values in a PDU")
        begin += _VALUE_HEADER.size + int(_VALUE_HEADER.unpack_from(pdu, begin)[0])
