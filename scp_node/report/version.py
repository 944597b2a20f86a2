"""The value that all objects of one report are made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from scp_node.domain import ModelIdentity, PreviousReport, ReportedImage
from scp_node.report.site import Site


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportVersion:
    """One version of the report of a study; the report and its companions are made from it."""

    images: Sequence[ReportedImage]  # of one study; patient and study are the first one's
    model: ModelIdentity  # that analysed them
    site: Site
    at: datetime  # aware
    previous: PreviousReport | None = None  # the version that this one replaces
    incomplete: bool = False  # images may be missing: the association of the sender ended early

    def __post_init__(self) -> None:
        """Refuse a version without an image or a zone.

        Raises:
            ValueError: there is no image, or the time has no zone.
        """
        if not self.images or self.at.tzinfo is None:
            raise ValueError("a report needs an image and a time with its zone")

    @property
    def number(self) -> int:
        """Return the number of this version, from 1."""
        return self.previous.version + 1 if self.previous else 1
