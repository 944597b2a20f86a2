"""Whole conversations as bytes, a few of which are changed by a seed: what no author of a test would think of."""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random
from typing import Final

from pydicom import Dataset
from pynetdicom.dsutils import encode

from scp_node.delivery.connection import ABORT, ASSOCIATE_RQ, RELEASE_RQ
from scp_node.torture.peer import (
    DX,
    ECHO_COMMAND,
    SOP_INSTANCE,
    STORE_COMMAND,
    USUAL_CONTEXTS,
    associate_request,
    encoded_command,
    encoded_pdu,
    encoded_pdv,
)

FILM_CONTEXT: Final = 1  # of the usual contexts
MOST_CHANGES: Final = 4  # in one conversation

_ECHO_CONTEXT: Final = 5
_TELLING_NUMBERS: Final = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)
_WIDTHS: Final = ("B", ">H", "<H", ">L", "<L")


def new_uid(random: Random) -> str:
    """Return a UID of 128 random bits, PS3.5 section B.2."""
    return f"2.25.{random.getrandbits(128)}"


def film(sop_instance_uid: str, random: Random, *, side: int = 16) -> bytes:
    """Return the dataset of a film of nobody, `side` pixels high and wide, in Explicit VR Little Endian."""
    image = Dataset()
    image.SOPClassUID = DX
    image.SOPInstanceUID = sop_instance_uid
    image.Modality = "DX"
    image.PatientName = "TORTURE^NOBODY"
    image.PatientID = "TORTURE"
    image.StudyInstanceUID = new_uid(random)
    image.SeriesInstanceUID = new_uid(random)
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.Rows = image.Columns = side
    image.BitsAllocated = 8
    image.BitsStored = 8
    image.HighBit = 7
    image.PixelRepresentation = 0
    image.PixelData = random.randbytes(side * side)
    data = encode(image, is_implicit_vr=False, is_little_endian=True)
    if data is None:
        raise ValueError("film cannot be encoded")
    return data


def sound_conversation(random: Random, *, calling: str, called: str) -> list[bytes]:
    """Return the PDUs of a conversation as a good peer holds it: a C-ECHO, one or two C-STOREs, and an end."""
    request = associate_request(USUAL_CONTEXTS, calling=calling, called=called)
    pdus = [encoded_pdu(ASSOCIATE_RQ, request)]
    if random.random() < 0.5:
        pdus.append(encoded_pdv(_ECHO_CONTEXT, encoded_command(ECHO_COMMAND), is_command=True))
    for _ in range(random.randint(0 if len(pdus) > 1 else 1, 2)):
        uid = new_uid(random)
        dataset = film(uid, random)
        command = encoded_command({**STORE_COMMAND, SOP_INSTANCE: uid})
        size = random.choice((100, 1_000, len(dataset)))
        pdus.append(encoded_pdv(FILM_CONTEXT, command, is_command=True))
        pdus += [
            encoded_pdv(FILM_CONTEXT, dataset[start : start + size], is_last=start + size >= len(dataset))
            for start in range(0, len(dataset), size)
        ]
    pdus.append(encoded_pdu(RELEASE_RQ, bytes(4)))
    return pdus


def changed(pdus: list[bytes], random: Random) -> list[bytes]:
    """Return the conversation with one to `MOST_CHANGES` changes."""
    found = list(pdus)
    for _ in range(random.randint(1, MOST_CHANGES)):
        if not found or random.random() < 0.2:
            found = _reordered(found, random)
        else:
            place = random.randrange(len(found))
            found[place] = random.choice(_CHANGES)(found[place], random)
    return found


def _reordered(pdus: list[bytes], random: Random) -> list[bytes]:
    """Return the PDUs with one left out, said again, moved, or put in from nowhere."""
    place, other = (random.randrange(len(pdus) + 1) for _ in range(2))
    chosen = pdus[place : place + 1]
    without = pdus[:place] + pdus[place + 1 :]
    noise = encoded_pdu(random.choice((ABORT, RELEASE_RQ, random.randrange(256))), random.randbytes(4))
    ways = (
        without,
        [*pdus[:other], *chosen, *pdus[other:]],
        [*without[:other], *chosen, *without[other:]],
        [*pdus[:other], noise, *pdus[other:]],
    )
    return random.choice(ways)


def _bit(pdu: bytes, random: Random) -> bytes:
    changed_pdu = bytearray(pdu or b"\0")
    changed_pdu[random.randrange(len(changed_pdu))] ^= 1 << random.randrange(8)
    return bytes(changed_pdu)


def _number(pdu: bytes, random: Random) -> bytes:
    """Put a telling number in a random place: lengths stand where they want, of one, two or four bytes."""
    width = struct.Struct(random.choice(_WIDTHS))
    number = random.choice(_TELLING_NUMBERS) & (1 << 8 * width.size) - 1
    place = random.randrange(max(len(pdu) - width.size, 1))
    return pdu[:place] + width.pack(number) + pdu[place + width.size :]


def _length(pdu: bytes, random: Random) -> bytes:
    """Put a wrong length in the header of the PDU."""
    length = max(0, len(pdu) - 6 + random.choice((-100, -2, -1, 1, 2, 100, 1 << 16, 1 << 31)))
    return pdu[:2] + struct.pack(">L", length) + pdu[6:]


def _cut(pdu: bytes, random: Random) -> bytes:
    return pdu[: random.randrange(len(pdu) + 1)]


def _twice(pdu: bytes, random: Random) -> bytes:
    begin, end = sorted(random.randrange(len(pdu) + 1) for _ in range(2))
    return pdu[:end] + pdu[begin:]


def _left_out(pdu: bytes, random: Random) -> bytes:
    begin, end = sorted(random.randrange(len(pdu) + 1) for _ in range(2))
    return pdu[:begin] + pdu[end:]


def _noise(pdu: bytes, random: Random) -> bytes:
    place = random.randrange(len(pdu) + 1)
    return pdu[:place] + random.randbytes(random.randint(1, 64)) + pdu[place:]


_CHANGES: Final[tuple[Callable[[bytes, Random], bytes], ...]] = (
    _bit,
    _bit,
    _number,
    _number,
    _number,
    _length,
    _cut,
    _twice,
    _left_out,
    _noise,
)
