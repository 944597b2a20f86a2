"""One audit message as values, and its XML by the schema of PS3.15 A.5.1."""

from __future__ import annotations

import base64
import ipaddress
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from typing import Final
from xml.etree.ElementTree import Element, SubElement, tostring

_NOT_XML: Final = re.compile(r"[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]")  # XML 1.0 section 2.2
_LONGEST: Final = 1_024  # characters of one value: a message stays far below the 32,768 octets that PS3.15 A.6 asks for
_APPLICATION_SERVER: Final = "4"  # PS3.15 A.5.1.2.1


@dataclass(frozen=True, slots=True)
class Code:
    """A coded value; its meaning is the text of the standard."""

    value: str
    meaning: str
    system: str = "DCM"


class Action(StrEnum):
    """EventActionCode, PS3.15 Table A.5.2-1."""

    CREATE = "C"
    READ = "R"
    UPDATE = "U"
    DELETE = "D"
    EXECUTE = "E"


class Outcome(IntEnum):
    """EventOutcomeIndicator, PS3.15 Table A.5.2-1."""

    SUCCESS = 0
    MINOR_FAILURE = 4  # it will be tried again, or somebody else has to
    SERIOUS_FAILURE = 8  # it was given up


@dataclass(frozen=True, slots=True, kw_only=True)
class Participant:
    """A person or a process that takes part (PS3.15 A.5.2.1 to A.5.2.3)."""

    user_id: str
    name: str = ""
    is_requestor: bool = False
    role: Code | None = None
    ae_title: str = ""
    address: str = ""  # an IP address, or the name of a machine
    media_type: Code | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Object:
    """The subject of an event: a study, a patient, or a part of the node."""

    id: str
    id_type: Code
    type_code: str  # 1: person, 2: system object
    role: str  # ParticipantObjectTypeCodeRole
    name: str = ""
    details: tuple[tuple[str, str], ...] = ()
    sop_class_uid: str = ""
    sop_instance_uid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditMessage:
    """One message about one event, and one patient at most."""

    event: Code
    action: Action
    at: datetime
    outcome: Outcome = Outcome.SUCCESS
    outcome_text: str = ""
    type: Code | None = None
    participants: tuple[Participant, ...]
    source_id: str
    objects: tuple[Object, ...] = ()


def xml_of(message: AuditMessage) -> bytes:
    """Return the message in UTF-8, without a line break; the same value gives the same bytes."""
    root = Element("AuditMessage")
    event = _put(
        root,
        "EventIdentification",
        EventActionCode=message.action.value,
        EventDateTime=instant(message.at),
        EventOutcomeIndicator=str(message.outcome.value),
    )
    _put_code(event, "EventID", message.event)
    if message.type:
        _put_code(event, "EventTypeCode", message.type)
    if message.outcome_text:
        SubElement(event, "EventOutcomeDescription").text = _text(message.outcome_text)
    for participant in message.participants:
        _put_participant(root, participant)
    source = _put(root, "AuditSourceIdentification", AuditSourceID=message.source_id)
    SubElement(source, "AuditSourceTypeCode", {"csd-code": _APPLICATION_SERVER})
    for each in message.objects:
        _put_object(root, each)
    return tostring(root, encoding="unicode").encode("utf-8")


def instant(at: datetime) -> str:
    """Return an instant in UTC, as XML Schema and RFC 5424 section 6.2.3 want it."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _put_participant(root: Element, participant: Participant) -> None:
    values = {"UserID": participant.user_id, "UserIsRequestor": str(participant.is_requestor).lower()}
    if participant.ae_title:
        values["AlternativeUserID"] = f"AETITLES={participant.ae_title}"  # PS3.15 A.5.2.2
    if participant.name:
        values["UserName"] = participant.name
    if participant.address:
        values["NetworkAccessPointID"] = participant.address
        values["NetworkAccessPointTypeCode"] = "2" if _is_ip(participant.address) else "1"
    put = _put(root, "ActiveParticipant", **values)
    if participant.role:
        _put_code(put, "RoleIDCode", participant.role)
    if participant.media_type:
        _put_code(SubElement(put, "MediaIdentifier"), "MediaType", participant.media_type)


def _put_object(root: Element, each: Object) -> None:
    put = _put(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectID=each.id,
        ParticipantObjectTypeCode=each.type_code,
        ParticipantObjectTypeCodeRole=each.role,
    )
    _put_code(put, "ParticipantObjectIDTypeCode", each.id_type)
    SubElement(put, "ParticipantObjectName").text = _text(each.name)
    for name, value in each.details:
        encoded = base64.b64encode(_text(value).encode("utf-8")).decode("ascii")
        _put(put, "ParticipantObjectDetail", type=name, value=encoded)
    if each.sop_class_uid:
        described = SubElement(put, "ParticipantObjectDescription")
        instances = _put(described, "SOPClass", UID=each.sop_class_uid, NumberOfInstances="1")
        _put(instances, "Instance", UID=each.sop_instance_uid)


def _put_code(parent: Element, name: str, code: Code) -> None:
    values = {"csd-code": code.value, "codeSystemName": code.system, "originalText": code.meaning}
    SubElement(parent, name, values)


def _put(parent: Element, name: str, **values: str) -> Element:
    return SubElement(parent, name, {key: _text(value) for key, value in values.items()})


def _text(value: str) -> str:
    """Return text that XML can hold: a peer may have sent anything in its place."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", value)[:_LONGEST]


def _is_ip(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True
