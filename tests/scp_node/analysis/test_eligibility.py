"""The intended use: frontal chest radiographs of adults, for presentation."""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag

from scp_node.analysis.answers import Equipment
from scp_node.analysis.eligibility import assess_header
from scp_node.domain import NotAnalysed, Note, Reason
from scp_node.settings import AnalysisSettings
from tests.scp_node.analysis.films import MISSING, radiograph

US: Final = Equipment(manufacturer="scp-node open-source project", model_name="scp-node")


def assess(**attributes: Any) -> tuple[Note, ...] | NotAnalysed:
    return assess_header(radiograph(**attributes), AnalysisSettings(), US)


def reason(**attributes: Any) -> Reason | None:
    outcome = assess(**attributes)
    return outcome.reason if isinstance(outcome, NotAnalysed) else None


def notes(**attributes: Any) -> tuple[Note, ...]:
    outcome = assess(**attributes)
    assert not isinstance(outcome, NotAnalysed), outcome
    return outcome


def sequence(**attributes: Any) -> Sequence:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return Sequence([item])


def coded(value: str, meaning: str) -> Sequence:
    return sequence(CodeValue=value, CodingSchemeDesignator="SCT", CodeMeaning=meaning)


def test_an_adults_frontal_chest_film_is_within_the_intended_use_without_a_note() -> None:
    assert assess() == ()


def test_a_film_of_the_rsna_challenge_is_analysed_though_it_is_a_secondary_capture() -> None:
    assert assess(SOPClassUID="1.2.840.10008.5.1.4.1.1.7", Modality="CR", ViewPosition="AP", PatientAge="32") == ()


class TestKindOfObject:
    @pytest.mark.parametrize("modality", ["CT", "MR", "OT", "SR", "PX"])
    def test_another_modality_is_not_analysed_and_is_named(self, modality: str) -> None:
        assert assess(Modality=modality) == NotAnalysed(reason=Reason.MODALITY, detail=f"Modality {modality}")

    def test_a_missing_modality_is_not_taken_for_a_radiograph(self) -> None:
        assert reason(Modality=MISSING) is Reason.MODALITY

    def test_a_dataset_without_sop_class_and_modality_has_no_readable_header(self) -> None:
        assert reason(Modality=MISSING, SOPClassUID=MISSING) is Reason.UNREADABLE_HEADER

    def test_the_configured_modalities_are_the_ones_analysed(self) -> None:
        rules = AnalysisSettings(modalities=["CR"])
        assert isinstance(assess_header(radiograph(Modality="DX"), rules), NotAnalysed)

    def test_an_image_for_processing_is_not_analysed_by_class_or_by_intent(self) -> None:
        assert reason(SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1.1") is Reason.FOR_PROCESSING
        assert reason(PresentationIntentType="FOR PROCESSING") is Reason.FOR_PROCESSING
        assert reason(PresentationIntentType="FOR_PROCESSING") is Reason.FOR_PROCESSING

    def test_an_object_of_another_class_is_not_analysed_whatever_its_modality_says(self) -> None:
        assert reason(SOPClassUID="1.2.840.10008.5.1.4.1.1.2") is Reason.MODALITY  # CT Image Storage
        assert reason(SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33", Rows=MISSING) is Reason.NOT_AN_IMAGE

    def test_more_than_one_frame_is_not_analysed(self) -> None:
        assert reason(NumberOfFrames=2) is Reason.MULTI_FRAME
        assert reason(SOPClassUID="1.2.840.10008.5.1.4.1.1.7.2") is Reason.MULTI_FRAME
        assert reason(NumberOfFrames=1) is None

    def test_frames_that_are_none_are_left_for_the_pixels_and_unreadable_ones_are_named(self) -> None:
        assert assess(NumberOfFrames=0) == ()
        assert assess(NumberOfFrames=-1) == NotAnalysed(reason=Reason.UNREADABLE_HEADER, detail="NumberOfFrames")

    def test_the_nodes_own_objects_are_never_analysed(self) -> None:
        assert reason(Manufacturer="scp-node open-source project", ManufacturerModelName="scp-node") is (
            Reason.OWN_OBJECT
        )
        assert reason(Manufacturer="scp-node open-source project", ManufacturerModelName="another product") is None

    def test_a_node_without_a_name_takes_no_object_for_its_own(self) -> None:
        assert assess_header(radiograph(), AnalysisSettings()) == ()

    @pytest.mark.parametrize(
        "attributes",
        [
            {"PatientSpeciesDescription": "Canine"},
            {"PatientSpeciesCodeSequence": coded("448771007", "Canis lupus familiaris")},
            {"PatientBreedDescription": "Beagle"},
            {"PatientSexNeutered": "ALTERED"},
        ],
    )
    def test_an_animals_film_is_not_analysed(self, attributes: dict[str, Any]) -> None:
        assert reason(**attributes) is Reason.SPECIES

    @pytest.mark.parametrize(
        "species", ["Homo sapiens", "HUMAN", "Mensch", "PERSON", "UNKNOWN", "N/A", "NONE", "not applicable", "-", ""]
    )
    @pytest.mark.parametrize("keyword", ["PatientSpeciesDescription", "PatientBreedDescription"])
    def test_a_patient_stated_to_be_human_or_nothing_is_analysed(self, keyword: str, species: str) -> None:
        assert assess(**{keyword: species}) == ()

    @pytest.mark.parametrize("neutered", ["N", "NO", "UNKNOWN", "N/A", ""])
    def test_a_placeholder_for_neutered_makes_no_animal(self, neutered: str) -> None:
        assert assess(PatientSexNeutered=neutered) == ()

    @pytest.mark.parametrize(("value", "meaning"), [("337915000", "X"), ("", "Human"), ("UNKNOWN", ""), ("", "")])
    def test_a_species_code_without_an_animal_is_no_animal(self, value: str, meaning: str) -> None:
        assert assess(PatientSpeciesCodeSequence=coded(value, meaning)) == ()

    @pytest.mark.parametrize("text", ["CHEST DOG", "THORAX HUND", "Canine thorax", "Feline chest", "THORAX CAT"])
    @pytest.mark.parametrize("keyword", ["BodyPartExamined", "SeriesDescription", "ProtocolName"])
    def test_a_title_that_names_an_animals_chest_tells_the_species(self, keyword: str, text: str) -> None:
        assert assess(**{keyword: text}) == NotAnalysed(reason=Reason.SPECIES, detail=keyword)

    def test_a_tooth_and_a_scan_are_no_animal(self) -> None:
        assert reason(BodyPartExamined="CANINE") is Reason.BODY_PART
        assert assess(SeriesDescription="Chest, see CAT scan") == ()


class TestBodyPart:
    @pytest.mark.parametrize(
        "part",
        [
            "CHEST",
            "Thorax",
            "LUNG",
            "TORAX",
            "CHEST_AP",
            "Chest PA",
            "CHESTPA",
            "PA_CHEST",
            "PACHEST",
            "THORAX1",
            "PECHO",
            "BRUST",
            "Rx torace",
            "Poumons",
            "胸部",
            *("胸", "가슴", "ГРУДЬ", "חזה", "NGỰC", "GÖĞÜS", "TÜDŐ", "LUNGER", "BRYST", "PULMO", "胸正面"),
            *("THORAXORGANE", "BRUSTORGANE", "THORAXAUFNAHME", "RXTORAX", "Lungenaufnahme", "CHESTXRAY"),
        ],
    )
    def test_the_chest_is_known_in_the_spellings_of_consoles(self, part: str) -> None:
        assert assess(BodyPartExamined=part, SpecificCharacterSet="ISO_IR 192") == ()

    @pytest.mark.parametrize("part", ["HAND", "SKULL", "TSPINE", "CHESTABDOMEN", "CHEST ABDOMEN", "B?cken", "???"])
    def test_a_stated_part_that_is_not_simply_the_chest_is_not_analysed(self, part: str) -> None:
        assert reason(BodyPartExamined=part) is Reason.BODY_PART

    @pytest.mark.parametrize(
        "part",
        [
            *("CHEST WALL", "CHESTWALL", "THORAXWAND", "MAMMO CHEST", "TORAX MAMA", "Torace mammella", "Thorax sein"),
            *("BWS Thorax", "Knöcherner Thorax", "TORAX OSEO", "TORAX COSTAS", "CHEST ABDO", "CHEST PHANTOM"),
            *("THORAX WS", "胸椎", "胸骨", "胸腰椎", "胸腹", "Thorax Skelett"),
        ],
    )
    def test_a_chest_with_another_tissue_or_thing_is_not_analysed(self, part: str) -> None:
        assert reason(BodyPartExamined=part, SpecificCharacterSet="ISO_IR 192") is Reason.BODY_PART

    @pytest.mark.parametrize("view", ["AP SPINE", "AP KNEE", "PA HAND", "LAT KNEE"])
    def test_a_view_of_another_part_is_not_analysed_by_the_part(self, view: str) -> None:
        assert assess(ViewPosition=view) == NotAnalysed(reason=Reason.BODY_PART, detail="ViewPosition")
        assert reason(ViewPosition=view, BodyPartExamined=MISSING) is Reason.BODY_PART

    @pytest.mark.parametrize("text", ["Chest wall pain", "Thorax soll a.p. sein", "Chest, rule out osseous lesion"])
    def test_free_text_may_name_more_than_the_part(self, text: str) -> None:
        assert notes(BodyPartExamined=MISSING, SeriesDescription=text) == ()

    @pytest.mark.parametrize("part", [MISSING, "", "UNKNOWN", "DEFAULT", "PEDIATRIC", "NEWBORN"])
    def test_an_unstated_part_is_analysed_with_a_note(self, part: str | None) -> None:
        assert notes(BodyPartExamined=part) == (Note.BODY_PART_MISSING,)

    @pytest.mark.parametrize(
        "text",
        [
            "Rx thorax",
            "RX de tórax PA",
            "CXR portable",
            "Thorax p.a.",
            "Radiographie thorax de face",
            "胸部正面",
            "Rentgen klatki piersiowej",
            "Рентгенография органов грудной клетки",
            "흉부",
        ],
    )
    @pytest.mark.parametrize("keyword", ["StudyDescription", "SeriesDescription", "ProtocolName"])
    def test_a_description_tells_the_chest_in_the_language_of_the_room(self, keyword: str, text: str) -> None:
        described = {keyword: text, "SpecificCharacterSet": "ISO_IR 192"}
        assert notes(BodyPartExamined=MISSING, **described) == ()

    @pytest.mark.parametrize("text", ["Knee AP", "Rx columna toracica", "Becken", "Abdomen erect", "Локоть"])
    def test_a_description_of_another_part_is_not_analysed(self, text: str) -> None:
        described = {"SeriesDescription": text, "SpecificCharacterSet": "ISO_IR 192"}
        assert reason(BodyPartExamined=MISSING, **described) is Reason.BODY_PART

    def test_the_coded_region_counts_where_the_body_part_is_missing(self) -> None:
        assert assess(BodyPartExamined=MISSING, AnatomicRegionSequence=coded("51185008", "Chest")) == ()
        assert reason(BodyPartExamined=MISSING, AnatomicRegionSequence=coded("122495006", "Thoracic spine")) is (
            Reason.BODY_PART
        )

    def test_a_room_that_calls_everything_chest_is_contradicted_by_the_series(self) -> None:
        assert reason(SeriesDescription="Knee lateral") is Reason.BODY_PART

    def test_a_study_of_several_parts_does_not_contradict_a_film_of_the_chest(self) -> None:
        assert assess(StudyDescription="Trauma: pelvis and knee") == ()

    def test_a_request_tells_the_part_where_image_and_series_do_not(self) -> None:
        request = sequence(RequestedProcedureDescription="Rx rodilla")
        assert reason(BodyPartExamined=MISSING, RequestAttributesSequence=request) is Reason.BODY_PART
        assert notes(BodyPartExamined=MISSING, PerformedProcedureStepDescription="XR Chest") == ()
        assert assess(RequestAttributesSequence=request) == ()  # it may cover films of several parts

    def test_a_description_that_names_two_parts_says_nothing(self) -> None:
        assert notes(BodyPartExamined=MISSING, SeriesDescription="Chest and abdomen") == (Note.BODY_PART_MISSING,)


_FRONTAL: Final = [
    *("PA", "AP", "ap", "AP SUPINE", "AP_PORTABLE", "PORTABLE", "PA1", "AP_2", "CHESTPA", "PA_CHEST", "CHEST_PA"),
    *("P.A.", "p. a.", "P/A", "A-P", "P_A", "POSTERO_ANTERIOR", "ANTERO_POSTERIOR", "PosteroAnterior"),
    *(
        "Anterior-Posterior",
        "posterior to anterior",
        "posteroanteriore",
        "ANT-POST",
        "POSTERO-ANTERIEUR",
        "TORAX PA",
        "THORAX_PA",
    ),
    *("A P", "P A", "a p", "A TO P", "P to A", "P->A", "P.-A.", "A . P", "FRONT", "后前位", "前后位", "後前位"),
]


_VIEW_OF_PART: Final = NotAnalysed(reason=Reason.VIEW, detail="BodyPartExamined")
_OTHER_VIEWS: Final = [
    *("Thorax seit", "Thorax quer", "Thorax Seitenaufnahme", "Thorax Seitenbild", "Lateralaufnahme", "Profilaufnahme"),
    *(
        "Thorax 2. Ebene",
        "Thorax zweite Ebene",
        "Thorax Ebene 2",
        "Thorax Seitaufnahme",
        "Hrudník z boku",
        "Thorax zijdelings",
        "Klatka boczna",
        "Klatka bok",
        "Hrudník bočná",
    ),
    *("bočný", "boční", "Mellkas oldalirányú", "Mellkas oldal", "Toraks yan", "Akciğer grafisi yan", "Yan", "Sidobild"),
    *("Lungor sida", "Keuhkot sivukuva", "Lunger side", "Thorax side", "Side", "Side view", "Θώρακας πλάγια"),
    *(
        "صدر جانبي",
        "Грудь, бок",
        "Боковая",
        "胸部側",
        "胸部侧",
        "胸部側面",
        "胸片侧",
        "Chest L-L",
        "Chest L/L",
        "Chest R-L",
    ),
    *(
        "Chest lord",
        "Chest apices",
        "Chest crosstable",
        "Chest cross-table",
        "Chest XTL",
        "胸部斜位",
        "肺尖",
        "胸部側臥位",
    ),
]
_NO_OTHER_VIEW: Final = [
    *("Left side", "Chest side marker", "Thorax side: left", "Beide Seiten", "Thorax beide Seiten", "Torax, sida?"),
    *("Dr. Yan", "Глубокий вдох", "両側", "右側", "胸部 側弯症", "Bokeh", "Thorax Seitenvergleich"),
]
_DESCRIPTIONS: Final = [
    "SeriesDescription",
    "ProtocolName",
    "AcquisitionDeviceProcessingDescription",
    "ImageComments",
    "StudyDescription",
    "PerformedProcedureStepDescription",
    "RequestedProcedureDescription",
]


class TestView:
    @pytest.mark.parametrize("view", _FRONTAL)
    def test_a_frontal_view_is_analysed(self, view: str) -> None:
        assert assess(ViewPosition=view, SpecificCharacterSet="ISO_IR 192") == ()

    @pytest.mark.parametrize(
        "view",
        [
            "LL",
            "RL",
            "LAT",
            "LATERAL",
            "LLO",
            "RLO",
            "RAO",
            "LAO",
            "RLD",
            "LLD",
            "AP DECUBITUS",
            "PA OBLIQUE",
            "LORDOTIC",
            "PA LAT",
            "CHESTLAT",
            "CHEST_LL",
            "LEFT_ANTERIOR_OBLIQUE",
            "XYZ",
            "?",
        ],
    )
    def test_a_stated_view_that_is_not_frontal_is_not_analysed(self, view: str) -> None:
        assert reason(ViewPosition=view) is Reason.VIEW

    def test_the_view_is_named_in_the_detail(self) -> None:
        assert assess(ViewPosition="LL") == NotAnalysed(reason=Reason.VIEW, detail="ViewPosition LL")

    @pytest.mark.parametrize("view", [MISSING, "", "UNKNOWN", "ERECT", "CHEST", "STEHEND", "Sitzend"])
    def test_an_unstated_view_is_analysed_with_a_note(self, view: str | None) -> None:
        assert notes(ViewPosition=view) == (Note.VIEW_MISSING,)

    @pytest.mark.parametrize("text", ["view: PA", "Chest AP supine", "Thorax p.a.", "thorax face", "Bedside chest"])
    def test_the_description_of_the_series_can_tell_a_frontal_view(self, text: str) -> None:
        assert notes(ViewPosition=MISSING, SeriesDescription=text) == ()

    @pytest.mark.parametrize("text", ["Chest LAT", "Thorax profil", "Thorax seitl.", "portable lateral", "Chest obl."])
    @pytest.mark.parametrize("keyword", _DESCRIPTIONS)
    def test_a_description_of_another_view_is_not_analysed(self, keyword: str, text: str) -> None:
        assert reason(ViewPosition=MISSING, **{keyword: text}) is Reason.VIEW

    @pytest.mark.parametrize("text", _OTHER_VIEWS)
    def test_another_view_is_known_in_the_language_of_the_room(self, text: str) -> None:
        described = {"SpecificCharacterSet": "ISO_IR 192", "SeriesDescription": text}
        assert reason(ViewPosition=MISSING, **described) is Reason.VIEW
        assert reason(ViewPosition=text, SpecificCharacterSet="ISO_IR 192") is Reason.VIEW

    @pytest.mark.parametrize("text", _NO_OTHER_VIEW)
    def test_words_that_look_like_another_view_say_none(self, text: str) -> None:
        described = {"SpecificCharacterSet": "ISO_IR 192", "SeriesDescription": text}
        assert notes(ViewPosition=MISSING, **described) == (Note.VIEW_MISSING,)

    @pytest.mark.parametrize("part", ["TORAKS YAN", "Lunger side", "Thorax 2. Ebene", "Hrudník bočná", "胸部側面"])
    def test_a_lateral_body_part_counts_beside_a_coded_frontal_view(self, part: str) -> None:
        assert assess(BodyPartExamined=part, SpecificCharacterSet="ISO_IR 192") == _VIEW_OF_PART

    @pytest.mark.parametrize(
        "text", ["胸部 正側位", "胸部 正侧位", "Thorax PA og side", "Toraks PA ve yan", "Thorax frontal og side"]
    )
    def test_a_text_for_both_views_in_another_language_says_nothing(self, text: str) -> None:
        described = {"SpecificCharacterSet": "ISO_IR 192", "SeriesDescription": text}
        assert notes(ViewPosition=MISSING, **described) == (Note.VIEW_MISSING,)

    def test_image_type_view_name_and_the_comments_on_the_acquisition_tell_a_lateral_view(self) -> None:
        image_type = ["ORIGINAL", "PRIMARY", "LATERAL"]
        assert assess(ImageType=image_type) == NotAnalysed(reason=Reason.VIEW, detail="ImageType LATERAL")
        assert reason(ViewPosition=MISSING, ViewName="Chest lateral") is Reason.VIEW
        assert reason(ViewPosition=MISSING, AcquisitionComments="lateral") is Reason.VIEW
        assert notes(ViewPosition=MISSING, AcquisitionComments="PA") == (Note.VIEW_MISSING,)

    @pytest.mark.parametrize(
        "attributes",
        [
            {"PerformedProtocolCodeSequence": coded("1", "Chest lateral")},
            {"SeriesDescriptionCodeSequence": coded("1", "Chest lateral")},
            {"ProcedureCodeSequence": coded("1", "Chest lateral")},
            {"RequestAttributesSequence": sequence(ScheduledProcedureStepDescription="CXR lat")},
            {"RequestAttributesSequence": sequence(RequestedProcedureDescription="Thorax seitl.")},
            {"RequestAttributesSequence": sequence(ScheduledProtocolCodeSequence=coded("1", "Chest lateral"))},
        ],
    )
    def test_a_code_or_a_request_for_another_view_is_not_analysed(self, attributes: dict[str, Any]) -> None:
        assert reason(ViewPosition=MISSING, **attributes) is Reason.VIEW
        assert assess(ViewPosition="PA", **attributes) == ()

    @pytest.mark.parametrize("part", ["CHEST LAT", "CHEST_LAT", "CHESTLAT", "Thorax seitlich", "CHEST OBLIQUE"])
    def test_a_body_part_that_names_another_view_is_not_analysed(self, part: str) -> None:
        assert assess(ViewPosition=MISSING, BodyPartExamined=part) == _VIEW_OF_PART
        assert assess(ViewPosition="PA", BodyPartExamined=part) == _VIEW_OF_PART

    def test_a_body_part_tells_a_frontal_view_unless_a_description_contradicts(self) -> None:
        assert notes(ViewPosition=MISSING, BodyPartExamined="CHEST_PA") == ()
        assert reason(ViewPosition=MISSING, BodyPartExamined="CHEST_PA", SeriesDescription="LAT") is Reason.VIEW

    @pytest.mark.parametrize("keyword", [*_DESCRIPTIONS, "BodyPartExamined"])
    @pytest.mark.parametrize(
        "text", ["Chest PA and lateral", "CHEST 2 VIEWS", "Chest 2V PA", "Chest two views, lat", "Thorax in 2 Ebenen"]
    )
    def test_a_text_for_several_views_says_nothing_of_one_image(self, keyword: str, text: str) -> None:
        assert notes(ViewPosition=MISSING, **{keyword: text}) == (Note.VIEW_MISSING,)

    def test_a_comment_proves_no_frontal_view(self) -> None:
        assert notes(ViewPosition=MISSING, ImageComments="as on the PA") == (Note.VIEW_MISSING,)

    def test_a_modifier_of_the_coded_view_counts(self) -> None:
        view = coded("399348003", "antero-posterior")
        view[0].ViewModifierCodeSequence = coded("399356001", "oblique")
        assert reason(ViewCodeSequence=view) is Reason.VIEW

    def test_the_name_of_a_study_does_not_prove_the_view_of_one_of_its_images(self) -> None:
        assert notes(ViewPosition=MISSING, StudyDescription="CHEST PA") == (Note.VIEW_MISSING,)

    def test_the_series_is_nearer_to_the_image_than_the_study(self) -> None:
        assert assess(ViewPosition=MISSING, SeriesDescription="PA", StudyDescription="CHEST LAT") == ()
        assert reason(ViewPosition=MISSING, SeriesDescription="LAT", StudyDescription="CHEST PA") is Reason.VIEW

    def test_a_series_of_both_views_says_nothing_of_one_image(self) -> None:
        assert notes(ViewPosition=MISSING, SeriesDescription="Chest PA and lateral") == (Note.VIEW_MISSING,)
        assert assess(ViewPosition="PA", SeriesDescription="Chest lateral") == ()

    def test_the_coded_view_counts_beside_the_view_position(self) -> None:
        assert assess(ViewPosition=MISSING, ViewCodeSequence=coded("272479007", "postero-anterior")) == ()
        assert assess(ViewPosition=MISSING, ViewCodeSequence=coded("R-10214", "postero-anterior")) == ()
        assert reason(ViewPosition="PA", ViewCodeSequence=coded("399173006", "left lateral")) is Reason.VIEW

    def test_rows_that_run_from_front_to_back_are_a_lateral_film(self) -> None:
        assert reason(ViewPosition=MISSING, PatientOrientation=["A", "F"]) is Reason.VIEW
        assert notes(ViewPosition=MISSING, PatientOrientation=["L", "F"]) == (Note.VIEW_MISSING,)


class TestOrientation:
    @pytest.mark.parametrize(
        ("directions", "detail"),
        [
            (["F", "R"], "F/R"),
            (["F", "L"], "F/L"),
            (["H", "L"], "H/L"),
            (["L", "H"], "L/H"),
            (["R", "H"], "R/H"),
            (["fa", "r"], "FA/R"),
            (["LP", "HA"], "LP/HA"),
            ("F", "F"),
            ("H/L", "H/L"),
            ("H|L", "H|L"),
            (["HEAD", "LEFT"], "HEAD/LEFT"),
            (["", "H"], "/H"),
            (["", "L"], "/L"),
        ],
    )
    def test_a_film_on_its_side_or_head_down_is_not_analysed(self, directions: list[str] | str, detail: str) -> None:
        expected = NotAnalysed(reason=Reason.TURNED, detail=f"PatientOrientation {detail}")
        assert assess(PatientOrientation=directions) == expected

    @pytest.mark.parametrize(
        "directions",
        [
            ["L", "F"],
            ["l", "f"],
            ["LP", "F"],
            ["L", "FP"],
            ["LF", "FR"],
            "L",
            "R",
            "LF",
            ["", "F"],
            "",
            "L F",
            *("L-F", "L;F", "L|F", "L^F", "L - F"),
            ["LEFT", "FEET"],
            ["Left", "Foot"],
            "LEFT/FEET",
            "N/A",
            "UNKNOWN",
        ],
    )
    def test_an_upright_or_unstated_film_is_analysed_without_a_note(self, directions: list[str] | str) -> None:
        assert assess(PatientOrientation=directions) == ()

    @pytest.mark.parametrize("directions", [["R", "F"], ["RA", "FP"], ["r", "f"]])
    def test_a_mirrored_film_is_analysed_with_a_note(self, directions: list[str]) -> None:
        assert assess(PatientOrientation=directions) == (Note.MIRRORED,)

    @pytest.mark.parametrize("directions", [["A", "F"], ["P", "F"], ["PL", "F"], ["L", "PF"], ["H", "A"], "A"])
    def test_a_film_from_the_side_has_another_view_however_it_lies(self, directions: list[str] | str) -> None:
        assert reason(PatientOrientation=directions) is Reason.VIEW

    @pytest.mark.parametrize(
        "directions", [["L", "F", "H"], ["L", "R"], ["L", "L"], ["LR", "F"], ["X", "Y"], ["LEFT", "DOWN"], "PORTRAIT"]
    )
    def test_directions_that_no_film_has_cannot_be_read(self, directions: list[str] | str) -> None:
        expected = NotAnalysed(reason=Reason.UNREADABLE_HEADER, detail="PatientOrientation")
        assert assess(PatientOrientation=directions) == expected


class TestPlainFilm:
    @pytest.mark.parametrize(
        "value",
        [
            "BONE",
            "SOFT_TISSUE",
            "ES_SOFT",
            "SOFTTISSUE",
            "SUBTRACTION",
            "TOMOSYNTHESIS",
            "LOCALIZER",
            "STITCHED",
            "CAD",
            *("LOW_ENERGY", "HIGH_ENERGY", "SUB", "TSUB", "DIFF", "SOFTIMAGE", "SEGMENTED"),
        ],
    )
    def test_image_type_tells_what_is_not_a_plain_film(self, value: str) -> None:
        expected = NotAnalysed(reason=Reason.NOT_A_PLAIN_FILM, detail=f"ImageType {value}")
        assert assess(ImageType=["DERIVED", "PRIMARY", "", value]) == expected
        assert assess(ImageType=["ORIGINAL", "PRIMARY", value]) == expected

    @pytest.mark.parametrize("keyword", ["SeriesDescription", "ProtocolName"])
    @pytest.mark.parametrize(
        "text",
        [
            "Chest PA bone",
            "Chest PA soft tissue",
            "Thorax p.a. Weichteilbild",
            "Chest PA subtracted",
            "Chest tomosynthesis",
            "TOMO slice 12",
            "Scout",
            "Chest stitched",
            "Chest composite",
            "Chest CAD",
            "AI heat map",
            "Chest PA, bone suppressed",
            "Rib suppression",
            "Chest PA enhanced",
            "Chest PA, edge enhanced, bone",
            "Chest without grid, bone",
            "Screen capture",
            *("Grad-CAM", "Lunit", "INSIGHT CXR", "qXR", "Annalise.ai", "KI-Ergebnis", "Rapport d'IA", "Mapa de calor"),
            *("DE soft", "Screen dump", "Capture d'écran", "Schermata", "Bildschirmfoto", "Resultado de IA"),
        ],
    )
    def test_a_title_tells_what_is_not_a_plain_film(self, keyword: str, text: str) -> None:
        expected = NotAnalysed(reason=Reason.NOT_A_PLAIN_FILM, detail=keyword)
        assert assess(**{keyword: text}) == expected
        assert assess(BodyPartExamined=MISSING, ViewPosition=MISSING, **{keyword: text}) == expected

    @pytest.mark.parametrize(
        "attributes",
        [
            {"DerivationDescription": "Dual energy, bone suppression"},
            {"DerivationCodeSequence": coded("1", "Bone suppression")},
            {"ImageComments": "Rib suppression by program X"},
            {"AcquisitionDeviceProcessingDescription": "CHEST SOFT TISSUE"},
            {"PerformedProtocolCodeSequence": coded("1", "Chest tomosynthesis")},
            {"ConversionType": "SYN"},
            {"ConversionType": "SD"},
        ],
    )
    def test_other_attributes_tell_it_as_well(self, attributes: dict[str, Any]) -> None:
        assert reason(**attributes) is Reason.NOT_A_PLAIN_FILM

    @pytest.mark.parametrize(
        "attributes",
        [
            {"ImageType": ["DERIVED", "PRIMARY"]},
            {"ImageType": ["ORIGINAL", "PRIMARY", "POST_PROCESSED", "RT"]},
            {"ImageType": ["DERIVED", "PRIMARY", "CSA RESAMPLED"]},
            {"ImageType": ["ORIGINAL", "SECONDARY"]},
            {"SeriesDescription": "Chest PA, edge enhanced"},
            {"SeriesDescription": "Chest PA without bone suppression"},
            {"SeriesDescription": "Bone survey: chest AP"},
            {"DerivationDescription": "Noise suppression, edge enhancement, lossy compression"},
            {"AcquisitionDeviceProcessingDescription": "Enhanced visualization processing"},
            {"ImageComments": "Bone lesion? Known CAD. Soft tissue swelling."},
            *({"SeriesDescription": f"Chest AP {text}"} for text in ("al letto", "ai letti", "AI LETTO")),
            *(
                {"SeriesDescription": f"Chest PA, {text}"}
                for text in ("CAD?", "?CAD", "h/o CAD", "bone disease", "bone?")
            ),
            *(
                {"SeriesDescription": f"Chest PA, {text}"}
                for text in ("soft-tissue mass", "tissue expander", "scar tissue")
            ),
            {"SeriesDescription": "Chest PA, overlay off"},
            {"SeriesDescription": "Thorax p.a., Weichteilschwellung"},
            {"StudyDescription": "Chest dual energy subtraction"},
            {"ConversionType": "DF"},
        ],
    )
    def test_a_film_that_was_processed_or_described_is_a_plain_film(self, attributes: dict[str, Any]) -> None:
        assert assess(**attributes) == ()

    def test_the_standard_image_of_a_dual_energy_exposure_is_analysed(self) -> None:
        protocol = "Chest PA dual energy subtraction"
        assert assess(ProtocolName=protocol, SeriesDescription="Chest PA standard") == ()
        assert assess(ProtocolName=protocol, ImageType=["ORIGINAL", "PRIMARY", ""]) == ()
        assert reason(ProtocolName=protocol, ImageType=["DERIVED", "PRIMARY", ""]) is Reason.NOT_A_PLAIN_FILM
        assert reason(ProtocolName=protocol, SeriesDescription="Chest PA bone standard") is Reason.NOT_A_PLAIN_FILM
        image_type = ["DERIVED", "PRIMARY", "", "SUBTRACTION"]
        assert reason(ImageType=image_type, SeriesDescription="Chest standard") is Reason.NOT_A_PLAIN_FILM

    def test_a_secondary_image_is_a_film_only_if_it_is_a_secondary_capture_with_a_frontal_view(self) -> None:
        secondary = {"ImageType": ["DERIVED", "SECONDARY"], "ConversionType": "WSD"}
        capture = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", **secondary}
        assert assess(**secondary) == NotAnalysed(reason=Reason.NOT_A_PLAIN_FILM, detail="ImageType SECONDARY")
        assert assess(Modality="CR", **capture) == ()
        assert assess(Modality="CR", ViewPosition=MISSING, SeriesDescription="view: PA", **capture) == ()
        assert reason(Modality="CR", ViewPosition=MISSING, **capture) is Reason.NOT_A_PLAIN_FILM

    def test_the_body_part_is_the_truer_reason(self) -> None:
        assert reason(BodyPartExamined="HAND", SeriesDescription="Bone age") is Reason.BODY_PART
        assert reason(BodyPartExamined="SPINE", ImageType=["DERIVED", "PRIMARY", "STITCHED"]) is Reason.BODY_PART
        assert reason(BodyPartExamined=MISSING, SeriesDescription="Knee bone") is Reason.BODY_PART


_CHILDREN: Final = [
    *("017Y", "017", "17", "6", "215M", "900W", "030D", "000Y", "0005Y", "4.5", "017 Y", "5y", "5 years", "10 months"),
    *("3 WKS", "5 ans", "5 Jahre", "5 months 3 days", "5Y3M", "17Y11M", "5 years old", "5 y.o.", "00005Y"),
    *("5岁", "5歳", "5 лет", "5岁3个月"),
]
_ADULTS: Final = [
    *("018Y", "18", "032", "110Y", "216M", "064y", "64 Y", "064 Y", "64 years", "64 yrs.", "0064Y", "64,5"),
    *(">89Y", "> 89", "90+", "089Y+", "≥90Y", "18+", "45 years old", "45 y/o", "44Y11M", "44y 11m", "00045Y"),
    *("Age: 45", "over 89", "45 yaş"),
    *("45 лет", "45岁", "45歳", "18Y0M"),
]


class TestPatientAge:
    @pytest.mark.parametrize("age", _CHILDREN)
    def test_a_child_is_not_analysed(self, age: str) -> None:
        expected = NotAnalysed(reason=Reason.PATIENT_AGE, detail="PatientAge")
        assert assess(PatientAge=age, SpecificCharacterSet="ISO_IR 192") == expected

    @pytest.mark.parametrize("age", _ADULTS)
    def test_an_adult_is_analysed(self, age: str) -> None:
        assert assess(PatientAge=age, SpecificCharacterSet="ISO_IR 192") == ()

    @pytest.mark.parametrize(
        "age",
        ["CHILD", "Newborn", "INFANT", "NB", "N.B.", "NEONATE", "PED", "Kind", "小児", "NB 3D", "Bébé", "Juvenile"],
    )
    def test_a_word_for_a_child_is_a_childs_age(self, age: str) -> None:
        as_written = {"PatientAge": age, "SpecificCharacterSet": "ISO_IR 192"}
        assert assess(**as_written) == NotAnalysed(reason=Reason.PATIENT_AGE, detail="PatientAge")
        assert reason(PatientBirthDate="20200101", **as_written) is Reason.PATIENT_AGE
        assert reason(PatientBirthDate="19600101", **as_written) is Reason.AGE_CONTRADICTORY
        assert not isinstance(assess_header(radiograph(**as_written), AnalysisSettings(minimum_age=0)), NotAnalysed)

    @pytest.mark.parametrize(
        "born",
        [
            *(
                "2020",
                "202001",
                "20200000",
                "20200230",
                "20201301",
                "20200100",
                "2020-1-1",
                "2020-01",
                "2020.1",
                "2020/1/1",
            ),
            *("01.01.2020", "1.1.2020", "01/02/2020", "01-02-2020", "01012020", "20012020", "JAN 2020", "2020年1月1日"),
            *("20200101120000", "20200101 1200", "2020-01-01 12:00:00", "2020-01-01T12:00:00", "2020010112"),
        ],
    )
    def test_a_birth_date_of_which_only_the_year_can_be_read_proves_a_child(self, born: str) -> None:
        as_written = {"PatientBirthDate": born, "SpecificCharacterSet": "ISO_IR 192"}
        expected = NotAnalysed(reason=Reason.PATIENT_AGE, detail="PatientBirthDate")
        assert assess(PatientAge=MISSING, **as_written) == expected
        assert reason(PatientAge="064Y", **as_written) is Reason.AGE_CONTRADICTORY
        adult = {**as_written, "PatientBirthDate": born.replace("2020", "1960")}
        assert assess(PatientAge=MISSING, **adult) == ()

    @pytest.mark.parametrize(
        ("born", "expected"),
        [
            *[("2005", None), ("2006", Reason.PATIENT_AGE), ("200601", Reason.PATIENT_AGE), ("200512", None)],
            *[("02.01.2006", None), ("03.01.2006", Reason.PATIENT_AGE), ("2024", Reason.PATIENT_AGE)],
        ],
    )
    def test_the_youngest_age_that_a_partial_birth_date_leaves_decides(
        self, born: str, expected: Reason | None
    ) -> None:
        assert reason(PatientAge=MISSING, PatientBirthDate=born, StudyDate="20240102") is expected

    def test_a_whole_date_of_the_film_tells_more_than_a_year(self) -> None:
        dates = {"AcquisitionDate": "2024", "StudyDate": "20240102"}
        assert assess(PatientAge=MISSING, PatientBirthDate="20060102", **dates) == ()
        assert reason(PatientAge=MISSING, PatientBirthDate="20060103", **dates) is Reason.PATIENT_AGE

    def test_patients_age_decides_among_the_ages_that_a_partial_birth_date_leaves(self) -> None:
        assert assess(PatientAge="018Y", PatientBirthDate="2006", StudyDate="20240102") == ()
        assert reason(PatientAge="017Y", PatientBirthDate="2006", StudyDate="20240102") is Reason.PATIENT_AGE

    @pytest.mark.parametrize("born", ["", "00000000", "0000", "01.01.20", "UNKNOWN", "20", "1959 or 1961"])
    def test_a_birth_date_without_a_certain_year_says_nothing(self, born: str) -> None:
        assert notes(PatientAge=MISSING, PatientBirthDate=born) == (Note.AGE_MISSING,)

    @pytest.mark.parametrize("taken", ["2024", "02.01.2024", "20240000", "2024-1-2", "20240102101500"])
    def test_a_date_of_the_film_of_which_only_the_year_can_be_read_counts(self, taken: str) -> None:
        dates = {"StudyDate": MISSING, "AcquisitionDate": taken}
        assert reason(PatientAge=MISSING, PatientBirthDate="20200101", **dates) is Reason.PATIENT_AGE
        assert assess(PatientAge=MISSING, PatientBirthDate="19600101", **dates) == ()

    @pytest.mark.parametrize("last_resort", ["PerformedProcedureStepStartDate", "InstanceCreationDate"])
    def test_the_dates_of_step_and_file_count_where_there_is_no_other(self, last_resort: str) -> None:
        born = {"PatientAge": MISSING, "PatientBirthDate": "20200101", last_resort: "20240102"}
        assert reason(StudyDate=MISSING, **born) is Reason.PATIENT_AGE
        assert reason(StudyDate="20400101", **born) is None

    @pytest.mark.parametrize("age", ["064Y", MISSING])
    def test_a_date_long_before_the_film_makes_no_child_of_an_adult(self, age: str | None) -> None:
        dates = {"AcquisitionDate": "19700101", "StudyDate": "20240102"}
        outcome = assess(PatientAge=age, PatientBirthDate="19600101", **dates)
        assert isinstance(outcome, NotAnalysed)
        assert outcome.reason is Reason.AGE_CONTRADICTORY

    @pytest.mark.parametrize(
        "text",
        [
            *(
                "PEDIATRIC CHEST",
                "Paediatric chest",
                "NEONATAL CHEST",
                "Newborn chest AP",
                "Infant chest",
                "BABY CHEST",
            ),
            *("CHILD CHEST", "KINDERTHORAX", "Säugling Thorax", "Thorax pädiatrisch", "Tórax pediátrico", "NICU chest"),
            *("胸部 小児", "新生児胸部", "Torace bambino", "Thorax enfant", "Chest PEDS", "Грудная клетка, детский"),
        ],
    )
    @pytest.mark.parametrize("keyword", ["BodyPartExamined", "SeriesDescription", "ProtocolName", "StudyDescription"])
    def test_a_title_that_says_a_child_counts_where_there_is_no_age(self, keyword: str, text: str) -> None:
        titled = {keyword: text, "SpecificCharacterSet": "ISO_IR 192"}
        assert assess(PatientAge=MISSING, **titled) == NotAnalysed(reason=Reason.PATIENT_AGE, detail=keyword)
        assert reason(PatientAge="148Y", **titled) is Reason.PATIENT_AGE
        assert reason(PatientAge="??5", **titled) is Reason.PATIENT_AGE
        assert reason(PatientAge="064Y", **titled) is None
        assert reason(PatientAge=MISSING, PatientBirthDate="19600101", **titled) is None
        older = AnalysisSettings(minimum_age=0)
        assert not isinstance(assess_header(radiograph(PatientAge=MISSING, **titled), older), NotAnalysed)

    @pytest.mark.parametrize("text", ["Adult chest", "Chest adult/pediatric", "Chest pedicle screws", "Mankind chest"])
    def test_other_titles_say_no_child(self, text: str) -> None:
        assert notes(PatientAge=MISSING, SeriesDescription=text) == (Note.AGE_MISSING,)

    @pytest.mark.parametrize("age", [">5Y", "5+", ">17"])
    def test_more_than_the_age_of_a_child_proves_nothing(self, age: str) -> None:
        assert assess(PatientAge=age) == NotAnalysed(reason=Reason.UNREADABLE_HEADER, detail="PatientAge")

    def test_an_age_above_the_highest_that_is_told_agrees_with_any_birth_date_before(self) -> None:
        assert assess(PatientAge=">89Y", PatientBirthDate="19250101") == ()
        assert notes(PatientAge=">89Y", PatientBirthDate="19600101") == (Note.AGE_CONTRADICTORY,)
        assert reason(PatientAge="90+", PatientBirthDate="20200101") is Reason.AGE_CONTRADICTORY

    @pytest.mark.parametrize(
        ("born", "expected"), [("20060103", Reason.PATIENT_AGE), ("20060102", None), ("2006.01.03", Reason.PATIENT_AGE)]
    )
    def test_without_an_age_the_birthday_decides_to_the_day(self, born: str, expected: Reason | None) -> None:
        assert reason(PatientAge=MISSING, PatientBirthDate=born, StudyDate="20240102") is expected

    @pytest.mark.parametrize("age", [MISSING, "", "adult", "Y"])
    def test_a_missing_age_is_analysed_with_a_note(self, age: str | None) -> None:
        assert notes(PatientAge=age) == (Note.AGE_MISSING,)

    @pytest.mark.parametrize("age", ["148Y", "413", "-05Y", "1960"])
    def test_an_implausible_age_is_analysed_with_a_note(self, age: str) -> None:
        assert notes(PatientAge=age) == (Note.AGE_IMPLAUSIBLE,)

    def test_an_implausible_age_does_not_hide_a_childs_birth_date(self) -> None:
        assert reason(PatientAge="148Y", PatientBirthDate="20200101") is Reason.PATIENT_AGE

    def test_a_birth_date_after_the_study_is_implausible(self) -> None:
        assert notes(PatientAge=MISSING, PatientBirthDate="20250101") == (Note.AGE_IMPLAUSIBLE,)

    @pytest.mark.parametrize("age", ["005J", "3 days 5 months", "12/1960", "2²Y"])
    def test_an_age_that_cannot_be_understood_is_not_taken_for_an_adults(self, age: str) -> None:
        unreadable = NotAnalysed(reason=Reason.UNREADABLE_HEADER, detail="PatientAge")
        assert assess(PatientAge=age, SpecificCharacterSet="ISO_IR 192") == unreadable
        assert assess(PatientAge=age, PatientBirthDate="19600101", SpecificCharacterSet="ISO_IR 192") == ()
        assert reason(PatientAge=age, PatientBirthDate="20200101", SpecificCharacterSet="ISO_IR 192") is (
            Reason.PATIENT_AGE
        )

    @pytest.mark.parametrize(
        ("age", "born"), [("064Y", "19590601"), ("064Y", "19600101"), ("064Y", "19620101"), ("768M", "19600101")]
    )
    def test_an_age_and_a_birth_date_that_agree_need_no_note(self, age: str, born: str) -> None:
        assert assess(PatientAge=age, PatientBirthDate=born, StudyDate="20240102") == ()

    @pytest.mark.parametrize(
        ("age", "born"),
        [
            ("045Y", "19600101"),
            ("064Y", "19000101"),
            ("064Y", "20250101"),
            ("148Y", "19600101"),
            ("-05Y", "19600101"),
            ("000Y", "19600101"),
            ("000D", "19600101"),
            ("0", "19600101"),
        ],
    )
    def test_a_contradiction_that_makes_no_child_is_a_note(self, age: str, born: str) -> None:
        assert notes(PatientAge=age, PatientBirthDate=born, StudyDate="20240102") == (Note.AGE_CONTRADICTORY,)

    @pytest.mark.parametrize(
        ("age", "born"), [("005Y", "19600101"), ("064M", "19600101"), ("064Y", "20200101"), ("017Y", "20000101")]
    )
    def test_a_child_by_one_and_an_adult_by_the_other_gets_no_score(self, age: str, born: str) -> None:
        expected = NotAnalysed(reason=Reason.AGE_CONTRADICTORY, detail="PatientAge, PatientBirthDate")
        assert assess(PatientAge=age, PatientBirthDate=born, StudyDate="20240102") == expected

    @pytest.mark.parametrize(
        ("age", "born", "detail"),
        [
            ("018Y", "20060103", "PatientBirthDate"),  # 17 on the day of the film
            ("017Y", "20060101", "PatientAge"),
            ("010Y", "20200101", "PatientAge"),
            ("000Y", "20231230", "PatientAge"),
            ("000Y", "20130101", "PatientAge"),
            ("005Y", "19000101", "PatientAge"),
        ],
    )
    def test_a_child_by_either_is_a_child(self, age: str, born: str, detail: str) -> None:
        expected = NotAnalysed(reason=Reason.PATIENT_AGE, detail=detail)
        assert assess(PatientAge=age, PatientBirthDate=born, StudyDate="20240102") == expected

    @pytest.mark.parametrize("direct", ["AcquisitionDate", "AcquisitionDateTime", "ContentDate", "SeriesDate"])
    def test_the_most_direct_date_of_the_film_decides_to_the_day(self, direct: str) -> None:
        time = "101500.000000+0100" if direct == "AcquisitionDateTime" else ""
        before = {"StudyDate": "20240103", direct: "20240102" + time}
        after = {"StudyDate": "20240102", direct: "20240103" + time}
        assert reason(PatientAge=MISSING, PatientBirthDate="20060103", **before) is Reason.PATIENT_AGE
        assert assess(PatientAge=MISSING, PatientBirthDate="20060103", **after) == ()

    def test_a_date_before_the_birth_is_passed_over(self) -> None:
        dates = {"StudyDate": "19010101", "AcquisitionDate": "20240102"}
        assert assess(PatientAge=MISSING, PatientBirthDate="19600101", **dates) == ()
        dates = {"StudyDate": "20240102", "AcquisitionDate": "19010101"}
        assert reason(PatientAge=MISSING, PatientBirthDate="20200101", **dates) is Reason.PATIENT_AGE

    def test_a_picture_made_again_years_after_a_childs_film_gets_no_score(self) -> None:
        born = {"PatientBirthDate": "20000101", "ContentDate": "20240102", "StudyDate": "20100102"}
        contradictory = NotAnalysed(reason=Reason.AGE_CONTRADICTORY, detail="PatientBirthDate")
        assert assess(PatientAge=MISSING, **born) == contradictory
        assert reason(PatientAge="010Y", **born) is Reason.AGE_CONTRADICTORY
        assert reason(PatientAge="000Y", **born) is not None

    def test_an_age_that_one_of_the_dates_confirms_is_not_contradicted(self) -> None:
        dates = {"PatientBirthDate": "19600101", "ContentDate": "20240102", "StudyDate": "20050102"}
        assert assess(PatientAge="045Y", **dates) == ()

    def test_the_youngest_age_analysed_is_a_setting(self) -> None:
        assert assess_header(radiograph(PatientAge="006Y"), AnalysisSettings(minimum_age=0)) == ()


class TestPicture:
    @pytest.mark.parametrize("photometric", ["PALETTE COLOR", "HSV", "ARGB"])
    def test_a_form_that_is_not_shown_in_grey_is_not_said_to_be_in_colour(self, photometric: str) -> None:
        assert reason(PhotometricInterpretation=photometric) is Reason.PIXEL_FORM

    @pytest.mark.parametrize("photometric", ["", MISSING, "MONOCHROME3", "DOE JOHN"])
    def test_a_photometric_interpretation_that_says_nothing_is_an_unreadable_attribute(
        self, photometric: str | None
    ) -> None:
        assert assess(PhotometricInterpretation=photometric) == NotAnalysed(
            reason=Reason.UNREADABLE_HEADER, detail="PhotometricInterpretation"
        )

    @pytest.mark.parametrize("photometric", ["Monochrome2", "monochrome1", " MONOCHROME2 "])
    def test_the_case_of_a_photometric_interpretation_does_not_matter(self, photometric: str) -> None:
        assert assess(PhotometricInterpretation=photometric) == ()

    def test_three_samples_are_left_for_the_pixels_to_decide(self) -> None:
        assert assess(PhotometricInterpretation="RGB", SamplesPerPixel=3) == ()

    @pytest.mark.parametrize(("photometric", "samples"), [("RGB", 4), ("RGB", 1), ("MONOCHROME2", 2)])
    def test_samples_that_do_not_belong_to_the_photometric_interpretation_are_named(
        self, photometric: str, samples: int
    ) -> None:
        outcome = assess(PhotometricInterpretation=photometric, SamplesPerPixel=samples)
        assert isinstance(outcome, NotAnalysed)
        assert outcome.reason is Reason.PIXEL_FORM
        assert outcome.detail == "SamplesPerPixel"

    @pytest.mark.parametrize("rows", [16, 255, 8193, 60000])
    def test_an_image_out_of_bounds_is_not_analysed(self, rows: int) -> None:
        assert assess(Rows=rows) == NotAnalysed(reason=Reason.IMAGE_SIZE, detail=f"Rows {rows}")

    def test_an_image_without_rows_has_no_readable_header(self) -> None:
        assert reason(Rows=MISSING) is Reason.UNREADABLE_HEADER

    def test_burned_in_annotation_is_noted(self) -> None:
        assert notes(BurnedInAnnotation="YES") == (Note.BURNED_IN_ANNOTATION,)


def test_the_first_rule_that_applies_gives_the_reason() -> None:
    wrong: dict[str, Any] = {"Modality": "CT", "BodyPartExamined": "HAND", "ViewPosition": "LL", "PatientAge": "005Y"}
    cured = {"Modality": "DX", "BodyPartExamined": "CHEST", "ViewPosition": "PA", "PatientAge": "050Y"}
    given_reasons = []
    for keyword, value in cured.items():
        given_reasons.append(reason(**wrong))
        wrong[keyword] = value
    assert given_reasons == [Reason.MODALITY, Reason.BODY_PART, Reason.VIEW, Reason.PATIENT_AGE]


def test_several_notes_come_in_a_fixed_order() -> None:
    outcome = notes(ViewPosition=MISSING, BodyPartExamined=MISSING, PatientAge=MISSING, BurnedInAnnotation="YES")
    assert outcome == (Note.BODY_PART_MISSING, Note.VIEW_MISSING, Note.AGE_MISSING, Note.BURNED_IN_ANNOTATION)


@pytest.mark.parametrize("value", ["DOE^JANE", "DOE JANE", "4711", "DOE.JANE", "DÖE", "A" * 40])
@pytest.mark.parametrize("keyword", ["Modality", "BodyPartExamined", "ViewPosition"])
def test_a_value_that_might_be_patient_data_is_not_repeated(keyword: str, value: str) -> None:
    outcome = assess(**{keyword: value, "SpecificCharacterSet": "ISO_IR 192"})
    assert isinstance(outcome, NotAnalysed)
    assert outcome.detail == keyword


_KEYWORDS: Final = [
    "AcquisitionComments",
    "AcquisitionDate",
    "AcquisitionDeviceProcessingDescription",
    "AcquisitionDateTime",
    "AnatomicRegionSequence",
    "BodyPartExamined",
    "BurnedInAnnotation",
    "Columns",
    "ContentDate",
    "ConversionType",
    "DerivationCodeSequence",
    "DerivationDescription",
    "ImageComments",
    "ImageType",
    "InstanceCreationDate",
    "Manufacturer",
    "ManufacturerModelName",
    "Modality",
    "NumberOfFrames",
    "PatientAge",
    "PatientBirthDate",
    "PatientBreedDescription",
    "PatientOrientation",
    "PatientSexNeutered",
    "PatientSpeciesCodeSequence",
    "PatientSpeciesDescription",
    "PerformedProcedureStepDescription",
    "PerformedProcedureStepStartDate",
    "PerformedProtocolCodeSequence",
    "PhotometricInterpretation",
    "PresentationIntentType",
    "ProcedureCodeSequence",
    "ProtocolName",
    "RequestAttributesSequence",
    "RequestedProcedureDescription",
    "Rows",
    "SOPClassUID",
    "SamplesPerPixel",
    "SeriesDate",
    "SeriesDescription",
    "SpecificCharacterSet",
    "StudyDate",
    "StudyDescription",
    "ViewCodeSequence",
    "ViewName",
    "ViewPosition",
]
_VRS: Final = [
    "AE",
    "AS",
    "AT",
    "CS",
    "DA",
    "DS",
    "DT",
    "FD",
    "IS",
    "LO",
    "LT",
    "OB",
    "OW",
    "PN",
    "SH",
    "SQ",
    "SS",
    "ST",
    "TM",
    "UI",
    "UL",
    "UN",
    "US",
    "UT",
    "ZZ",
]
_values: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.text(), st.integers(), st.floats(), st.binary(), st.lists(st.text(), max_size=3), st.just(Sequence())
)


@st.composite
def raw_elements(draw: st.DrawFn) -> RawDataElement:
    value = draw(st.binary(max_size=40))
    tag = BaseTag(Tag(draw(st.sampled_from(_KEYWORDS))))
    implicit, little = draw(st.booleans()), draw(st.booleans())
    return RawDataElement(tag, draw(st.sampled_from(_VRS)), len(value), value, 0, implicit, little)


@settings(max_examples=300, deadline=None)
@given(elements=st.lists(raw_elements(), max_size=6))
def test_no_header_of_arbitrary_bytes_raises(elements: list[RawDataElement]) -> None:
    header = radiograph()
    for element in elements:
        header[element.tag] = element
    assert isinstance(assess_header(header, AnalysisSettings(), US), (tuple, NotAnalysed))


@settings(max_examples=200, deadline=None)
@given(values=st.dictionaries(st.sampled_from(_KEYWORDS), st.tuples(st.sampled_from(_VRS[:-1]), _values), max_size=6))
def test_no_header_of_arbitrary_values_raises(values: dict[str, tuple[str, Any]]) -> None:
    header = radiograph()
    for keyword, (vr, value) in values.items():
        element = DataElement(Tag(keyword), "UN", b"")
        element.VR, element._value = vr, value
        header._dict[element.tag] = element  # past the checks of `Dataset.__setitem__`
    assert isinstance(assess_header(header, AnalysisSettings(), US), (tuple, NotAnalysed))
