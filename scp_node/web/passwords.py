"""Passwords: hashed with argon2id (RFC 9106), with 19 MiB, two passes and one lane, one at a time.

These are the least parameters of OWASP's Password Storage Cheat Sheet: with more memory for each, many logins at once
would fill the machine.
"""

from __future__ import annotations

import secrets
import string
import threading
from functools import cache
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

SHORTEST: Final = 12  # characters
LONGEST: Final = 256
_MADE: Final = 20  # characters of a password that is made here: 119 bits

_hasher: Final = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_one_at_a_time: Final = threading.Lock()


def hash_password(password: str) -> str:
    """Return the hash to keep.

    Raises:
        ValueError: the password is too short or too long.
    """
    if not SHORTEST <= len(password) <= LONGEST:
        raise ValueError(f"a password has {SHORTEST} to {LONGEST} characters")
    with _one_at_a_time:
        return _hasher.hash(password)


def is_right(password: str, kept: str | None) -> bool:
    """Return whether the password has this hash; without a hash it takes as long, and is wrong."""
    try:
        with _one_at_a_time:
            return _hasher.verify(kept or _nobody(), password[: LONGEST + 1]) and kept is not None
    except (VerificationError, InvalidHashError):
        return False


def random_password() -> str:
    """Return a password that nobody guesses."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(_MADE))


@cache
def _nobody() -> str:
    return _hasher.hash(random_password())
