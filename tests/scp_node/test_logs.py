"""The log: one line an event with its fields, and nothing that a peer or a dataset put there can break or leak."""

from __future__ import annotations

import ast
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

import pytest
from pydicom import Dataset
from sqlalchemy.exc import DataError
from structlog.contextvars import bound_contextvars

from scp_node.logs import RESERVED, configure_logging, get_logger
from scp_node.settings import LogSettings
from scp_node.spool import SpoolError
from tests.command import log_put_back

WRITES: Final = {"debug", "info", "warning", "error", "exception", "log", "warn"}
QUOTED: Final = "CANARY"
HAND_ON: Final = {"listener/faults.py", "listener/upper_layer.py", "runtime/repeated.py"}  # the phrase of a caller
WITH_LOGGING: Final = {  # files that use Python's own loggers, and for what
    "logs.py",
    "listener/library_log.py",  # the place of a warning of pynetdicom
    "analysis/attributes.py",  # pydicom's own words are kept out
}

log = get_logger("scp_node.test")


@contextmanager
def written(level: Literal["DEBUG", "INFO"] = "INFO", shape: Literal["json", "console"] = "json") -> Iterator[None]:
    with log_put_back():
        configure_logging(LogSettings(format=shape, level=level))
        yield


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_json_line_has_each_field_as_a_value_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with written():
        log.info("study reported", study_uid="1.2.3", images=2, probability=0.75, destinations=["pacs", "ris"])
    [line] = lines(capsys)
    assert datetime.fromisoformat(line.pop("at")).tzinfo is not None
    assert line == {
        "level": "INFO",
        "logger": "scp_node.test",
        "event": "study reported",
        "study_uid": "1.2.3",
        "images": 2,
        "probability": 0.75,
        "destinations": ["pacs", "ris"],
    }


def test_a_line_for_people_has_the_phrase_and_quotes_what_is_more_than_a_word(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with written(shape="console"):
        log.warning("study reported", study_uid="1.2.3", names=["pacs", "ris"], none=[], reason="it is late", empty="")
    [line] = capsys.readouterr().err.splitlines()
    assert line[23:] == " WARNING study reported study_uid=1.2.3 names=pacs,ris none=none reason='it is late' empty=''"


@pytest.mark.parametrize("shape", ["json", "console"])
def test_a_library_logs_by_the_same_format(
    shape: Literal["json", "console"], capsys: pytest.CaptureFixture[str]
) -> None:
    with written(shape=shape):
        logging.getLogger("uvicorn").error("cannot bind %s", "port\nnode started")
    written_line = capsys.readouterr().err
    assert written_line.count("\n") == 1
    if shape == "json":
        assert json.loads(written_line)["event"] == "cannot bind port\nnode started"
    else:
        assert written_line.endswith("ERROR   cannot bind port\\nnode started\n")


@pytest.mark.parametrize("shape", ["json", "console"])
def test_a_newline_in_an_ae_title_does_not_forge_a_second_line(
    shape: Literal["json", "console"], capsys: pytest.CaptureFixture[str]
) -> None:
    with written(shape=shape):
        log.info("rejected", ae_title="A\nnode started")
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    if shape == "json":
        assert json.loads(line)["ae_title"] == "A\nnode started"
    else:
        assert "ae_title='A\\nnode started'" in line


def test_what_a_thread_serves_is_named_in_each_of_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with written():
        with bound_contextvars(peer="10.0.0.1"):
            log.info("bound")
            log.info("said", peer="10.0.0.2")
        log.info("over")
    assert [line.get("peer") for line in lines(capsys)] == ["10.0.0.1", "10.0.0.2", None]


def fail(error: Exception, cause: Exception) -> None:
    try:
        raise cause
    except type(cause) as known:
        raise error from known


@pytest.mark.parametrize("shape", ["json", "console"])
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError(QUOTED), "ValueError"),
        (DataError("", {}, ValueError(f"DETAIL: Failing row contains ({QUOTED})")), "sqlalchemy.exc.DataError"),
        (SpoolError("disk is full"), "scp_node.spool.SpoolError: disk is full"),
        (FileNotFoundError(2, "No such file", "x"), "FileNotFoundError: [Errno 2] No such file: 'x'"),
    ],
    ids=["Python", "library", "ours", "system"],
)
def test_an_error_has_its_traceback_and_no_message_that_may_quote_a_value(
    shape: Literal["json", "console"], error: Exception, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with written(shape=shape):
        try:
            fail(error, KeyError(QUOTED))
        except type(error):
            log.exception("step failed", step="register")
    line = capsys.readouterr().err
    shown = json.loads(line)["exception"] if shape == "json" else line
    assert shown.count("Traceback (most recent call last):\n  File") == 2
    assert "in fail" in shown
    assert "\nKeyError\n" in shown
    assert shown.rstrip().endswith(f"\n{told}")
    assert QUOTED not in line


def test_a_line_below_the_level_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    with written("INFO"):
        log.debug("quiet")
    with written("DEBUG"):
        log.debug("loud")
    assert [line["event"] for line in lines(capsys)] == ["loud"]


def test_a_bad_date_in_a_header_does_not_reach_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    with written("DEBUG"):
        header = Dataset()
        header.PatientBirthDate = "CANARY-19991399"
        _ = header.PatientBirthDate
        logging.getLogger("pydicom").warning("CANARY")
    assert "CANARY" not in capsys.readouterr().err


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    """Yield the calls that write a line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in WRITES:
            owner = node.func.value
            if (owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", "")) in {"log", "lines", "_lines"}:
                yield node


def faults(call: ast.Call, *, handed_on: bool = False) -> Iterator[str]:
    """Yield how a call is not `log.level("phrase", key=value)`; the phrase may be `handed_on`."""
    assert isinstance(call.func, ast.Attribute)
    first, *more = call.args[call.func.attr == "log" :] or [ast.Constant(None)]
    if not (isinstance(first, ast.Constant) and isinstance(first.value, str)):
        if not handed_on:
            yield "its phrase is not written out"
    elif set("%={") & set(first.value):
        yield "a value stands in its phrase"
    if more:
        yield "a value has no name"
    yield from (f"{key.arg} is a key of each line" for key in call.keywords if key.arg in RESERVED)


def test_every_line_of_the_node_is_a_phrase_and_fields(repository: Path) -> None:
    found: list[str] = []
    number = 0
    for path in sorted((repository / "scp_node").rglob("*.py")):
        file = path.relative_to(repository / "scp_node").as_posix()
        text = path.read_text(encoding="utf-8")
        if "logging.getLogger" in text and file not in WITH_LOGGING:
            found.append(f"{file}: take get_logger of scp_node.logs")
        for call in calls(ast.parse(text)):
            number += 1
            found += [f"{file}:{call.lineno}: {fault}" for fault in faults(call, handed_on=file in HAND_ON)]
    assert number > 80
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        'log.info("rejected peer=%s", peer)',
        'log.info(f"rejected {peer}")',
        "log.log(10, told)",
        'log.info("rejected", peer)',
        'log.info("rejected", level=3)',
    ],
)
def test_a_line_of_another_form_is_found(line: str) -> None:
    [call] = calls(ast.parse(line))
    assert list(faults(call))
