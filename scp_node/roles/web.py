"""The web page's process."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import Final

from pneumonia_model.bundle import BundleError, load_bundle

from scp_node.domain import ModelIdentity
from scp_node.inference.identity import identity_of
from scp_node.ledger import AWAY, Ledger
from scp_node.logs import get_logger
from scp_node.loops.draw import LONGEST_PAUSE, SampleDrawer
from scp_node.private_files import opener
from scp_node.report.source.description import describe
from scp_node.roles.common import STEP_SECONDS, Loop, await_ledger, open_bells, owner_named, run_loops, sealing
from scp_node.roles.presence import announced
from scp_node.runtime.heartbeat import Heartbeat
from scp_node.runtime.memory import return_large_blocks
from scp_node.runtime.patience import waiting
from scp_node.runtime.polling import have_ended, poll
from scp_node.runtime.renewal import watch_files
from scp_node.settings import InferenceSettings, Settings, SettingsError
from scp_node.web.application import create_application
from scp_node.web.passwords import hash_password, random_password
from scp_node.web.server import Server, open_socket
from scp_node.web.site import Site
from scp_node.web.watching import Reference, reference_of

log = get_logger(__name__)

FIRST_ADMIN: Final = "admin"
PASSWORD_FILE: Final = "web-admin-password"  # noqa: S105 - a name in the data folder
_STOP_SECONDS: Final = 10.0
_REST_SECONDS: Final = 0.5  # of the projector: the list may be so far behind
_LONGEST_LIST_PAUSE: Final = 1.0  # the same, when nothing has happened for some seconds
_SERVER_SECONDS: Final = 30.0  # without a sign of life of its event loop


def run_web(
    settings: Settings,
    stop: threading.Event,
    heart: Heartbeat,
    *,
    renew: threading.Event,
    config: Path | None = None,
) -> int:
    """Serve the web page until `stop` is set; return the exit status of the role.

    `config` is the settings file that the command line named: for the commands that the page starts. When `renew` is
    set, the files of the certificate are looked at.

    Raises:
        LedgerError: the schema of the database is not this program's.
        SettingsError: the certificate or its key cannot be used, or [web.oidc] cannot.
    """
    return_large_blocks()
    bells = open_bells(settings)
    if (ledger := await_ledger(settings, stop, heart, bells)) is None:
        return 0
    try:
        if settings.web.local_login:
            make_first_admin(ledger, settings.node.data_dir)
        progress = heart.loop("web", _SERVER_SECONDS)
        model, reference = _described(settings.inference)
        site = Site(
            settings=settings,
            ledger=ledger,
            model=model,
            reference=reference,
            config=config,
        )
        server = Server(create_application(site, renew=progress.renew), settings.web)
        listening = open_socket(settings.web, stop, renew=lambda: heart.still_starting(STEP_SECONDS))
        if listening is None:
            return 0
        server.start(listening)
        drawing = _draw_samples(settings, ledger, stop)
        watch_files(server.renew_certificate, stop, renew)
        host, port = listening.getsockname()[:2]
        scheme = "https" if settings.web.certificate else "http"
        log.info("web page listens", address=f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}")
        projector = ledger.projector(describe, owner=owner_named("project"), rest_seconds=_REST_SECONDS)
        with announced(ledger, owner_named("web")):
            projecting = heart.loop("project", STEP_SECONDS)
            following = Loop(progress=projecting, step=projector.step, longest_pause=_LONGEST_LIST_PAUSE)
            status = run_loops(stop, heart, [*sealing(ledger, heart), following], bells)
        with contextlib.suppress(*AWAY):
            projector.close()
        server.stop(_STOP_SECONDS)
        have_ended([drawing], _STOP_SECONDS)
    finally:
        ledger.close()
        bells.close()
    return status


def _draw_samples(settings: Settings, ledger: Ledger, stop: threading.Event) -> threading.Thread:
    """Draw the reading samples in a thread until `stop` is set."""
    step = waiting(SampleDrawer(ledger=ledger, settings=settings.web).step, stop, name="draw", renew=lambda: None)

    def draw() -> None:
        poll(step, stop, name="draw", longest_pause=LONGEST_PAUSE)

    thread = threading.Thread(target=draw, name="draw", daemon=True)
    thread.start()
    return thread


def make_first_admin(ledger: Ledger, data_dir: Path) -> None:
    """Where nobody may log in yet, make an admin with a random password in a file that only this user may read.

    Raises:
        OSError: the file cannot be written.
    """
    if ledger.people.everybody():
        return
    file, password = data_dir / PASSWORD_FILE, random_password()
    temporary = file.with_name(f"{PASSWORD_FILE}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    with open(temporary, "x", encoding="ascii", opener=opener) as written:
        written.write(f"{password}\n")
    if ledger.people.add_first(FIRST_ADMIN, hash_password(password)):
        temporary.replace(file)
        log.warning("web page has a first login", name=FIRST_ADMIN, password_file=file)
    else:
        temporary.unlink()


def _described(settings: InferenceSettings) -> tuple[ModelIdentity | None, Reference | None]:
    """Return who the bundle is, and the distributions that its manifest holds; nothing where it cannot be read."""
    try:
        bundle = load_bundle(settings.bundle)
        identity = identity_of(bundle, settings)
    except (BundleError, SettingsError, OSError) as error:
        log.error("model bundle cannot be read", reason=error)  # noqa: TRY400 - said in one line
        return None, None
    return identity, reference_of(bundle.manifest, identity.bundle)
