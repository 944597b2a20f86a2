"""The demonstration: its PACS, which tests use as well, and how it ends."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import closing
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx2
import pytest
from fastapi.testclient import TestClient
from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from scp_node.delivery.echo import echo_destination
from scp_node.demo.__main__ import LINK_LIFETIME, PERSON, add_person, demo_settings, make_tls, page_link
from scp_node.demo.pacs import StoragePacs
from scp_node.ledger import PersonRole
from scp_node.opening import open_ledger
from scp_node.roles.web import make_first_admin
from scp_node.settings import DestinationTlsSettings
from scp_node.web.application import create_application
from scp_node.web.site import Site
from tests.command import run_here
from tests.node import radiograph
from tests.scp_node.ledger_node import MODEL
from tests.waiting import wait_until

CONFIG: Final = re.compile(r"--config (\S+)")
LINK: Final = re.compile(r"http://127\.0\.0\.1:\d+/login/link#\S+")


def test_a_pacs_that_is_closed_ends_the_associations_that_its_peers_keep_open(tmp_path: Path) -> None:
    pacs = StoragePacs(tmp_path / "pacs")
    peer = AE()
    peer.add_requested_context(Verification)
    association = peer.associate("127.0.0.1", pacs.port)
    assert association.is_established
    assert association.send_c_echo().Status == 0x0000
    pacs.close()
    wait_until(lambda: association.is_aborted, what="the PACS has gone")


def test_by_tls_the_pacs_and_the_node_know_each_other_by_their_certificates(tmp_path: Path) -> None:
    tls = make_tls(tmp_path / "certificates")
    pacs = StoragePacs(tmp_path / "pacs", tls=tls.pacs)
    try:
        settings = demo_settings(tmp_path, pacs.port, drawn=True, tls=tls)
        [destination] = settings.destinations
        assert echo_destination(settings, destination).good
        in_the_clear = destination.model_copy(update={"tls": DestinationTlsSettings()})
        assert not echo_destination(settings, in_the_clear).good
        assert settings.listen.tls.certificate == destination.tls.certificate
    finally:
        pacs.close()


def test_its_link_logs_an_admin_in_once_without_a_password_and_nobody_else_is_there(tmp_path: Path) -> None:
    settings = demo_settings(tmp_path, 104, drawn=True)
    assert settings.web.enabled
    assert settings.web.port != settings.listen.port
    add_person(settings)
    with closing(open_ledger(settings)) as ledger:
        make_first_admin(ledger, settings.node.data_dir)
        assert [(each.name, each.role) for each in ledger.people.everybody()] == [(PERSON, PersonRole.ADMIN)]
        link = urlsplit(page_link(settings))
        assert link.port == settings.web.port
        app = create_application(Site(settings=settings, ledger=ledger, model=MODEL))
        address = f"http://{link.netloc}"
        with TestClient(app, address, client=("127.0.0.1", 50_000), follow_redirects=False) as client:
            assert client.post(link.path, data={"token": link.fragment}).status_code == HTTPStatus.SEE_OTHER
            assert client.get("/persons").status_code == HTTPStatus.OK
            client.cookies.clear()
            assert client.post(link.path, data={"token": link.fragment}).status_code == HTTPStatus.UNAUTHORIZED
    assert timedelta(hours=1) == LINK_LIFETIME


def test_it_shows_its_studies_by_a_link_and_stops_when_it_is_told_to(tmp_path: Path) -> None:
    film = radiograph(7, opacity=True)
    film.save_as(tmp_path / "film.dcm", enforce_file_format=True)
    command = [sys.executable, "-m", "scp_node.demo", str(tmp_path), "--keep"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout
        try:
            shown = ""
            while not (link := LINK.search(shown)) and (line := demo.stdout.readline()):
                shown += line
            assert link, shown
            with httpx2.Client(follow_redirects=True) as browser:
                address, _, token = link[0].partition("#")
                page = browser.post(address, data={"token": token})
                assert (page.status_code, page.url.path) == (HTTPStatus.OK, "/studies"), page.text
                wait_until(lambda: film.PatientID in browser.get(page.url).text, 30, what="the study in the list")
            while "There is no terminal" not in shown and (line := demo.stdout.readline()):
                shown += line
            again = CONFIG.search(shown)
            assert again, shown
            assert LINK.search(run_here("user", "link", PERSON, "--config", again[1]).stdout)
        finally:
            demo.terminate()
            rest = demo.stdout.read()  # communicate() would miss what came together with the link
        assert rest == "stopped\n"
    assert demo.returncode == 130
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(address)
