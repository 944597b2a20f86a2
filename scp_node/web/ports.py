"""What the pages need of the site's single sign-on, without its libraries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class SignOnError(Exception):
    """The login failed; the message says why, and is for the log: who asks may be a stranger."""


class SignOnAwayError(SignOnError):
    """The single sign-on does not answer, or not as it should."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Departure:
    """A login that begins."""

    address: str  # where the browser goes
    state: str  # comes back in the address
    browser: str  # goes into a cookie: the login ends in this browser alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A person whom the single sign-on has logged in."""

    subject: str  # who they are there, for good
    name: str
    groups: tuple[str, ...]


class SignOn(Protocol):
    """The site's single sign-on."""

    def begin(self) -> Departure:
        """Return where the browser has to go to log in, or raise SignOnAwayError."""

    def finish(self, code: str, browser: str) -> Arrival:
        """Return who has logged in, from the code that came back and what the browser holds, or raise SignOnError."""
