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
        typer.Option(
            help="DNS name or address by which peers call the node; may be given again. Default: this host's name.",
            show_default=False,
        ),
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
    from scp_node.tls.authority import AuthorityError, open_authority  # noqa: PLC0415

    now = utc_now()
    try:
        peers = [_peer(each) for each in peer or []]
        _refuse_before_anything_is_made(folder, peers, own := _own_names(name or []))
        authority = open_authority(folder, at=now)
        lines: list[str] = []
        node = authority.pair(NODE)
        if not node.certificate.exists():
            node = authority.sign(NODE, own, at=now, days=days)
        elif name:
            raise UsageError(f"tls init: {node.certificate} is there: remove it and its key to have another one")
        for title, address in peers:
            pair = authority.sign(title, [address], at=now, days=days)
            lines += ["", f"# For {title}, which needs {pair.certificate}, {pair.key} and {authority.file}:"]
            lines += [f'#   in its entry of [[peers]]: certificate = "{address}"', *_dcmtk(pair, authority)]
    except AuthorityError as error:
        raise UsageError(f"tls init: {error}") from error
    except OSError as error:
        raise UsageError(f"tls init: {error.filename or folder}: {error.strerror}") from error
    for line in (*_settings(node, authority), *lines):
        out.print(line, highlight=False, markup=False, soft_wrap=True)


def _peer(told: str) -> tuple[str, str]:
    """Return name and address of NAME[=ADDRESS]."""
    name, _, address = told.partition("=")
    return name, (address or name).removeprefix("[").removesuffix("]")


def _refuse_before_anything_is_made(folder: Path, peers: Sequence[tuple[str, str]], own: Sequence[str]) -> None:
    from scp_node.tls.authority import AuthorityError, require_name, require_subject  # noqa: PLC0415

    for subject in own:
        require_subject(subject)
    names = [name for name, _ in peers]
    for name, address in peers:
        require_name(name)
        require_subject(address)
        if name == NODE or names.count(name) > 1:
            raise AuthorityError(f"{name}: is the node's name, or given twice; give another one")
        if (file := folder / f"{name}.pem").exists():
            raise AuthorityError(f"{file} is there: remove it and its key to have another one")


def _own_names(named: Sequence[str]) -> list[str]:
    return list(dict.fromkeys([*(named or [socket.gethostname()]), *_LOOPBACK]))


def _settings(node: Pair, authority: Authority) -> Iterator[str]:
    folder = authority.file.parent.resolve()
    yield "# For scp_node.toml: peers come in by TLS on port 2762."
    yield "[listen.tls]"
    yield f'certificate = "{folder / node.certificate.name}"'
    yield f'key = "{folder / node.key.name}"'
    yield f'ca_file = "{folder / authority.file.name}"'
    yield '# host = "0.0.0.0"   # to be reached from other machines; list them in [[peers]] first'
    yield ""
    yield "# Below the entry of a destination in [[destinations]] that speaks TLS:"
    yield "# [destinations.tls]"
    yield "# enabled = true"
    yield f'# certificate = "{folder / node.certificate.name}"'
    yield f'# key = "{folder / node.key.name}"'
    yield f'# ca_file = "{folder / authority.file.name}"'


def _dcmtk(pair: Pair, authority: Authority) -> Iterator[str]:
    files = f"+tls {pair.key.name} {pair.certificate.name} +cf {authority.file.name}"
    yield f"#   DCMTK tries it so: echoscu {files} -aet TITLE -aec PNEUMONIA HOST 2762"
