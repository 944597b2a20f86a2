"""The positive films of a study, and their pictures, as a Key Object Selection (PS3.16 TID 2010)."""

from __future__ import annotations

from collections.abc import Sequence

from scp_node.dicom.writing import Dataset
from scp_node.domain import BuiltObject
from scp_node.report import codes
from scp_node.report.attributes import dataset
from scp_node.report.content.items import CONTAINS, HAS_CONCEPT_MOD, code, container, image, text
from scp_node.report.content.tree import observer
from scp_node.report.content.wording import study_sentence
from scp_node.report.kinds import ObjectKind
from scp_node.report.objects.common import (
    Instance,
    built_object,
    envelope,
    evidence,
    quiet_pydicom,
    referenced_requests_of,
    study_key,
)
from scp_node.report.source.source import read_source
from scp_node.report.version import ReportVersion


@quiet_pydicom()
def build_key_object(version: ReportVersion, *, pictures: Sequence[BuiltObject]) -> BuiltObject | None:
    """Return the selection of the positive films and of `pictures`, None where no film is positive.

    Equal arguments give equal bytes.

    Raises:
        UnreportableHeader: the header of a film cannot carry a report.
    """
    sources = [read_source(each) for each in version.images if each.outcome.is_positive]
    if not sources:
        return None
    first = sources[0]
    chosen: list[Instance] = [*sources, *pictures]
    instance = envelope(ObjectKind.KEY_OBJECT, version, first, study_key(version, first))
    instance.update(referenced_requests_of(first))
    instance.update(
        dataset(
            ReferencedPerformedProcedureStepSequence=[],
            CurrentRequestedProcedureEvidenceSequence=[evidence(first.study_instance_uid, chosen)],
        )
    )
    instance.update(_content(version, chosen))
    return built_object(ObjectKind.KEY_OBJECT, instance)


def _content(version: ReportVersion, chosen: Sequence[Instance]) -> Dataset:
    outcomes = [each.outcome for each in version.images]
    items = [
        code(HAS_CONCEPT_MOD, codes.LANGUAGE, codes.ENGLISH),
        *observer(version.site),
        text(CONTAINS, codes.KEY_OBJECT_DESCRIPTION, study_sentence(outcomes, version.model, version.remarks)),
        *(image(CONTAINS, None, each.sop_class_uid, each.sop_instance_uid) for each in chosen),
    ]
    return container(None, codes.OF_INTEREST, items, template="2010")
