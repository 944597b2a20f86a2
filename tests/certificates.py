"""Certificates for the tests: an authority with a node and two peers, and a foreign authority."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal

from scp_node.domain import utc_now
from scp_node.tls.authority import Authority, Pair, open_authority

ADDRESS: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """Pairs of files; all but `foreign` come from `authority`."""

    authority: Authority
    node: Pair
    modality: Pair  # for the name modality.example
    other: Pair  # for the name other.example
    expired: Pair
    foreign: Pair
    foreign_authority: Authority

    def listen(self, pair: Pair | None = None, **changes: Any) -> dict[str, Any]:
        """Return the table [listen.tls] of a node with this pair; files as text, for a settings file."""
        used = pair or self.node
        files = {"certificate": used.certificate, "key": used.key, "ca_file": self.authority.file}
        return {**{name: str(file) for name, file in files.items()}, "port": 0, **changes}

    def destination(self, pair: Pair | None = None, **changes: Any) -> dict[str, Any]:
        """Return the table [destinations.tls] of a node that shows this pair, or the node's own."""
        table = self.listen(pair)
        del table["port"]
        return {"enabled": True, **table, **changes}

    def context(
        self, pair: Pair | None, *, side: Literal["client", "server"] = "client", **options: Any
    ) -> ssl.SSLContext:
        """Return what a peer speaks that shows this pair, and trusts the authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if side == "client" else ssl.PROTOCOL_TLS_SERVER)
        context.load_verify_locations(self.authority.file)
        if pair:
            context.load_cert_chain(pair.certificate, pair.key)
        for name, value in options.items():
            setattr(context, name, value)
        return context


def make_certificates(folder: Path) -> Certificates:
    """Make all of them below a folder."""
    now = utc_now()
    authority = open_authority(folder / "authority", at=now)
    foreign = open_authority(folder / "foreign", at=now)
    return Certificates(
        authority=authority,
        node=authority.sign("node", ["node.example", "localhost", ADDRESS], at=now),
        modality=authority.sign("modality", ["modality.example"], at=now),
        other=authority.sign("other", ["other.example"], at=now),
        expired=authority.sign("expired", ["node.example", ADDRESS], at=now - timedelta(days=3), days=2),
        foreign=foreign.sign("foreign", ["modality.example", ADDRESS], at=now),
        foreign_authority=foreign,
    )
