"""The Event Information of a storage commitment report, sound and damaged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydicom import DataElement, Dataset
from pydicom.config import IGNORE

from scp_node.dicom.commitment_messages import encoded

EXPLICIT: Final = "1.2.840.10008.1.2.1"
SR: Final = "1.2.840.10008.5.1.4.1.1.88.34"
MISSING: Final = 0x0112  # Failure Reason: no such object instance


def information(
    committed: tuple[str, ...] = ("1.2.3",), failed: Mapping[str, Any] | None = None, *, transaction_uid: str = "2.25.7"
) -> Dataset:
    """Return a report about SOP Instance UIDs; those of `failed` with their Failure Reason, None leaves it out."""
    report = Dataset()
    report.add(_uid("TransactionUID", transaction_uid))
    if failed is not None:
        report.FailedSOPSequence = [_item(uid, reason) for uid, reason in failed.items()]
    report.ReferencedSOPSequence = [_item(uid) for uid in committed]
    return report


def event(*arguments: Any, **options: Any) -> bytes:
    """Return `information`, encoded in Explicit VR Little Endian."""
    return encoded(information(*arguments, **options), EXPLICIT)


def _item(uid: str, reason: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = SR
    item.add(_uid("ReferencedSOPInstanceUID", uid))
    if reason is not None:
        item.FailureReason = reason
    return item


def _uid(keyword: str, value: str) -> DataElement:
    """Return a UID that need not be one."""
    return DataElement(keyword, "UI", value, validation_mode=IGNORE)
