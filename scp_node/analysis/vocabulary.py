"""The words of a header that say what was imaged and from where.

Many films name body part and view only in free text, in the language of the room. The lists are short on purpose: a
word is here only if it can hardly mean anything else. Free text without a known word says nothing; an unknown coded
value says something else.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

_INITIAL_DOT: Final = re.compile(r"(?<=\b[^\W\d_])\.(?=[^\W\d_]\b)")  # the first dot of "a.p."
_WORD: Final = re.compile(r"[^\W\d_]+")


class Statement(Enum):
    """The statement of one text about the body part or the view."""

    INSIDE = auto()  # chest; frontal
    OUTSIDE = auto()  # something else
    SILENT = auto()  # nothing, or both


def _fold(text: str) -> str:
    # "Tórax a.p." -> "TORAX AP."
    decomposed = unicodedata.normalize("NFKD", _INITIAL_DOT.sub("", text).upper())
    return "".join(character for character in decomposed if not unicodedata.combining(character)).upper()


@dataclass(frozen=True, slots=True)
class Terms:
    """Words with the same meaning, and stems for scripts and languages in which words grow together."""

    words: frozenset[str]
    stems: tuple[str, ...] = ()

    def among(self, text: str) -> bool:
        """Return whether `text` contains one of the terms."""
        folded = _fold(text)
        return not self.words.isdisjoint(_WORD.findall(folded)) or any(stem in folded for stem in self.stems)

    def cover(self, text: str) -> bool:
        """Return whether `text` contains only these words, or is empty."""
        folded = _fold(text).strip()
        return not folded or self.words.issuperset(_WORD.findall(folded) or [folded])


def _terms(*lines: str, stems: str = "") -> Terms:
    words = frozenset(word for line in lines for word in _fold(line).split())
    return Terms(words, tuple(_fold(stems).split()))


# Values without a meaning: defaults of consoles and anonymisers, and postures.
_PLACEHOLDERS: Final = _terms("ANY BLANK DEFAULT N A NA NONE OTHER STANDARD UNDEFINED UNKNOWN UNSPECIFIED VIEW")
_NO_VIEW: Final = _terms(*_PLACEHOLDERS.words, "CHEST THORAX ERECT PRONE SEATED SITTING STANDING SUPINE UPRIGHT")

# "THORACIC" and "TORÁCICA" are missing on purpose, since they also name the spine.
_CHEST: Final = _terms(
    "CHEST CHESTAP CHESTPA CXR PCXR LUNG LUNGS",  # CHEST: PS3.16 Annex L
    "THORAX THX LUNGE LUNGEN BRUSTKORB LONGEN",
    "TORAX PULMON PULMONES PULMAO PULMOES TORACE POLMONE POLMONI POITRINE POUMON POUMONS",
    "LUNGOR KEUHKOT RINTAKEHA PIERSIOWA PIERSIOWEJ PLUCA HRUDNIK PLICE MELLKAS TORAKS AKCIGER",
    stems="ГРУДН ЛЕГКИ ОГК ФЛЮОРОГ ΘΩΡΑΚ 胸部 胸片 흉부 صدر",
)
_ANOTHER_PART: Final = _terms(
    "ABDOMEN ABD KUB BREAST SKULL HEAD BRAIN SINUS SINUSES MANDIBLE NECK ORBIT ORBITS TEETH DENTAL",
    "SPINE CSPINE TSPINE LSPINE CERVICAL LUMBAR SACRUM COCCYX PELVIS HIP HIPS RIB RIBS RIBCAGE STERNUM CLAVICLE",
    "SCAPULA SHOULDER SHOULDERS HUMERUS ELBOW FOREARM WRIST HAND HANDS FINGER FINGERS THUMB EXTREMITY",
    "FEMUR KNEE KNEES PATELLA TIBIA FIBULA ANKLE FOOT FEET CALCANEUS TOE TOES LEG LEGS",
    "SCHÄDEL SCHAEDEL WIRBELSÄULE HWS BWS LWS BECKEN HÜFTE RIPPEN SCHULTER OBERARM ELLENBOGEN UNTERARM HANDGELENK",
    "DAUMEN OBERSCHENKEL KNIE UNTERSCHENKEL SPRUNGGELENK FUSS ZEHEN BUIK BEKKEN HEUP SCHOUDER ELLEBOOG ENKEL VOET",
    "CRÁNEO COLUMNA CADERA COSTILLAS HOMBRO CODO MUÑECA MANO RODILLA TOBILLO PELVE COLUNA QUADRIL OMBRO JOELHO",
    "CRANIO COLONNA BACINO ANCA COSTE SPALLA GOMITO POLSO GINOCCHIO CAVIGLIA PIEDE ADDOME",
    "CRÂNE RACHIS BASSIN HANCHE CÔTES ÉPAULE COUDE POIGNET GENOU CHEVILLE PIED BÄCKEN HÖFT ARMBÅGE FOTLED",
    stems="ЧЕРЕП ПОЗВОН ЛОКОТ КОЛЕН ЖИВОТ 腹部 頭部 腰椎 骨盤 骨盆 膝",
)

_FRONTAL: Final = _terms(
    "AP PA ANTEROPOSTERIOR POSTEROANTERIOR FRONTAL FACE FRENTE",
    stems="ANTERO-POSTERIOR POSTERO-ANTERIOR ПРЯМАЯ 正面 正位",
)
# frontal, unless a view is named as well
_BEDSIDE: Final = _terms("PORTABLE PORT BEDSIDE MOBILE BETTLUNGE LIEGEND LETTO")
_LATERAL: Final = _terms(
    "LATERAL LATERALE LATERALES LAT LATERO LATEROLATERAL LL RL LLAT RLAT LATL LATR",
    "SEITLICH SEITL PROFIL PERFIL DWARS BOCZNE BOCZNY",
    stems="БОКОВ 側面 侧位 側位 측면",
)
_SPECIAL: Final = _terms(  # the network has not learnt these, not even from the front
    "OBLIQUE OBLIQUES OBL OBLICUA OBLIQUA OBLIQUO SCHRÄG SCHRAEG LAO RAO LPO RPO LLO RLO",
    "DECUB DECUBITUS LLD RLD SEITENLAGE LORDOTIC APICAL TANGENTIAL AXIAL",
)


def coded_body_part(text: str) -> Statement:
    """Return the statement of a coded value: INSIDE only if it names the chest and nothing else."""
    if _PLACEHOLDERS.cover(text):
        return Statement.SILENT
    return Statement.INSIDE if _CHEST.among(text) and not _ANOTHER_PART.among(text) else Statement.OUTSIDE


def described_body_part(text: str) -> Statement:
    """Return the statement of free text: SILENT if it names no part, or the chest and another part."""
    chest, another = _CHEST.among(text), _ANOTHER_PART.among(text)
    if chest == another:
        return Statement.SILENT
    return Statement.INSIDE if chest else Statement.OUTSIDE


def coded_view(text: str) -> Statement:
    """Return the statement of a coded value: INSIDE only if it names a frontal view and no other."""
    if _NO_VIEW.cover(text):
        return Statement.SILENT
    if _LATERAL.among(text) or _SPECIAL.among(text):
        return Statement.OUTSIDE
    return Statement.INSIDE if _FRONTAL.among(text) or _BEDSIDE.among(text) else Statement.OUTSIDE


def described_view(text: str) -> Statement:
    """Return the statement of free text: SILENT if it names no view, or a frontal and a lateral view."""
    if _SPECIAL.among(text):
        return Statement.OUTSIDE
    frontal, lateral = _FRONTAL.among(text), _LATERAL.among(text)
    if frontal and lateral:
        return Statement.SILENT
    if lateral:
        return Statement.OUTSIDE
    return Statement.INSIDE if frontal or _BEDSIDE.among(text) else Statement.SILENT
