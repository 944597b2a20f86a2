"""The page that watches the model, before counts of many days."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from sqlalchemy import Engine

from scp_node.domain import Reason
from scp_node.ledger.daily import FilmFacts, FilmOutcome, apply
from tests.scp_node.ledger_node import MODEL
from tests.scp_node.web.site import Page

HOSTILE: Final = "<b>'CR&\"9"


def fill(engine: Engine, films: int = 300, length: int = 28, **changes: str) -> None:
    """Count films of the last days, evenly over the probabilities."""
    chance = random.Random(5)
    today = datetime.now(UTC).date()
    facts = {}
    for number in range(films):
        probability = chance.random()
        outcome = FilmOutcome.PRESENT if probability >= 0.5 else FilmOutcome.NOT_DETECTED
        one = FilmFacts(
            id=number,
            study_patient_id=number,
            day=today - timedelta(days=number % length),
            calling_ae=chance.choice(["CR1", "CR2", HOSTILE]),
            view=chance.choice(["PA", "AP"]),
            bundle=MODEL.bundle,
            outcome=outcome,
            reason="",
            probability=probability,
            inputs={"mean": 0.5, "std": 0.2},
            seconds=chance.uniform(1, 30),
        )
        if number % 10 == 0:
            one = replace(
                one, outcome=FilmOutcome.NOT_ANALYSED, reason="view", probability=None, inputs={}, seconds=None
            )
        facts[number] = replace(one, **changes)  # type: ignore[arg-type]
    with engine.begin() as connection:
        apply(connection, {}, facts)


def test_the_page_shows_the_days_and_the_numbers_behind_them(page: Page) -> None:
    fill(page.engine)
    page.log_in()
    shown = page.get("/model")
    assert shown.status_code == 200
    assert Reason.VIEW.sentence in shown.text
    assert "holds no reference" in shown.text
    answer = page.get("/api/v1/model/days").json()
    assert len(answer["days"]) == 28
    assert sum(day["received"] for day in answer["days"]) == 300
    assert sum(day["not_analysed"].get("view", 0) for day in answer["days"]) == 30
    one = page.get("/api/v1/model/days", params={"calling_ae": HOSTILE}).json()
    assert 0 < sum(day["received"] for day in one["days"]) < 300


def test_what_a_sender_calls_itself_is_text(page: Page) -> None:
    fill(page.engine)
    page.log_in()
    shown = page.get("/model", params={"calling_ae": HOSTILE}).text
    assert "<b>" not in shown
    assert "calling_ae=%3Cb%3E%27CR%26%229" in shown  # in the address of the numbers


def test_without_films_the_page_says_so(page: Page) -> None:
    page.log_in()
    shown = page.get("/model").text
    assert "No film came in these days." in shown
    assert "No warning." in shown
    assert page.get("/api/v1/model/days").json()["days"] == []


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("first=yesterday", "first"),
        ("last=2026-02-30", "last"),
        ("first=2026-02-02&last=2026-02-01", "first"),
        ("first=1999-01-01&last=2026-01-01", "first"),
        ("first=0001-01-01", "first"),
        ("calling_ae=" + "x" * 300, "calling_ae"),
    ],
)
def test_a_value_that_is_not_allowed_is_422_and_named(page: Page, query: str, named: str) -> None:
    page.log_in()
    for path in ("/model", "/api/v1/model/days"):
        answer = page.get(f"{path}?{query}")
        assert (answer.status_code, named in answer.text) == (422, True), path


def test_the_numbers_need_a_login(page: Page) -> None:
    assert page.get("/api/v1/model/days").status_code == 401
    assert page.get("/model").status_code == 303
