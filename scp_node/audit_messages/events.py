"""What events of the trail say as audit messages (PS3.15 A.5.3)."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from scp_node.audit_messages.message import Action, AuditMessage, Code, Object, Outcome, Participant
from scp_node.ledger import FedEvent, FedPatient
from scp_node.report.source.description import describe
from scp_node.settings import Settings

# CID 400, 401, 402, 404 and 405 of PS3.16, and PS3.15 A.5.1.2.4
APPLICATION_ACTIVITY: Final = Code("110100", "Application Activity")
AUDIT_LOG_USED: Final = Code("110101", "Audit Log Used")
ACCESSED: Final = Code("110103", "DICOM Instances Accessed")
TRANSFERRED: Final = Code("110104", "DICOM Instances Transferred")
EXPORT: Final = Code("110106", "Export")
SECURITY_ALERT: Final = Code("110113", "Security Alert")
USER_AUTHENTICATION: Final = Code("110114", "User Authentication")
APPLICATION_START: Final = Code("110120", "Application Start")
APPLICATION_STOP: Final = Code("110121", "Application Stop")
LOGIN: Final = Code("110122", "Login")
LOGOUT: Final = Code("110123", "Logout")
SOFTWARE_CONFIGURATION: Final = Code("110131", "Software Configuration")
SECURITY_ROLES_CHANGED: Final = Code("110136", "Security Roles Changed")
USER_ATTRIBUTES_CHANGED: Final = Code("110137", "User Security Attributes Changed")
APPLICATION: Final = Code("110150", "Application")
SOURCE: Final = Code("110153", "Source Role ID")
DESTINATION: Final = Code("110152", "Destination Role ID")
DESTINATION_MEDIA: Final = Code("110154", "Destination Media")
STUDY_UID: Final = Code("110180", "Study Instance UID")
NODE_ID: Final = Code("110182", "Node ID")
PATIENT_NUMBER: Final = Code("2", "Patient Number", "RFC-3881")
USER_IDENTIFIER: Final = Code("11", "User Identifier", "RFC-3881")
URI: Final = Code("12", "URI", "RFC-3881")
MEDIA_URI: Final = Code("110037", "URI")

_PERSON: Final = "1"  # ParticipantObjectTypeCode
_SYSTEM: Final = "2"
_PATIENT: Final = "1"  # ParticipantObjectTypeCodeRole
_REPORT: Final = "3"
_USER: Final = "6"
_SECURITY_RESOURCE: Final = "13"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The node that the messages come from, and what they may say."""

    ae_title: str
    machine: str  # its name, for people who have no address since they work on it
    audit_log: str  # the address of the audit trail on the web page
    destinations: Mapping[str, tuple[str, str]]  # AE title and host, by our name for it
    patient_names: bool


def source_of(settings: Settings) -> Source:
    """Return what the settings say of the node."""
    return Source(
        ae_title=settings.node.ae_title,
        machine=socket.gethostname(),
        audit_log=f"{settings.web.address}/audit",
        destinations={entry.name: (entry.ae_title, entry.host) for entry in settings.destinations},
        patient_names=settings.audit_messages.patient_names,
    )


def messages_of(event: FedEvent, source: Source) -> list[AuditMessage]:
    """Return the messages about an event: one for each patient, since none may name two; [] where it has none."""
    make = _MAKERS.get(event.kind)
    if make is None:
        return []
    message = make(event, source)
    if message.event not in {ACCESSED, TRANSFERRED} and not event.study_uid:
        return [message]
    patients: Sequence[FedPatient | None] = event.patients or [None]  # of a refused object nothing is known
    return [replace(message, objects=(_study(event), _patient(each, source))) for each in patients]


def _study(event: FedEvent) -> Object:
    is_sent = "sent_uid" in event.detail
    return Object(
        id=event.study_uid,
        id_type=STUDY_UID,
        type_code=_SYSTEM,
        role=_REPORT,
        details=_of_trail(event),
        sop_class_uid=event.sop_class_uid,
        sop_instance_uid=_told(event, "sent_uid") if is_sent else event.sop_instance_uid,
    )


def _patient(patient: FedPatient | None, source: Source) -> Object:
    named = Object(id=patient.patient_id if patient else "", id_type=PATIENT_NUMBER, type_code=_PERSON, role=_PATIENT)
    if not source.patient_names or patient is None or patient.header is None:
        return named
    return replace(named, name="=".join(describe(patient.header, patient.transfer_syntax).names))


def _received(event: FedEvent, source: Source, *, action: Action = Action.CREATE) -> AuditMessage:
    sender = Participant(
        user_id=_told(event, "calling_ae"),
        ae_title=_told(event, "calling_ae"),
        address=_told(event, "peer"),
        is_requestor=True,
        role=SOURCE,
    )
    return _message(event, source, TRANSFERRED, action, sender, _node(source, role=DESTINATION))


def _again(event: FedEvent, source: Source) -> AuditMessage:
    return _received(event, source, action=Action.READ)


def _rejected(event: FedEvent, source: Source) -> AuditMessage:
    text = f"{_told(event, 'status')} {_told(event, 'reason')}".strip()
    return replace(_received(event, source), outcome=Outcome.MINOR_FAILURE, outcome_text=text)


def _sent(event: FedEvent, source: Source, *, outcome: Outcome = Outcome.SUCCESS) -> AuditMessage:
    name = _told(event, "destination")
    ae_title, host = source.destinations.get(name, (name, ""))  # the settings may have forgotten it
    receiver = Participant(user_id=ae_title, ae_title=ae_title, address=host, role=DESTINATION)
    sender = _node(source, role=SOURCE, is_requestor=True)
    message = _message(event, source, TRANSFERRED, Action.READ, sender, receiver)
    text = f"{_told(event, 'status')} {_told(event, 'detail')}".strip()
    return message if outcome is Outcome.SUCCESS else replace(message, outcome=outcome, outcome_text=text)


def _delayed(event: FedEvent, source: Source) -> AuditMessage:
    return _sent(event, source, outcome=Outcome.MINOR_FAILURE)


def _given_up(event: FedEvent, source: Source) -> AuditMessage:
    return _sent(event, source, outcome=Outcome.SERIOUS_FAILURE)


def _accessing(action: Action) -> Callable[[FedEvent, Source], AuditMessage]:
    def accessed(event: FedEvent, source: Source) -> AuditMessage:
        return _message(event, source, ACCESSED, action, _doer(event, source))

    return accessed


def _exported(event: FedEvent, source: Source) -> AuditMessage:
    person = replace(_doer(event, source), role=SOURCE)
    browser = Participant(
        user_id=_told(event, "address"),
        address=_told(event, "address"),
        role=DESTINATION_MEDIA,
        media_type=MEDIA_URI,
    )
    return _message(event, source, EXPORT, Action.READ, person, _node(source, role=SOURCE), browser)


def _activity(kind: Code) -> Callable[[FedEvent, Source], AuditMessage]:
    def started_or_stopped(event: FedEvent, source: Source) -> AuditMessage:
        application = Participant(
            user_id=_told(event, "process"),
            name=" ".join(filter(None, ("scp-node", _told(event, "version"), _told(event, "role")))),
            ae_title=source.ae_title,
            role=APPLICATION,
        )
        message = replace(_message(event, source, APPLICATION_ACTIVITY, Action.EXECUTE, application), type=kind)
        if not (since := _told(event, "not_seen_since")):
            return message
        text = f"not seen since {since}: killed, or without the database"
        return replace(message, outcome=Outcome.SERIOUS_FAILURE, outcome_text=text)

    return started_or_stopped


def _authenticating(kind: Code, outcome: Outcome = Outcome.SUCCESS) -> Callable[[FedEvent, Source], AuditMessage]:
    def authenticated(event: FedEvent, source: Source) -> AuditMessage:
        by = _doer(event, source)
        person = _told(event, "person") or by.user_id
        of_person = replace(by, user_id=person, is_requestor=person == by.user_id, address=by.address or source.machine)
        message = _message(event, source, USER_AUTHENTICATION, Action.EXECUTE, of_person, _node(source))
        return replace(message, type=kind, outcome=outcome)

    return authenticated


def _changing(kind: Code) -> Callable[[FedEvent, Source], AuditMessage]:
    def changed(event: FedEvent, source: Source) -> AuditMessage:
        person = _told(event, "person")
        subject = Object(
            id=person or source.ae_title,
            id_type=USER_IDENTIFIER if person else NODE_ID,
            type_code=_PERSON if person else _SYSTEM,
            role=_USER if person else _SECURITY_RESOURCE,
            details=(("Alert Description", event.kind), *_of_trail(event)),
        )
        message = _message(event, source, SECURITY_ALERT, Action.EXECUTE, _doer(event, source))
        return replace(message, type=kind, objects=(subject,))

    return changed


def _log_used(event: FedEvent, source: Source) -> AuditMessage:
    log = Object(
        id=source.audit_log,
        id_type=URI,
        type_code=_SYSTEM,
        role=_SECURITY_RESOURCE,
        name="Security Audit Log",
        details=_of_trail(event),
    )
    return replace(_message(event, source, AUDIT_LOG_USED, Action.READ, _doer(event, source)), objects=(log,))


def _message(event: FedEvent, source: Source, kind: Code, action: Action, *participants: Participant) -> AuditMessage:
    return AuditMessage(event=kind, action=action, at=event.at, participants=participants, source_id=source.ae_title)


def _doer(event: FedEvent, source: Source) -> Participant:
    """Return the person who did it, or the node where no person did."""
    if by := _told(event, "by"):
        return Participant(user_id=by, address=_told(event, "address"), is_requestor=True)
    return _node(source, is_requestor=True)


def _node(source: Source, *, role: Code | None = None, is_requestor: bool = False) -> Participant:
    return Participant(user_id=source.ae_title, ae_title=source.ae_title, role=role, is_requestor=is_requestor)


def _of_trail(event: FedEvent) -> tuple[tuple[str, str], ...]:
    """Return what names the event in the trail: its number and its hash."""
    return ("event", str(event.id)), ("event-sha256", event.hash)


def _told(event: FedEvent, name: str) -> str:
    """Return a value of the event as text; "" where it has none."""
    value = event.detail.get(name)
    return "" if value is None else str(value)


_MAKERS: Final[Mapping[str, Callable[[FedEvent, Source], AuditMessage]]] = {
    "application-started": _activity(APPLICATION_START),
    "application-stopped": _activity(APPLICATION_STOP),
    "received": _received,
    "conflict": _received,
    "duplicate": _again,
    "rejected": _rejected,
    "delivered": _sent,
    "delivery-delayed": _delayed,
    "delivery-dead": _given_up,
    "analysed": _accessing(Action.READ),
    "shadow-analysed": _accessing(Action.READ),
    "reported": _accessing(Action.CREATE),
    "companions-made": _accessing(Action.CREATE),
    "purged": _accessing(Action.DELETE),
    "web-viewed": _accessing(Action.READ),
    "resolved": _accessing(Action.UPDATE),
    "requeued": _accessing(Action.UPDATE),
    "discarded": _accessing(Action.UPDATE),
    "reanalysis-requested": _accessing(Action.UPDATE),
    "web-resent": _accessing(Action.UPDATE),
    "web-feedback": _accessing(Action.UPDATE),
    "web-downloaded": _exported,
    "web-exported": _exported,
    "web-logged-in": _authenticating(LOGIN),
    "web-login-failed": _authenticating(LOGIN, Outcome.MINOR_FAILURE),
    "web-logged-out": _authenticating(LOGOUT),
    "web-session-ended": _authenticating(LOGOUT),
    "web-sessions-ended": _authenticating(LOGOUT),
    "web-role-changed": _changing(SECURITY_ROLES_CHANGED),
    "web-person-added": _changing(USER_ATTRIBUTES_CHANGED),
    "web-person-disabled": _changing(USER_ATTRIBUTES_CHANGED),
    "web-person-enabled": _changing(USER_ATTRIBUTES_CHANGED),
    "web-password-changed": _changing(USER_ATTRIBUTES_CHANGED),
    "web-link-made": _changing(USER_ATTRIBUTES_CHANGED),
    "web-token-made": _changing(USER_ATTRIBUTES_CHANGED),
    "web-token-taken-back": _changing(USER_ATTRIBUTES_CHANGED),
    "model-promoted": _changing(SOFTWARE_CONFIGURATION),
    "web-chain-checked": _log_used,
}
SENT: Final = frozenset(_MAKERS)
"""The kinds of event that have a message; all others stay in the trail."""
