"""A web page before a ledger, asked without a socket."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final

from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy import Engine, select

from scp_node.domain import Actor
from scp_node.ledger import PersonRole
from scp_node.ledger.database.schema import event
from scp_node.settings import Settings
from scp_node.web.application import create_application
from scp_node.web.passwords import hash_password
from scp_node.web.site import Site
from tests.scp_node.ledger_node import MODEL, Node

PASSWORD: Final = "correct horse battery"  # noqa: S105 - of a test
TESTER: Final = Actor(name="test", address="127.0.0.1")
ORIGIN: Final = "http://127.0.0.1:8080"
_CSRF: Final = re.compile(r'name="csrf" value="([^"]+)"')


@cache
def _password_hash() -> str:
    return hash_password(PASSWORD)


@dataclass
class Page:
    """A browser without a screen, before a ledger."""

    client: TestClient
    node: Node
    site: Site

    @property
    def engine(self) -> Engine:
        return self.node.engine

    def add(self, name: str, role: PersonRole) -> None:
        people = self.site.ledger.people
        people.add(name, role, actor=TESTER, password_hash=_password_hash())

    def log_in(self, role: PersonRole = PersonRole.VIEWER, name: str | None = None) -> Page:
        """Log in as a new person with this role, named like it: by a link, which is quicker than a password's hash."""
        known = name or str(role)
        people = self.site.ledger.people
        if people.named(known) is None:
            self.add(known, role)
        answer = self.client.post("/login/link", data={"token": people.make_link(known, lifetime=timedelta(minutes=5))})
        assert answer.status_code == 303, answer.text
        return self

    def get(self, path: str, **options: Any) -> Response:
        return self.client.get(path, **options)

    def csrf(self) -> str:
        """Return the token that the forms of this session hold."""
        found = _CSRF.search(self.client.get("/password").text)
        assert found
        return found[1]

    def post(self, path: str, data: dict[str, Any] | None = None, **options: Any) -> Response:
        """Send a form as the page does, with its token."""
        return self.client.post(path, data={"csrf": self.csrf(), **(data or {})}, **options)

    def events(self, prefix: str = "web-") -> list[dict[str, Any]]:
        """Return what the trail says of the page, oldest first."""
        return [
            {"kind": kind, "study_uid": study_uid, **detail} for kind, study_uid, detail in trail(self.engine, prefix)
        ]


def trail(engine: Engine, prefix: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Return kind, study and detail of each event whose kind begins so, oldest first."""
    chosen = select(event.c.kind, event.c.study_uid, event.c.detail).order_by(event.c.id)
    with engine.connect() as connection:
        return [(row[0], row[1], row[2]) for row in connection.execute(chosen) if row[0].startswith(prefix)]


@contextmanager
def page_before(node: Node, folder: Path, **changes: Any) -> Iterator[Page]:
    """Open a page before the ledger of `node`; `changes` are sections of the settings."""
    settings = Settings.model_validate({"node": {"data_dir": str(folder / "var")}, **changes})
    site = Site(settings=settings, ledger=node.ledger, model=MODEL)
    app = create_application(site)
    with TestClient(
        app, base_url=ORIGIN, client=("127.0.0.1", 50_000), follow_redirects=False, raise_server_exceptions=False
    ) as client:
        yield Page(client, node, site)
