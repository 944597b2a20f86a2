"""Docstrings and comments are read once: forms that an English-speaking maintainer reads twice stay rare."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

PACKAGES: Final = ("scp_node", "model/pneumonia_model", "training/pneumonia_training")
FORMS: Final = {  # name -> what it looks like
    "is no": r"(?<!\bthere )\b(?:is|are|was|were) (?:no|none)\b(?! longer)",
    "of ours": r"\bof (?:ours|its own|theirs)\b",
    "what ... is": r"\bwhat (?:[a-z]+ ){1,4}(?:is|are|was|were)\b",
    "in vain": r"\bin vain\b",
    "anew": r"\banew\b",
    ", too": r", too(?! \w)",
    "is to be": r"\b(?:is|are|was|were) (?:not )?to be\b",
    "that is so": r"\b(?:so|such) (?:many|much|few|long)\b(?! (?:as|that|of))",
    "has not the": r"\b(?:has|have|had) not (?:the|an?|any|both)\b",
    "not ... any more": r"\bnot\b[^.,;:]{1,40}\bany more\b",
    "is told": r"\b(?:is|are|was|were) told\b",
    "by how much": r"\b(?:by|of|after) (?:how|which) (?:many|much|time|instant)\b",
    "; None: it is": r"[,;] (?:None|True|False|empty): [a-z]",
    "Of those that": r"(?:^|[.:] )(?-i:Of (?!course)|Returned is|Given is)",
}
MOST: Final = 0.02  # of all docstrings, and of all comments

Texts = Callable[[str], Iterator[tuple[int, str]]]


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each docstring of a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield node.body[0].lineno, text


def comments(source: str) -> Iterator[tuple[int, str]]:
    """Yield the first line and the text of each comment: beside the code, or a paragraph above it."""
    paragraph: list[str] = []
    end = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        line, column = token.start
        is_alone = not token.line[:column].strip()
        if paragraph and not (is_alone and line == end + 1):
            yield end + 1 - len(paragraph), " ".join(paragraph)
            paragraph = []
        words = token.string.lstrip("# ")
        if is_alone:
            paragraph, end = [*paragraph, words], line
        else:
            yield line, words
    if paragraph:
        yield end + 1 - len(paragraph), " ".join(paragraph)


def hard_forms(text: str) -> list[str]:
    """Return the names of the forms that a text holds."""
    words = " ".join(text.split())
    return [name for name, form in FORMS.items() if re.search(form, words, flags=re.IGNORECASE)]


@pytest.mark.parametrize("texts", [docstrings, comments])
def test_the_code_speaks_plain_english(repository: Path, texts: Texts) -> None:
    number, hard = 0, []
    for file in sorted(path for package in PACKAGES for path in (repository / package).rglob("*.py")):
        for line, text in texts(file.read_text(encoding="utf-8")):
            number += 1
            if found := hard_forms(text):
                hard.append(f"{file.relative_to(repository)}:{line}: {'; '.join(found)}")
    assert len(hard) < MOST * number, f"{len(hard)} of {number}:\n" + "\n".join(hard)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("The reason is no\nerror.", "is no"),
        ("A dataset of ours.", "of ours"),
        ("Return what the peer said is wrong.", "what ... is"),
        ("Work that was tried in vain.", "in vain"),
        ("Write the file anew.", "anew"),
        ("Ends those that are stopped, too.", ", too"),
        ("What it is to be asked about.", "is to be"),
        ("Return how old, after so many tries.", "that is so"),
        ("Films that have not the natural mix.", "has not the"),
        ("Images whose original is not kept any more.", "not ... any more"),
        ("Nothing is told before the start.", "is told"),
        ("Return by how many seconds the clock was set.", "by how much"),
        ("Note what C-FIND showed; None: the claim was lost.", "; None: it is"),
        ("Sweep. Of the analyses one waits.", "Of those that"),
    ],
)
def test_a_form_that_is_read_twice_would_be_seen(text: str, form: str) -> None:
    assert form in hard_forms(text)


@pytest.mark.parametrize(
    "text",
    [
        "Return the address; None if there is no address.",
        "The claim is no longer held.",
        "As long as it takes, and as many as there are.",
        "Refuse a large file, too large for memory.",
        "It cannot answer any more.",
        "The peer has not yet been asked.",
    ],
)
def test_plain_sentences_pass(text: str) -> None:
    assert hard_forms(text) == []


def test_comments_are_found_beside_the_code_and_above_it() -> None:
    source = 'A = "#"  # first\nB = 2  # second\n# third\n# goes on\nC = 3\n# fourth\n'
    assert list(comments(source)) == [(1, "first"), (2, "second"), (3, "third goes on"), (6, "fourth")]
