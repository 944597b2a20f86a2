"""The commands about TLS: `scp-node tls ...`."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from scp_node.cli.console import UsageError, out
from scp_node.domain import utc_now

if TYPE_CHECKING:
    from scp_node.tls.authority import Authority, Pair

tls_cli = typer.Typer(help="Certificates for DICOM TLS.", no_args_is_help=True)

NODE: Final = "node"
_DAYS: Final = 730
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


@tls_cli.callback()
def commands() -> None:
    """Keep `init` a subcommand: typer makes a single command the program itself."""


@tls_cli.command("init")
def init(
    folder: Annotated[Path, typer.Argument(help="Where the files go. An authority that is there signs again.")],
    name: Annotated[
        list[str] | None,
        typer.Option(help="DNS name or address by which peers call the node; may be given again.", show_default=False),
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=ADDRESS]",
            help="A peer that gets a certificate, and its address if that is not its name; may be given again.",
            show_default=False,
        ),
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=3_650, help="How long the certificates are valid.")] = _DAYS,
) -> None:
    """Make a private authority, a certificate for the node, and one for each peer: to try TLS in a minute.

    A site that has an authority uses that one instead. The key of the authority, ca.key, is needed for further
    certificates only: keep it elsewhere.
    """
    from scp_node.tls.authority import AuthorityError, open_authority, require_name  # noqa: PLC0415

    now = utc_now()
    try:
        for each in peer or []:
            require_name(each.partition("=")[0])
        authority = open_authority(folder, at=now)
        lines: list[str] = []
        node = authority.pair(NODE)
        if not node.certificate.exists():
            node = authority.sign(NODE, _own_names(name or []), at=now, days=days)
        elif name:
            raise UsageError(f"tls init: {node.certificate} is there: remove it and its key to have another one")
        for each in peer or []:
            title, _, address = each.partition("=")
            pair = authority.sign(title, [address or title], at=now, days=days)
            lines += ["", f"# For {title}, which needs {pair.certificate}, {pair.key} and {authority.file}:"]
            lines += [f'#   in its entry of [[peers]]: certificate = "{address or title}"', *_dcmtk(pair, authority)]
    except AuthorityError as error:
        raise UsageError(f"tls init: {error}") from error
    except OSError as error:
        raise UsageError(f"tls init: {error.filename or folder}: {error.strerror}") from error
    for line in (*_settings(node, authority), *lines):
        out.print(line, highlight=False, markup=False, soft_wrap=True)


def _own_names(named: Sequence[str]) -> list[str]:
    return list(dict.fromkeys([*(named or [socket.gethostname()]), *_LOOPBACK]))


def _settings(node: Pair, authority: Authority) -> Iterator[str]:
    folder = authority.file.parent.resolve()
    yield "# For scp_node.toml: peers come in by TLS on port 2762."
    yield "[listen.tls]"
    yield f'certificate = "{folder / node.certificate.name}"'
    yield f'key = "{folder / node.key.name}"'
    yield f'ca_file = "{folder / authority.file.name}"'
    yield ""
    yield "# Below the entry of a destination in [[destinations]] that speaks TLS:"
    yield "# [destinations.tls]"
    yield "# enabled = true"
    yield f'# certificate = "{folder / node.certificate.name}"'
    yield f'# key = "{folder / node.key.name}"'
    yield f'# ca_file = "{folder / authority.file.name}"'


def _dcmtk(pair: Pair, authority: Authority) -> Iterator[str]:
    files = f"+tls {pair.key.name} {pair.certificate.name} +cf {authority.file.name}"
    yield f"#   DCMTK tries it so: echoscu {files} -aec PNEUMONIA HOST 2762"
