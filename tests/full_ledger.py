"""A ledger with very many studies, written in minutes by the database itself: what `tests.bench_pages` asks."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Column, Engine, Table, func, insert, select, text, update

from scp_node.domain import Reason, Verdict
from scp_node.ledger import StudyState
from scp_node.ledger.database import schema
from scp_node.ledger.database.schema import chain, daily, event, projection, worklist
from scp_node.ledger.search import search_text
from tests.scp_node.ledger_node import Node
from tests.scp_node.web.studies import Archive

START: Final = datetime(2024, 1, 1, tzinfo=UTC)
APART: Final = timedelta(seconds=60)
BLOCK: Final = 10_000
STUDY: Final = "1.2.826.0.1.3680043.9."
SYLLABLES: Final = (
    "ka",
    "mi",
    "ra",
    "to",
    "no",
    "shi",
    "be",
    "lo",
    "ven",
    "der",
    "mar",
    "son",
    "el",
    "ur",
    "qui",
    "zy",
)
FAMILIES: Final = ("山田", "佐藤", "Иванов", "Петрова", "Müller", "Smith", "Nguyễn", "García")
SENDERS: Final = ("CR_ROOM1", "CR_ROOM2", "DX_ER", "BEDSIDE", "CHILDREN")
READABLE: Final = 500
OF_A_STUDY: Final = (  # those with a foreign key after those that it names
    schema.study_patient,
    schema.study,
    schema.instance,
    schema.result,
    schema.report,
    schema.report_result,
    schema.delivery,
    schema.work,
    schema.event,
)
_OF_THEIR_OWN: Final = frozenset({"sop_instance_uid", "series_uid", "series_instance_uid", "spool_path", "dedup"})


def fill(engine: Engine, number: int, folder: Path) -> None:
    """Write a ledger of `number` studies, its list, and the counts of two years.

    The list is varied, and each study is a copy of one.
    """
    _fill_studies(engine, number, folder)
    _fill_list(engine, number)


def _fill_list(engine: Engine, number: int) -> None:
    """Write the list and the days: a block of rows, and then copies of it that are later, with numbers of their own."""
    chance, block = random.Random(1), min(number, BLOCK)
    with engine.begin() as connection:
        connection.execute(insert(worklist), [_row(chance, each) for each in range(block)])
        connection.execute(insert(daily), _days(2 * 365))
    for start in range(block, number, block):
        with engine.begin() as connection:
            connection.execute(text(_list_copies(engine.dialect.name)), {"start": start, "block": block})
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))  # as autovacuum does


def _list_copies(dialect: str) -> str:
    """Return the statement that copies the first block of the list."""
    number = "(id - 1 + :start)"
    digits = f"printf('%08d', {number})" if dialect == "sqlite" else f"lpad({number}::text, 8, '0')"
    times = ("newest_at", "received_at", "reported_at", "delivered_at")
    other = {
        "id": "id + :start",
        "study_uid": f"'{STUDY}' || {number}",
        "accession": f"'A' || {digits}",
        "search": f"replace(search, lower(accession), 'a' || {digits})",
        "bundle": f"'model-1.' || ({number} * 3 / 1000000)",
        **{name: _later(name, "60 * :start", dialect) for name in times},
    }
    values = {column.name: other.get(column.name, _quoted(column.name)) for column in worklist.c}
    return (
        f"INSERT INTO worklist ({', '.join(map(_quoted, values))}) "  # noqa: S608 - ours
        f"SELECT {', '.join(values.values())} FROM worklist WHERE id <= :block"
    )


def _fill_studies(engine: Engine, number: int, folder: Path) -> None:
    """Write all that a ledger holds of one study that was received, read, reported and delivered, and copies of it.

    Only the reports of each `READABLE`th study are whole: those whose pages are asked for.
    """
    node = Node(engine)
    node.clock.now = START
    archive = Archive(node, folder)
    archive.receive(archive.film(study=f"{STUDY}0"))
    archive.analyse()
    archive.report("pacs", pictures=False)
    archive.deliver("pacs")
    node.ledger.seal()
    with engine.connect() as connection:
        rows = {table: connection.scalar(select(func.count()).select_from(table)) or 0 for table in OF_A_STUDY}
    copying = [_copies(table, rows, engine.dialect.name) for table in OF_A_STUDY]
    for first in range(1, number, BLOCK):
        with engine.begin() as connection:
            for statement in copying:
                connection.execute(text(statement), {"first": first, "last": min(first + BLOCK, number) - 1})
    with engine.begin() as connection:
        last = select(func.max(event.c.seq)).scalar_subquery()
        connection.execute(update(chain).values(length=last))
        connection.execute(update(projection).values(phase="follow", position=last))
        if engine.dialect.name == "postgresql":
            for table in (each for each in OF_A_STUDY if "id" in each.c):
                moved = f"SELECT setval(pg_get_serial_sequence('{table.name}', 'id'), max(id)) FROM {table.name}"  # noqa: S608 - ours
                connection.execute(text(moved))


def _copies(table: Table, rows: Mapping[Table, int], dialect: str) -> str:
    """Return the statement that copies the rows of the first study, with times, numbers and UIDs of their own."""
    values = {column.name: _copied(column, rows, dialect) for column in table.c}
    key = next(iter(table.primary_key.columns)).name
    own = f"{key} = '{STUDY}0'" if key == "study_uid" else f"{key} <= {rows[table]}"
    return (
        "WITH RECURSIVE series(k) AS "  # noqa: S608 - ours
        "(SELECT CAST(:first AS bigint) UNION ALL SELECT k + 1 FROM series WHERE k < :last) "
        f"INSERT INTO {table.name} ({', '.join(map(_quoted, values))}) "
        f"SELECT {', '.join(values.values())} FROM {table.name} CROSS JOIN series WHERE {own}"
    )


def _copied(column: Column[Any], rows: Mapping[Table, int], dialect: str) -> str:
    """Return the value of a column in the copy with number k."""
    name, value = _quoted(column.name), _quoted(column.name)
    named = next((key.column.table for key in column.foreign_keys), column.table if column.primary_key else None)
    if column.name == "study_uid":
        value = f"'{STUDY}' || k"
    elif column.name in _OF_THEIR_OWN:
        value = f"CASE {name} WHEN '' THEN '' ELSE {name} || '.' || k END"
    elif column is event.c.seq:
        value = f"{name} + k * {rows[event]}"
    elif column.name == "ref_id":
        value = f"{name} + k"  # there is one image, one patient, one report and one delivery
    elif named is not None:
        value = f"{name} + k * {rows.get(named, 0)}"
    elif isinstance(column.type, schema.UtcDateTime):
        value = _later(name, "60 * k", dialect)
    elif column.table is schema.report and column.name == "file":
        value = f"CASE k % {READABLE} WHEN 0 THEN {name} ELSE substr({name}, 1, 64) END"
    return value


def _later(name: str, seconds: str, dialect: str) -> str:
    if dialect == "sqlite":
        return f"strftime('%Y-%m-%d %H:%M:%f000', {name}, '+' || ({seconds}) || ' seconds')"
    return f"{name} + ({seconds}) * interval '1 second'"


def _quoted(name: str) -> str:
    return f'"{name}"'


def _row(chance: random.Random, number: int) -> dict[str, Any]:
    at = START + number * APART
    family = chance.choice(FAMILIES) if chance.random() < 0.3 else "".join(chance.choices(SYLLABLES, k=3))
    given = "".join(chance.choices(SYLLABLES, k=2))
    probability = chance.random() ** 3
    has_verdict = chance.random() < 0.9
    verdict = Verdict.PRESENT if probability > 0.4 else Verdict.NOT_DETECTED
    state = StudyState.DELIVERED if has_verdict else StudyState.NOT_ANALYSED
    if chance.random() < 0.0003:
        state = StudyState.GIVEN_UP
    identity, accession = f"P{chance.randrange(10**7):07}", f"A{number:08}"
    return {
        "id": number + 1,
        "study_uid": f"{STUDY}{number}",
        "patient_key": f"{number:064}",
        "patient_id": identity,
        "patient_name": f"{family}, {given}",
        "accession": accession,
        "sex": chance.choice("MF"),
        "age": f"{chance.randrange(18, 95):03}Y",
        "views": chance.choice(("PA", "AP")),
        "calling_ae": chance.choice(SENDERS),
        "images": 1,
        "interrupted": False,
        "newest_at": at,
        "received_at": at,
        "state": state.value,
        "reason": None if has_verdict else Reason.VIEW.value,
        "detail": "",
        "verdict": verdict.value if has_verdict else None,
        "probability": probability if has_verdict else None,
        "threshold": 0.4,
        "grey_zone": None,
        "bundle": f"model-1.{number * 3 // 1_000_000}",
        "bundle_digest": "sha256:" + "a" * 64,
        "report_version": 1,
        "delivery_state": "delivered",
        "waiting_since": None,
        "reported_at": at,
        "delivered_at": at,
        "committed_at": None,
        "feedback": "agree" if chance.random() < 0.01 else None,
        "search": search_text((family, given, identity, accession)),
    }


def _days(number: int) -> list[dict[str, Any]]:
    """Return the counts of `number` days up to the end of 2025."""
    chance = random.Random(2)
    table = []
    for day in range(number):
        for sender in SENDERS:
            for view in ("PA", "AP", "LL"):
                counts = {
                    "outcome": {"present": 12, "not-detected": 60},
                    "probability": {str(chance.randrange(1000)): 1 for _ in range(60)},
                    "input mean": {str(chance.randrange(100)): 2 for _ in range(40)},
                    "films": {"mean": 72},
                    "sum": {"mean": 30_000_000, "probability": 30_000_000},
                    "squares": {"mean": 14_000_000},
                    "seconds": {str(chance.randrange(20, 50)): 2 for _ in range(20)},
                }
                key = {"day": date(2025, 12, 31) - timedelta(days=day), "calling_ae": sender, "view": view}
                table.append({**key, "bundle": "model-1.2", "counts": counts})
    return table
