"""Tells a plain film from a picture that was made of films, or for another purpose, by Image Type and titles.

The network has learnt plain films only. A subtraction image of a dual-energy exposure, a slice of a tomosynthesis, or
the result of another program has the same class, body part and view as the film beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from pydicom.dataset import Dataset

from scp_node.analysis.attributes import code, description, meanings, named, values
from scp_node.analysis.vocabulary import Statement, described_body_part, words

# Patterns of words and phrases in capitals. They are few on purpose, as in `vocabulary`.
_SUBTRACTION: Final = (r"SUBTRA\w*", r"SOUSTRA\w*", r"SUSTRA\w*", r"SOTTRA\w*")
# "Bone disease", "soft-tissue mass" and "tissue expander" are questions about the patient.
_CLINICAL: Final = (
    *("SURVEY", "SERIES", "AGE", "DISEASE", r"LESIONS?", r"MASS(?:ES)?", r"TUMOU?RS?", "CANCER", "PAIN", r"METS?"),
    *(
        r"METAST\w+",
        r"FRACTURES?",
        "MARROW",
        "SCAN",
        "DENSITY",
        r"INFECTION\w*",
        "SWELLING",
        r"INJUR\w+",
        r"EXPANDERS?",
    ),
    *("EMPHYSEMA", "SARCOMA", r"CALCIFICATIONS?", r"NODULES?", "ABSCESS", "BIOPSY", "TRAUMA", "FOREIGN"),
)
_NOT_CLINICAL: Final = rf"(?! (?:{'|'.join(_CLINICAL)})\b)"
_ONE_TISSUE: Final = (
    *(rf"(?:CHEST|THORAX|DE|ES)?BONES?{_NOT_CLINICAL}", r"BONE[A-Z]{2,}", r"KNOCHEN(?:BILD)?"),
    *(
        rf"(?<!SCAR )(?<!CONNECTIVE )\w*TISSUES?\w*\b{_NOT_CLINICAL}",
        r"WEICHTEIL(?!SCHWELL|TUMOR|EMPHYSEM)\w*",
        "(?:DE|ES|DUAL ENERGY) SOFT",
    ),
    *("TISSUS MOUS", "PARTIES MOLLES", "PARTES BLANDAS", "TESSUTI MOLLI"),
)
_CERTAIN: Final = (
    *(r"TOMOS\w*", "TOPOGRAM", "SCANOGRAM", "SCOUT", r"LOCALI[SZ]ER", r"STITCH\w*", r"\w*SUPPRESS\w*"),
    *("HEAT ?MAP", "(?:SALIENCY|ACTIVATION|ATTENTION|PROBABILITY) MAP", "SCREEN ?(?:SHOT|SAVE|CAPTURE|DUMP)"),
    *("GRAD ?CAM", "MAPA DE CALOR", "MAPPA DI CALORE", "CARTE DE CHALEUR", "CAPTURE D ECRAN", "CAPTURA DE PANTALLA"),
    *(
        "SCHERMATA",
        r"BILDSCHIRM\w*",
        r"KI ERGEBNIS\w*",
        "(?:RAPPORT|RESULTAT|RESULTADO|INFORME|REFERTO) (?:DE L |DE |D |DI )?IA",
    ),
)
# Words that are certain in a title only: a comment may say "bone lesion" or "known CAD".
_SURE_IN_TITLES: Final = (
    *("TOMO", r"TOMOGRA\w+", "DTS", "VOLUMERAD", "SLICES?", r"SYNTHE[SZT]\w*", "COMPOSED", "COMPOSITE", "MONTAGE"),
    *(
        "MOSAIC",
        "PASTED?",
        "PASTING",
        "CAD",
        "(?<!TORACE )AI(?! LETT)",
        "ENHANCED",
        "ENHANCEMENT",
        "COMPANION",
        "SALIENCY",
    ),
    *("OVERLAY", "RESULTS?", "SNAPSHOT", "SECONDARY CAPTURE", "LUNIT", "INSIGHT CXR"),
    *("QXR", r"ANNALISE\w*"),
)
_SURE_IN_IMAGE_TYPE: Final = (
    *("SOFT", "SOFT ?IMAGE", "CAPTURE", "MPR", "MIP", "LOW ENERGY", "HIGH ENERGY", "T?SUB", "DIFF", r"SEGMENT\w*"),
)
# "Without bone suppression", "edge enhanced" and "noise suppression" tell of no other picture than the film.
_NEGATIONS: Final = ("NO", "NOT", "NON", "WITHOUT", "W O", "OHNE", "SANS", "SIN", "SENZA", "SEM")
_PROCESSED: Final = ("EDGE", "CONTRAST", "DETAIL", "NOISE", "SCATTER", "GRID", "GRIDLINE", "BACKGROUND", "OFFSET")
_QUESTION: Final = re.compile(r"\b(?:CAD|BONES?)\s*\?|(?:\?|\b[RH]/O)\s*CAD\b")  # coronary artery disease, in capitals


def _pattern(*terms: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(terms)})\b")


_SUBTRACTED: Final = _pattern(*_SUBTRACTION)
_FREE_TEXT: Final = _pattern(*_CERTAIN)
_PROCESSING: Final = _pattern(*_CERTAIN, *_ONE_TISSUE)
_TITLE: Final = _pattern(*_CERTAIN, *_ONE_TISSUE, *_SURE_IN_TITLES)
_IMAGE_TYPE: Final = _pattern(*_CERTAIN, *_ONE_TISSUE, *_SUBTRACTION, *_SURE_IN_TITLES, *_SURE_IN_IMAGE_TYPE)
_ANY_TERM: Final = "|".join((*_SUBTRACTION, *_ONE_TISSUE, *_CERTAIN, *_SURE_IN_TITLES))
_HARMLESS: Final = re.compile(
    rf"\b(?:(?:{'|'.join(_NEGATIONS)})(?: (?:{_ANY_TERM})\b)+"
    rf"|(?:{'|'.join(_PROCESSED)}) (?:ENHANCED|ENHANCEMENT|SUPPRESS\w*|SUBTRA\w*)|OVERLAYS? OFF\b)"
)

_TEXTS: Final = (
    ("SeriesDescription", _TITLE),
    ("ProtocolName", _TITLE),
    ("BodyPartExamined", _TITLE),
    ("AcquisitionDeviceProcessingDescription", _PROCESSING),
    ("DerivationDescription", _FREE_TEXT),
    ("ImageComments", _FREE_TEXT),
)
_CODED_TEXTS: Final = (
    ("SeriesDescriptionCodeSequence", _TITLE),
    ("PerformedProtocolCodeSequence", _TITLE),
    ("DerivationCodeSequence", _FREE_TEXT),
)
_PROTOCOLS: Final = frozenset({"ProtocolName", "PerformedProtocolCodeSequence"})

# PS3.3 C.8.6.1, Conversion Type. WSD, DI and DF are left out: archived and digitised films have them.
_NO_FILM: Final = frozenset({"DV", "DRW", "SD", "SI", "SYN"})
_SECONDARY_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7"


@dataclass(frozen=True, slots=True)
class _Text:
    source: str  # for the detail of the reason
    said: str
    telling: re.Pattern[str]


def made_picture(header: Dataset, *, states_a_frontal_view: bool) -> str | None:
    """Return the attribute by which the image is not a plain film; None if nothing says so.

    PS3.3 C.7.6.1.1.2: most processed films are DERIVED, so that it says nothing. SECONDARY means a picture made after
    the examination. Each Secondary Capture is one, the films of the RSNA challenge among them: there the word counts
    only if no frontal view is stated, as in the capture of a screen.

    Args:
        header: the dataset.
        states_a_frontal_view: whether the header says that this image or its series is a frontal view.

    Raises:
        UnreadableAttributeError: a coded value cannot be decoded.
    """
    if (conversion := code(header, "ConversionType")) in _NO_FILM:
        return named("ConversionType", conversion)
    image_type = values(header, "ImageType")
    is_original = image_type[:1] == ["ORIGINAL"]
    texts = list(_texts(header, image_type))
    # One exposure gives a standard image as well, under the same protocol.
    is_standard = any("STANDARD" in text.said.split() for text in texts)
    for text in texts:
        names_exposure = is_standard or (is_original and text.source in _PROTOCOLS)
        if text.telling.search(text.said) or (not names_exposure and _SUBTRACTED.search(text.said)):
            return text.source
    if image_type[1:2] != ["SECONDARY"] or is_original:
        return None
    is_film = code(header, "SOPClassUID") == _SECONDARY_CAPTURE and states_a_frontal_view
    return None if is_film else "ImageType SECONDARY"


def _texts(header: Dataset, image_type: Sequence[str]) -> Iterator[_Text]:
    given = [
        *((named("ImageType", value), value, _IMAGE_TYPE) for value in image_type),
        *((keyword, description(header, keyword), telling) for keyword, telling in _TEXTS),
        *((keyword, text, telling) for keyword, telling in _CODED_TEXTS for text in meanings(header, keyword)),
    ]
    for source, text, telling in given:
        said = _HARMLESS.sub("", " ".join(words(_QUESTION.sub("", text))))
        # "Knee bone" is left to the rule about the body part, "rib suppression" is not
        is_about_another_part = described_body_part(text) is Statement.OUTSIDE and not _FREE_TEXT.search(said)
        if said and not is_about_another_part:
            yield _Text(source, said, telling)
