"""The positive films of a study, and their pictures, as a Key Object Selection (PS3.16 TID 2010)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from pydicom.dataset import Dataset
from pydicom.uid import KeyObjectSelectionDocumentStorage

from scp_node.domain import BuiltObject, BuiltReport, ModelIdentity, ReportedImage
from scp_node.report import codes
from scp_node.report.attributes import dataset, put
from scp_node.report.content.items import CONTAINS, HAS_CONCEPT_MOD, code, container, image, text
from scp_node.report.content.tree import observer
from scp_node.report.content.wording import study_sentence
from scp_node.report.objects.common import (
    equipment,
    identity,
    part10_file,
    quiet_pydicom,
    referenced_requests_of,
    referenced_series,
    series,
)
from scp_node.report.site import Site
from scp_node.report.source.header import local_time, patient_and_study
from scp_node.report.source.source import read_source
from scp_node.report.uids import derived_uid

KIND: Final = "key-object"
SERIES_OFFSET: Final = 4  # to the number of the report's series


@quiet_pydicom()
def build_key_object(
    *,
    images: Sequence[ReportedImage],
    pictures: Sequence[BuiltObject],
    report: BuiltReport,
    model: ModelIdentity,
    site: Site,
    version: int,
    at: datetime,
    incomplete: bool = False,
) -> BuiltObject | None:
    """Return the selection of the positive films and of `pictures`, None where no film is positive.

    Equal arguments give equal bytes.

    Raises:
        UnreportableHeader: the header of a film cannot carry a report.
    """
    positive = [each for each in images if each.outcome.is_positive]
    if not positive:
        return None
    sources = [read_source(each) for each in positive]
    first = sources[0]
    chosen = [(source.series_instance_uid, source.sop_class_uid, source.sop_instance_uid) for source in sources]
    chosen += [(each.series_instance_uid, each.sop_class_uid, each.sop_instance_uid) for each in pictures]
    instance_uid = derived_uid(KIND, site.installation, report.content_digest, str(version))
    series_uid = derived_uid("key object series", site.installation, report.study_uid, model.digest)
    made = patient_and_study(first)
    for keyword, value in {
        **series("KO", series_uid, site.series_number + SERIES_OFFSET, f"AI PNEUMONIA key images {model.version}"),
        **equipment(site, model, first),
        **identity(KeyObjectSelectionDocumentStorage, instance_uid, local_time(at, first, site.time_zone)),
        "ReferencedPerformedProcedureStepSequence": [],
        "InstanceNumber": version,
        "CurrentRequestedProcedureEvidenceSequence": [_evidence(first.study_instance_uid, chosen)],
        **referenced_requests_of(first),
    }.items():
        put(made, keyword, value)
    said = study_sentence([each.outcome for each in images], model, incomplete=incomplete)
    content = [
        code(HAS_CONCEPT_MOD, codes.LANGUAGE, codes.ENGLISH),
        *observer(site),
        text(CONTAINS, codes.KEY_OBJECT_DESCRIPTION, said),
        *(image(CONTAINS, None, sop_class_uid, sop_instance_uid) for _, sop_class_uid, sop_instance_uid in chosen),
    ]
    made.update(container(None, codes.OF_INTEREST, content, template="2010"))
    return BuiltObject(
        kind=KIND,
        sop_class_uid=KeyObjectSelectionDocumentStorage,
        sop_instance_uid=instance_uid,
        series_instance_uid=series_uid,
        file=part10_file(made),
    )


def _evidence(study_uid: str, chosen: Sequence[tuple[str, str, str]]) -> Dataset:
    by_series: dict[str, dict[str, str]] = {}
    for series_uid, sop_class_uid, sop_instance_uid in chosen:
        by_series.setdefault(series_uid, {})[sop_instance_uid] = sop_class_uid
    references = [referenced_series(series_uid, instances) for series_uid, instances in by_series.items()]
    return dataset(StudyInstanceUID=study_uid, ReferencedSeriesSequence=references)
