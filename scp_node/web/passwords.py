"""Passwords: hashed with argon2id (RFC 9106), with 19 MiB, two passes and one lane, one at a time.

These are the least parameters of OWASP's Password Storage Cheat Sheet: with more memory for each, many logins at once
would fill the machine. Few wait for their turn: the others are refused, so that a flood of logins blocks no page.
"""

from __future__ import annotations

import secrets
import string
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

SHORTEST: Final = 12  # characters
LONGEST: Final = 256
LEAST_DIFFERENT: Final = 6  # characters
_MADE: Final = 20  # characters of a password that is made here: 119 bits
_MOST_WAITING: Final = 3  # of the threads that answer requests, the one that hashes among them
_COMMON: Final = (  # what a long password must not be made of alone
    "password",
    "passwort",
    "qwertyuiop",
    "qwertz",
    "1234567890",
    "abcdefghij",
    "administrator",
    "letmein",
    "welcome",
    "hospital",
    "changeme",
    "iloveyou",
)

_hasher: Final = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_one_at_a_time: Final = threading.Lock()
_waiting: Final = threading.BoundedSemaphore(_MOST_WAITING)
# Of 32 random bytes that nobody kept: a name that nobody has takes as long as one that somebody has.
_NOBODY: Final = "$argon2id$v=19$m=19456,t=2,p=1$w8MnsFSKxRLjw76itclE4g$22H+U2s5kGe/3LWiXgEY9r+YZ8gOjwoO15p0Y8gW5zY"


class TooManyLoginsError(Exception):
    """More passwords than that are not looked at at once: try again in a second."""


def hash_password(password: str, *, name: str = "") -> str:
    """Return the hash to keep of the password of the person `name`.

    Raises:
        ValueError: the password is too short, too long, or one that is guessed first.
        TooManyLoginsError: too many wait already.
    """
    normal = _normal(password)
    if not SHORTEST <= len(normal) <= LONGEST:
        raise ValueError(f"a password has {SHORTEST} to {LONGEST} characters")
    if len(set(normal)) < LEAST_DIFFERENT:
        raise ValueError(f"a password has at least {LEAST_DIFFERENT} different characters")
    if _is_guessed_first(normal.casefold(), name):
        raise ValueError("this password is one of those that are guessed first")
    with _turn():
        return _hasher.hash(normal)


def is_right(password: str, kept: str | None) -> bool:
    """Return whether the password has this hash; without a hash it takes as long, and is wrong.

    Raises:
        TooManyLoginsError: too many wait already.
    """
    try:
        with _turn():
            return _hasher.verify(kept or _NOBODY, _normal(password[: LONGEST + 1])) and kept is not None
    except (VerificationError, InvalidHashError):
        return False


def random_password() -> str:
    """Return a password that nobody guesses."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(_MADE))


def _normal(password: str) -> str:
    """Return one form of what keyboards write in several (NIST SP 800-63B section 5.1.1.2)."""
    return unicodedata.normalize("NFKC", password)


def _is_guessed_first(password: str, name: str) -> bool:
    """Return whether nothing is left of a password without the person's name, common words, and what repeats."""
    rest = password
    for word in (*((name.casefold(),) if name else ()), *_COMMON):
        rest = rest.replace(word, "")
    return len(rest.strip(string.digits + string.punctuation + " ")) == 0


@contextmanager
def _turn() -> Iterator[None]:
    if not _waiting.acquire(blocking=False):
        raise TooManyLoginsError
    try:
        with _one_at_a_time:
            yield
    finally:
        _waiting.release()
