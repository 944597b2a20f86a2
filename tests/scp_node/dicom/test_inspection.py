"""What is read from the bytes of a dataset, sound or not."""

from __future__ import annotations

import struct
from typing import Any, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydicom import Dataset, Sequence

from scp_node.dicom.encoding import DamagedError, Walker
from scp_node.dicom.inspection import inspect, is_uid, patient_key
from tests.scp_node.listener.datasets import encapsulated, encoded, radiograph, radiograph_dataset, without_pixels
from tests.scp_node.listener.peer import EXPLICIT, IMPLICIT

JPEG_BASELINE: Final = "1.2.840.10008.1.2.4.50"


def with_sequence() -> Dataset:
    image = radiograph_dataset()
    code, request = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "1", "99X", "one"
    request.RequestedProcedureID = "P"
    request.RequestedProcedureCodeSequence = Sequence([code, code])
    image.RequestAttributesSequence = Sequence([request, request])
    return image


@pytest.mark.parametrize(("implicit", "syntax"), [(False, EXPLICIT), (True, IMPLICIT)])
@pytest.mark.parametrize("undefined", [False, True])
def test_the_header_ends_where_the_pixel_data_begins(*, implicit: bool, syntax: str, undefined: bool) -> None:
    image = with_sequence()
    image["RequestAttributesSequence"].is_undefined_length = undefined
    data = encoded(image, implicit=implicit)
    assert inspect(memoryview(data), syntax).header_length == data.index(b"\xe0\x7f\x10\x00")


@pytest.mark.parametrize(("implicit", "syntax"), [(False, EXPLICIT), (True, IMPLICIT)])
def test_a_dataset_cut_anywhere_is_damaged_or_lacks_its_pixels(*, implicit: bool, syntax: str) -> None:
    image = with_sequence()
    data = encoded(image, implicit=implicit)
    starts = {element.start for element in Walker(memoryview(data), implicit=implicit).elements()}
    for size in range(len(data)):
        if size in starts and size > data.index(b"1.2.3.2"):
            inspected = inspect(memoryview(data)[:size], syntax)
            assert (inspected.header_length, inspected.lacking) == (size, "Pixel Data")
        else:
            with pytest.raises(DamagedError):
                inspect(memoryview(data)[:size], syntax)


def test_encapsulated_pixels_cut_anywhere_are_damaged() -> None:
    head = without_pixels(radiograph())
    data = head + encapsulated(b"\xff\xd8", b"\xff\xd9")
    inspected = inspect(memoryview(data), JPEG_BASELINE)
    assert (inspected.header_length, inspected.lacking) == (len(head), "")
    for size in range(len(head) + 1, len(data)):
        with pytest.raises(DamagedError):
            inspect(memoryview(data)[:size], JPEG_BASELINE)


def test_elements_behind_the_pixel_data_are_allowed_but_not_read() -> None:
    padding = b"\xfc\xff\xfc\xffOB\0\0" + struct.pack("<L", 4) + bytes(4)
    assert inspect(memoryview(radiograph() + padding), EXPLICIT)
    swapped = radiograph(StudyInstanceUID=None) + b"\x20\x00\x0d\x00UI\x04\x001.2\0"
    with pytest.raises(DamagedError, match="Study Instance UID is missing"):
        inspect(memoryview(swapped), EXPLICIT)


@given(st.binary(max_size=400), st.sampled_from([EXPLICIT, IMPLICIT, JPEG_BASELINE]))
def test_no_bytes_do_more_than_be_damaged(noise: bytes, syntax: str) -> None:
    with pytest.raises(DamagedError):
        inspect(memoryview(noise), syntax)


@given(st.data())
def test_a_changed_byte_does_no_more_than_damage(data: st.DataObject) -> None:
    image = bytearray(encoded(with_sequence()))
    place = data.draw(st.integers(0, len(image) - 1))
    image[place] = data.draw(st.integers(0, 255))
    try:
        inspected = inspect(memoryview(image), EXPLICIT)
    except DamagedError:
        return
    assert is_uid(inspected.study_uid)
    assert inspected.header_length <= len(image)


@given(st.text(max_size=70))
@example("1" * 64)
@example("1" * 65)
@example("1.2\n")
@example("٣.٤")
def test_a_uid_is_digits_and_dots(text: str) -> None:
    plain = set(text) <= set("0123456789.") and all(text.split(".")) and len(text) <= 64
    assert is_uid(text) == plain


def test_a_uid_with_leading_zeros_is_let_pass() -> None:
    assert is_uid("1.2.0840.01")


def test_subsampled_colour_needs_two_bytes_a_pixel() -> None:
    colour: dict[str, Any] = {"SamplesPerPixel": 3, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    assert inspect(memoryview(radiograph(PhotometricInterpretation="YBR_FULL_422", **colour)), EXPLICIT)
    full = memoryview(radiograph(PhotometricInterpretation="YBR_FULL", **colour))
    with pytest.raises(DamagedError, match="shorter than the image"):
        inspect(full, EXPLICIT)


def test_identifiers_are_decoded_by_the_character_set() -> None:
    data = radiograph(SpecificCharacterSet="ISO_IR 192", PatientID="Ä-1")
    assert inspect(memoryview(data), EXPLICIT).patient_id == "Ä-1"
    unknown = data.replace(b"ISO_IR 192", b"ISO_IR 999")
    assert inspect(memoryview(unknown), EXPLICIT).patient_id.endswith("-1")


def test_a_sequence_hidden_in_an_unknown_vr_is_walked_as_implicit_vr() -> None:
    inner = struct.pack("<HHL", 0x0008, 0x0100, 2) + b"A "
    items = b"\xfe\xff\x00\xe0" + struct.pack("<L", len(inner)) + inner + b"\xfe\xff\xdd\xe0" + bytes(4)
    sound = b"\x09\x00\x10\x10UN\0\0" + b"\xff" * 4 + items
    data = radiograph()
    place = data.index(struct.pack("<HH", 0x0010, 0x0010))
    assert inspect(memoryview(data[:place] + sound + data[place:]), EXPLICIT)
    with pytest.raises(DamagedError):
        inspect(memoryview(data[:place] + sound[:-8] + data[place:]), EXPLICIT)


def test_more_elements_than_any_image_has_are_refused() -> None:
    element = struct.pack("<HHL", 0x0009, 0x1001, 0)
    with pytest.raises(DamagedError, match="too many elements"):
        for _ in Walker(memoryview(element * 200_001), implicit=True).elements():
            pass


def key(**named: str) -> str:
    return patient_key(**{"patient_id": "P1", "issuer": "", "name": "Doe^Jane", "birth_date": "19600229", **named})


def test_the_id_and_its_issuer_make_the_patient_and_no_spelling_does() -> None:
    assert key() == key(name="Dow^Jane") == key(birth_date="19600301")
    assert len({key(), key(patient_id="P2"), key(patient_id="p1"), key(issuer="HOSPITAL"), key(patient_id="")}) == 5


def test_without_an_id_name_and_birth_date_make_the_patient() -> None:
    nobody = key(patient_id="")
    assert nobody == key(patient_id="", name="DOE ^JANE^^") == key(patient_id="", name="doe^jane=DOE^JANE")
    assert len({nobody, key(patient_id="", name="Dow^Jane"), key(patient_id="", birth_date="")}) == 3


def test_a_name_in_another_script_alone_is_a_name() -> None:
    assert key(patient_id="", name="=山田^太郎") != key(patient_id="", name="=鈴木^花子")


def test_ids_that_are_wrongly_declared_go_on_differing() -> None:
    data = radiograph(SpecificCharacterSet="ISO_IR 192", PatientID="Q#ZZ")
    one, two = (
        inspect(memoryview(data.replace(b"Q#ZZ", b"Q" + byte + b"ZZ")), EXPLICIT) for byte in (b"\xe4", b"\xf6")
    )
    assert one.patient_key != two.patient_key
    assert (one.patient_id, two.patient_id) == ("QäZZ", "QöZZ")


def test_the_universal_identifier_of_the_issuer_tells_patients_apart() -> None:
    keys = []
    for uid in ("1.2.3", "1.2.4"):
        item = Dataset()
        item.UniversalEntityID, item.UniversalEntityIDType = uid, "ISO"
        film = radiograph_dataset(IssuerOfPatientIDQualifiersSequence=[item])
        [same] = {
            inspect(memoryview(encoded(film, implicit=implicit)), syntax).patient_key
            for implicit, syntax in ((False, EXPLICIT), (True, IMPLICIT))
        }
        keys.append(same)
    assert len(set(keys)) == 2


def test_a_name_is_never_taken_for_an_id() -> None:
    assert key(patient_id="", name="P1", birth_date="") != key(patient_id="P1", name="", birth_date="")
