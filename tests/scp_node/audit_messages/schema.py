"""The schema of PS3.15 A.5.1 as a table, and the rules of A.5.3 for the messages that the node sends."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Final
from xml.etree.ElementTree import Element, fromstring

CODE: Final = ({"csd-code", "codeSystemName", "originalText"}, {"displayName"}, "")
# element: attributes that have to be there, those that may, and its children in order with "?", "*" or "+"
ELEMENTS: Final[dict[str, tuple[set[str], set[str], str]]] = {
    "AuditMessage": (
        set(),
        set(),
        "EventIdentification ActiveParticipant+ AuditSourceIdentification ParticipantObjectIdentification*",
    ),
    "EventIdentification": (
        {"EventDateTime", "EventOutcomeIndicator"},
        {"EventActionCode"},
        "EventID EventTypeCode* EventOutcomeDescription?",
    ),
    "EventID": CODE,
    "EventTypeCode": CODE,
    "EventOutcomeDescription": (set(), set(), ""),
    "ActiveParticipant": (
        {"UserID", "UserIsRequestor"},
        {"AlternativeUserID", "UserName", "NetworkAccessPointID", "NetworkAccessPointTypeCode"},
        "RoleIDCode* MediaIdentifier?",
    ),
    "RoleIDCode": CODE,
    "MediaIdentifier": (set(), set(), "MediaType"),
    "MediaType": CODE,
    "AuditSourceIdentification": ({"AuditSourceID"}, {"AuditEnterpriseSiteID"}, "AuditSourceTypeCode*"),
    "AuditSourceTypeCode": ({"csd-code"}, {"codeSystemName", "originalText", "displayName"}, ""),
    "ParticipantObjectIdentification": (
        {"ParticipantObjectID"},
        {
            "ParticipantObjectTypeCode",
            "ParticipantObjectTypeCodeRole",
            "ParticipantObjectDataLifeCycle",
            "ParticipantObjectSensitivity",
        },
        "ParticipantObjectIDTypeCode ParticipantObjectName ParticipantObjectDetail* ParticipantObjectDescription*",
    ),
    "ParticipantObjectIDTypeCode": CODE,
    "ParticipantObjectName": (set(), set(), ""),
    "ParticipantObjectDetail": ({"type", "value"}, set(), ""),
    "ParticipantObjectDescription": (set(), set(), "SOPClass*"),
    "SOPClass": ({"NumberOfInstances"}, {"UID"}, "Instance*"),
    "Instance": ({"UID"}, set(), ""),
}
VALUES: Final[dict[str, set[str]]] = {
    "EventActionCode": set("CRUDE"),
    "EventOutcomeIndicator": {"0", "4", "8", "12"},
    "UserIsRequestor": {"true", "false"},
    "NetworkAccessPointTypeCode": set("12345"),
    "ParticipantObjectTypeCode": set("1234"),
    "ParticipantObjectTypeCodeRole": {str(number) for number in range(1, 27)},
}
ROLES: Final[dict[str, list[str]]] = {  # RoleIDCode of the participants that A.5.3 wants, by EventID
    "110100": ["110150"],
    "110104": ["110152", "110153"],
    "110106": ["110153", "110153", "110154"],
}
ACTIONS: Final[dict[str, set[str]]] = {
    "110100": {"E"},
    "110101": {"R"},
    "110103": set("CRUD"),
    "110104": set("CRU"),
    "110106": {"R"},
    "110113": {"E"},
    "110114": {"E"},
}
OF_ONE_PATIENT: Final = {"110103", "110104"}  # a study and a patient, each exactly once
TYPED: Final = {"110100", "110113", "110114"}  # EventTypeCode has to be there


def parsed(xml: bytes) -> Element:
    """Return a message as its elements."""
    return fromstring(xml)  # noqa: S314 - the node's own


def faults(message: Element) -> list[str]:
    """Return how a message differs from the standard."""
    return [fault for each in message.iter() for fault in _of_element(each)] + _of_event(message)


def _of_element(each: Element) -> list[str]:
    if each.tag not in ELEMENTS:
        return [f"unknown element {each.tag}"]
    needed, allowed, children = ELEMENTS[each.tag]
    found = [f"{each.tag} lacks {name}" for name in needed - set(each.attrib)]
    found += [f"{each.tag} has {name}" for name in set(each.attrib) - needed - allowed]
    found += [
        f"{name}={each.get(name)}" for name in VALUES if name in each.attrib and each.get(name) not in VALUES[name]
    ]
    tags = [child.tag for child in each]
    for name in children.split():
        plain, number = name.rstrip("?*+"), tags.count(name.rstrip("?*+"))
        least, most = {"?": (0, 1), "*": (0, 999), "+": (1, 999)}.get(name[-1], (1, 1))
        if not least <= number <= most:
            found.append(f"{each.tag} has {number} {plain}")
        tags, before = tags[number:], tags[:number]
        found += [f"{tag} stands where {plain} should" for tag in before if tag != plain]
    found += [f"{each.tag} has {tag}" for tag in tags]
    if each.tag == "ParticipantObjectDetail":
        base64.b64decode(each.get("value", ""), validate=True)
    if at := each.get("EventDateTime"):
        assert datetime.fromisoformat(at).utcoffset() is not None
    return found


def _of_event(message: Element) -> list[str]:
    code = code_of(message, "EventIdentification/EventID")
    found = []
    if (action := message.find("EventIdentification[@EventActionCode]")) is None or (
        action.get("EventActionCode") not in ACTIONS[code]
    ):
        found.append(f"{code} has another action")
    roles = sorted(each.get("csd-code", "") for each in message.findall("ActiveParticipant/RoleIDCode"))
    if roles != ROLES.get(code, roles):
        found.append(f"{code} has the roles {roles}")
    if code in TYPED and message.find("EventIdentification/EventTypeCode") is None:
        found.append(f"{code} has no EventTypeCode")
    kinds = [each.get("csd-code") for each in message.iter("ParticipantObjectIDTypeCode")]
    if code in OF_ONE_PATIENT and kinds != ["110180", "2"]:
        found.append(f"{code} is about {kinds}")
    if code == "110114" and not all(
        message.find(f"ActiveParticipant[@{name}]") is not None
        for name in ("NetworkAccessPointID", "NetworkAccessPointTypeCode")
    ):
        found.append("nobody knows where the person is")
    return found


def code_of(message: Element, path: str) -> str:
    """Return the code of the first such element; "" where there is none."""
    found = message.find(path)
    return "" if found is None else found.get("csd-code", "")
