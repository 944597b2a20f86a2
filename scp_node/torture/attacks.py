"""The attacks: what each connection does, as a function of a peer and a seed. Each returns how the SCP ended it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Final

from scp_node.delivery.connection import ABORT, ASSOCIATE_AC, ASSOCIATE_RJ, ASSOCIATE_RQ, P_DATA, RELEASE_RP
from scp_node.torture.conversations import FILM_CONTEXT, changed, film, new_uid, sound_conversation
from scp_node.torture.peer import (
    CLOSED,
    COMMAND_FIELD,
    DATASET_TYPE,
    MESSAGE_ID,
    MISSING,
    PRIORITY,
    SOP_CLASS,
    SOP_INSTANCE,
    STATUS,
    STORE_COMMAND,
    USUAL_CONTEXTS,
    OddAnswerError,
    Peer,
    associate_request,
    decoded_command,
    encoded_command,
    encoded_item,
    encoded_pdu,
)

SUCCESS: Final = "0x0000"


class Ending(StrEnum):
    """How a conversation ended, where it was not by the status of a response."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    RELEASED = "released"
    ABORTED = "aborted"
    CLOSED = "closed"  # also by a reset
    ODD = "odd answer"
    OPEN = "still open"  # when the time of the attack was over
    UNANSWERED = "unanswered"  # for as long as the attack waits
    UNCONNECTED = "not connected"


_ENDINGS: Final = {
    ASSOCIATE_AC: Ending.ACCEPTED,
    ASSOCIATE_RJ: Ending.REJECTED,
    RELEASE_RP: Ending.RELEASED,
    ABORT: Ending.ABORTED,
    CLOSED: Ending.CLOSED,
}
_NO_LIMIT: Final = 1 << 32
_PART: Final = 16_000  # bytes of a dataset in a PDU
_LARGE: Final = 1 << 24  # bytes of a dataset that does not end
_PIPELINED: Final = 200  # C-STOREs before an answer is read
_ANSWER_SECONDS: Final = 0.5  # for a request that may be damaged


@dataclass(frozen=True, slots=True)
class Titles:
    """The AE titles of a conversation."""

    calling: str
    called: str


Conversation = Callable[[Peer, Titles, Random], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One row of the table."""

    name: str
    asked: str  # what each connection does
    at_once: int  # connections at a time
    conversation: Conversation
    associates: bool  # it begins with an association that has to be accepted
    pause: float = 0.5  # seconds before an ended connection is opened again
    seconds: float = 60.0  # longest wait for the SCP
    forbids_success: bool = False  # a C-STORE that is answered with Success is then a false statement


class NotAssociatedError(Exception):
    """The SCP did not accept the association that an attack needs; the message says what it did."""


def associated(peer: Peer, titles: Titles) -> None:
    """Associate.

    Raises:
        NotAssociatedError: the SCP did not accept it.
    """
    kind, _ = peer.associate(calling=titles.calling, called=titles.called)
    if kind != ASSOCIATE_AC:
        raise NotAssociatedError(_ENDINGS.get(kind, Ending.ODD))


def next_word(peer: Peer) -> str:
    """Return what the SCP says next, such as "0xC000" or "aborted"."""
    kind, payload = peer.receive()
    if kind == P_DATA:
        status = decoded_command(payload[6:]).get(STATUS)
        return Ending.ODD if status is None else f"0x{int.from_bytes(status, 'little'):04X}"
    return _ENDINGS.get(kind, Ending.ODD)


def last_word(peer: Peer) -> str:
    """Return the last that the SCP says before it closes the connection."""
    said: str = Ending.CLOSED
    while (word := next_word(peer)) != Ending.CLOSED:
        said = word
    return said


def _random_bytes(peer: Peer, _titles: Titles, random: Random) -> str:
    peer.send_raw(random.randbytes(random.randint(1, 4096)))
    return last_word(peer)


def _silent(peer: Peer, _titles: Titles, _random: Random) -> str:
    return last_word(peer)


def _slow_bytes(peer: Peer, titles: Titles, _random: Random) -> str:
    for byte in encoded_pdu(ASSOCIATE_RQ, associate_request(USUAL_CONTEXTS, calling=titles.calling, called="X")):
        peer.send_raw(bytes([byte]))
        if not peer.says_nothing(1):
            break
    return last_word(peer)


def _huge_request(peer: Peer, titles: Titles, random: Random) -> str:
    request = associate_request(USUAL_CONTEXTS, calling=titles.calling, called=titles.called)
    if random.random() < 0.5:
        peer.send_raw(struct.pack(">BxL", ASSOCIATE_RQ, 0xFFFFFFFF) + request)
    else:
        peer.send(ASSOCIATE_RQ, request + encoded_item(0x7F, bytes(65_000)) * 16)
    return last_word(peer)


def _many_items(peer: Peer, titles: Titles, _random: Random) -> str:
    items = encoded_item(0x77, b"") * 30_000
    peer.send(ASSOCIATE_RQ, associate_request([], calling=titles.calling, called=titles.called, items=items))
    return last_word(peer)


def _bad_titles(peer: Peer, titles: Titles, random: Random) -> str:
    title = random.choice(["", "\0" * 16, "A\nB", "A\x1b[31mB", "A\\B", "R\xd6NTGEN", "' OR 1=1 --", "../../X"])
    called = random.choice([titles.called, title])
    return _ENDINGS.get(peer.associate(calling=title, called=called)[0], Ending.ODD)


def _unknown_pdus(peer: Peer, titles: Titles, random: Random) -> str:
    associated(peer, titles)
    peer.send(random.randint(8, 255), random.randbytes(random.randrange(1_000)))
    return last_word(peer)


def _longer_than_agreed(peer: Peer, titles: Titles, _random: Random) -> str:
    associated(peer, titles)
    peer.send_store_command()
    length = peer.largest_pdu + 4_096 if peer.largest_pdu else _NO_LIMIT - 1
    peer.send_raw(struct.pack(">BxLLBB", P_DATA, length, length - 4, FILM_CONTEXT, 0))
    for _ in range(0, min(length - 6, _LARGE), _PART):
        peer.send_raw(bytes(_PART))
    return last_word(peer)


def _one_byte_values(peer: Peer, titles: Titles, _random: Random) -> str:
    associated(peer, titles)
    peer.send_store_command()
    value = struct.pack(">LBB", 3, FILM_CONTEXT, 0) + b"x"
    pdu = encoded_pdu(P_DATA, value * (min(peer.largest_pdu or _PART, 1 << 17) // len(value)))
    while peer.says_nothing(0):
        peer.send_raw(pdu)
    return last_word(peer)


def _begin_film(peer: Peer, titles: Titles, random: Random) -> None:
    associated(peer, titles)
    uid = new_uid(random)
    peer.send_store_command({SOP_INSTANCE: uid})
    peer.send_pdv(FILM_CONTEXT, film(uid, random)[:300], is_last=False)


def _unfinished(peer: Peer, titles: Titles, random: Random) -> str:
    _begin_film(peer, titles, random)
    part = bytes(min(_PART, peer.largest_pdu or _PART) - 6)
    for _ in range(_LARGE // len(part)):
        peer.send_pdv(FILM_CONTEXT, part, is_last=False)
    return last_word(peer)


def _pipelined(peer: Peer, titles: Titles, random: Random) -> str:
    associated(peer, titles)
    uid = new_uid(random)
    dataset = film(uid, random, side=512)
    for _ in range(_PIPELINED):
        peer.send_store(dataset, sop_instance=uid)
    return last_word(peer)


def _malformed_commands(peer: Peer, titles: Titles, random: Random) -> str:
    associated(peer, titles)
    command = encoded_command({**STORE_COMMAND, **random.choice(_DAMAGES)})
    if random.random() < 0.3:
        command = random.choice((b"", b"no command set", random.randbytes(100), command[:-3]))
    peer.send_pdv(FILM_CONTEXT, command, is_command=True)
    peer.send_pdv(FILM_CONTEXT, film("1.2.3", random))
    peer.send_no_more()
    return last_word(peer)


def _bad_uids(peer: Peer, titles: Titles, random: Random) -> str:
    associated(peer, titles)
    uid = random.choice(("../../../X", "1" + ".2" * 32, "", "1..2", "1.2.3\n4", "/X", "1.2.A", "-1"))
    return _answered(peer, film(new_uid(random), random), uid)


def _truncated(peer: Peer, titles: Titles, random: Random) -> str:
    associated(peer, titles)
    uid = new_uid(random)
    dataset = film(uid, random)
    return _answered(peer, dataset[: random.randrange(1, len(dataset))], uid)


def _abort_storm(peer: Peer, titles: Titles, random: Random) -> str:
    _begin_film(peer, titles, random)
    peer.send(ABORT, bytes(4))
    return last_word(peer)


def _idle(peer: Peer, titles: Titles, _random: Random) -> str:
    associated(peer, titles)
    return last_word(peer)


def _mutated(peer: Peer, titles: Titles, random: Random) -> str:
    said = _hold_changed(peer, titles, random)
    peer.send_no_more()
    word = last_word(peer)
    return said if word == Ending.CLOSED else word


def _mutated_open(peer: Peer, titles: Titles, random: Random) -> str:
    _hold_changed(peer, titles, random)
    return last_word(peer)


def _hold_changed(peer: Peer, titles: Titles, random: Random) -> str:
    """Hold a conversation of which a few bytes are changed, and return what the SCP said of the request."""
    sound = sound_conversation(random, calling=titles.calling, called=titles.called)
    first, *rest = changed(sound, random) or [b""]
    peer.send_raw(first)
    said = Ending.CLOSED if peer.says_nothing(_ANSWER_SECONDS) else next_word(peer)
    for pdu in rest:
        peer.send_raw(pdu)
    return said


def _answered(peer: Peer, dataset: bytes, uid: str) -> str:
    try:
        return f"0x{peer.store(dataset, sop_instance=uid).status:04X}"
    except OddAnswerError as error:
        return _ENDINGS.get(error.kind, Ending.ODD)


_DAMAGES: Final[tuple[Mapping[int, object], ...]] = (
    {COMMAND_FIELD: MISSING},
    {COMMAND_FIELD: 0x7777},
    {COMMAND_FIELD: b"\x01"},
    {MESSAGE_ID: MISSING},
    {DATASET_TYPE: MISSING},
    {DATASET_TYPE: b""},
    {SOP_CLASS: MISSING},
    {SOP_CLASS: "1.2.3"},
    {SOP_CLASS: b"\xff" * 64},
    {SOP_INSTANCE: MISSING},
    {SOP_INSTANCE: b"\xff" * 64},
    {PRIORITY: b"\xff"},
    {0x0000: b"\xff\xff\xff\xff"},
    {0x1031: b"\0" * 60_000},
)

ATTACKS: Final[tuple[Attack, ...]] = (
    Attack(
        name="random-bytes",
        asked="up to 4 KiB of random bytes",
        at_once=200,
        conversation=_random_bytes,
        associates=False,
    ),
    Attack(name="silent", asked="nothing at all", at_once=320, conversation=_silent, associates=False),
    Attack(
        name="slow-bytes",
        asked="an association request, a byte a second",
        at_once=320,
        conversation=_slow_bytes,
        associates=False,
    ),
    Attack(
        name="huge-request",
        asked="an association request of 1 MiB, or one that claims 4 GiB",
        at_once=20,
        conversation=_huge_request,
        associates=False,
    ),
    Attack(
        name="many-items",
        asked="an association request of 30,000 items",
        at_once=20,
        conversation=_many_items,
        associates=False,
    ),
    Attack(
        name="bad-titles",
        asked="AE titles that are empty, or hold control characters",
        at_once=8,
        conversation=_bad_titles,
        associates=False,
    ),
    Attack(
        name="unknown-pdus",
        asked="a PDU of an unknown type on an association",
        at_once=8,
        conversation=_unknown_pdus,
        associates=True,
    ),
    Attack(
        name="long-pdus",
        asked="a PDU longer than was agreed",
        at_once=8,
        conversation=_longer_than_agreed,
        associates=True,
    ),
    Attack(
        name="one-byte-values",
        asked="a dataset in presentation data values of one byte",
        at_once=8,
        conversation=_one_byte_values,
        associates=True,
    ),
    Attack(
        name="unfinished",
        asked="16 MiB of a dataset, and then nothing",
        at_once=8,
        conversation=_unfinished,
        associates=True,
    ),
    Attack(
        name="pipelined",
        asked="200 C-STOREs of 256 KiB without reading an answer",
        at_once=8,
        conversation=_pipelined,
        associates=True,
    ),
    Attack(
        name="malformed-commands",
        asked="a C-STORE whose command set is damaged",
        at_once=8,
        conversation=_malformed_commands,
        associates=True,
    ),
    Attack(
        name="bad-uids",
        asked="a C-STORE with a malformed SOP Instance UID",
        at_once=8,
        conversation=_bad_uids,
        associates=True,
        forbids_success=True,
    ),
    Attack(
        name="truncated",
        asked="a C-STORE whose film is cut off",
        at_once=8,
        conversation=_truncated,
        associates=True,
        forbids_success=True,
    ),
    Attack(
        name="abort-storm",
        asked="an association, half a C-STORE, A-ABORT, and again at once",
        at_once=8,
        conversation=_abort_storm,
        associates=True,
        pause=0.0,
    ),
    Attack(name="idle", asked="an association, and then nothing", at_once=64, conversation=_idle, associates=True),
    Attack(
        name="mutated",
        asked="a conversation with a few bytes changed, then the end of the line",
        at_once=8,
        conversation=_mutated,
        associates=False,
        pause=0.0,
        seconds=10.0,
    ),
    Attack(
        name="mutated-open",
        asked="the same, and the line stays open",
        at_once=32,
        conversation=_mutated_open,
        associates=False,
        seconds=90.0,
    ),
)
