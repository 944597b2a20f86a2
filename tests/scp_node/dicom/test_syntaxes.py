"""The table of the transfer syntaxes agrees with the standard's dictionary and with the decoders of the model."""

from __future__ import annotations

from collections.abc import Iterable

from pneumonia_model.decoding import DECODED_TRANSFER_SYNTAXES, DECODERS
from pydicom.uid import UID, HTJ2KLossless

from scp_node.dicom.syntaxes import ENCAPSULATED, NATIVE, TRANSFER_SYNTAXES


def without_a_decoder(syntaxes: Iterable[str]) -> set[str]:
    return set(syntaxes) - DECODED_TRANSFER_SYNTAXES


def test_each_accepted_transfer_syntax_has_a_decoder() -> None:
    assert without_a_decoder(TRANSFER_SYNTAXES) == set()
    assert set(ENCAPSULATED) <= DECODERS.keys()


def test_a_transfer_syntax_without_a_decoder_would_be_seen() -> None:
    assert without_a_decoder([*TRANSFER_SYNTAXES, HTJ2KLossless]) == {HTJ2KLossless}


def test_each_is_native_or_encapsulated_as_the_dictionary_says() -> None:
    assert {uid for uid in TRANSFER_SYNTAXES if UID(uid).is_encapsulated} == ENCAPSULATED.keys()
    assert all(UID(uid).is_little_endian and not UID(uid).is_deflated for uid in TRANSFER_SYNTAXES)


def test_a_sender_that_offers_several_is_asked_for_a_native_one_first() -> None:
    assert list(TRANSFER_SYNTAXES)[: len(NATIVE)] == list(NATIVE)
