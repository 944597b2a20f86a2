"""Chaos tests: short in `make test`, long in `make chaos`; both print their seed and their figures."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import Engine

from tests import servers
from tests.scp_node.ledger_node import ledger_engine

LONG_VARIABLE: Final = "CHAOS"  # CHAOS=long
SEED_VARIABLE: Final = "CHAOS_SEED"
_figures: list[str] = []


@dataclass(frozen=True, slots=True)
class Chaos:
    """How much is broken in this run, and with which randomness."""

    seed: int
    long: bool
    test: str
    random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "random", random.Random(f"{self.seed}/{self.test}"))

    def amount(self, *, short: int, long: int) -> int:
        """Return how often to do something in this run."""
        return long if self.long else short

    def figure(self, told: str) -> None:
        """Print one measured line at the end of the run: what docs/reliability.md quotes."""
        _figures.append(f"{self.test}: {told}")


def _seed() -> int:
    return int(os.environ.get(SEED_VARIABLE) or _RANDOM_SEED)


_RANDOM_SEED: Final = time.time_ns() % 10**6


@pytest.fixture
def chaos(request: pytest.FixtureRequest) -> Chaos:
    """The seed, the size and the randomness of this test."""
    long = os.environ.get(LONG_VARIABLE, "") == "long"
    return Chaos(seed=_seed(), long=long, test=request.node.name)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings of the `[database]` section for an empty database of each kind."""
    if request.param == "sqlite":
        return {}
    return {"url": request.getfixturevalue("postgres")}


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An empty ledger database of each kind."""
    url = request.getfixturevalue("postgres_ledger") if request.param == "postgresql" else tmp_path / "ledger.sqlite3"
    with ledger_engine(url) as engine:
        yield engine


@pytest.fixture
def own_postgres() -> Any:
    """A PostgreSQL server of this test alone, to be broken."""
    with servers.open_folder() as folder, servers.Postgres(folder) as server:
        yield server


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _figures:
        terminalreporter.section(f"chaos, {SEED_VARIABLE}={_seed()}")
        for line in _figures:
            terminalreporter.write_line(line)
