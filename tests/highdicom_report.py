"""A report and a picture of one film in the plain way of highdicom: what our own writers are measured beside."""

from __future__ import annotations

from io import BytesIO
from typing import Final

import numpy as np
from highdicom.sc import SCImage
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    Comprehensive3DSR,
    CoordinatesForMeasurement,
    DeviceObserverIdentifyingAttributes,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    TrackingIdentifier,
)
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

PNEUMONIA: Final = CodedConcept("233604007", "SCT", "Pneumonia")


def plain_report(film: Dataset, probability: float) -> bytes:
    """Return the Part 10 file of a report with this probability, as its documentation shows to make one."""
    device = DeviceObserverIdentifyingAttributes(uid=generate_uid(), name="A", manufacturer_name="M", model_name="N")
    context = ObservationContext(observer_device_context=ObserverContext(codes.DCM.Device, device))
    shown = SourceImageForRegion(film.SOPClassUID, film.SOPInstanceUID)
    corners = [(0, 0), (film.Columns, 0), (film.Columns, film.Rows), (0, film.Rows), (0, 0)]
    where = CoordinatesForMeasurement(
        "POLYLINE", np.array(corners, float), shown, purpose=codes.DCM.SourceOfMeasurement
    )
    measured = Measurement(
        name=CodedConcept("122157", "DCM", "Probability"),
        value=round(100 * probability, 1),
        unit=codes.UCUM.Percent,
        referenced_coordinates=[where],
    )
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=generate_uid(), identifier="Pneumonia (image level)"),
        finding_type=PNEUMONIA,
        finding_sites=None,
        algorithm_id=AlgorithmIdentification(name="N", version="1", parameters=["operating_threshold=0.5"]),
        measurements=[measured],
        qualitative_evaluations=[QualitativeEvaluation(PNEUMONIA, codes.SCT.Present)],
        source_images=[SourceImageForMeasurementGroup(film.SOPClassUID, film.SOPInstanceUID)],
    )
    content = MeasurementReport(
        observation_context=context, procedure_reported=codes.SCT.ImagingProcedure, imaging_measurements=[group]
    )
    report = Comprehensive3DSR(
        evidence=[film],
        content=content,
        series_number=1,
        series_instance_uid=generate_uid(),
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="M",
        is_complete=True,
    )
    file = BytesIO()
    report.save_as(file)
    return file.getvalue()


def plain_picture(film: Dataset, pixels: NDArray[np.uint8]) -> bytes:
    """Return the Part 10 file of a Secondary Capture of these pixels, shape (rows, columns, 3)."""
    picture = SCImage.from_ref_dataset(
        ref_dataset=film,
        pixel_array=pixels,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),
        series_instance_uid=generate_uid(),
        sop_instance_uid=generate_uid(),
        series_number=1,
        instance_number=1,
        manufacturer="M",
    )
    file = BytesIO()
    picture.save_as(file)
    return file.getvalue()
