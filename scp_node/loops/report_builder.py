"""Builds the report of a study, and what goes with it by the settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import ParamSpec, Protocol

from scp_node.analysis.answers import Picture
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
from scp_node.logs import get_logger
from scp_node.report.kinds import ObjectKind
from scp_node.report.objects.key_object import build_key_object
from scp_node.report.objects.overlay import build_overlay
from scp_node.report.objects.presentation_state import build_presentation_state
from scp_node.report.objects.segmentation import build_segmentation
from scp_node.report.objects.sr import build_report, report_digest
from scp_node.report.objects.text_sr import build_text_report
from scp_node.report.site import Site
from scp_node.report.version import ReportVersion
from scp_node.settings import ReportSettings
from scp_node.spool import StoredFiles

log = get_logger(__name__)

P = ParamSpec("P")


class Pictures(Protocol):
    """Shows stored films; see `scp_node.decoders.DecoderPool`."""

    def picture(self, path: Path) -> Picture | NotAnalysed:
        """Return the film as people see it, or why it cannot be shown."""


def wants_attention(settings: ReportSettings, finding: Finding) -> bool:
    """Return whether an object that shows the activation map is made of a film with this finding."""
    outlined = settings.presentation_state and settings.attention_region and not settings.flag_only
    return wants_overlay(settings, finding) or (outlined and finding.is_positive)


def wants_overlay(settings: ReportSettings, finding: Finding) -> bool:
    """Return whether a film with this finding gets a picture."""
    if settings.flag_only or settings.overlay == "none":
        return False
    return settings.overlay == "all" or finding.is_positive


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportBuilder:
    """Builds the report of a study, and its companions."""

    settings: ReportSettings
    model: ModelIdentity
    site: Site
    files: StoredFiles
    pictures: Pictures
    clock: Clock = utc_now

    def __call__(self, snapshot: StudySnapshot) -> BuiltReport:
        """Return the serialised report, without its companions.

        Raises:
            UnreportableHeader: no report can be made of the study's headers.
        """
        return build_report(self._version(snapshot, self.clock()))

    def wants_companions(self, snapshot: StudySnapshot) -> bool:
        """Return whether anything may go with the report."""
        settings = self.settings
        if settings.text_sr or settings.presentation_state or settings.segmentation or settings.key_object:
            return True
        outcomes = [image.outcome for image in snapshot.images]
        return any(isinstance(each, Finding) and wants_overlay(settings, each) for each in outcomes)

    def companions(self, snapshot: StudySnapshot, *, at: datetime, content_digest: str) -> list[BuiltObject]:
        """Return what goes with a report that was stored `at` with this digest; nothing if it says otherwise by now."""
        version = self._version(snapshot, at)
        if report_digest(version) != content_digest:
            return []
        return list(self._companions(version, snapshot.spool_paths))

    def _version(self, snapshot: StudySnapshot, at: datetime) -> ReportVersion:
        return ReportVersion(
            images=[self._to_report(image) for image in snapshot.images],
            model=self.model,
            site=self.site,
            at=at,
            number=snapshot.version,
            previous=snapshot.previous,
            incomplete=snapshot.incomplete,
            several_patients=snapshot.patients > 1,
        )

    def _companions(self, version: ReportVersion, spool_paths: Sequence[str]) -> Iterator[BuiltObject]:
        """Yield what goes with the report; what cannot be made does not hold it up."""
        settings = self.settings
        if settings.text_sr:
            yield from _attempt(ObjectKind.TEXT, build_text_report, version)
        pictures = []
        for number, (image, path) in enumerate(zip(version.images, spool_paths, strict=True), start=1):
            if isinstance(image.outcome, Finding) and wants_overlay(settings, image.outcome):
                pictures += _attempt(ObjectKind.OVERLAY, self._overlay, version, image, number, path)
        yield from pictures
        for image in version.images:
            if settings.presentation_state:
                attention = settings.attention_region and not settings.flag_only
                yield from _attempt(
                    ObjectKind.PRESENTATION_STATE, build_presentation_state, version, image=image, attention=attention
                )
            if settings.segmentation:
                yield from _attempt(ObjectKind.SEGMENTATION, build_segmentation, version, image=image)
        if settings.key_object:
            yield from _attempt(ObjectKind.KEY_OBJECT, build_key_object, version, pictures=pictures)

    def _to_report(self, image: ReportedImage) -> ReportedImage:
        """Return the image without its regions where reports only flag."""
        if self.settings.flag_only and isinstance(image.outcome, Finding):
            return replace(image, outcome=replace(image.outcome, regions=()))
        return image

    def _overlay(self, version: ReportVersion, image: ReportedImage, number: int, path: str) -> BuiltObject | None:
        if not isinstance(image.outcome, Finding) or not image.outcome.attention:
            log.warning("no overlay", sop_instance_uid=image.sop_instance_uid, reason="no activation map")
            return None
        with self.files.open([path]) as [file]:
            picture = self.pictures.picture(file)
        if isinstance(picture, NotAnalysed):
            log.warning("no overlay", sop_instance_uid=image.sop_instance_uid, reason=picture.reason)
            return None
        return build_overlay(version, image=image, number=number, display=picture.display)


def _attempt(
    kind: ObjectKind, build: Callable[P, BuiltObject | None], *args: P.args, **kwargs: P.kwargs
) -> list[BuiltObject]:
    """Return the object that `build` makes, if any: the report does not wait for one that cannot be made."""
    try:
        built = build(*args, **kwargs)
    except Exception:
        log.exception("not made", kind=kind.word)
        return []
    return [] if built is None else [built]
