"""What `scp-node send` says of each file that was not taken."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from scp_node.cli.console import UsageError
from scp_node.cli.contact import Call, status_words
from scp_node.cli.sending import dicom_files, send_with_progress
from scp_node.cli.trial import Trial, try_destination
from scp_node.settings import COMPREHENSIVE_3D_SR, ENHANCED_SR, Settings
from tests.scp_node.delivery.scp import EXPLICIT, Scp, answering
from tests.scp_node.delivery.test_send_files import CR, JPEG_BASELINE, write_file
from tests.servers import free_port


def call(port: int, **changes: Any) -> Call:
    values: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": port,
        "called": "PACS",
        "calling": "TESTER",
        "called_set_by": "--called",
        "calling_set_by": "--calling",
        "address_set_by": "--to",
        "tls_set_by": "--tls",
    }
    return Call(**(values | changes))


def send(paths: list[Path], to: Call) -> tuple[int, list[str]]:
    """Return the exit status and the lines that are printed, without the progress bar."""
    text = io.StringIO()
    status = send_with_progress(paths, to, Console(file=text, soft_wrap=True, width=500))
    return status, [line for line in text.getvalue().splitlines() if not line.startswith("sending ")]


def test_each_status_is_told_in_words_and_stored_with_a_warning_is_taken(tmp_path: Path) -> None:
    paths = [write_file(tmp_path / name, uid=f"1.2.{number}") for number, name in enumerate("abcde", start=1)]
    with Scp(sop_classes=(CR,)).serving() as scp:
        scp.statuses = [0x0000, 0xA700, 0xB000, 0xC123, 0x0111]
        status, lines = send(paths, call(scp.port))
    assert status == 1
    assert lines == [
        f"{tmp_path}/b: status 0xA700: out of resources, such as disk space: a later try may succeed",
        f"{tmp_path}/c: sent, warning 0xB000: data elements were coerced",
        f"{tmp_path}/d: status 0xC123: it cannot understand the dataset: its log says more",
        f"{tmp_path}/e: status 0x0111: duplicate SOP instance: it has that image already",
        f"3 of 5 sent to PACS at 127.0.0.1:{scp.port}",
    ]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0x0124, "status 0x0124: not authorised: this AE title may not store there"),
        (0x0122, "status 0x0122: SOP class is not supported there"),
        (0xA7FF, "status 0xA7FF: out of resources, such as disk space: a later try may succeed"),
        (0xA900, "status 0xA900: the dataset does not match its SOP class"),
        (0x1234, "status 0x1234: unknown to the standard: see its log"),
    ],
)
def test_a_status_has_its_meaning(status: int, words: str) -> None:
    assert status_words(status) == words


def test_what_is_wrong_with_a_file_is_told(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("not DICOM")
    wrong = write_file(tmp_path / "uid", uid="1.2.9")
    wrong.write_bytes(wrong.read_bytes().replace(b"1.2.9", b"1.2.x"))
    packed = write_file(tmp_path / "packed", syntax=JPEG_BASELINE)
    with Scp(sop_classes=(CR,), syntaxes=(EXPLICIT,)).serving() as scp:
        status, lines = send([text, wrong, packed], call(scp.port))
    assert status == 1
    assert lines == [
        f"{text}: not sent: not a DICOM file",
        f"{wrong}: not sent: file meta information has no valid SOP Instance UID",
        f"{packed}: not sent: Computed Radiography Image Storage in JPEG Baseline (Process 1) is not accepted there",
        f"0 of 3 sent to PACS at 127.0.0.1:{scp.port}",
    ]


def test_why_the_peer_took_nothing_is_told(tmp_path: Path) -> None:
    film, port = write_file(tmp_path / "film"), free_port()
    told = "connection refused: nothing listens on port"
    assert send([film], call(port)) == (
        1,
        [
            f"{film}: not sent: {told} {port} there; start it, or correct the port (--to)",
            f"0 of 1 sent to PACS at 127.0.0.1:{port}",
        ],
    )
    with answering(answer=bytes((3, 0, 0, 0, 0, 4, 0, 1, 1, 7))) as rejecting:
        _, [line, _] = send([film], call(rejecting))
    assert "(1/1/7): it does not know the called AE title PACS: give its own AE title, in its exact case" in line
    assert line.endswith("(--called)")
    with answering(answer=bytes((3, 0, 0, 0, 0, 4, 0, 1, 1, 3))) as rejecting:
        _, [line, _] = send([film], call(rejecting))
    assert "(1/1/3): it does not know our calling AE title TESTER" in line
    _, [line, _] = send([film], call(port, host="no-such-host.invalid"))
    assert "host name no-such-host.invalid cannot be resolved" in line


def test_folders_are_searched_and_what_holds_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "full" / "deep").mkdir(parents=True)
    film = write_file(tmp_path / "full" / "deep" / "film")
    assert dicom_files([tmp_path / "full"]) == [film]
    (tmp_path / "empty" / "deep").mkdir(parents=True)
    with pytest.raises(UsageError, match="empty: no file is in this folder"):
        dicom_files([tmp_path / "full", tmp_path / "empty"])
    with pytest.raises(UsageError, match="absent: no such file or folder"):
        dicom_files([tmp_path / "absent"])


class TestSendTest:
    """`scp-node send-test`: a report of nobody, and what the destination says of it."""

    @staticmethod
    def settings(folder: Path, port: int) -> Settings:
        entry = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": port}
        return Settings.model_validate(
            {
                "node": {"data_dir": folder / "var"},
                "listen": {"port": free_port()},
                "destinations": [entry],
                "delivery": {"connect_seconds": 2, "send_seconds": 5},
            }
        )

    def trial(self, folder: Path, port: int) -> Trial:
        settings = self.settings(folder, port)
        return try_destination(settings, settings.destinations[0])

    def test_a_destination_that_takes_it_gets_a_report_of_nobody(self, tmp_path: Path) -> None:
        with Scp().serving() as scp:
            trial = self.trial(tmp_path, scp.port)
        assert (trial.good, trial.status) == (True, "0x0000")
        [(sop_class, _syntax, data)] = scp.stored
        assert sop_class == trial.sop_class_uid == COMPREHENSIVE_3D_SR
        for words in (b"TEST^SCP-NODE", b"THIS IS A TEST, NO PATIENT", trial.sop_instance_uid.encode()):
            assert words in data
        assert not (tmp_path / "var").exists(), "it makes no folder, and no ledger"

    def test_one_that_knows_an_older_class_alone_gets_it_so(self, tmp_path: Path) -> None:
        with Scp(sop_classes=(ENHANCED_SR,)).serving() as scp:
            trial = self.trial(tmp_path, scp.port)
        assert (trial.good, trial.sop_class_uid, scp.stored[0][0]) == (True, ENHANCED_SR, ENHANCED_SR)

    def test_one_that_refuses_it_says_by_which_status(self, tmp_path: Path) -> None:
        with Scp().serving() as scp:
            scp.statuses = [0xA700] * 3
            trial = self.trial(tmp_path, scp.port)
        assert (trial.good, trial.status) == (False, "0xA700")
        assert "out of resources" in trial.message

    def test_one_that_takes_no_report_or_does_not_answer_is_told_as_doctor_tells_it(self, tmp_path: Path) -> None:
        with Scp(sop_classes=(CR,)).serving() as scp:
            trial = self.trial(tmp_path, scp.port)
        assert (trial.good, trial.status, scp.stored) == (False, None, [])
        assert "accepts none of the SOP classes" in trial.message
        assert "connection refused" in self.trial(tmp_path, free_port()).message
