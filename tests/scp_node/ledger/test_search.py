"""Words are compared without what nobody types."""

from __future__ import annotations

import pytest

from scp_node.ledger.search import LONGEST_WORD, MOST_WORDS, folded, needle, search_text, wanted


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Müller", "muller"),
        ("STRAẞE Straße", "strasse strasse"),
        ("Łukasz Ødegård Đorđe", "lukasz odegard dorde"),
        ("IŞ\N{LATIN SMALL LETTER DOTLESS I}K", "isik"),
        ("Ёлкин Й", "елкин и"),
        ("\N{FULLWIDTH LATIN CAPITAL LETTER Y}u ﾀﾛｳ", "yu タロウ"),
        ("がぎ", "かき"),
        ("김철수", "김철수"),
        ("قَبَّاني", "قباني"),
        ("a\0b\tc\u200b", "a b c "),
    ],
)
def test_case_accents_and_width_do_not_matter(text: str, plain: str) -> None:
    assert folded(text) == plain


def test_each_word_stands_once_with_a_gap_before_it() -> None:
    assert search_text(["Doe^Jane", "", "P-1", "doe,JANE"]) == "  doe  jane  p-1"


def test_a_short_word_is_sought_at_the_start_of_words() -> None:
    assert (needle("do"), needle("doe")) == ("  do", "doe")


def test_a_search_has_a_limit_to_its_words_and_to_their_length() -> None:
    assert len(wanted(" ".join(map(str, range(1000, 1100))))) == MOST_WORDS
    assert wanted("x" * 5000) == ("x" * LONGEST_WORD,)
    assert wanted("b aaa b") == ("aaa", "b")
