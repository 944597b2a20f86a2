"""`scp-node torture`: hostile conversations with a Storage SCP, as a table."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from scp_node.cli.arguments import address, title
from scp_node.cli.console import UsageError, out
from scp_node.settings import is_loopback

if TYPE_CHECKING:
    from scp_node.settings import DestinationTlsSettings
    from scp_node.torture.attacks import Titles
    from scp_node.torture.rows import Row
    from scp_node.torture.swarm import Target


def torture(
    where: Annotated[str, typer.Argument(metavar="HOST:PORT", help="The Storage SCP.")],
    calling: Annotated[str, typer.Option(help="Our AE title.")] = "TORTURE",
    called: Annotated[str, typer.Option(help="Its AE title.")] = "PNEUMONIA",
    seconds: Annotated[float, typer.Option(min=0.1, max=3_600, help="Length of each attack.")] = 10.0,
    most: Annotated[int, typer.Option(min=1, max=1_000_000, help="Most conversations of each attack.")] = 10_000,
    seed: Annotated[int | None, typer.Option(help="Repeats a run. Default: a random one, which is printed.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="One attack by its name; may be given again.")] = None,
    *,
    tls: Annotated[bool, typer.Option("--tls", help="Speak TLS, in every conversation.")] = False,
    ca_file: Annotated[
        Path | None,
        typer.Option(help="PEM file with the authority of the SCP's certificate. Default: this machine's."),
    ] = None,
    certificate: Annotated[Path | None, typer.Option(help="PEM file with the certificate that we show.")] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file with its private key.")] = None,
    peer_certificate: Annotated[
        str, typer.Option(help='Name in the SCP\'s certificate, or "sha256:" and its SHA-256. Default: HOST.')
    ] = "",
    i_own_this: Annotated[bool, typer.Option("--i-own-this", help="It is yours, and nobody depends on it.")] = False,
    beyond_loopback: Annotated[
        bool, typer.Option("--beyond-loopback", help="It may be on another machine than this one.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a row instead of a table.")] = False,
) -> None:
    """Attack a Storage SCP of your own, and show how a legitimate C-ECHO fares beside each attack.

    Attack number N calls from 127.0.N.2 and 127.0.N.3 where the SCP is on this machine, the C-ECHO from 127.0.0.1.
    Films that the SCP takes are of TORTURE^NOBODY. Exits with 0 when every row held, 1 when one did not.
    """
    from scp_node.cli.sending import tls_options  # noqa: PLC0415
    from scp_node.torture.attacks import ATTACKS, Titles  # noqa: PLC0415
    from scp_node.torture.rows import TortureError, Verdict, attacks_named, rows_of  # noqa: PLC0415
    from scp_node.torture.swarm import Bounds  # noqa: PLC0415

    names = [each.name for each in ATTACKS]
    if unknown := [name for name in only or () if name not in names]:
        raise UsageError(f"--only: {unknown[0]} is no attack; there are: {', '.join(names)}")
    if not i_own_this:
        raise UsageError(
            f"torture: it does to {where} what an attacker would, until it may answer nobody: "
            "say --i-own-this if it is yours and nobody depends on it"
        )
    spoken = tls_options(
        "torture", on=tls, ca_file=ca_file, certificate=certificate, key=key, peer_certificate=peer_certificate
    )
    titles = Titles(title("--calling", calling), title("--called", called))
    target = _target(where, titles, spoken, beyond_loopback=beyond_loopback)
    bounds = Bounds(seconds=seconds, most=most, seed=secrets.randbelow(1 << 32) if seed is None else seed)
    rows = rows_of(target, bounds, attacks_named(only or ()))
    try:
        found = list(_as_json(rows, bounds.seed) if as_json else _as_table(rows, bounds.seed))
    except TortureError as error:
        raise UsageError(f"torture: {error}") from None
    raise SystemExit(0 if all(row.verdict is Verdict.HELD for row in found) else 1)


def _target(where: str, titles: Titles, tls: DestinationTlsSettings | None, *, beyond_loopback: bool) -> Target:
    from scp_node.torture.rows import target_of  # noqa: PLC0415

    host, port = address("HOST:PORT", where)
    try:
        target = target_of(host, port, titles, tls)
    except OSError:
        raise UsageError(f"HOST:PORT: {host} has no address") from None
    if not (beyond_loopback or is_loopback(target.address[0])):
        raise UsageError(f"torture: {where} is another machine: say --beyond-loopback if that is meant")
    return target


def _as_json(rows: Iterator[Row], seed: int) -> Iterator[Row]:
    for row in rows:
        sys.stdout.write(json.dumps({"seed": seed, **row.document()}) + "\n")
        sys.stdout.flush()
        yield row


def _as_table(rows: Iterator[Row], seed: int) -> list[Row]:
    found = []
    with out.status("the C-ECHOs alone") as status:
        for row in rows:
            status.update(f"{row.attack}: {row.verdict}")
            found.append(row)
    print_rows(found, seed, out)
    return found


def print_rows(rows: Iterable[Row], seed: int, console: Console) -> None:
    """Print a table, and the seed that repeats it."""
    heads = "attack", "each connection sends", "at once", "what the SCP did", "longest", "C-ECHO", "p50, p99", "verdict"
    table = Table(*heads)
    for row in rows:
        echoes = row.echoes
        table.add_row(
            row.attack,
            row.asked,
            str(row.at_once),
            row.did,
            f"{row.longest_seconds:.1f} s",
            f"{echoes.answered} of {echoes.asked}",
            f"{echoes.p50_ms:.0f}, {echoes.p99_ms:.0f} ms",
            row.verdict,
        )
    console.print(table, highlight=False)
    console.print(f"seed {seed}", highlight=False)
