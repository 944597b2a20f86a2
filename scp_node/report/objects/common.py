"""The parts that all kinds of objects share: series, equipment, identity, references to instances, and the file."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from scp_node.dicom.implementation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from scp_node.dicom.part10 import PREAMBLE
from scp_node.dicom.syntaxes import EXPLICIT_VR_LITTLE_ENDIAN
from scp_node.dicom.writing import Dataset, encoded
from scp_node.domain import BuiltObject, Completion, Finding, ReportedImage
from scp_node.report.attributes import code_item, dataset
from scp_node.report.codes import PROCESSING_EQUIPMENT, SOURCE_IMAGE
from scp_node.report.content.measurements import completion
from scp_node.report.content.regions import reported_regions
from scp_node.report.content.wording import SHORT_REMARKS, percent
from scp_node.report.kinds import ObjectKind
from scp_node.report.source.header import acquisition_equipment, local_time, patient_and_study, referenced_requests
from scp_node.report.source.identity import key_of_patient
from scp_node.report.source.mending import long_string
from scp_node.report.source.source import SourceImage
from scp_node.report.uids import derived_uid, digest
from scp_node.report.version import ReportVersion


class Instance(Protocol):
    """What an object refers to: a film, or another object."""

    @property
    def sop_class_uid(self) -> str:
        """Return its SOP Class UID."""

    @property
    def sop_instance_uid(self) -> str:
        """Return its SOP Instance UID."""

    @property
    def series_instance_uid(self) -> str:
        """Return the Series Instance UID of its series."""


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Keep pydicom's warnings about the source from becoming errors that lose a report."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def envelope(kind: ObjectKind, version: ReportVersion, source: SourceImage, key: Sequence[str]) -> Dataset:
    """Return the attributes beside the content of an object: patient, study, series, equipment, identity.

    Args:
        kind: the row that the series and the SOP class are taken from.
        version: of the report that the object belongs to.
        source: the film that patient, study, acquisition device and time zone are taken from.
        key: tells the object from all others of its kind, see `study_key` and `image_key`.
    """
    attributes = patient_and_study(source)
    attributes.update(_series(kind, version, source))
    attributes.update(_equipment(version, source))
    attributes.update(_identity(kind, version, source, key))
    return attributes


def study_key(version: ReportVersion, source: SourceImage) -> list[str]:
    """Return the key of an object that speaks of the whole study."""
    # the version is in it: a third version that says the same as the first is another object
    return [content_digest(version, source), str(version.number)]


def image_key(version: ReportVersion, image: ReportedImage, source: SourceImage, *shown: str) -> list[str]:
    """Return the key of an object that speaks of one image; `shown` is what it says beside the result."""
    # study and patient are in it: another film of theirs may have the same SOP Instance UID
    statement = digest([source.study_instance_uid, key_of_patient(source), *result_key(image), *shown])
    return [image.sop_instance_uid, version.model.digest, statement, str(version.number)]


def content_digest(version: ReportVersion, source: SourceImage) -> str:
    """Return the digest of what the report says: equal where a new version would say the same."""
    # The result is part of it: with the sources alone, the retry of a failed analysis would get the failed report's
    # UID, and the archive would keep the first of the two without a word.
    model = version.model
    several = {uid for uid, number in Counter(image.sop_instance_uid for image in version.images).items() if number > 1}
    results = sorted(
        [image.sop_instance_uid, *result_key(image), *([image.sha256] if image.sop_instance_uid in several else [])]
        for image in version.images
    )
    operation = [model.digest, model.status, model.calibration, repr(model.threshold)]  # the detector is in the digest
    if model.grey_zone:
        operation.append(f"grey zone {model.grey_zone!r}")
    operation += version.remarks
    return digest(["report", source.study_instance_uid, results, operation])


def result_key(image: ReportedImage) -> list[str]:
    """Return the result of one image as the report states it."""
    outcome = image.outcome
    if not isinstance(outcome, Finding):
        return [outcome.reason.completion.value, outcome.reason.value]
    shown = percent(outcome.probability, *outcome.limits)
    regions = [repr(region) for region in reported_regions(outcome)]
    limits = [repr(outcome.threshold), *([f"grey zone {outcome.grey_zone!r}"] if outcome.grey_zone else [])]
    return [outcome.verdict.value, shown, *limits, *(note.value for note in outcome.notes), *regions]


def document(version: ReportVersion, sources: Sequence[SourceImage]) -> Dataset:
    """Return the attributes of a document about the study that nobody has verified (PS3.3 Section C.17.2).

    It is partial where an analysis failed, where images of the study may be missing, and where others of its images
    name another patient.
    """
    partial = [remark for remark in version.remarks if remark.is_partial]
    failed = any(completion(image.outcome) is Completion.FAILED for image in version.images)
    attributes = referenced_requests_of(sources[0])
    attributes.update(
        dataset(
            ReferencedPerformedProcedureStepSequence=[],  # the source's step made the image, not this
            PerformedProcedureCodeSequence=[],
            CompletionFlag="PARTIAL" if failed or partial else "COMPLETE",
            VerificationFlag="UNVERIFIED",
            PreliminaryFlag="PRELIMINARY",
            CurrentRequestedProcedureEvidenceSequence=[evidence(sources[0].study_instance_uid, sources)],
        )
    )
    if partial:
        attributes["CompletionFlagDescription"] = SHORT_REMARKS[partial[0]]
    return attributes


def referenced_requests_of(source: SourceImage) -> Dataset:
    """Return the orders that the film was acquired for as an attribute, where there are any."""
    requests = referenced_requests(source)
    return dataset(ReferencedRequestSequence=requests) if requests else dataset()


def evidence(study_uid: str, instances: Iterable[Instance]) -> Dataset:
    """Return references to instances of one study (PS3.3 Table C.17-3, Hierarchical SOP Instance Reference Macro)."""
    by_series: dict[str, dict[str, Instance]] = {}
    for instance in instances:
        by_series.setdefault(instance.series_instance_uid, {})[instance.sop_instance_uid] = instance
    series = [
        dataset(SeriesInstanceUID=series_uid, ReferencedSOPSequence=[reference(each) for each in members.values()])
        for series_uid, members in by_series.items()
    ]
    return dataset(StudyInstanceUID=study_uid, ReferencedSeriesSequence=series)


def reference(instance: Instance) -> Dataset:
    """Return a reference to an instance (PS3.3 Table 10-11)."""
    return dataset(ReferencedSOPClassUID=instance.sop_class_uid, ReferencedSOPInstanceUID=instance.sop_instance_uid)


def source_image(source: SourceImage, *, same_place: bool) -> Dataset:
    """Return the film as the source of pixels; `same_place`: each pixel lies where it lies in the film."""
    film = reference(source)
    film["SpatialLocationsPreserved"] = "YES" if same_place else "NO"
    film["PurposeOfReferenceCodeSequence"] = [code_item(SOURCE_IMAGE)]
    return film


def built_object(kind: ObjectKind, instance: Dataset) -> BuiltObject:
    """Return the finished object with its bytes."""
    return BuiltObject(
        kind=kind.word,
        sop_class_uid=kind.sop_class_uid,
        sop_instance_uid=instance["SOPInstanceUID"],
        series_instance_uid=instance["SeriesInstanceUID"],
        file=part10_file(instance),
    )


def _series(kind: ObjectKind, version: ReportVersion, source: SourceImage) -> Dataset:
    # a series' attributes are those of all its instances: the model's version stands here, a report's is its number
    # A series belongs to one patient: where the study names several, each has its own.
    site, model = version.site, version.model
    patient = [key_of_patient(source)] if version.several_patients else []
    key = [site.installation, source.study_instance_uid, model.digest, *patient]
    description = kind.series_description or site.series_description
    return dataset(
        Modality=kind.modality,
        SeriesInstanceUID=derived_uid(kind.series_word, *key),
        SeriesNumber=site.series_number + kind.series_offset,
        SeriesDescription=long_string(f"{description} {model.version}"),
    )


def _equipment(version: ReportVersion, source: SourceImage) -> Dataset:
    """Return who made the object, and what contributed to it: the device that took the film, and the model.

    The model's Device UID (0018,1002) is derived from the digest of its bundle: other weights are another device (PS3.3
    Sections C.7.5.1 and C.12.1).
    """
    site, model = version.site, version.model
    contributed = dataset(
        PurposeOfReferenceCodeSequence=[code_item(PROCESSING_EQUIPMENT)],
        Manufacturer=long_string(model.manufacturer or site.manufacturer),
        ManufacturerModelName=long_string(model.name),
        SoftwareVersions=long_string(model.version),
        DeviceUID=derived_uid("model", model.digest),
        ContributionDescription="Probability of pneumonia, computed by a neural network",
    )
    return dataset(
        Manufacturer=site.manufacturer,
        ManufacturerModelName=site.model_name,
        DeviceSerialNumber=site.installation,
        SoftwareVersions=[long_string(site.software_version), long_string(model.bundle)],
        ContributingEquipmentSequence=[*acquisition_equipment(source), contributed],
    )


def _identity(kind: ObjectKind, version: ReportVersion, source: SourceImage, key: Sequence[str]) -> Dataset:
    local = local_time(version.at, source, version.site.time_zone)
    day, time = local.strftime("%Y%m%d"), local.strftime("%H%M%S")
    return dataset(
        SOPClassUID=kind.sop_class_uid,
        SOPInstanceUID=derived_uid(kind.word, version.site.installation, *key),
        InstanceNumber=version.number,
        InstanceCreationDate=day,
        InstanceCreationTime=time,
        ContentDate=day,
        ContentTime=time,
    )


def part10_file(instance: Dataset) -> bytes:
    """Return the bytes of a DICOM file of `instance`, in Explicit VR Little Endian (PS3.10 Section 7)."""
    meta = encoded(
        dataset(
            FileMetaInformationVersion=b"\0\1",
            MediaStorageSOPClassUID=instance["SOPClassUID"],
            MediaStorageSOPInstanceUID=instance["SOPInstanceUID"],
            TransferSyntaxUID=EXPLICIT_VR_LITTLE_ENDIAN,
            ImplementationClassUID=IMPLEMENTATION_CLASS_UID,
            ImplementationVersionName=IMPLEMENTATION_VERSION_NAME,
        )
    )
    length = encoded(dataset(FileMetaInformationGroupLength=sum(map(len, meta))))
    return b"".join((PREAMBLE, *length, *meta, *encoded(instance)))
