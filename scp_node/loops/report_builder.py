"""Builds the report of a study, and what goes with it by the settings."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from scp_node.analysis import Picture
from scp_node.domain import (
    BuiltObject,
    BuiltReport,
    Clock,
    Finding,
    ModelIdentity,
    NotAnalysed,
    ReportedImage,
    utc_now,
)
from scp_node.ledger import StudySnapshot
from scp_node.report import (
    Site,
    build_key_object,
    build_overlay,
    build_presentation_state,
    build_report,
    build_segmentation,
    build_text_report,
)
from scp_node.settings import ReportSettings

log = logging.getLogger(__name__)


class Pictures(Protocol):
    """Shows stored films; see `scp_node.decoders.DecoderPool`."""

    def picture(self, path: Path) -> Picture | NotAnalysed:
        """Return the film as people see it, or why it cannot be shown."""


def wants_attention(settings: ReportSettings, finding: Finding) -> bool:
    """Return whether something that a film with this finding gets shows its activation map."""
    outlined = settings.presentation_state and settings.attention_region and not settings.flag_only
    return wants_overlay(settings, finding) or (outlined and finding.is_positive)


def wants_overlay(settings: ReportSettings, finding: Finding) -> bool:
    """Return whether a film with this finding gets a picture."""
    if settings.flag_only or settings.overlay == "none":
        return False
    return settings.overlay == "all" or finding.is_positive


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasion:
    """One report, and what goes with it is made of."""

    images: Sequence[ReportedImage]
    report: BuiltReport
    version: int
    at: datetime
    incomplete: bool


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
        built = build_report(
            study_images=images,
            model=self.model,
            site=self.site,
            previous=snapshot.previous,
            at=at,
            incomplete=snapshot.incomplete,
        )
        if built.content_digest == snapshot.previous_content_digest:
            return built
        version = snapshot.previous.version + 1 if snapshot.previous else 1
        occasion = Occasion(images=images, report=built, version=version, at=at, incomplete=snapshot.incomplete)
        return replace(built, companions=tuple(self._companions(occasion, snapshot.spool_paths)))

    def _companions(self, occasion: Occasion, spool_paths: Sequence[str]) -> Iterator[BuiltObject]:
        """Yield what goes with the report; what cannot be made does not hold it up."""
        common: dict[str, Any] = {
            "model": self.model,
            "site": self.site,
            "version": occasion.version,
            "at": occasion.at,
        }
        images, settings = occasion.images, self.settings
        whole: dict[str, Any] = {**common, "incomplete": occasion.incomplete}  # of what speaks for the study
        if settings.text_sr:
            yield from _made("text", lambda: build_text_report(images=images, report=occasion.report, **whole))
        pictures = []
        for number, (image, path) in enumerate(zip(images, spool_paths, strict=True), start=1):
            if isinstance(image.outcome, Finding) and wants_overlay(settings, image.outcome):
                pictures += _made("overlay", partial(self._overlay, image, path, number=number, **whole))
        yield from pictures
        for image in images:
            if settings.presentation_state:
                attention = settings.attention_region and not settings.flag_only
                build = partial(build_presentation_state, image=image, attention=attention, **common)
                yield from _made("presentation state", build)
            if settings.segmentation:
                yield from _made("segmentation", partial(build_segmentation, image=image, **common))
        if settings.key_object:
            build = partial(build_key_object, images=images, pictures=pictures, report=occasion.report, **whole)
            yield from _made("key object", build)

    def _stated(self, image: ReportedImage) -> ReportedImage:
        if self.settings.flag_only and isinstance(image.outcome, Finding):
            return replace(image, outcome=replace(image.outcome, regions=()))
        return image

    def _overlay(self, image: ReportedImage, path: str, **common: Any) -> BuiltObject | None:
        if not isinstance(image.outcome, Finding) or not image.outcome.attention:
            log.warning("no overlay sop_instance_uid=%s reason='no activation map'", image.sop_instance_uid)
            return None
        picture = self.pictures.picture(self.spool_folder / path)
        if isinstance(picture, NotAnalysed):
            log.warning("no overlay sop_instance_uid=%s reason=%s", image.sop_instance_uid, picture.reason)
            return None
        return build_overlay(image=image, display=picture.display, **common)


def _made(kind: str, build: Callable[[], BuiltObject | None]) -> list[BuiltObject]:
    """Return what `build` makes, if it makes anything: the report is what matters, and does not wait for it."""
    try:
        made = build()
    except Exception:
        log.exception("not made kind=%r", kind)
        return []
    return [] if made is None else [made]
