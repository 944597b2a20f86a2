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
from functools import lru_cache
from typing import Final

_INITIAL_DOT: Final = re.compile(r"(?<=\b[^\W\d_])\.(?=[^\W\d_]\b)")  # the first dot of "l.l."
# "P.A.", "a. p.", "A/P", "P_A", "P->A", "P.-A.", "A to P"
_INITIALS: Final = re.compile(r"(?<![^\W\d_])([AP])(?:\s?[./_>-]{1,3}\s?| TO )([AP])(?![^\W\d_])")
_SPACED_INITIALS: Final = re.compile(r"\s*([AP])\s+([AP])\s*", re.IGNORECASE)  # "P A", where nothing else is said
_ANTERIOR: Final = r"ANT(?:ERO|ERIORE?|ERIEUR)?"
_POSTERIOR: Final = r"POST(?:ERO|ERIORE?|ERIEUR)?"
_PROJECTION: Final = re.compile(  # "postero-anterior", "POSTERO_ANTERIOR", "anterior to posterior", "ANT POST"
    rf"(?<![^\W\d_])(?:(?P<ap>{_ANTERIOR}[\W_]*(?:TO[\W_]*)?{_POSTERIOR})|{_POSTERIOR}[\W_]*(?:TO[\W_]*)?{_ANTERIOR})"
    r"(?![^\W\d_])"
)
_WORD: Final = re.compile(r"[^\W\d_]+")
_TEXTS_OF_A_FILM: Final = 64  # each is compared with many terms
_LONGEST_JOINED: Final = 40  # letters of a word that may be several without a space
# "2 VIEWS", "CHEST_2V", "two views", "Thorax in 2 Ebenen"
_SEVERAL_VIEWS: Final = re.compile(
    r"(?<!\d)(?:[2-9]|(?<![^\W\d_])(?:TWO|THREE|BOTH|ZWEI|DEUX|DOS|DUE|TWEE))\+?[\s_-]*"
    r"(?:V|VW|VWS|VIEW|VIEWS|EBENEN|PROJECTIONS|PROYECCIONES|PROIEZIONI|INCIDENCES)(?![^\W\d_])"
)


class Statement(Enum):
    """The statement of one text about the body part or the view."""

    INSIDE = auto()  # chest; frontal
    OUTSIDE = auto()  # something else
    SILENT = auto()  # nothing, or both


@lru_cache(maxsize=_TEXTS_OF_A_FILM)
def _fold(text: str) -> str:
    # "Tórax a.p." -> "TORAX AP."
    initials = _INITIALS.sub(r"\1\2", text.upper())
    decomposed = unicodedata.normalize("NFKD", _INITIAL_DOT.sub("", initials))
    plain = "".join(character for character in decomposed if not unicodedata.combining(character)).upper()
    return _PROJECTION.sub(lambda match: " AP " if match["ap"] else " PA ", plain)


@lru_cache(maxsize=_TEXTS_OF_A_FILM)
def words(text: str) -> tuple[str, ...]:
    """Return the words of a text in capitals and without accents; "CHEST_PA1" and "CHESTPA" are CHEST and PA."""
    return tuple(part for word in _WORD.findall(_fold(text)) for part in _parts(word))


@dataclass(frozen=True, slots=True)
class Terms:
    """Words with the same meaning, and stems for scripts and languages in which words grow together."""

    words: frozenset[str]
    stems: tuple[str, ...] = ()
    pattern: re.Pattern[str] | None = None  # for a word that means this only beside others

    def among(self, text: str) -> bool:
        """Return whether `text` contains one of the terms."""
        folded = _fold(text)
        if not self.words.isdisjoint(words(text)) or any(stem in folded for stem in self.stems):
            return True
        return self.pattern is not None and self.pattern.search(folded) is not None

    def cover(self, text: str) -> bool:
        """Return whether `text` contains only these words, or is empty."""
        folded = _fold(text).strip()
        return not folded or self.words.issuperset(words(text) or (folded,))


def _terms(*lines: str, stems: str = "", pattern: str | None = None) -> Terms:
    return Terms(
        words=frozenset(word for line in lines for word in _fold(line).split()),
        stems=tuple(_fold(stems).split()),
        pattern=re.compile(pattern) if pattern else None,
    )


# Values without a meaning: defaults of consoles and anonymisers.
_PLACEHOLDERS: Final = _terms("ANY BLANK DEFAULT N A NA NONE OTHER STANDARD UNDEFINED UNKNOWN UNSPECIFIED VIEW")

_NOT_STATED: Final = _terms(*_PLACEHOLDERS.words, "NO NOT APPLICABLE SPECIFIED STATED KNOWN UNBEKANNT KEINE")
_HUMAN: Final = _terms("HUMAN HUMANS BEING HOMO SAPIENS MENSCH PERSON HUMANO UMANO HUMAIN MENS MENSELIJK")
_ANIMAL: Final = _terms("DOG CANINE HUND FELINE KATZE EQUINE VETERINARY", pattern=r"\bCAT\b(?!\W*SCAN)")

# "THORACIC" and "TORÁCICA" are missing on purpose, since they also name the spine.
_CHEST: Final = _terms(
    "CHEST CXR PCXR LUNG LUNGS",  # CHEST: PS3.16 Annex L
    "THORAX THX LUNGE LUNGEN BRUST BRUSTKORB LONGEN BORSTKAS",
    "TORAX PECHO PEITO PETTO PULMON PULMONES PULMAO PULMOES TORACE POLMONE POLMONI POITRINE POUMON POUMONS",
    "LUNGOR BRÖSTKORG BRYSTKASSE KEUHKOT RINTAKEHA PIERSIOWA PIERSIOWEJ PLUCA HRUDNIK PLICE MELLKAS TORAKS AKCIGER",
    "LUNGER BRYST PULMO GÖĞÜS TÜDŐ NGỰC ГРУДЬ",
    stems="ГРУДН ЛЕГКИ ОГК ФЛЮОРОГ ΘΩΡΑΚ 胸部 胸片 흉부 가슴 חזה صدر",
    pattern=r"胸(?![椎骨腰腹壁鎖锁肋])",
)
# A part of the chest, or a thing, that a coded value names beside the chest; in free text most of them mean more.
_BESIDE_CHEST: Final = _terms(
    "WALL BRUSTWAND THORAXWAND BORSTWAND PARED PAROI PARETE BONY KNÖCHERN KNÖCHERNER KNÖCHERNE OSEO OSEA OSSEO OSSEUX",
    "COSTAL COSTALE WS MAMA SEIN SEINS PHANTOM SKELET SKELETT SKELETON",
)
_ANOTHER_PART: Final = _terms(
    "ABDOMEN ABD KUB BREAST SKULL HEAD BRAIN SINUS SINUSES MANDIBLE NECK ORBIT ORBITS TEETH DENTAL",
    "SPINE CSPINE TSPINE LSPINE CERVICAL LUMBAR SACRUM COCCYX PELVIS HIP HIPS RIB RIBS RIBCAGE STERNUM CLAVICLE",
    "SCAPULA SHOULDER SHOULDERS HUMERUS ELBOW FOREARM WRIST HAND HANDS FINGER FINGERS THUMB EXTREMITY",
    "FEMUR KNEE KNEES PATELLA TIBIA FIBULA ANKLE FOOT FEET CALCANEUS TOE TOES LEG LEGS",
    "SCHÄDEL SCHAEDEL WIRBELSÄULE BRUSTWIRBELSÄULE HWS BWS LWS BECKEN HÜFTE RIPPEN SCHULTER OBERARM ELLENBOGEN",
    "UNTERARM HANDGELENK DAUMEN OBERSCHENKEL KNIE UNTERSCHENKEL SPRUNGGELENK FUSS ZEHEN",
    "BUIK BEKKEN HEUP SCHOUDER ELLEBOOG ENKEL VOET",
    "CRÁNEO COLUMNA CADERA COSTILLAS HOMBRO CODO MUÑECA MANO RODILLA TOBILLO PELVE COLUNA QUADRIL OMBRO JOELHO",
    "CRANIO COLONNA BACINO ANCA COSTE SPALLA GOMITO POLSO GINOCCHIO CAVIGLIA PIEDE ADDOME",
    "CRÂNE RACHIS BASSIN HANCHE CÔTES ÉPAULE COUDE POIGNET GENOU CHEVILLE PIED BÄCKEN HÖFT ARMBÅGE FOTLED",
    "ABDO COSTAS MAMMO MAMMA MAMMELLA MAMMOGRAPHY MAMMOGRAFIA MAMOGRAFIA MAMMOGRAPHIE",
    stems="ЧЕРЕП ПОЗВОН ЛОКОТ КОЛЕН ЖИВОТ 腹部 頭部 腰椎 胸椎 胸骨 頸椎 颈椎 骨盤 骨盆 膝",
)

_FRONTAL: Final = _terms(
    "AP PA FRONTAL FRONTALE FRONT FACE FRENTE",
    stems="ПРЯМАЯ 正面 正位 正側 正侧 前后位 後前位 前後位 后前位",
)
# frontal, unless a view is named as well
_BEDSIDE: Final = _terms("PORTABLE PORT BEDSIDE MOBILE BETTLUNGE LIEGEND LETTO LETTI")
# Words that mean the side view only beside others: Danish "side" is English as well, Swedish "sida" a disease in
# French, Turkish "yan" a name; "2. Ebene" is the lateral of "2 Ebenen", 両側 are both sides, 側弯 is a scoliosis.
_OTHER_LATERAL: Final = (
    r"(?<![^\W\d_])(?:БОК|(?<!BEIDE )(?<!BEIDER )SEITEN(?!LAGE|VERGLEICH)|SIDE[\W_]?VIEW"
    r"|[LR] ?- ?L(?![^\W\d_])|L ?/ ?L(?![^\W\d_])"
    r"|(?:LUNGER|BRYST|THORAX|LUNGOR|BROSTKORG)[\W_]+(?:[AP]{2}[\W_]+(?:OG|OCH)[\W_]+)?SID[AE](?![^\W\d_]|[\W_]+(?:MARK|LEFT|RIGHT|[LR]\b))"
    r"|(?:OG|OCH)[\W_]+SID[AE](?![^\W\d_])"
    r"|(?:TORAKS|AKCIGER|GOGUS|PA|AP)[\W_]+(?:GRAFI\w*[\W_]+)?(?:VE[\W_]+)?YAN(?![^\W\d_])"
    r"|YAN[\W_]+(?:GRAFI|TORAKS|AKCIGER|GOGUS))"
    r"|^\W*(?:SIDE|SIDA|YAN)\W*$"
    r"|(?<!\d)2\.? ?EBENE(?![^\W\d_])|(?:ZWEITE EBENE|EBENE (?:2|II))(?!\w)"
    r"|(?:(?<=胸片)|(?<![左右両兩两双患健片一外内対同反]))[側侧](?![臥卧弯彎壁副])"
)
_LATERAL: Final = _terms(
    "LATERAL LATERALE LATERALES LATERAAL LAT LATERO LATEROLATERAL LL RL LLAT RLAT LATL LATR",
    "SEITLICH SEITL SEIT SEITBILD SEITAUFNAHME QUER LATERALAUFNAHME PROFILAUFNAHME",
    "PROFIL PROFILO PERFIL DWARS ZIJDELINGS ZIJDELINGSE",
    "BOCZNE BOCZNY BOCZNA BOK BOKU ZBOKU BOČNÁ BOČNÍ BOČNÝ BOČNO OLDALIRÁNYÚ SIDOBILD SIDEBILDE SIDEBILLEDE SIVUKUVA",
    stems="БОКОВ БІЧН ΠΛΑΓΙ جانبي 側面 侧面 侧位 側位 측면 OLDAL",
    pattern=_OTHER_LATERAL,
)
_SPECIAL: Final = _terms(  # the network has not learnt these, not even from the front
    "OBLIQUE OBLIQUES OBL OBLICUA OBLIQUA OBLIQUO SCHRÄG SCHRAEG LAO RAO LPO RPO LLO RLO",
    "DECUB DECUBITUS LLD RLD SEITENLAGE LORDOTIC LORD APICAL APICES TANGENTIAL AXIAL CROSSTABLE XTABLE XTL XTLAT",
    stems="斜位 肺尖 側臥 侧卧",
    pattern=r"(?<![^\W\d_])(?:CROSS|X)[\W_]TABLE(?![^\W\d_])",
)
_POSTURES: Final = _terms("ERECT PRONE SEATED SITTING STANDING SUPINE UPRIGHT STEHEND SITZEND")
_NO_VIEW: Final = _terms(*_PLACEHOLDERS.words, *_CHEST.words, *_POSTURES.words)

# Words that rooms join to a name of the chest without a space, as in "CHESTLAT" and "PACHEST".
_AFFIXES: Final = _terms("RX XR XRAY RTG ROENTGEN RONTGEN AUFNAHME AUFNAHMEN ORGANE ÜBERSICHT KINDER")
_JOINED: Final = frozenset(
    word
    for terms in (_CHEST, _ANOTHER_PART, _BESIDE_CHEST, _FRONTAL, _BEDSIDE, _LATERAL, _SPECIAL, _POSTURES, _AFFIXES)
    for word in terms.words
)


@lru_cache(maxsize=4096)  # peers choose the words
def _parts(word: str) -> tuple[str, ...]:
    """Return the known words that make up a word, one of them of the chest; else the word itself."""
    if word in _JOINED or len(word) > _LONGEST_JOINED:
        return (word,)
    parts = _split(word)
    return parts if not _CHEST.words.isdisjoint(parts) else (word,)


def _split(word: str) -> tuple[str, ...]:
    """Return known words that together are `word`, the fewest first found; () if there are none."""
    if word in _JOINED:
        return (word,)
    for end in range(len(word) - 2, 1, -1):
        if word[:end] in _JOINED and (rest := _split(word[end:])):
            return (word[:end], *rest)
    return ()


# Stems begin a word. German "Kind" and French "enfant" mean a child, and English "kind" is in no title of a film.
_CHILD: Final = re.compile(
    r"(?<![^\W\d_])(?:"
    r"P(?:E|AE|A)DIATR|(?:PEDS?|PAEDS?|NICU|PICU|KIND|ENFANTS?|NIN[OA]S?)(?![^\W\d_])|NEONAT|NEWBORN|INFANT|BABY|BABIES|BEBES?(?![^\W\d_])"
    r"|CHILD|TODDLER|KINDER|SA?E?UGLING|NEUGEBOREN|FRUE?HGEBOREN|NOUVEAU[ -]NE|NOURRISSON|RECIEN[ -]NACID"
    r"|RECEM[ -]NASCID|LACTANTE|CRIANCA|BAMBIN[OAI]|LATTANTE|PASGEBOREN|ZUIGELING|DZIECK|DZIECI|ДЕТСК|РЕБЕН|НОВОРОЖД)"
    r"|小児|小儿|儿童|兒童|新生児|新生儿|乳児|婴儿|嬰兒"
)
_ADULT: Final = re.compile(r"(?<![^\W\d_])(?:ADULT|ERWACHSEN|VOLWASSEN)")
_CHILDS_AGE: Final = re.compile(
    r"(?<![^\W\d_])(?:N\.?B|INF|KIDS?|BOY|GIRL|JUVENILE|MINOR)(?![^\W\d_])"
)  # in Patient's Age


def names_a_child(text: str) -> bool:
    """Return whether a title says that its patient is a child, and not an adult as well."""
    folded = _fold(text)
    return bool(_CHILD.search(folded)) and not _ADULT.search(folded)


def is_childs_age(text: str) -> bool:
    """Return whether a value of Patient's Age says a child by a word, as "NEWBORN" and "NB" do."""
    return names_a_child(text) or bool(_CHILDS_AGE.search(_fold(text)))


def says_nothing(text: str) -> bool:
    """Return whether a coded value is empty or a placeholder, such as "UNKNOWN"."""
    return _PLACEHOLDERS.cover(text)


def names_no_animal(text: str) -> bool:
    """Return whether a species or a breed is empty, a placeholder, or human."""
    return not words(text) or _NOT_STATED.cover(text) or _HUMAN.cover(text)


def names_an_animals_chest(text: str) -> bool:
    """Return whether a title names the chest of an animal; alone, "canine" is a tooth as well."""
    return _CHEST.among(text) and _ANIMAL.among(text)


def coded_body_part(text: str) -> Statement:
    """Return the statement of a coded value: INSIDE only if it names the chest and nothing else."""
    if _PLACEHOLDERS.cover(text) or _only_names_a_child(text):
        return Statement.SILENT
    another = _ANOTHER_PART.among(text) or _BESIDE_CHEST.among(text)
    return Statement.INSIDE if _CHEST.among(text) and not another else Statement.OUTSIDE


def _only_names_a_child(text: str) -> bool:
    named = words(text)
    return bool(named) and all(map(_CHILD.match, named))


def described_body_part(text: str) -> Statement:
    """Return the statement of free text: SILENT if it names no part, or the chest and another part."""
    chest, another = _CHEST.among(text), _ANOTHER_PART.among(text)
    if chest == another:
        return Statement.SILENT
    return Statement.INSIDE if chest else Statement.OUTSIDE


def coded_view(text: str) -> Statement:
    """Return the statement of a coded value: INSIDE only if it names a frontal view and no other."""
    if match := _SPACED_INITIALS.fullmatch(text):
        text = match[1] + match[2]
    if _NO_VIEW.cover(text):
        return Statement.SILENT
    if _LATERAL.among(text) or _SPECIAL.among(text):
        return Statement.OUTSIDE
    return Statement.INSIDE if _FRONTAL.among(text) or _BEDSIDE.among(text) else Statement.OUTSIDE


def described_view(text: str) -> Statement:
    """Return the statement of free text: SILENT if it names no view, several, or a frontal and a lateral view."""
    if _SPECIAL.among(text):
        return Statement.OUTSIDE
    if _SEVERAL_VIEWS.search(_fold(text)):
        return Statement.SILENT
    frontal, lateral = _FRONTAL.among(text), _LATERAL.among(text)
    if frontal and lateral:
        return Statement.SILENT
    if lateral:
        return Statement.OUTSIDE
    return Statement.INSIDE if frontal or _BEDSIDE.among(text) else Statement.SILENT
