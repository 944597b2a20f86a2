"""What the search for patients compares: casefolded words without accents, and the condition of a word."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final

from sqlalchemy import ColumnElement, Connection, Integer, column, func, literal_column, select, table, text
from sqlalchemy.exc import DBAPIError

from scp_node.ledger.database.errors import first_line
from scp_node.ledger.database.schema import worklist
from scp_node.logs import get_logger

MOST_WORDS: Final = 8  # of one search; more make it no narrower
LONGEST_WORD: Final = 64  # characters, as of an LO (PS3.5 Table 6.2-1)
_LONGEST_TEXT: Final = 1024  # characters of one name: three groups of 64 and what peers write beyond the standard
_TRIGRAM: Final = 3  # characters from which an index of trigrams can find a word anywhere
_GAP: Final = "  "  # before each word: two characters, so that the first one of a word ends a trigram
# letters that Unicode does not take apart into a letter and an accent
_PLAIN: Final = str.maketrans(
    {
        "\N{LATIN SMALL LETTER O WITH STROKE}": "o",
        "\N{LATIN SMALL LETTER L WITH STROKE}": "l",
        "\N{LATIN SMALL LETTER D WITH STROKE}": "d",
        "\N{LATIN SMALL LETTER ETH}": "d",
        "\N{LATIN SMALL LETTER THORN}": "th",
        "\N{LATIN SMALL LETTER AE}": "ae",
        "\N{LATIN SMALL LIGATURE OE}": "oe",
        "\N{LATIN SMALL LETTER DOTLESS I}": "i",
    }
)
_POSTGRESQL_INDEX: Final = "CREATE INDEX IF NOT EXISTS ix_worklist_search ON worklist USING gin (search gin_trgm_ops)"
INDEXED_ROWS: Final = table("worklist_search", column("rowid", Integer))

log = get_logger(__name__)


def folded(value: str) -> str:
    """Return text without what nobody types: case, accents, half and full width, and characters that do not print."""
    apart = unicodedata.normalize("NFKD", value.casefold())
    letters = "".join(each for each in apart if unicodedata.category(each) != "Mn")
    whole = unicodedata.normalize("NFC", letters.casefold().translate(_PLAIN))
    return "".join(each if each.isprintable() else " " for each in whole)


def words(value: str) -> list[str]:
    """Return the words of a search, or of a name with its groups and components (PS3.5 Section 6.2.1)."""
    return folded(value[:_LONGEST_TEXT].replace("^", " ").replace("=", " ")).replace(",", " ").split()


def search_text(values: Iterable[str]) -> str:
    """Return the words of these values, each once and with a gap before it, for the column `worklist.search`."""
    found = dict.fromkeys(word for value in values for word in words(value))
    return "".join(f"{_GAP}{word}" for word in found)


def wanted(value: str) -> tuple[str, ...]:
    """Return the words to look for: at most `MOST_WORDS`, the longest first.

    A "*" at either end of a word, as in a query by C-FIND, says nothing more: words are found by their parts anyway.
    """
    found = dict.fromkeys(bare[:LONGEST_WORD] for word in words(value) if (bare := word.strip("*")))
    return tuple(sorted(found, key=len, reverse=True)[:MOST_WORDS])


def needle(word: str) -> str:
    """Return what to find in `worklist.search`: a word of three characters anywhere, a shorter one at its start."""
    return word if len(word) >= _TRIGRAM else f"{_GAP}{word}"


def contains(word: str, dialect: str) -> ColumnElement[bool]:
    """Return the SQL condition that a row has this word; on SQLite it reads the row, on PostgreSQL also the index."""
    if dialect == "sqlite":
        return func.instr(worklist.c.search, needle(word)) > 0
    return worklist.c.search.contains(needle(word), autoescape=True)


def matches(sought: Sequence[str]) -> ColumnElement[bool]:
    """Return the SQL condition that the index of SQLite, `INDEXED_ROWS`, has all these words in a row."""
    phrases = " AND ".join(f'"{needle(word).replace(chr(34), 2 * chr(34))}"' for word in sought)
    return literal_column("worklist_search").bool_op("MATCH")(phrases)


def found(connection: Connection, sought: Sequence[str], most: int) -> list[int] | None:
    """Return the ids of all rows with these words; None where there are more than `most`."""
    if connection.dialect.name == "sqlite":
        chosen = select(INDEXED_ROWS.c.rowid).where(matches(sought))
    else:
        chosen = select(worklist.c.id).where(*(contains(word, "postgresql") for word in sought))
    ids = list(connection.scalars(chosen.limit(most + 1)))
    return ids if len(ids) <= most else None


def ensure_index(connection: Connection) -> bool:
    """Make the index of the search where it is missing and this user may; return whether it is there.

    SQLite has it from the beginning. On PostgreSQL it needs the extension pg_trgm.
    """
    if connection.dialect.name == "sqlite":
        return True
    try:
        with connection.begin_nested():
            connection.execute(text("CREATE EXTENSION IF NOT EXISTS pg_trgm"))
            connection.execute(text(_POSTGRESQL_INDEX))
    except DBAPIError as error:
        log.warning("search of studies has no index, and reads every row", reason=first_line(error))
        return False
    return True
