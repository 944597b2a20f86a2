"""Puts datasets into a spool as the listener does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from pydicom import Dataset, dcmwrite
from pydicom.uid import ExplicitVRLittleEndian

from scp_node.dicom.inspection import Origin, inspect
from scp_node.domain import Priority, ReceivedInstance
from scp_node.spool import Spool


def encoded(image: Dataset) -> memoryview:
    """Return the dataset as Explicit VR Little Endian bytes, without file meta."""
    buffer = BytesIO()
    dcmwrite(buffer, image, implicit_vr=False, little_endian=True, enforce_file_format=False)
    data = buffer.getvalue()
    return memoryview(data)


def put(spool: Spool, dataset: memoryview, origin: Origin) -> ReceivedInstance:
    """Store a dataset in `spool` as it would come from the network, and return it as received."""
    inspected = inspect(dataset, origin.transfer_syntax)
    incoming = spool.begin(inspected.sop_class_uid, inspected.sop_instance_uid, origin)
    try:
        half = len(dataset) // 2
        incoming.write(dataset[:half])
        incoming.write(dataset[half:])
        return spool.keep(incoming, inspected, origin)
    finally:
        incoming.discard()


def spooled(spool: Spool, image: Dataset, *, calling_ae: str = "CR1") -> ReceivedInstance:
    """Write `image` to the spool and return it as received."""
    bare = Dataset()
    bare.update({element.tag: element for element in image})
    data = encoded(bare)
    origin = Origin(
        calling_ae=calling_ae,
        called_ae="PNEUMONIA",
        peer="127.0.0.1",
        transfer_syntax=ExplicitVRLittleEndian,
        priority=Priority.ROUTINE,
    )
    return put(spool, data, origin)


class FilesByName:
    """Stored files for tests that read none: each path is taken as it is."""

    @contextmanager
    def open(self, paths: Sequence[str]) -> Iterator[list[Path]]:
        yield [Path(path) for path in paths]
