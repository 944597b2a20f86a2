"""The value that all objects of one report are made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from scp_node.domain import ModelIdentity, PreviousReport, ReportedImage
from scp_node.report.site import Site


class Remark(StrEnum):
    """What a report says of its study beside the results; the value stands in the keys of UIDs."""

    INCOMPLETE = "study may be incomplete"
    SEVERAL_PATIENTS = "study names several patients"
    SPELLINGS_DIFFER = "name or birth date differ"

    @property
    def is_partial(self) -> bool:
        """Return whether such a report does not cover the whole study."""
        return self is not Remark.SPELLINGS_DIFFER


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportVersion:
    """One version of the report of a study; the report and its companions are made from it."""

    images: Sequence[ReportedImage]  # of one study; patient and study are the first one's
    model: ModelIdentity  # that analysed them
    site: Site
    at: datetime  # aware
    number: int = 1  # of this version, counted over all reports of the study
    previous: PreviousReport | None = None  # the version that this one replaces
    incomplete: bool = False  # images may be missing: the association of the sender ended early
    several_patients: bool = False  # other images of the study name another patient; they are in another report

    def __post_init__(self) -> None:
        """Refuse a version without an image or a zone.

        Raises:
            ValueError: there is no image, or the time has no zone.
        """
        if not self.images or self.at.tzinfo is None:
            raise ValueError("a report needs an image and a time with its zone")

    @property
    def remarks(self) -> tuple[Remark, ...]:
        """Return what the report says of the study beside the results, as far as it is known without the headers."""
        found = {Remark.INCOMPLETE: self.incomplete, Remark.SEVERAL_PATIENTS: self.several_patients}
        return tuple(remark for remark, holds in found.items() if holds)
