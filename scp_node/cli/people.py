"""The commands about who may use the web page: `scp-node user ...` and `scp-node token ...`."""

from __future__ import annotations

import getpass
import socket
from contextlib import closing
from datetime import datetime, timedelta
from typing import Annotated, Final

import typer
from rich.table import Table
from rich.text import Text

from scp_node.cli.console import ConfigOption, UsageError, out, settings_of
from scp_node.domain import Actor
from scp_node.ledger import PersonRole
from scp_node.opening import open_ledger

user_cli = typer.Typer(help="Who may use the web page.", no_args_is_help=True)
token_cli = typer.Typer(help="Tokens by which scripts use the web page's API.", no_args_is_help=True)

LINK_MINUTES: Final = 15

Name = Annotated[str, typer.Argument(metavar="NAME", help="By which the person logs in.")]
Role = Annotated[PersonRole, typer.Option(help="What they may do; each role may also do what those before it may.")]


def _operator() -> Actor:
    return Actor(name=f"{getpass.getuser()}@{socket.gethostname()}", address="")


@user_cli.command("add")
def user_add(name: Name, config: ConfigOption = None, role: Role = PersonRole.VIEWER) -> None:
    """Add a person, and print the password that they have to change at the first login."""
    from scp_node.web.passwords import hash_password, random_password  # noqa: PLC0415

    password = random_password()
    with closing(open_ledger(settings_of(config))) as ledger:
        person = ledger.people.add(
            name, role, actor=_operator(), password_hash=hash_password(password), must_change=True
        )
    out.print(f"{person.name} is added as {role}\npassword {password}", highlight=False, markup=False)


@user_cli.command("role")
def user_role(
    name: Name,
    role: Annotated[PersonRole, typer.Argument(help="The new role.")],
    config: ConfigOption = None,
) -> None:
    """Give a person another role. Their sessions end."""
    with closing(open_ledger(settings_of(config))) as ledger:
        ledger.people.change_role(name, role, actor=_operator())
    out.print(f"{name} is {role}", highlight=False, markup=False)


@user_cli.command("reset")
def user_reset(name: Name, config: ConfigOption = None) -> None:
    """Make a new password and print it. Sessions, links and known browsers of the person end; tokens stay."""
    from scp_node.web.passwords import hash_password, random_password  # noqa: PLC0415

    password = random_password()
    with closing(open_ledger(settings_of(config))) as ledger:
        ledger.people.change_password(name, hash_password(password), actor=_operator(), must_change=True)
    out.print(f"password {password}", highlight=False, markup=False)


@user_cli.command("disable")
def user_disable(name: Name, config: ConfigOption = None) -> None:
    """Shut a person out. Sessions and tokens end at once."""
    with closing(open_ledger(settings_of(config))) as ledger:
        ledger.people.set_disabled(name, actor=_operator(), disabled=True)
    out.print(f"{name} is shut out", highlight=False, markup=False)


@user_cli.command("enable")
def user_enable(name: Name, config: ConfigOption = None) -> None:
    """Let a person in again."""
    with closing(open_ledger(settings_of(config))) as ledger:
        ledger.people.set_disabled(name, actor=_operator(), disabled=False)
    out.print(f"{name} may log in", highlight=False, markup=False)


@user_cli.command("list")
def user_list(config: ConfigOption = None) -> None:
    """Show everybody."""
    table = Table("name", "role", "logs in", "state", "since")
    with closing(open_ledger(settings_of(config))) as ledger:
        for each in ledger.people.everybody():
            state = "shut out" if each.disabled else "has to change the password" if each.must_change else ""
            table.add_row(Text(each.name), str(each.role), str(each.origin), state, _local(each.created_at))
    out.print(table, highlight=False)


@user_cli.command("link")
def user_link(name: Name, config: ConfigOption = None) -> None:
    """Print a link that logs a person in once, within 15 minutes: for who is locked out. It changes no password."""
    settings = settings_of(config)
    with closing(open_ledger(settings)) as ledger:
        token = ledger.people.make_link(name, lifetime=timedelta(minutes=LINK_MINUTES), actor=_operator())
    out.print(f"{settings.web.address}/login/link#{token}", highlight=False, markup=False)


@token_cli.command("add")
def token_add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The person as whom it acts.")],
    label: Annotated[str, typer.Argument(help="Which script uses it.")],
    config: ConfigOption = None,
    role: Annotated[PersonRole, typer.Option(help="The most that it may, and never more than the person.")] = (
        PersonRole.VIEWER
    ),
    days: Annotated[int, typer.Option(min=0, max=3_650, help="How long it is good; 0: until it is revoked.")] = 365,
) -> None:
    """Make a token and print it, once."""
    lifetime = timedelta(days=days) if days else None
    with closing(open_ledger(settings_of(config))) as ledger:
        token = ledger.people.make_token(name, label, actor=_operator(), role=role, lifetime=lifetime)
    out.print(token, highlight=False, markup=False)


@token_cli.command("list")
def token_list(config: ConfigOption = None) -> None:
    """Show all tokens, without their secrets."""
    table = Table("number", "label", "acts as", "may at most", "made", "ends", "last used")
    with closing(open_ledger(settings_of(config))) as ledger:
        for each in ledger.people.tokens():
            table.add_row(
                str(each.id),
                Text(each.label),
                Text(each.person),
                str(each.role),
                _local(each.created_at),
                _local(each.expires_at) or "never",
                _local(each.used_at) or "never",
            )
    out.print(table, highlight=False)


@token_cli.command("revoke")
def token_revoke(
    number: Annotated[int, typer.Argument(min=1, max=2**62, help="As `token list` shows it.")],
    config: ConfigOption = None,
) -> None:
    """Take a token back; it is good for nothing from now on."""
    with closing(open_ledger(settings_of(config))) as ledger:
        if not ledger.people.take_back_token(number, actor=_operator()):
            raise UsageError(f"token revoke: there is no token {number}")
    out.print(f"token {number} is taken back", highlight=False)


def _local(instant: datetime | None) -> str:
    return "" if instant is None else instant.astimezone().isoformat(sep=" ", timespec="minutes")
