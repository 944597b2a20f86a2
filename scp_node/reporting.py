"""What is made of a study that is quiet: its report, and the objects that go with it by the settings."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scp_node.analysis import Picture
from scp_node.domain import (
    BuiltObject,
    BuiltReport,
    Clock,
    Finding,
    ModelIdentity,
    NotAnalysed,
    ReportedImage,
    Verdict,
    utc_now,
)
from scp_node.ledger import StudySnapshot
from scp_node.report import Site, build_overlay, build_report, build_text_report
from scp_node.settings import ReportSettings

log = logging.getLogger(__name__)


class Pictures(Protocol):
    """Shows stored films; see `scp_node.analysis.DecoderPool`."""

    def picture(self, path: Path) -> Picture | NotAnalysed:
        """Return the film as people see it, or why it cannot be shown."""


class NoPictureError(Exception):
    """A film that was analysed cannot be shown any more."""


def wants_overlay(settings: ReportSettings, finding: Finding) -> bool:
    """Return whether a film with this finding gets a picture."""
    if settings.flag_only or settings.overlay == "none":
        return False
    return settings.overlay == "all" or finding.verdict is Verdict.PRESENT


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportBuilder:
    """Builds the report of a study with its companions."""

    settings: ReportSettings
    model: ModelIdentity
    site: Site
    spool_folder: Path
    pictures: Pictures
    clock: Clock = utc_now

    def __call__(self, snapshot: StudySnapshot) -> BuiltReport:
        """Return the serialised report; companions only where it says something new.

        Raises:
            UnreportableHeader: no report can be made of the study's headers.
        """
        at = self.clock()
        images = [self._stated(image) for image in snapshot.images]
        built = build_report(study_images=images, model=self.model, site=self.site, previous=snapshot.previous, at=at)
        if built.content_digest == snapshot.previous_content_digest:
            return built
        version = snapshot.previous.version + 1 if snapshot.previous else 1
        companions = [*self._overlays(images, snapshot.spool_paths, version, at)]
        if self.settings.text_sr:
            companions.insert(0, self._text(images, built, version, at))
        return replace(built, companions=tuple(companions))

    def _text(self, images: Sequence[ReportedImage], report: BuiltReport, version: int, at: datetime) -> BuiltObject:
        return build_text_report(images=images, report=report, model=self.model, site=self.site, version=version, at=at)

    def _stated(self, image: ReportedImage) -> ReportedImage:
        if self.settings.flag_only and isinstance(image.outcome, Finding):
            return replace(image, outcome=replace(image.outcome, regions=()))
        return image

    def _overlays(
        self, images: Sequence[ReportedImage], spool_paths: Sequence[str], version: int, at: datetime
    ) -> Iterator[BuiltObject]:
        for number, (image, path) in enumerate(zip(images, spool_paths, strict=True), start=1):
            if isinstance(image.outcome, Finding) and wants_overlay(self.settings, image.outcome):
                try:
                    display = self._display(image.outcome, path)
                    yield build_overlay(
                        image=image, display=display, model=self.model, site=self.site, version=version,
                        number=number, at=at,
                    )  # fmt: skip
                except NoPictureError as error:
                    log.warning("no overlay sop_instance_uid=%s reason=%r", image.sop_instance_uid, str(error))
                except Exception:  # the report is what matters: it does not wait for its picture
                    log.exception("overlay failed sop_instance_uid=%s", image.sop_instance_uid)

    def _display(self, finding: Finding, path: str) -> NDArray[np.uint8]:
        if not finding.attention:
            raise NoPictureError("analysed without an activation map")
        picture = self.pictures.picture(self.spool_folder / path)
        if isinstance(picture, NotAnalysed):
            raise NoPictureError(f"film cannot be shown: {picture.reason.sentence}")
        return picture.display
