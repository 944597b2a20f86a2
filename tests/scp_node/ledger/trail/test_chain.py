"""The hash chain: whatever is done to the audit trail past the program is found, on SQLite and on PostgreSQL."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import Engine, Executable, insert, select, text, update

from scp_node.domain import Finding, NotAnalysed, Priority, Reason, RejectedInstance
from scp_node.ledger import Analysed, Verification, create_ledger_engine, upgrade
from scp_node.ledger.database.schema import companion, event, report
from scp_node.ledger.trail.events import event_hash, record_event
from tests.scp_node.ledger.test_companions import OVERLAY, claimed, reported_with_overlay
from tests.scp_node.ledger_node import LEASE, MODEL, Node, migrate

OUTCOME: Final = Finding(probability=0.9, logit=2.0, threshold=0.5)


@pytest.fixture
def told(node: Node) -> Node:
    """A ledger with seven events: two images received and analysed, one study reported, delivered and requeued."""
    node.receive("1", "2", priority=Priority.STAT)
    node.analyse()
    node.report("pacs")
    node.ledger.deliveries.bury(claimed(node, "pacs"), status=0xA900, detail="não")
    assert node.ledger.upkeep.requeue() == 1
    node.ledger.seal()
    assert node.ledger.verifier.verify() == Verification(events=7, head=head(node), files=1, problems=())
    return node


def head(node: Node) -> str:
    return node.ledger.verifier.end().head


def change(node: Node, *statements: str | Executable) -> None:
    """Do what somebody with the database's password can do."""
    with node.engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement) if isinstance(statement, str) else statement)


def edit(event_id: int, **values: Any) -> Executable:
    return update(event).where(event.c.id == event_id).values(**values)


def problem(node: Node) -> str:
    """Return the first thing that is wrong."""
    found = node.ledger.verifier.verify().problems
    assert found, "nothing was found"
    return found[0]


class TestAnEventIsFound:
    """By its id, and with what was done to it."""

    def test_that_was_edited_in_any_column(self, told: Node) -> None:
        with told.engine.connect() as connection:
            kept = connection.execute(select(event).where(event.c.id == 3)).one()._asdict()
        edits: dict[str, Any] = {
            "at": kept["at"] + timedelta(microseconds=1),
            "kind": "delivered",
            "study_uid": "1.2.4",
            "sop_instance_uid": "1.2.3.2",
            "detail": {**kept["detail"], "probability": 0.8},
            "actor": "somebody",
            "previous_hash": 64 * "0",
            "hash": 64 * "0",
        }
        assert set(edits) == set(kept) - {"id", "seq"}
        for column, value in edits.items():
            change(told, edit(3, **{column: value}))
            assert problem(told).startswith("event 3 was edited"), column
            change(told, edit(3, **{column: kept[column]}))
        assert told.ledger.verifier.verify().problems == ()

    def test_that_is_no_longer_readable(self, tmp_path: Path) -> None:
        engine = create_ledger_engine(f"sqlite:///{tmp_path / 'only.sqlite3'}")  # PostgreSQL refuses such values
        upgrade(engine)
        node = Node(engine)
        node.receive("1", "2")
        for statement in ("UPDATE event SET at = '???' WHERE id = 2", "UPDATE event SET detail = '???' WHERE id = 1"):
            change(node, statement)
        assert problem(node).startswith("event 1 was edited")
        change(node, "UPDATE event SET detail = x'00' WHERE id = 1")
        assert problem(node).startswith("event 1 was edited")
        change(node, "DELETE FROM event WHERE id = 1")
        assert problem(node).startswith("event 2 was edited")
        engine.dispose()

    def test_that_was_edited_together_with_its_hash(self, told: Node) -> None:
        forge(told, 3, study_uid="1.2.4")
        assert problem(told) == (
            "event 4 follows one that is not there: that was removed, or changed together with its hash"
        )

    def test_the_last_of_which_was_edited_together_with_its_hash(self, told: Node) -> None:
        forge(told, 7, study_uid="1.2.4")
        assert problem(told).startswith("event 7, the last one, is not the one that the chain ends with")

    def test_whose_forerunner_was_removed(self, told: Node) -> None:
        change(told, "DELETE FROM event WHERE id = 3")
        assert problem(told).startswith("event 4 follows one that is not there: that was removed")

    def test_after_which_the_last_ones_were_removed(self, told: Node) -> None:
        change(told, "DELETE FROM event WHERE id > 5")
        assert problem(told) == "2 events were removed at the end, after event 5"

    def test_that_stood_after_the_first_one_which_was_removed(self, told: Node) -> None:
        change(told, "DELETE FROM event WHERE id = 1")
        assert problem(told).startswith("event 2 follows one that is not there")

    @pytest.mark.parametrize(
        ("one", "other", "named"),
        [(3, 4, "event 4 was reordered: it follows event 3"), (1, 2, "event 2 was reordered: it follows event 1")],
    )
    def test_that_changed_places_with_another(self, told: Node, one: int, other: int, named: str) -> None:
        change(told, edit(one, seq=99), edit(other, seq=one), edit(one, seq=other))
        assert problem(told).startswith(named)

    def test_that_was_moved_to_the_end(self, told: Node) -> None:
        change(told, "UPDATE event SET seq = 99 WHERE id = 1")
        assert problem(told).startswith("event 2 was reordered: it follows event 1, which stands behind it")

    def test_the_last_of_which_was_given_another_place(self, told: Node) -> None:
        change(told, edit(7, seq=99))
        assert problem(told) == "event 7 was moved: it has place 99, and is number 7"

    @pytest.mark.parametrize(
        ("at", "named"),
        [
            (99, "event 99 was added past the program: the chain ends before it"),
            (-1, "event -1 was reordered: it follows event 7"),
        ],
    )
    def test_that_was_added_at_one_end_or_the_other(self, told: Node, at: int, named: str) -> None:
        add(told, at, previous=head(told))
        assert problem(told).startswith(named)

    def test_that_was_put_between_two_others_with_a_good_hash(self, told: Node) -> None:
        change(told, "UPDATE event SET id = id + 100, seq = seq + 100 WHERE id > 3")
        change(told, "UPDATE event SET seq = seq - 99 WHERE id > 100")
        with told.engine.connect() as connection:
            before = connection.scalar(select(event.c.hash).where(event.c.id == 3))
        add(told, 50, seq=4, previous=before)
        assert problem(told) == (
            "event 104 follows event 3: what stands between them was added past the program, or reordered"
        )

    def test_that_was_added_without_a_hash(self, told: Node) -> None:
        change(
            told,
            "INSERT INTO event (id, seq, at, kind, study_uid, sop_instance_uid, detail)"
            " SELECT 8, 8, at, kind, study_uid, sop_instance_uid, detail FROM event WHERE id = 7",
            "UPDATE chain SET length = 8",
        )
        assert problem(told) == "event 8 was added past the program: it has no hash"

    def test_of_a_chain_whose_end_was_removed(self, told: Node) -> None:
        change(told, "DELETE FROM chain")
        assert problem(told).startswith("the row of table chain")


def forge(node: Node, event_id: int, **values: Any) -> None:
    """Change an event and give it the hash that it then needs, as somebody who knows the recipe can."""
    with node.engine.begin() as connection:
        row = connection.execute(select(event).where(event.c.id == event_id)).one()._asdict()
        told = {name: row[name] for name in ("at", "kind", "study_uid", "sop_instance_uid", "detail")} | values
        own = event_hash(row["previous_hash"], **told)
        connection.execute(update(event).where(event.c.id == event_id).values(**told, hash=own))


def add(node: Node, event_id: int, *, seq: int | None = None, previous: str | None) -> None:
    told: dict[str, Any] = {
        "at": node.clock(),
        "kind": "delivered",
        "study_uid": "1.2",
        "sop_instance_uid": "",
        "detail": {},
    }
    with node.engine.begin() as connection:
        own = event_hash(previous or "", **told)
        connection.execute(
            insert(event).values(id=event_id, seq=seq or event_id, previous_hash=previous, hash=own, **told)
        )


class TestAHistoryThatWasWrittenAnew:
    """Whoever rewrites all of it leaves a chain that is sound: only a hash that was noted elsewhere tells."""

    def rewritten(self, node: Node) -> str:
        noted = head(node)
        change(node, "DELETE FROM event WHERE id > 5")
        change(node, "UPDATE chain SET length = 5, head = (SELECT hash FROM event WHERE id = 5)")
        return noted

    def test_is_found_by_a_head_that_was_noted(self, told: Node) -> None:
        noted = self.rewritten(told)
        assert told.ledger.verifier.verify().problems == ()
        [found] = told.ledger.verifier.verify(noted=noted).problems
        assert found == f"no event has the hash {noted}: the history was written anew, or cut before that event"

    def test_is_not_seen_where_there_is_none(self, told: Node) -> None:
        noted = head(told)
        told.receive("3")
        told.ledger.seal()
        assert head(told) != noted
        assert told.ledger.verifier.verify(noted=noted).problems == ()


ADDED: Final = (
    "INSERT INTO result (instance_id, run, bundle, bundle_digest, outcome, detail, notes, input_stats, timings, at)"
    " SELECT instance_id, 7, bundle, bundle_digest, outcome, detail, notes, input_stats, timings, at"
    " FROM result WHERE id = 1"
)


class TestARowThatAnEventSpeaksOf:
    """What the audit shows is read from other tables: the chain vouches for them."""

    @pytest.mark.parametrize(
        ("statement", "named"),
        [
            ("UPDATE result SET probability = 0.1 WHERE id = 2", "result 1 of image 1.2.3.2: its row is not"),
            ("UPDATE result SET verdict = 'not-detected' WHERE id = 2", "result 1 of image 1.2.3.2: its row is not"),
            ("UPDATE instance SET sha256 = 'x' WHERE id = 1", "image 1.2.3.1: its row is not what event 1 says"),
            ("UPDATE instance SET study_uid = 'x' WHERE id = 1", "image 1.2.3.1: its row is not what event 1 says"),
            ("UPDATE report SET sha256 = 'x'", "report 2.25."),
            (ADDED, "table result has 3 rows, the events speak of 2"),
        ],
    )
    def test_is_found_when_it_was_edited(self, told: Node, statement: str, named: str) -> None:
        change(told, statement)
        assert problem(told).startswith(named)

    def test_is_found_when_the_bytes_of_a_report_were_edited(self, told: Node) -> None:
        change(told, update(report).values(file=b"other"))
        assert problem(told).endswith("its bytes were edited")
        assert told.ledger.verifier.verify(quick=True).problems == ()

    def test_is_found_when_the_bytes_of_a_picture_were_edited_together_with_its_digest(self, node: Node) -> None:
        reported_with_overlay(node, "pacs")
        change(node, update(companion).values(file=b"other", sha256=hashlib.sha256(b"other").hexdigest()))
        assert problem(node) == f"companion {OVERLAY.sop_instance_uid}: its row is not what event 4 says"


class TestTheHash:
    """The same on every database, whatever a detail holds."""

    def test_is_what_the_decision_says(self, told: Node) -> None:
        with told.engine.connect() as connection:
            first, second = connection.execute(select(event).order_by(event.c.id).limit(2)).all()
        assert (first.previous_hash, second.previous_hash) == ("", first.hash)
        fields = [first.hash, "2026-01-02T03:04:05.000000+00:00", "received", "1.2.3", "1.2.3.2", second.detail]
        canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        assert second.hash == hashlib.sha256(canonical.encode()).hexdigest()

    def test_does_not_depend_on_the_database(self, tmp_path: Path, postgres: str) -> None:
        heads = set()
        for url in (f"sqlite:///{tmp_path / 'a.sqlite3'}", postgres):
            engine = create_ledger_engine(url)
            upgrade(engine)
            node = Node(engine)
            record(node, difficult())
            node.ledger.seal()
            assert node.ledger.verifier.verify().problems == ()
            heads.add(head(node))
            engine.dispose()
        assert len(heads) == 1

    def test_is_right_for_what_json_writes_in_more_than_one_way(self, node: Node) -> None:
        record(node, difficult())
        assert node.ledger.verifier.verify().problems == ()
        [told] = node.ledger.audit.events("1.2.3")
        assert (told.detail["text"], told.detail["tiny"], told.detail["pair"]) == ("naïve \x00 患者 😀", 5e-324, [1, 2])

    def test_is_not_made_of_a_number_that_is_none(self, node: Node) -> None:
        with pytest.raises(ValueError, match="not JSON compliant"):
            record(node, {"probability": float("nan")})
        assert node.rows("SELECT count(*) FROM event") == [(0,)]


def difficult() -> dict[str, Any]:
    return {
        "text": "naïve \x00 患者 😀",
        "float": 0.1 + 0.2,
        "tiny": 5e-324,
        "large": 1e300,
        "zero": -0.0,
        "whole": 1.0,
        "int": 2**62,
        "none": None,
        "pair": (1, 2),
        "reason": Reason.VIEW,
        "z": {"b": 1, "a": [True]},
    }


def record(node: Node, detail: dict[str, Any]) -> None:
    at = datetime(2026, 3, 4, 5, 6, 7, 890123, tzinfo=UTC)
    with node.ledger.intake._transactions.writing() as (connection, _now):
        record_event(connection, at, "test", study_uid="1.2.3", detail=detail)


def fail_after_recording(node: Node) -> None:
    with node.ledger.intake._transactions.writing() as (connection, now):
        record_event(connection, now, "received")
        raise RuntimeError("power cut")


class TestATransaction:
    """An event is in the chain if and only if what it tells is in the database."""

    def test_that_is_rolled_back_leaves_no_event(self, told: Node) -> None:
        before = told.ledger.verifier.end()
        with pytest.raises(RuntimeError, match="power cut"):
            fail_after_recording(told)
        assert told.ledger.verifier.end() == before
        told.receive("3")  # on the same connection
        told.ledger.seal()
        assert told.ledger.verifier.verify().problems == ()
        assert told.ledger.verifier.end().length == before.length + 1

    def test_that_was_not_begun_by_the_ledger_cannot_record_one(self, node: Node) -> None:
        node.receive("1")  # leaves its connection in the pool
        with node.engine.begin() as connection, pytest.raises(RuntimeError, match=r"outside of Transactions\.writing"):
            record_event(connection, node.clock(), "received")

    def test_beside_fifteen_others_leaves_one_unbroken_chain(self, node: Node) -> None:
        def receive(writer: int) -> None:
            for number in range(8):
                node.receive(f"{writer}.{number}.1", f"{writer}.{number}.2", study=f"1.{writer}")
                tasks = node.ledger.analyses.claim(owner=str(writer), limit=3)
                done = [Analysed(task=task, outcome=OUTCOME, started_at=node.clock()) for task in tasks]
                node.ledger.analyses.record(done, MODEL)

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(receive, range(16)))
        analysed_images = node.rows("SELECT count(*) FROM result")[0][0]
        assert analysed_images > 128
        node.ledger.seal()
        found = node.ledger.verifier.verify()
        assert (found.events, found.problems) == (256 + analysed_images, ())


class TestAnUpgrade:
    """Events from before there was a chain are chained as they stand."""

    @pytest.mark.parametrize("database", ["sqlite", "postgresql"])
    def test_chains_the_events_that_are_there(
        self, database: str, tmp_path: Path, request: pytest.FixtureRequest
    ) -> None:
        if database == "sqlite":
            url = f"sqlite:///{tmp_path / 'old.sqlite3'}"
            (tmp_path / "old.sqlite3").touch()  # the engine makes none
        else:
            url = request.getfixturevalue("postgres")
        engine = create_ledger_engine(url)
        migrate(engine, "0003")
        _fill(engine, 1_003)  # more than one batch, and with gaps as a rollback leaves them
        upgrade(engine)
        node = Node(engine)
        found = node.ledger.verifier.verify()
        assert (found.events, found.problems) == (1_003, ())
        node.ledger.deliveries.destination_failed("pacs", pause=lambda _: LEASE, enough=1, detail="down")
        node.ledger.seal()
        assert node.ledger.verifier.verify().events == 1_004
        change(node, "UPDATE event SET kind = 'x' WHERE id = 2004")
        assert problem(node).startswith("event 2004 was edited")
        engine.dispose()


def _fill(engine: Engine, number: int) -> None:
    """Write events as the program before the chain did."""
    statement = text(
        "INSERT INTO event (id, at, kind, study_uid, sop_instance_uid, detail)"
        " VALUES (:id, :at, 'rejected', '', :uid, :detail)"
    )
    detail = json.dumps({"reason": "naïve \x00", "n": 0.1 + 0.2})
    rows = [
        {"id": 2 * n, "at": f"2026-01-02 03:04:05.{n:06d}", "uid": f"1.2.{n}", "detail": detail}
        for n in range(1, number + 1)
    ]
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("SET LOCAL TIME ZONE 'UTC'")
        connection.execute(statement, rows)
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT setval(pg_get_serial_sequence('event', 'id'), max(id)) FROM event"))


class TestEveryEvent:
    """Names what it speaks of, and is in the trail of its study."""

    def test_from_image_to_dead_letter_names_inputs_model_report_destination_and_status(self, told: Node) -> None:
        trail = told.ledger.audit.events("1.2.3")
        assert [row.kind for row in trail] == [
            "received",
            "received",
            "analysed",
            "analysed",
            "reported",
            "delivery-dead",
            "requeued",
        ]
        one, two = ("1".zfill(64), "2".zfill(64))
        assert [row.detail["input_sha256"] for row in trail] == [[one], [two], [one], [two], *[[one, two]] * 3]
        assert {row.detail["bundle_digest"] for row in trail[2:]} == {MODEL.digest}
        [(digest, uid)] = told.rows("SELECT sha256, sop_instance_uid FROM report")
        assert {(row.detail["report_sha256"], row.detail["report_uid"]) for row in trail[4:]} == {(digest, uid)}
        assert trail[4].detail["destinations"] == ["pacs"]
        assert [row.detail["destination"] for row in trail[5:]] == ["pacs", "pacs"]
        assert [row.detail["status"] for row in trail[5:]] == ["0xA900", "0xA900"]

    def test_about_a_picture_names_it_and_the_report_that_it_went_with(self, node: Node) -> None:
        reported_with_overlay(node, "pacs")
        node.ledger.deliveries.delivered(claimed(node, "pacs"), status=0, sop_class_uid="1.2")
        node.ledger.deliveries.bury(claimed(node, "pacs"), status=0x0122, detail="SOP class")
        node.ledger.upkeep.discard(OVERLAY.sop_instance_uid)
        report, *picture = node.ledger.audit.events("1.2.3")[-3:]
        digest = hashlib.sha256(OVERLAY.file).hexdigest()
        assert report.detail["sent_uid"] == report.detail["report_uid"]
        assert report.detail["sent_sha256"] == report.detail["report_sha256"] != digest
        assert [(row.detail["sent_uid"], row.detail["sent_sha256"]) for row in picture] == [
            (OVERLAY.sop_instance_uid, digest)
        ] * 2
        assert {row.detail["report_sha256"] for row in picture} == {report.detail["report_sha256"]}
        assert [row.kind for row in picture] == ["delivery-dead", "discarded"]

    def test_about_a_failed_image_or_study_is_in_its_trail(self, node: Node) -> None:
        node.receive("1", priority=Priority.STAT)
        node.analyse(NotAnalysed(reason=Reason.UNREADABLE_PIXELS))
        task = node.ledger.reports.claim(owner="w")
        assert task is not None
        node.ledger.reports.fail(task, "no header")
        assert node.ledger.upkeep.requeue("1.2.3") == 2
        failed, *requeued = node.ledger.audit.events("1.2.3")[-3:]
        assert [row.kind for row in (failed, *requeued)] == ["report-failed", "requeued", "requeued"]
        assert [row.detail["input_sha256"] for row in (failed, *requeued)] == [["1".zfill(64)]] * 3
        assert {row.sop_instance_uid for row in requeued} == {"1.2.3.1", ""}

    def test_about_a_refused_store_is_kept_whatever_the_peer_called_the_object(self, node: Node) -> None:
        node.ledger.intake.record_rejected(
            RejectedInstance(
                sop_instance_uid="'" + 70 * "\\x00" + "\0'",
                calling_ae="CR1",
                peer="127.0.0.1",
                status=0x0117,
                reason="malformed",
                at=node.clock(),
            )
        )
        [row] = node.audit()
        assert (row["state"], row["detail"], len(row["sop_instance_uid"])) == ("rejected", "0x0117", 64)
        assert node.ledger.verifier.verify().problems == ()
