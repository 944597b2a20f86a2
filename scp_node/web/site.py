"""What the pages work with: settings, ledger, and what else the role hands to them."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request

from scp_node.domain import ModelIdentity
from scp_node.ledger import Ledger
from scp_node.settings import Settings
from scp_node.web.checking import ChainCheck
from scp_node.web.watching import Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One node, as its web page sees it."""

    settings: Settings
    ledger: Ledger
    model: ModelIdentity | None  # None: the bundle cannot be read; `scp-node doctor` says why
    reference: Reference | None = None  # distributions that the bundle's manifest holds
    config: Path | None = None  # the settings file, if the command line named one: for commands that are started
    form_key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)  # of forms without a session
    check: ChainCheck = field(default_factory=ChainCheck)

    @property
    def lifetime(self) -> timedelta:
        """Return how long a login lasts."""
        return timedelta(hours=self.settings.web.session_hours)

    @property
    def idle(self) -> timedelta:
        """Return after how long without a request a login ends."""
        return timedelta(minutes=self.settings.web.idle_minutes)


def _site(request: Request) -> Site:
    site: Site = request.app.state.site
    return site


SiteOf = Annotated[Site, Depends(_site)]
