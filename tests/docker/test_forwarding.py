"""docker/orthanc.json and its script, in a real Orthanc: what is forwarded to the node, and what is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import DigitalXRayImageStorageForPresentation, generate_uid

from tests.conftest import Send
from tests.servers import Orthanc, StoreScp
from tests.waiting import wait_until


@pytest.fixture
def node(start_storescp: Callable[..., StoreScp]) -> StoreScp:
    """A Storage SCP in the place of the node."""
    return start_storescp(ae_title="PNEUMONIA")


@pytest.fixture
def orthanc(start_orthanc: Callable[..., Orthanc], node: StoreScp, repository: Path) -> Orthanc:
    """Orthanc with the settings of docker/, its ports and folders moved to this machine's loopback."""
    folder = repository / "docker"
    settings = json.loads((folder / "orthanc.json").read_text())
    moved = {
        "StorageDirectory",
        "IndexDirectory",
        "DicomPort",
        "HttpPort",
        "DicomModalities",
        "LuaScripts",
        "Plugins",
        "RemoteAccessAllowed",
    }
    [script] = settings["LuaScripts"]
    return start_orthanc(
        modalities={"node": (settings["DicomModalities"]["node"][0], node.port)},
        settings={
            **{key: value for key, value in settings.items() if key not in moved},
            "LuaScripts": [str(folder / Path(script).name)],
        },
    )


def instance(modality: str, **attributes: str) -> bytes:
    """Return a small DICOM file of that Modality (0008,0060)."""
    dataset = dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = generate_uid()
    dataset.Modality = modality
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    file = BytesIO()
    dataset.save_as(file)
    return file.getvalue()


def report() -> bytes:
    """Return a Structured Report as the node makes them: no more than Orthanc looks at."""
    dataset = dcmread(str(get_testdata_file("reportsi.dcm", download=False)))
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    file = BytesIO()
    dataset.save_as(file)
    return file.getvalue()


def uid(file: bytes) -> str:
    return str(read(file).SOPInstanceUID)


def read(file: bytes) -> Dataset:
    return dcmread(BytesIO(file))


def forwarded(node: StoreScp) -> list[str]:
    return [str(dataset.SOPInstanceUID) for dataset in node.datasets()]


def fence(orthanc: Orthanc, node: StoreScp) -> str:
    """Store one more radiograph and wait for it: scripts run in order, so all before it has been decided by then."""
    last = instance("DX")
    orthanc.store(last)
    wait_until(lambda: uid(last) in forwarded(node), timeout=20, what="the last radiograph is forwarded")
    return uid(last)


@pytest.mark.parametrize("modality", ["CR", "DX"])
def test_a_new_radiograph_is_forwarded_exactly_once(orthanc: Orthanc, node: StoreScp, modality: str) -> None:
    image = instance(modality)
    orthanc.store(image)
    orthanc.store(image)  # the modality sends it again: Orthanc has it already
    last = fence(orthanc, node)
    assert forwarded(node) == [uid(image), last]


def test_it_is_forwarded_when_it_comes_by_c_store(
    orthanc: Orthanc, node: StoreScp, storescu: Send, tmp_path: Path
) -> None:
    image = tmp_path / "image.dcm"
    image.write_bytes(instance("CR"))
    assert storescu(image, port=orthanc.port, called="ORTHANC", calling="MODALITY1").returncode == 0
    assert wait_until(lambda: forwarded(node), what="the radiograph is forwarded") == [uid(image.read_bytes())]


@pytest.mark.parametrize("file", [report(), instance("CT"), instance("OT")], ids=["SR", "CT", "OT"])
def test_a_report_or_another_modality_is_not_forwarded(orthanc: Orthanc, node: StoreScp, file: bytes) -> None:
    orthanc.store(file)
    last = fence(orthanc, node)
    assert forwarded(node) == [last]
    assert len(orthanc.instances()) == 2


def test_nothing_that_the_node_sends_goes_back_to_it(
    orthanc: Orthanc, node: StoreScp, storescu: Send, tmp_path: Path
) -> None:
    """An overlay keeps the Modality of its image, and must not be analysed in its turn."""
    overlay = tmp_path / "overlay.dcm"
    overlay.write_bytes(instance("CR"))
    assert storescu(overlay, port=orthanc.port, called="ORTHANC", calling="PNEUMONIA").returncode == 0
    last = fence(orthanc, node)
    assert forwarded(node) == [last]
