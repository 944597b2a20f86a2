"""The page of a bundle on trial: both bundles on the same films, and against what readers say."""

from __future__ import annotations

import re
from datetime import timedelta
from html import unescape
from typing import Final

import pytest

from scp_node.domain import Finding, Verdict
from scp_node.ledger import Answer, JudgedStudy, ShadowQuery, ShadowStatement, Truth
from scp_node.web.pages.trial import comparison
from tests.scp_node.ledger_node import MODEL, QUIET, SHADOW, Node
from tests.scp_node.web.site import TESTER, Page

HERE: Final = "first=2020-01-01&last=2020-12-30"


def tried(node: Node, study: str, reported: float, on_trial: float, *, truth: Truth | None = None) -> None:
    """Have one film of a study read by both bundles, and a reader say what is true."""
    node.receive(study.rpartition(".")[2], study=study)
    node.analyse(Finding(probability=reported, logit=0.0, threshold=0.5), shadow=SHADOW)
    assert node.try_out(on_trial) == 1
    node.clock.advance(seconds=QUIET.total_seconds() + 1)
    assert node.report("pacs")
    if truth is not None:
        [subject] = node.ledger.feedback.subjects(study)
        node.ledger.feedback.give(subject.id, "ada", Answer(truth=truth), actor=TESTER)


def days(page: Page) -> str:
    """Return the part of an address that selects the days of the ledger's clock."""
    today = page.node.clock().date()
    return f"first={today - timedelta(days=3)}&last={today + timedelta(days=3)}"


def said(probability: float, bundle: str = "b") -> ShadowStatement:
    verdict = Verdict.PRESENT if probability >= 0.5 else Verdict.NOT_DETECTED
    return ShadowStatement(bundle=bundle, bundle_digest=bundle, probability=probability, threshold=0.5, verdict=verdict)


def judged(*, is_positive: bool, reporting: float, shadow: float) -> JudgedStudy:
    return JudgedStudy(study_uid="1", is_positive=is_positive, reporting=said(reporting), shadow=said(shadow))


def test_both_are_compared_on_the_same_studies() -> None:
    studies = [
        *[judged(is_positive=True, reporting=0.9, shadow=0.8)] * 6,
        *[judged(is_positive=True, reporting=0.2, shadow=0.7)] * 5,  # the one on trial alone is right
        *[judged(is_positive=False, reporting=0.1, shadow=0.1)] * 8,
        judged(is_positive=False, reporting=0.3, shadow=0.6),  # the reporting one alone is right
    ]
    found = comparison(studies)
    assert (found.positive, found.negative) == (11, 9)
    assert (found.only_reporting, found.only_shadow) == (1, 5)
    assert found.p == pytest.approx(2 * 7 / 64)  # binomial, 1 or fewer of 6 at one half, on both sides
    assert found.reporting.sensitivity.value == pytest.approx(6 / 11)
    assert found.shadow.sensitivity.value == 1
    assert found.reporting.specificity.value == 1
    assert found.shadow.specificity.value == pytest.approx(8 / 9)
    assert found.areas.first.value == pytest.approx((6 * 9 + 5 * 8) / 99)


def test_an_undetermined_verdict_is_right_about_nothing() -> None:
    unsure = ShadowStatement(
        bundle="b", bundle_digest="b", probability=0.5, threshold=0.5, verdict=Verdict.UNDETERMINED
    )
    study = JudgedStudy(study_uid="1", is_positive=True, reporting=unsure, shadow=said(0.9))
    found = comparison([study])
    assert (found.only_reporting, found.only_shadow, found.reporting.sensitivity.value) == (0, 1, 0)
    assert (found.reporting.specificity.value, found.areas.first.value, found.areas.p) == (None, None, None)


def test_the_page_shows_dots_disagreements_and_what_readers_say(page: Page) -> None:
    tried(page.node, "1.2.3", 0.9, 0.8, truth=Truth.POSITIVE)
    tried(page.node, "1.2.4", 0.9, 0.2, truth=Truth.NEGATIVE)
    tried(page.node, "1.2.5", 0.1, 0.2)
    page.log_in()
    shown = page.get(f"/trial?{days(page)}").text
    assert shown.count("<circle") == 3
    assert shown.count('class="differs"') == 1
    assert 'href="/studies/1.2.4"' in shown
    assert 'href="/studies/1.2.3"' not in shown
    assert "reported positive, on trial negative" in shown
    assert "1 studies with the finding" in shown
    assert SHADOW.bundle in shown
    assert MODEL.bundle in shown


def test_pages_of_disagreements_follow_each_other(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scp_node.web.pages.trial.PAGE", 1)
    for study in ("1.2.3", "1.2.4"):
        tried(page.node, study, 0.9, 0.2)
    page.log_in()
    first = page.get(f"/trial?{days(page)}").text
    older = re.findall(r'href="(/trial\?[^"]*after=[^"]*)">Older', first)
    second = page.get(unescape(older[0])).text
    links = [re.findall(r'href="/studies/([0-9.]+)"', shown) for shown in (first, second)]
    assert links == [["1.2.4"], ["1.2.3"]]


def test_the_truth_of_a_study_of_two_patients_is_left_out(page: Page) -> None:
    tried(page.node, "1.2.3", 0.9, 0.8, truth=Truth.POSITIVE)
    shadow, query = page.site.ledger.shadow, ShadowQuery(bundle_digest=SHADOW.digest)
    assert [(each.study_uid, each.is_positive) for each in shadow.judged(query)] == [("1.2.3", True)]
    page.node.receive("2", study="1.2.3", patient_key="b" * 64)
    assert shadow.judged(query) == []


def test_before_any_trial_the_page_says_how_to_begin_one(page: Page) -> None:
    page.log_in()
    assert "inference.shadow_bundle" in page.get("/trial").text


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("bundle=sha256:none", 422),
        ("first=x", 422),
        ("first=2020-02-02&last=2020-02-01", 422),
        ("first=2000-01-01&last=2020-01-01", 422),
        (f"{HERE}&after=forged~key", 200),
        (f"{HERE}&after=1e999~1", 200),
        (f"{HERE}&after=~", 200),
    ],
)
def test_a_wrong_value_is_named_and_a_forged_key_is_the_first_page(page: Page, query: str, status: int) -> None:
    page.log_in()
    answer = page.get(f"/trial?{query}")
    assert answer.status_code == status
    if status == 422:
        assert query.split("=", maxsplit=1)[0] in answer.text
