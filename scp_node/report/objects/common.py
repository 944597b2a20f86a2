"""What every object that we make has: its series, who made it, references to instances, and its bytes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from io import BytesIO
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, ExplicitVRLittleEndian

from scp_node.dicom.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from scp_node.domain import Completion, Finding, ModelIdentity, ReportedImage
from scp_node.report.attributes import code_item, dataset
from scp_node.report.codes import PROCESSING_EQUIPMENT
from scp_node.report.content.measurements import completion
from scp_node.report.content.regions import reported_regions
from scp_node.report.content.wording import INCOMPLETE_SHORT, percent
from scp_node.report.site import Site
from scp_node.report.source.header import acquisition_equipment, referenced_requests
from scp_node.report.source.mending import long_string
from scp_node.report.source.source import SourceImage
from scp_node.report.uids import derived_uid


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Keep pydicom's warnings about the source from becoming errors that lose a report."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def series(modality: str, uid: str, number: int, description: str) -> dict[str, Any]:
    """Return the attributes of a series of ours; `description` ends with what is the same in all of its instances."""
    return {
        "Modality": modality,
        "SeriesInstanceUID": uid,
        "SeriesNumber": number,
        "SeriesDescription": long_string(description),
    }


def equipment(site: Site, model: ModelIdentity, source: SourceImage) -> dict[str, Any]:
    """Return who made the object, and what contributed to it: the device that took the film, and the model.

    The model's Device UID (0018,1002) is derived from the digest of its bundle: other weights are another device (PS3.3
    Sections C.7.5.1 and C.12.1).
    """
    contributed = dataset(
        PurposeOfReferenceCodeSequence=[code_item(PROCESSING_EQUIPMENT)],
        Manufacturer=long_string(model.manufacturer or site.manufacturer),
        ManufacturerModelName=long_string(model.name),
        SoftwareVersions=long_string(model.version),
        DeviceUID=derived_uid("model", model.digest),
        ContributionDescription="Probability of pneumonia, computed by a neural network",
    )
    return {
        "Manufacturer": site.manufacturer,
        "ManufacturerModelName": site.model_name,
        "DeviceSerialNumber": site.installation,
        "SoftwareVersions": [long_string(site.software_version), long_string(model.bundle)],
        "ContributingEquipmentSequence": [*acquisition_equipment(source), contributed],
    }


def identity(sop_class_uid: str, sop_instance_uid: str, at: datetime) -> dict[str, Any]:
    """Return which instance it is, and when it was made; `at` in the zone of the object's other times."""
    day, time = at.strftime("%Y%m%d"), at.strftime("%H%M%S")
    return {
        "SOPClassUID": sop_class_uid,
        "SOPInstanceUID": sop_instance_uid,
        "InstanceCreationDate": day,
        "InstanceCreationTime": time,
        "ContentDate": day,
        "ContentTime": time,
    }


def document(images: Sequence[ReportedImage], first: SourceImage, *, incomplete: bool) -> dict[str, Any]:
    """Return the attributes of a document about these images that nobody has verified (PS3.3 Section C.17.2).

    It is partial where an analysis failed, and where images of the study may be missing.
    """
    failed = any(completion(image.outcome) is Completion.FAILED for image in images)
    attributes: dict[str, Any] = {
        "ReferencedPerformedProcedureStepSequence": [],  # the source's step made the image, not this
        "PerformedProcedureCodeSequence": [],
        "CompletionFlag": "PARTIAL" if failed or incomplete else "COMPLETE",
        "VerificationFlag": "UNVERIFIED",
        "PreliminaryFlag": "PRELIMINARY",
    }
    if incomplete:
        attributes["CompletionFlagDescription"] = INCOMPLETE_SHORT
    return attributes | referenced_requests_of(first)


def referenced_requests_of(source: SourceImage) -> dict[str, Any]:
    """Return the orders that the film was acquired for as an attribute, where there are any."""
    requests = referenced_requests(source)
    return {"ReferencedRequestSequence": requests} if requests else {}


def evidence(sources: Sequence[SourceImage]) -> Dataset:
    """Return references to all images of one study."""
    by_series: dict[str, dict[str, str]] = {}
    for source in sources:
        by_series.setdefault(source.series_instance_uid, {})[source.sop_instance_uid] = source.sop_class_uid
    series = [referenced_series(series_uid, instances) for series_uid, instances in by_series.items()]
    return dataset(StudyInstanceUID=sources[0].study_instance_uid, ReferencedSeriesSequence=series)


def referenced_series(series_uid: str, instances: Mapping[str, str]) -> Dataset:
    """Return a reference to instances of one series: their SOP classes by SOP Instance UID (PS3.3 Table 10-4)."""
    return dataset(SeriesInstanceUID=series_uid, ReferencedSOPSequence=referenced_instances(instances))


def referenced_instances(instances: Mapping[str, str]) -> list[Dataset]:
    """Return references to instances: their SOP classes by SOP Instance UID (PS3.3 Table 10-11)."""
    return [
        dataset(ReferencedSOPClassUID=sop_class_uid, ReferencedSOPInstanceUID=sop_instance_uid)
        for sop_instance_uid, sop_class_uid in instances.items()
    ]


def result_key(image: ReportedImage) -> list[str]:
    """Return what the report says of one image: part of the UID of every object that says it."""
    outcome = image.outcome
    if not isinstance(outcome, Finding):
        return [outcome.reason.completion.value, outcome.reason.value]
    shown = percent(outcome.probability, *outcome.limits)
    regions = [repr(region) for region in reported_regions(outcome)]
    limits = [repr(outcome.threshold), *([f"grey zone {outcome.grey_zone!r}"] if outcome.grey_zone else [])]
    return [outcome.verdict.value, shown, *limits, *(note.value for note in outcome.notes), *regions]


def part10_file(instance: Dataset) -> bytes:
    """Return the bytes of a DICOM file of `instance`, in Explicit VR Little Endian (PS3.10 Section 7)."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = instance.SOPClassUID
    meta.MediaStorageSOPInstanceUID = instance.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    instance.file_meta = meta
    buffer = BytesIO()
    dcmwrite(buffer, instance, enforce_file_format=True)
    return buffer.getvalue()
