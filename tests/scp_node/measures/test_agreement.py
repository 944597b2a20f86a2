"""Agreement of readers and of models: against published examples and scipy."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest

from scp_node.measures import UNKNOWN, kappa, mcnemar


def answers(table: list[list[int]]) -> tuple[list[int], list[int]]:
    """Return the two columns of answers that a table of counts sums up."""
    pairs = [(row, column) for row, counts in enumerate(table) for column, n in enumerate(counts) for _ in range(n)]
    return [one for one, _ in pairs], [other for _, other in pairs]


def test_20_5_10_15_is_the_textbook_s_kappa_of_two_fifths() -> None:
    assert kappa(*answers([[20, 5], [10, 15]])).value == pytest.approx(0.4)


def test_two_tables_with_one_agreement_differ_in_what_chance_gives() -> None:
    assert kappa(*answers([[45, 15], [25, 15]])).value == pytest.approx(0.1304, abs=5e-5)
    assert kappa(*answers([[25, 35], [5, 35]])).value == pytest.approx(0.2593, abs=5e-5)


def test_three_categories_have_the_variance_of_the_paper() -> None:
    # Fleiss, Cohen and Everitt 1969: 200 patients, kappa .429, standard error .054
    found = kappa(*answers([[106, 10, 4], [22, 28, 10], [2, 12, 6]]))
    assert found.size == 200
    assert found.value == pytest.approx(0.4286, abs=5e-5)
    assert found.value is not None
    assert found.low is not None
    assert (found.value - found.low) / 1.96 == pytest.approx(0.054, abs=5e-4)


@pytest.mark.parametrize("seen", [[], ["a"], ["a", "a", "a"]])
def test_one_answer_throughout_tells_nothing(seen: list[str]) -> None:
    assert kappa(seen, seen) == UNKNOWN


def test_full_agreement_and_full_disagreement() -> None:
    assert kappa("abab", "abab").value == pytest.approx(1)
    assert kappa("abab", "baba").value == pytest.approx(-1)


def test_answers_of_different_studies_are_refused() -> None:
    with pytest.raises(ValueError, match="3 answers and 2"):
        kappa("aba", "ab")


@pytest.mark.parametrize(("first", "second"), [(0, 1), (5, 5), (3, 12), (150, 86), (0, 1100), (40_000, 41_000)])
def test_the_exact_test_is_scipy_s_binomial_test(first: int, second: int) -> None:
    assert mcnemar(first, second) == pytest.approx(binomtest(first, first + second).pvalue, rel=1e-6)


def test_without_a_difference_p_is_1() -> None:
    assert mcnemar(0, 0) == 1
    with pytest.raises(ValueError, match="not negative"):
        mcnemar(-1, 3)
