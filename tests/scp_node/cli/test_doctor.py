"""What `scp-node doctor` says of a peer that does not answer, of our port, and of a folder without a node."""

from __future__ import annotations

import contextlib
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from scp_node.cli.doctor import _shadow, examine, examine_deliveries
from scp_node.cli.examination import Examination
from scp_node.decoders.confinement import gaps_here
from scp_node.domain import utc_now
from scp_node.settings import Settings
from tests.certificates import Certificates
from tests.model.bundles import second_bundle
from tests.node import BUNDLE, destination
from tests.scp_node.delivery.scp import Scp, answering
from tests.scp_node.delivery.test_send_files import CR
from tests.scp_node.ledger_node import SHADOW, Node, begin_ledger, ledger_engine
from tests.scp_node.listener.conftest import Start, start_listener
from tests.servers import StoreScp
from tests.servers import free_port as unused_port

__all__ = ["start_listener"]

NAME: Final = "deliveries to pacs"
ANY: Final = "0.0.0.0"  # noqa: S104 - doctor only asks; nothing listens there


def settings_in(folder: Path, **changes: Any) -> Settings:
    """Return settings without a bundle, which takes its time."""
    base: dict[str, Any] = {
        "node": {"data_dir": folder / "var"},
        "listen": {"port": unused_port(), "low_water_mib": 0},
        "inference": {"bundle": folder / "no bundle"},
        "delivery": {"connect_seconds": 0.5, "send_seconds": 1},
    }
    return Settings.model_validate(base | changes)


def doctor(settings: Settings) -> Mapping[str, Examination]:
    """Return what is found, by name."""
    return {each.name: each for each in examine(settings)}


def told_of(tmp_path: Path, port: int, **changes: Any) -> Examination:
    return doctor(settings_in(tmp_path, destinations=[destination(port, **changes)]))["destination pacs"]


def rejecting(result: int, source: int, diagnostic: int) -> Callable[[], contextlib.AbstractContextManager[int]]:
    return lambda: answering(answer=bytes((3, 0, 0, 0, 0, 4, 0, result, source, diagnostic)))


def saying(answer: bytes | None) -> Callable[[], contextlib.AbstractContextManager[int]]:
    return lambda: answering(answer=answer)


@pytest.mark.parametrize("name", ["var", "var/spool"])
def test_a_data_folder_that_others_may_enter_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "var" / "spool").mkdir(parents=True)
    for folder in ("var", "var/spool"):
        (tmp_path / folder).chmod(0o700)
    assert doctor(settings_in(tmp_path))["data folder"].good
    (tmp_path / name).chmod(0o711)
    found = doctor(settings_in(tmp_path))["data folder"]
    assert not found.good
    assert found.message == f"{tmp_path / name} has mode 0711, others may enter: chmod o-rwx {tmp_path / name}"


@pytest.mark.parametrize(("mode", "is_named"), [(0o644, True), (0o600, False)])
def test_a_settings_file_with_a_password_that_others_may_read_is_named(
    tmp_path: Path, mode: int, *, is_named: bool
) -> None:
    file, url = tmp_path / "scp_node.toml", "postgresql+psycopg://node:hunter2@127.0.0.1:1/ledger"
    file.write_text(f'[database]\nurl = "{url}"\n')
    file.chmod(mode)
    found = {each.name: each for each in examine(settings_in(tmp_path, database={"url": url}), file)}
    assert ("settings file" in found) == is_named
    if is_named:
        assert found["settings file"].message == (
            f"{file} has mode 0644, others may use it: chmod 600 {file}; or move the password to database.password_file"
        )
    assert "hunter2" not in str(found)


def test_a_password_file_that_others_may_read_is_named_and_the_password_is_not(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("hunter2")
    password.chmod(0o644)
    database = {"url": "postgresql+psycopg://node@127.0.0.1:1/ledger", "password_file": password}
    found = doctor(settings_in(tmp_path, database=database, destinations=[destination(unused_port())]))
    problem = found["database"]
    assert not problem.good
    assert problem.message.startswith(f"database.password_file: {password} has mode 0644, others may use it: chmod 600")
    assert "hunter2" not in str(found)


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """A port that is open and never answers, as that of a program that hangs."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


@contextlib.contextmanager
def unanswered() -> Iterator[int]:
    """A port whose queue of connections is full: a further one is not answered, as behind a firewall."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        yield server.getsockname()[1]


@contextlib.contextmanager
def nobody() -> Iterator[int]:
    yield unused_port()


@pytest.mark.parametrize(
    ("peer", "told"),
    [
        (
            rejecting(1, 1, 7),
            (
                "it rejected the association (1/1/7): it does not know the called AE title PACS: give its own AE "
                "title, in its exact case (ae_title in [[destinations]] pacs)"
            ),
        ),
        (
            rejecting(1, 1, 3),
            (
                "it rejected the association (1/1/3): it does not know our calling AE title PNEUMONIA: enter AE title "
                "PNEUMONIA, address 127.0.0.1 there, or call it by an AE title that it knows (node.ae_title)"
            ),
        ),
        (rejecting(1, 1, 1), "(1/1/1): it gives no reason; most often it does not know who calls: enter AE title"),
        (rejecting(1, 1, 2), "(1/1/2): it does not support the DICOM application context"),
        (rejecting(1, 2, 1), "(1/2/1): it gives no reason: see its log"),
        (rejecting(1, 2, 2), "(1/2/2): it does not support this version of the upper layer protocol"),
        (rejecting(2, 3, 1), "(2/3/1): it is busy or short of space: try later"),
        (rejecting(2, 3, 2), "(2/3/2): it has as many associations as it allows"),
        (rejecting(2, 9, 9), "(2/9/9): for a reason that the standard does not list"),
        (nobody, "connection refused: nothing listens on port"),
        (
            unanswered,
            "connection timed out: is the host up, the address right (host and port in [[destinations]] pacs)",
        ),
        (silent, "the port is open, but peer does not answer in time"),
        (saying(None), "it ended the connection without an answer (peer closed the connection): it may not know this"),
        (saying(bytes((7, 0, 0, 0, 0, 4, 0, 0, 0, 0))), "(peer aborted the association)"),
        (saying(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "it speaks HTTP, not DICOM: name the port of its Storage SCP"),
        (saying(b"SSH-2.0-OpenSSH_9.2\r\n"), "it speaks SSH, not DICOM"),
        (saying(b"220 mail ready\r\n"), "it speaks FTP or SMTP, not DICOM"),
        (
            saying(b"\x15\x03\x01\0\x02\x02\x46"),
            "it speaks TLS, and we do not: see its [destinations.tls] in [[destinations]] pacs",
        ),
        (saying(b"\x4a\0\0\0\x0a8.0.36"), "what answers does not speak DICOM"),
        (saying(b"\x02\0\0\0\0\x49" + bytes(68) + b"\x21\0\0\x09\1"), "what answers does not speak DICOM"),
    ],
)
def test_a_destination_that_does_not_answer_is_told_with_its_reason_and_what_to_change(
    tmp_path: Path, peer: Callable[[], contextlib.AbstractContextManager[int]], told: str
) -> None:
    with peer() as port:
        found = told_of(tmp_path, port)
    assert not found.good
    assert found.message.startswith(f"PACS at 127.0.0.1:{port}: ")
    assert told in found.message


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "x" * 70, "a\0b"])
def test_a_host_name_that_cannot_be_resolved_is_told(tmp_path: Path, host: str) -> None:
    found = told_of(tmp_path, 104, host=host)
    assert not found.good
    assert f"host name {host} cannot be resolved: correct it (host and port in [[destinations]] pacs)" in found.message


def test_the_entry_that_the_pacs_needs_has_our_port_where_it_is_to_answer_us(tmp_path: Path) -> None:
    with rejecting(1, 1, 3)() as port:
        settings = settings_in(tmp_path, destinations=[destination(port, commitment=True)])
        told = doctor(settings)["destination pacs"].message
    assert f"enter AE title PNEUMONIA, address 127.0.0.1, port {settings.listen.port} there" in told


def test_a_destination_that_takes_reports_is_good_and_one_that_takes_none_is_not(tmp_path: Path) -> None:
    with Scp().serving() as pacs:
        assert told_of(tmp_path, pacs.port).message.endswith(
            "answers C-ECHO and accepts reports, by 2 associations at most"
        )
    with Scp(sop_classes=(CR,)).serving() as pacs:
        found = told_of(tmp_path, pacs.port)
    assert not found.good
    assert "answers C-ECHO, but accepts none of the SOP classes of report.sop_classes" in found.message


@pytest.mark.needs("storescp")
def test_a_storescp_is_a_good_destination(tmp_path: Path, storescp: StoreScp) -> None:
    assert told_of(tmp_path, storescp.port, ae_title=storescp.ae_title).good


@pytest.mark.parametrize(("listen", "host"), [("127.0.0.1", "localhost"), (ANY, "127.0.0.1"), (ANY, "127.0.0.9")])
def test_a_destination_that_is_this_node_is_told(tmp_path: Path, listen: str, host: str) -> None:
    port = unused_port()
    peers = [{"ae_title": "CR1", "address": "10.0.0.0/8"}]
    changes = {"listen": {"port": port, "host": listen, "low_water_mib": 0}, "peers": peers}
    settings = settings_in(tmp_path, destinations=[destination(port, host=host)], **changes)
    found = doctor(settings)["destination pacs"]
    assert (found.good, "is the port of this node itself" in found.message) == (False, True)


def test_another_port_of_this_machine_is_not_this_node(tmp_path: Path) -> None:
    assert "this node itself" not in told_of(tmp_path, unused_port()).message


# Our own port


def tls_port(settings: Settings) -> Examination:
    return doctor(settings)["TLS listener"]


def test_of_a_port_for_tls_it_is_told_whether_it_answers_and_with_which_certificate(
    tmp_path: Path, certificates: Certificates, start_listener: Start
) -> None:
    running = start_listener(listen={"tls": certificates.listen()})
    _, port = running.tls_address
    listen = {"port": unused_port(), "low_water_mib": 0}

    def settings(**tls: Any) -> Settings:
        return settings_in(tmp_path, listen={**listen, "tls": certificates.listen(**{"port": port, **tls})})

    good = tls_port(settings())
    assert (good.good, good.message) == (True, f"PNEUMONIA at 127.0.0.1:{port} answers C-ECHO by TLS")
    other = settings(certificate=str(certificates.other.certificate), key=str(certificates.other.key))
    assert not tls_port(other).good
    assert "shows another certificate" in tls_port(other).message
    nobody = tls_port(settings(port=unused_port()))
    assert nobody.good
    assert "does not answer: the node is not running" in nobody.message
    expired = doctor(settings(certificate=str(certificates.expired.certificate), key=str(certificates.expired.key)))
    assert not expired["TLS listener"].good
    assert "has expired: replace the files" in expired["certificate listen.tls.certificate"].message


def test_thirty_days_ahead_a_certificate_is_a_problem(tmp_path: Path, certificates: Certificates) -> None:
    pair = certificates.authority.sign("soon", ["soon.example"], at=utc_now(), days=29)
    tls = certificates.destination(pair)
    found = doctor(settings_in(tmp_path, destinations=[destination(unused_port(), tls=tls)]))
    told = found["certificate destinations.pacs.tls.certificate"]
    assert not told.good
    assert f"{pair.certificate} expires in 28 days: replace the files" in told.message
    unusable = doctor(settings_in(tmp_path, destinations=[destination(1, tls={**tls, "ca_file": "nowhere"})]))
    assert "destinations.pacs.tls.ca_file: nowhere: No such file" in unusable["destination pacs"].message


def test_a_free_port_is_good(tmp_path: Path) -> None:
    found = doctor(settings_in(tmp_path))["listener"]
    assert (found.good, found.message.endswith("the node is not running, its port is free")) == (True, True)


@pytest.mark.parametrize(
    ("peer", "told"),
    [
        (saying(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "another program holds port"),
        (saying(None), "another program holds port"),
        (silent, "the port is open, but peer does not answer in time: the node hangs, or another program holds port"),
        (rejecting(1, 1, 7), "a DICOM program with another AE title answers there (1/1/7): another program holds port"),
        (rejecting(1, 1, 3), "it rejects a C-ECHO by our own AE title (1/1/3): list ae_title"),
        (rejecting(2, 3, 1), "the node runs and accepts nothing (2/3/1)"),
        (rejecting(2, 3, 2), "all associations that listen.max_associations allows are in use"),
    ],
)
def test_a_port_that_another_program_holds_is_a_problem(
    tmp_path: Path, peer: Callable[[], contextlib.AbstractContextManager[int]], told: str
) -> None:
    with peer() as port:
        found = doctor(settings_in(tmp_path, listen={"port": port, "low_water_mib": 0}))["listener"]
    assert not found.good
    assert told in found.message


def test_a_port_that_is_taken_and_not_listened_on_is_a_problem(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        found = doctor(settings_in(tmp_path, listen={"port": port, "low_water_mib": 0}))["listener"]
    assert not found.good
    assert f"another program holds port {port} (`ss -ltnp 'sport = :{port}'` names it)" in found.message


@pytest.mark.parametrize(
    ("host", "told"),
    [("192.0.2.1", "is not an address of this machine"), ("no-such-host.invalid", "cannot be resolved")],
)
def test_an_address_that_cannot_be_listened_on_is_a_problem(tmp_path: Path, host: str, told: str) -> None:
    listen = {"port": unused_port(), "host": host, "low_water_mib": 0}
    peers = [{"ae_title": "CR1", "address": "10.0.0.0/8"}]
    found = doctor(settings_in(tmp_path, listen=listen, peers=peers))["listener"]
    assert (found.good, told in found.message) == (False, True), found.message


# Before the first start, and after a loss


def test_before_the_first_start_nothing_is_wrong_and_nothing_is_made(tmp_path: Path) -> None:
    found = doctor(settings_in(tmp_path, retention={"days": 3}, destinations=[destination(unused_port())]))
    assert found["data folder"].message.endswith("not there yet, `scp-node serve` makes it")
    assert found["database"].message == "no ledger yet, `scp-node serve` makes it"
    assert found["retention"].message.endswith("no image has come yet")
    assert found["deliveries to pacs"].message == "none yet"
    assert [name for name, each in found.items() if not each.good] == ["model", "demonstration", "destination pacs"]
    assert list(tmp_path.iterdir()) == []


def test_a_schema_that_only_a_person_makes_is_asked_for(tmp_path: Path) -> None:
    found = doctor(settings_in(tmp_path, database={"upgrade_at_start": False}))["database"]
    assert found == Examination(
        name="database",
        good=False,
        message="no ledger yet: run `scp-node db upgrade` (database.upgrade_at_start = false)",
    )


def test_a_ledger_that_was_there_and_is_gone_is_a_problem(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    begin_ledger(settings)
    assert doctor(settings)["database"].message == "schema is up to date, 0 given up"
    (tmp_path / "var" / "ledger.sqlite3").unlink()
    found = doctor(settings)["database"]
    assert (found.good, "ledger.sqlite3 is gone: put it back, or remove" in found.message) == (False, True)
    assert not (tmp_path / "var" / "ledger.sqlite3").exists()


def test_a_file_where_the_data_folder_should_be_and_a_full_disk_are_problems(tmp_path: Path) -> None:
    full = settings_in(tmp_path, listen={"port": unused_port(), "low_water_mib": 10**9})
    assert "stores are refused below listen.low_water_mib" in doctor(full)["data folder"].message
    (tmp_path / "var").mkdir()
    for place in (tmp_path / "var" / "spool", tmp_path / "var"):
        if place.is_dir():
            shutil.rmtree(place)
        place.write_text("")
        found = doctor(settings_in(tmp_path))["data folder"]
        assert found.message == f"{place} is not a folder; remove it, or set node.data_dir"
        assert not found.good


# What waits for a destination


def _waiting(node: Node) -> None:
    node.receive("1")
    node.analyse()
    node.clock.advance(seconds=11)
    assert node.report("pacs") is not None


def test_what_waits_for_a_destination_is_no_problem(node: Node) -> None:
    _waiting(node)
    assert examine_deliveries(node.ledger, "pacs") == Examination(name=NAME, good=True, message="1 waiting")


def test_a_paused_destination_is_a_problem_with_its_reason(node: Node) -> None:
    _waiting(node)
    node.ledger.deliveries.destination_failed(
        "pacs", detail="no connection: Connection refused", enough=1, pause=lambda _: timedelta(minutes=1)
    )
    told = "1 waiting, paused after 1 failures in a row: no connection: Connection refused"
    assert examine_deliveries(node.ledger, "pacs") == Examination(name=NAME, good=False, message=told)


def test_a_dead_letter_is_a_problem_until_it_is_requeued(node: Node) -> None:
    _waiting(node)
    task = node.ledger.deliveries.claim("pacs", owner="s")
    assert task is not None
    node.ledger.deliveries.bury(task, status=0xA900, detail="status 0xA900")
    told = "0 waiting, 1 given up (see `scp-node requeue`)"
    assert examine_deliveries(node.ledger, "pacs") == Examination(name=NAME, good=False, message=told)
    node.ledger.upkeep.requeue()
    assert examine_deliveries(node.ledger, "pacs").good


class Opened:
    """Stands for an opened bundle: to open one takes its time."""

    runtime = "none, cpu"
    identity = SHADOW


def shadow_in(folder: Path, **inference: Any) -> Examination | None:
    settings = settings_in(folder, inference={"bundle": BUNDLE, **inference})
    return next(iter(_shadow(settings)), None)


def test_a_bundle_on_trial_is_shown_with_what_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = second_bundle(tmp_path / "trial")
    monkeypatch.setattr("scp_node.cli.doctor.open_shadow", lambda *_: Opened())
    assert shadow_in(tmp_path) is None
    found = shadow_in(tmp_path, shadow_bundle=trial)
    assert found is not None
    assert found.good
    assert found.message == (
        "trial-model-1.0 (research) on none, cpu; golden inputs agree; no image has come yet; never reported"
    )
    (tmp_path / "var").mkdir()
    with ledger_engine(tmp_path / "var" / "ledger.sqlite3") as engine:
        node = Node(engine)
        node.receive("1")
        node.analyse(shadow=SHADOW)
        assert "; 1 images wait for it, 0 given up; " in (shadow_in(tmp_path, shadow_bundle=trial) or found).message
        left = shadow_in(tmp_path)
    assert left is not None
    assert left.good
    assert left.message == "none is set, and 1 images wait for one; that holds up nothing"


def test_a_bundle_on_trial_that_is_refused_is_a_problem_that_stops_no_report(tmp_path: Path) -> None:
    found = shadow_in(tmp_path, shadow_bundle=BUNDLE)
    assert found is not None
    assert not found.good
    assert "is the bundle that reports" in found.message
    assert found.message.endswith("reporting goes on without it (inference.shadow_bundle)")
    assert shadow_in(tmp_path, bundle=tmp_path / "absent", shadow_bundle=BUNDLE) is None, (
        "that is no fault of the shadow"
    )


@pytest.mark.parametrize(
    ("confine", "told"),
    [
        (True, gaps_here().calls or "confined: no network, no other program, no writing of files"),
        (False, "not confined: analysis.confine_decoders = false"),
    ],
)
def test_it_says_whether_the_decoders_are_confined(tmp_path: Path, confine: bool, told: str) -> None:
    found = doctor(settings_in(tmp_path, analysis={"confine_decoders": confine}))["decoders"]
    assert found.good
    assert told in found.message


def test_events_that_wait_for_their_place_in_the_chain_are_named_after_five_seconds(
    tmp_path: Path, postgres_ledger: str
) -> None:
    settings = settings_in(tmp_path, database={"url": postgres_ledger})
    with ledger_engine(postgres_ledger) as engine:
        node = Node(engine)
        node.clock.now = utc_now()
        node.receive("1")
        assert doctor(settings)["audit trail"].good
        node.rows("UPDATE event SET at = at - interval '1 hour' RETURNING id")
        late = doctor(settings)["audit trail"]
        node.ledger.seal()
    assert not late.good
    assert late.message.startswith("1 events wait for their place in the chain, one for 36")
    assert doctor(settings)["audit trail"].message == "every event has its place in the chain"
