"""The log: one line an event, and nothing that a peer or a dataset put there can break or leak."""

from __future__ import annotations

import json
import logging

import pytest
from pydicom import Dataset

from scp_node.runtime.logs import ConsoleFormatter, JsonFormatter, configure_logging
from scp_node.settings import LogSettings
from tests.command import log_put_back


def record(message: str) -> logging.LogRecord:
    return logging.LogRecord("scp_node", logging.INFO, "", 0, "rejected ae_title=%s", (message,), None)


def test_a_newline_in_an_ae_title_does_not_forge_a_second_line() -> None:
    assert "\n" not in ConsoleFormatter().format(record("A\nnode started"))
    line = JsonFormatter().format(record("A\nnode started"))
    assert "\n" not in line
    assert json.loads(line)["event"].endswith("A\nnode started")


def test_a_bad_date_in_a_header_does_not_reach_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    with log_put_back():
        configure_logging(LogSettings(format="json", level="DEBUG"))
        header = Dataset()
        header.PatientBirthDate = "CANARY-19991399"
        _ = header.PatientBirthDate
        logging.getLogger("pydicom").warning("CANARY")
    assert "CANARY" not in capsys.readouterr().err
