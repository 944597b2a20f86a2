"""pynetdicom's own tests of an SCP hold for the listener, whose server and associations take the place of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

import pynetdicom
import pytest

from scp_node.listener.association import _SEAMS
from tests.scp_node.listener import stand_in

_PLUGIN: Final = stand_in.__name__
_AT_ONCE: Final = 4  # most of a case is waiting
_SECONDS: Final = 600

# How many cases of each file take part, at least: an upgrade that renames files or tests must not go unseen.
LEAST: Final = {
    "test_acse": 135,
    "test_assoc": 194,
    "test_dimse_provider": 18,
    "test_dul": 2,
    "test_fsm": 218,
    "test_service_storage": 24,
    "test_service_verification": 15,
    "test_transport": 47,
}

# They look for a line of the log before the SCP can have written it, unless the server is slow to stop.
RACES: Final = tuple(
    f"test_assoc.py::TestAssociationSendC{each}::test_query_uid_private" for each in ("Find", "Get", "Move")
)

# What differs on purpose, and why. Each of these passes with pynetdicom's own classes.
DEVIATIONS: Final[dict[str, tuple[str, ...]]] = {
    "the node requests nothing of who calls it: a response answers no request, and ends the association": (
        "test_assoc.py::TestAssociationSendCGet::test_identifier_logging",
        "test_assoc.py::TestAssociationSendCGet::test_rsp_pending_send_failure",
        "test_assoc.py::TestAssociationSendCGet::test_rsp_pending_send_success",
        "test_assoc.py::TestAssociationSendCGet::test_rsp_pending_send_warning",
        "test_assoc.py::TestAssociationSendCGet::test_rsp_success",
        "test_assoc.py::TestAssociationSendCGet::test_rsp_warning",
        "test_assoc.py::TestAssociationSendCGet::test_unrestricted_failure",
        "test_assoc.py::TestAssociationSendCGet::test_unrestricted_success",
        "test_fsm.py::TestParrotAttack::test_requestor",
        "test_fsm.py::TestState06::test_evt10",
        "test_transport.py::TestAssociationSocket::test_multiple_pdu_req",
        "test_transport.py::TestTLS::test_multiple_pdu_req[server_context_v1_2-TLSv1.2]",
        "test_transport.py::TestTLS::test_multiple_pdu_req[server_context_v1_3-TLSv1.3]",
    ),
    "the node requests no release: it answers one, or aborts": (
        "test_assoc.py::TestAssociation::test_peer_releases_assoc",
        "test_assoc.py::TestAssociationSendCEcho::test_network_timeout_release",
        "test_assoc.py::TestEventHandlingAcceptor::test_release_local",
        "test_assoc.py::TestEventHandlingRequestor::test_release_remote",
    ),
    "user identity and extended negotiation are not agreed upon, as CONFORMANCE.md says": (
        "test_acse.py::TestSOPClassCommonExtendedNegotiation::test_functional_response",
        "test_acse.py::TestSOPClassExtendedNegotiation::test_req_response_sop_class_ext",
        "test_acse.py::TestUserIdentityNegotiation::test_functional_not_authorised",
        "test_acse.py::TestUserIdentityNegotiation::test_req_response_user_identity",
        "test_assoc.py::TestAssociationSendCStore::test_functional_common_ext_neg",
        "test_service_storage.py::TestStorageServiceClass::test_scp_handler_sop_extended",
    ),
    "the node has its own lines for messages and ends, and triggers no event of pynetdicom's for them": (
        "test_assoc.py::TestAssociation::test_invalid_context",
        "test_assoc.py::TestEventHandlingAcceptor::test_abort",
        "test_assoc.py::TestEventHandlingAcceptor::test_abort_bind",
        "test_assoc.py::TestEventHandlingAcceptor::test_abort_raises",
        "test_assoc.py::TestEventHandlingAcceptor::test_release",
        "test_assoc.py::TestEventHandlingAcceptor::test_release_bind",
        "test_assoc.py::TestEventHandlingAcceptor::test_release_raises",
        "test_dimse_provider.py::TestEventHandlingAcceptor::test_dimse_recv",
        "test_dimse_provider.py::TestEventHandlingAcceptor::test_dimse_recv_bind",
        "test_dimse_provider.py::TestEventHandlingAcceptor::test_dimse_recv_raises",
        "test_dimse_provider.py::TestEventHandlingAcceptor::test_dimse_recv_unbind",
        "test_dimse_provider.py::TestEventHandlingRequestor::test_dimse_recv_raises",
    ),
    "a dataset goes to the spool as it comes: pynetdicom's own ways to get at it find none that is large, or none": (
        "test_assoc.py::TestAssociationSendCStore::test_using_filepath_chunks",
        "test_service_storage.py::TestStorageServiceClass::test_scp_handler_dataset_path",
        "test_transport.py::TestTLS::test_tls_transfer[server_context_v1_2-TLSv1.2]",
        "test_transport.py::TestTLS::test_tls_transfer[server_context_v1_3-TLSv1.3]",
    ),
    "the node makes no use of the originator of a C-MOVE": (
        "test_service_storage.py::TestStorageServiceClass::test_scp_handler_move_origin",
    ),
    "another protocol version is rejected with the other reasons, from Sta3 by AE-8 instead of from Sta2 by AE-6": (
        "test_fsm.py::TestState02::test_evt06b",
    ),
    "timers are looked at once a second at least; the case changes one in between, and looks after half a second": (
        "test_fsm.py::TestState02::test_evt18",
    ),
    "no garbage is collected where connections are accepted: all would wait for it": (
        "test_transport.py::TestAssociationServer::test_gc",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One test of pynetdicom's, as it ended."""

    name: str  # with its file and its class
    file: str
    fault: str  # empty if it passed
    has_met_the_listener: bool


@pytest.fixture(scope="module")
def cases(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """All cases by their names; one that failed unexpectedly has had a second try, alone: some race with themselves."""
    folder = tmp_path_factory.mktemp("cases")
    options = ("--numprocesses", str(_AT_ONCE), *(f"--deselect={name}" for name in RACES))
    found = _run(repository, folder, [f"{file}.py" for file in LEAST], *options)
    again = _unexpected(found)
    return found | _run(repository, folder, [*again]) if again else found


def test_whatever_passes_with_pynetdicom_s_own_classes_passes_with_the_listener_s(cases: dict[str, Case]) -> None:
    assert _unexpected(cases) == {}


@pytest.mark.parametrize("reason", DEVIATIONS)
def test_what_differs_on_purpose_differs_still(reason: str, cases: dict[str, Case]) -> None:
    assert [name for name in DEVIATIONS[reason] if not cases[name].fault] == []


def test_no_case_has_been_lost(cases: dict[str, Case]) -> None:
    met = Counter(each.file for each in cases.values() if each.has_met_the_listener)
    assert {file: (met[file], least) for file, least in LEAST.items() if met[file] < least} == {}


def test_the_page_names_every_class_that_is_replaced(repository: Path) -> None:
    page = (repository / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = page.partition("## What the listener takes from pynetdicom\n")[2].partition("\n## ")[0]
    named = [
        name for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    ]
    assert sorted(named) == sorted(owner.__name__ for owner in _SEAMS)


def _run(repository: Path, folder: Path, tests: Sequence[str], *options: str) -> dict[str, Case]:
    installed = Path(pynetdicom.__file__).parent / "tests"
    ours = {"PYTHONPATH": str(repository), "PYTHONDONTWRITEBYTECODE": ""}
    settings, results = folder / "pytest.ini", folder / "results.xml"
    settings.write_text("[pytest]\n", encoding="utf-8")  # and not this project's
    results.unlink(missing_ok=True)
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pytest",
        "-c",
        settings,
        "--rootdir",
        installed,
        "--assert=plain",
        "--noconftest",
    ]
    command += ["-p", _PLUGIN, "-p", "no:cacheprovider", "-p", "no:schemathesis", "--junit-xml", results, *options]
    done = subprocess.run(
        [*command, *(installed / each for each in tests)],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")} | ours,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert results.exists(), done.stdout
    suites = ET.parse(results)  # noqa: S314 - our own pytest wrote it
    return {each.name: each for each in map(_case, suites.iter("testcase"))}


def _case(element: ET.Element) -> Case:
    where, _, name = element.attrib["classname"].partition(".")
    faults = [*element.iter("failure"), *element.iter("error")]
    properties = {each.attrib["name"]: each.attrib["value"] for each in element.iter("property")}
    return Case(
        name=f"{where}.py::{name}::{element.attrib['name']}",
        file=where,
        fault=faults[0].attrib["message"] if faults else "",
        has_met_the_listener=int(properties.get(stand_in.ASSOCIATIONS, 0)) > 0,
    )


def _unexpected(cases: dict[str, Case]) -> dict[str, str]:
    """Return the names of those that failed, and how; without those that differ on purpose."""
    expected = {name for names in DEVIATIONS.values() for name in names}
    return {name: each.fault for name, each in cases.items() if each.fault and name not in expected}
