"""The kinds of objects that are made of a study, one row each: a further kind needs its row here, and its builder."""

from __future__ import annotations

from enum import Enum

from pydicom.uid import (
    UID,
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)


class ObjectKind(Enum):
    """A kind of object: its word, SOP class and modality, and the number and description of its series.

    The word is kept in the ledger and UIDs are derived from it, so a row stays as it is. Companions are offered to a
    destination in the order of their rows.
    """

    REPORT = ("report", Comprehensive3DSRStorage, "SR", 0, "")  # the site describes its series
    OVERLAY = ("overlay", SecondaryCaptureImageStorage, "OT", 1, "AI PNEUMONIA overlay")
    TEXT = ("text", BasicTextSRStorage, "SR", -1, "AI PNEUMONIA text")
    PRESENTATION_STATE = (
        "presentation-state",
        GrayscaleSoftcopyPresentationStateStorage,
        "PR",
        2,
        "AI PNEUMONIA outlines",
    )
    SEGMENTATION = ("segmentation", SegmentationStorage, "SEG", 3, "AI PNEUMONIA regions")
    KEY_OBJECT = ("key-object", KeyObjectSelectionDocumentStorage, "KO", 4, "AI PNEUMONIA key images")

    def __init__(
        self, word: str, sop_class_uid: UID, modality: str, series_offset: int, series_description: str
    ) -> None:
        """Name the columns of the row."""
        self.word = word
        self.sop_class_uid = sop_class_uid
        self.modality = modality
        self.series_offset = series_offset  # to the Series Number of the reports, which a site sets
        self.series_description = series_description  # the version of the model follows

    @property
    def series_word(self) -> str:
        """Return the word that the UIDs of its series are derived from."""
        return f"{self.word.replace('-', ' ')} series"
