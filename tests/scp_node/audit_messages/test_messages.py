"""What events of the trail say as audit messages, held against PS3.15 A.5."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from xml.etree import ElementTree as ET

import pytest
from pydicom.sr._concepts_dict import concepts
from sqlalchemy import Engine

from scp_node import __version__
from scp_node.audit_messages import events
from scp_node.audit_messages.events import SENT, Source, messages_of, source_of
from scp_node.audit_messages.message import xml_of
from scp_node.domain import Actor, RejectedInstance
from scp_node.ledger import FedEvent, PersonRole
from scp_node.ledger.people import Origin
from scp_node.ledger.processes import GONE_AFTER
from scp_node.settings import Settings
from tests.scp_node.audit_messages.schema import code_of, faults, parsed
from tests.scp_node.ledger.projecting import header
from tests.scp_node.ledger.test_companions import OVERLAY
from tests.scp_node.ledger_node import MODEL, Node

ADMIN: Final = Actor(name="anna", address="10.0.0.7")
PACS: Final = {"name": "pacs", "ae_title": "PACS", "host": "pacs.example", "port": 104}
OF_PERSONS: Final = sorted(kind for kind in SENT if kind.startswith("web-") or kind == "model-promoted")
CONTEXT_GROUPS: Final = {
    "APPLICATION_ACTIVITY AUDIT_LOG_USED ACCESSED TRANSFERRED EXPORT SECURITY_ALERT USER_AUTHENTICATION": 400,
    "APPLICATION_START APPLICATION_STOP LOGIN LOGOUT SOFTWARE_CONFIGURATION": 401,
    "SECURITY_ROLES_CHANGED USER_ATTRIBUTES_CHANGED": 401,
    "APPLICATION SOURCE DESTINATION DESTINATION_MEDIA": 402,
    "STUDY_UID NODE_ID": 404,
    "MEDIA_URI": 405,
}


def source(**changes: Any) -> Source:
    return source_of(Settings.model_validate({"destinations": [PACS], "audit_messages": changes}))


def all_of(node: Node, *, names: bool = False) -> list[tuple[str, ET.Element]]:
    """Return every message, with the kind of its event."""
    node.ledger.seal()
    fed = node.ledger.feed.next("test", with_headers=names)
    known = source(patient_names=names)
    return [(each.kind, parsed(xml_of(told))) for each in fed for told in messages_of(each, known)]


def a_day(node: Node) -> None:
    """Receive, refuse, analyse, report, deliver, look at and purge a film of Jane Doe."""
    ledger = node.ledger
    node.receive("1", header=header("Doe^Jane"))
    node.receive("1", spool_path="again.dcm")
    node.receive("1", spool_path="other.dcm", sha256="f" * 64)
    ledger.intake.record_rejected(
        RejectedInstance(
            sop_instance_uid="1.2\x009",
            calling_ae="CR\x1b1",
            peer="10.0.0.9",
            status=0xC000,
            reason="no",
            at=node.clock(),
        )
    )
    node.analyse()
    node.clock.advance(seconds=60)
    node.report("pacs", companions=lambda _snapshot: [OVERLAY])
    for end in ("delayed", "delivered"):
        task = ledger.deliveries.claim("pacs", owner="s")
        assert task is not None
        if end == "delayed":
            ledger.deliveries.retry(task, status=0xA700, detail="out of resources", pause=timedelta(0))
            ledger.upkeep.sweep(MODEL)
        else:
            ledger.deliveries.delivered(task, status=0, sop_class_uid="1.2")
    ledger.visits.note_view(ADMIN, "1.2.3")
    ledger.visits.note("web-downloaded", ADMIN, study_uid="1.2.3", detail={"object": "report"})


def test_a_day_of_a_node_is_told_by_messages_of_the_standard(node: Node) -> None:
    a_day(node)
    told = all_of(node)
    assert [fault for _, message in told for fault in faults(message)] == []
    found = [(kind, code_of(message, "EventIdentification/EventID")) for kind, message in told]
    for expected in {
        ("received", "110104"),
        ("duplicate", "110104"),
        ("conflict", "110104"),
        ("rejected", "110104"),
        ("analysed", "110103"),
        ("reported", "110103"),
        ("companions-made", "110103"),
        ("delivery-delayed", "110104"),
        ("delivered", "110104"),
        ("web-viewed", "110103"),
        ("web-downloaded", "110106"),
    }:
        assert expected in found


def test_who_sent_what_to_whom_and_for_which_patient(node: Node) -> None:
    a_day(node)
    told = dict(reversed(all_of(node)))
    received, delayed = told["received"], told["delivery-delayed"]
    first, second = received.findall("ActiveParticipant")
    assert first.attrib == {
        "UserID": "CR1",
        "UserIsRequestor": "true",
        "AlternativeUserID": "AETITLES=CR1",
        "NetworkAccessPointID": "127.0.0.1",
        "NetworkAccessPointTypeCode": "2",
    }
    assert second.get("UserID") == "PNEUMONIA"
    ids = [each.get("ParticipantObjectID") for each in received.iter("ParticipantObjectIdentification")]
    assert ids == ["1.2.3", "P1"]
    assert [each.get("UID") for each in received.iter("Instance")] == ["1.2.3.1"]
    assert delayed.findall("ActiveParticipant")[1].get("NetworkAccessPointID") == "pacs.example"
    assert delayed.find("EventIdentification[@EventOutcomeIndicator='4']") is not None
    assert "0xA700" in "".join(each.text or "" for each in delayed.iter("EventOutcomeDescription"))
    assert told["web-viewed"].findall("ActiveParticipant")[0].get("UserID") == "anna"


def test_that_pictures_were_made_is_told_as_the_report_is(node: Node) -> None:
    a_day(node)
    told = dict(all_of(node))
    report, pictures = (
        {
            "action": told[kind].find("EventIdentification[@EventActionCode='C']") is not None,
            "by": [each.attrib for each in told[kind].findall("ActiveParticipant")],
            "about": [each.get("ParticipantObjectID") for each in told[kind].iter("ParticipantObjectIdentification")],
        }
        for kind in ("reported", "companions-made")
    )
    assert pictures == report
    assert (report["action"], report["about"]) == (True, ["1.2.3", "P1"])


def test_a_refused_object_with_the_uid_of_a_film_is_not_told_as_its_patient_s(node: Node) -> None:
    node.receive("1")
    node.ledger.intake.record_rejected(
        RejectedInstance(
            sop_instance_uid="1.2.3.1", calling_ae="CR1", peer="10.0.0.9", status=0xC000, reason="no", at=node.clock()
        )
    )
    refused = dict(all_of(node))["rejected"]
    assert faults(refused) == []
    assert {each.get("ParticipantObjectID") for each in refused.iter("ParticipantObjectIdentification")} == {""}
    assert list(refused.iter("SOPClass")) == []


def test_every_code_is_one_of_its_context_group_with_the_words_of_the_standard() -> None:
    dictionary: Any = concepts["DCM"]
    known = {code: told for each in dictionary.values() for code, told in each.items()}
    for names, group in CONTEXT_GROUPS.items():
        for name in names.split():
            code = getattr(events, name)
            meaning, groups = known[code.value]
            assert (code.system, code.meaning) == ("DCM", meaning)
            assert group in groups


def test_a_message_names_its_event_of_the_trail_by_number_and_hash(node: Node) -> None:
    node.receive("1")
    [(_, message)] = all_of(node)
    details = {
        each.get("type"): base64.b64decode(each.get("value", "")) for each in message.iter("ParticipantObjectDetail")
    }
    [(number, digest)] = node.rows("SELECT id, hash FROM event")
    assert details == {"event": str(number).encode(), "event-sha256": str(digest).encode()}


def test_the_name_of_a_patient_is_told_only_where_the_site_wants_it(node: Node) -> None:
    node.receive("1", header=header("Müller^Jörg"))
    [(_, without)] = all_of(node)
    [(_, with_name)] = all_of(node, names=True)
    assert "Müller" not in ET.tostring(without, encoding="unicode")
    assert "Müller^Jörg" in [each.text for each in with_name.iter("ParticipantObjectName")]


def test_a_study_of_two_patients_is_told_once_for_each(node: Node) -> None:
    node.receive("1")
    node.receive("2", patient_id="P2", patient_key="key of P2")
    node.ledger.visits.note_view(ADMIN, "1.2.3")
    told = [message for kind, message in all_of(node) if kind == "web-viewed"]
    patients = [message.findall("ParticipantObjectIdentification")[1].get("ParticipantObjectID") for message in told]
    assert patients == ["P1", "P2"]
    of_films = [message for kind, message in all_of(node) if kind == "received"]
    assert len(of_films) == 2


def test_logins_and_changes_of_persons_are_told(node: Node) -> None:
    people = node.ledger.people
    people.add("otto", PersonRole.VIEWER, actor=ADMIN, origin=Origin.OIDC, subject="o")
    people.change_role("otto", PersonRole.READER, actor=ADMIN)
    people.log_in("otto", address="10.0.0.8", lifetime=timedelta(hours=1))
    people.end_sessions("otto", actor=ADMIN)
    node.ledger.entrance.failed(Actor(name="otto", address="10.0.0.66"))
    told = all_of(node)
    assert [fault for _, message in told for fault in faults(message)] == []
    types = [(kind, code_of(message, "EventIdentification/EventTypeCode")) for kind, message in told]
    assert types == [
        ("web-person-added", "110137"),
        ("web-role-changed", "110136"),
        ("web-logged-in", "110122"),
        ("web-sessions-ended", "110123"),
        ("web-login-failed", "110122"),
    ]
    ended = told[3][1].findall("ActiveParticipant")[0]
    assert (ended.get("UserID"), ended.get("UserIsRequestor")) == ("otto", "false")
    assert told[4][1].find("EventIdentification[@EventOutcomeIndicator='4']") is not None


def test_the_start_and_the_stop_of_a_process_are_application_activity_also_of_one_that_was_killed(node: Node) -> None:
    processes, owners = node.ledger.processes, ("host-a:7:worker:0a1b2c3d", "host-a:8:sender:0a1b2c3e")
    processes.enter(owners[0], {})
    node.clock.advance(seconds=GONE_AFTER.total_seconds() + 1)
    processes.enter(owners[1], {})
    processes.leave(owners[1])
    told = [message for _, message in all_of(node)]
    assert [fault for message in told for fault in faults(message)] == []
    assert {code_of(message, "EventIdentification/EventID") for message in told} == {"110100"}
    start, killed, _, stop = told
    types = [code_of(message, "EventIdentification/EventTypeCode") for message in told]
    assert types == ["110120", "110121", "110120", "110121"]
    for message, owner, role in ((start, owners[0], "worker"), (stop, owners[1], "sender")):
        [application] = message.findall("ActiveParticipant")
        assert application.attrib == {
            "UserID": owner,
            "UserName": f"scp-node {__version__} {role}",
            "UserIsRequestor": "false",
            "AlternativeUserID": "AETITLES=PNEUMONIA",
        }
        assert code_of(message, "ActiveParticipant/RoleIDCode") == "110150"
        assert message.find("EventIdentification[@EventOutcomeIndicator='0']") is not None
    assert killed.findall("ActiveParticipant")[0].get("UserID") == owners[0]
    assert killed.find("EventIdentification[@EventOutcomeIndicator='8']") is not None
    assert "not seen since" in "".join(each.text or "" for each in killed.iter("EventOutcomeDescription"))


@pytest.mark.parametrize("kind", OF_PERSONS)
def test_whatever_a_person_does_fits_the_schema_even_with_odd_text(kind: str) -> None:
    event = FedEvent(
        id=7,
        seq=7,
        at=datetime(2026, 1, 2, tzinfo=UTC),
        kind=kind,
        study_uid="",
        sop_instance_uid="",
        detail={"by": "a\x00<&\ud800\n", "address": "10.0.0.7", "person": "ß" * 5_000},
        hash="0" * 64,
        sop_class_uid="",
        patients=(),
    )
    [message] = messages_of(event, source())
    encoded = xml_of(message)
    assert faults(parsed(encoded)) == []
    assert b"\n" not in encoded
    assert len(encoded) < 32_768


def test_the_same_event_gives_the_same_bytes_so_that_a_collector_knows_it_again(sqlite_engine: Engine) -> None:
    node = Node(sqlite_engine)
    a_day(node)
    first, second = ([ET.tostring(message) for _, message in all_of(node)] for _ in range(2))
    assert first == second
