"""The list of studies names the patient as the header does, and nothing in a header can stop it."""

from __future__ import annotations

import pytest

from scp_node.domain import FilmDescription
from scp_node.ledger.projection import readable_name
from scp_node.report.source.description import describe
from tests.scp_node.ledger.projecting import EXPLICIT, header


@pytest.mark.parametrize(
    ("values", "age"),
    [
        ({"PatientAge": "064Y", "PatientBirthDate": "20000101"}, "064Y"),
        ({"PatientAge": "", "PatientBirthDate": "19600229", "StudyDate": "20240228"}, "063Y"),
        ({"PatientAge": "", "PatientBirthDate": "19600229", "StudyDate": "20240229"}, "064Y"),
        ({"PatientAge": "", "PatientBirthDate": "20250101", "StudyDate": "20240229"}, ""),
        ({"PatientAge": ""}, ""),
    ],
)
def test_the_age_is_the_stated_one_or_the_years_since_birth(values: dict[str, str], age: str) -> None:
    assert describe(header(**values), EXPLICIT).age == age


def test_names_keep_their_groups_and_lose_what_does_not_print() -> None:
    described = describe(header("Yamada^Tarou\n=山田^太郎=やまだ^たろう", ViewPosition="PA "), EXPLICIT)
    assert described == FilmDescription(
        names=("Yamada^Tarou", "山田^太郎", "やまだ^たろう"), sex="F", age="064Y", view="PA"
    )


def test_a_japanese_name_with_an_equals_sign_among_its_bytes_is_not_cut() -> None:
    name = "Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B".encode("ascii")
    whole = (
        b"\x08\x00\x05\x00CS\x10\x00\\ISO 2022 IR 87 \x10\x00\x10\x00PN" + (len(name) + 1).to_bytes(2, "little") + name
    )
    assert describe(whole + b" ", EXPLICIT).names == ("Yamada^Tarou", "山田^太郎")


@pytest.mark.parametrize("damaged", [b"", b"header", b"\xff" * 40, header()[:-3], b"\x10\x00\x10\x00PN\xff\xff"])
def test_a_damaged_header_gives_what_is_whole_in_it(damaged: bytes) -> None:
    assert isinstance(describe(damaged, EXPLICIT), FilmDescription)


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (("Doe^Jane",), "Doe, Jane"),
        (("MÜLLER^HANS^PETER^Dr.^jun.",), "MÜLLER, Dr. HANS PETER, jun."),
        (("Yamada^Tarou", "山田^太郎", "やまだ^たろう"), "Yamada, Tarou (山田 太郎)"),
        (("", "山田^太郎"), "山田 太郎"),
        (("山田^太郎",), "山田 太郎"),
        (("", "", "やまだ^たろう"), "やまだ たろう"),
        (("Müller  Hans",), "Müller Hans"),
        ((), ""),
        (("^^^",), ""),
    ],
)
def test_a_name_is_shown_as_people_read_it(names: tuple[str, ...], shown: str) -> None:
    assert readable_name(names) == shown
