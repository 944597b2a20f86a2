"""Nothing that a film says of its patient leaves the node by its log, metrics, names or pages for strangers.

Each text attribute of each film holds a value that is nowhere else. The films go every way that there is: analysed,
refused, cut off, damaged, not analysed, sent again, in conflict, and to a destination that is away.
"""

from __future__ import annotations

import importlib
import pkgutil
import random
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute
from pydicom import DataElement, Dataset, config
from pydicom.datadict import dictionary_VR
from pydicom.uid import JPEGBaseline8Bit

from scp_node.demo.pacs import StoragePacs
from scp_node.web import pages as web_pages
from tests.node import Node, destination, radiograph
from tests.scp_node.listener.datasets import encapsulated, encoded, without_pixels
from tests.scp_node.listener.peer import CR, EXPLICIT, Peer
from tests.servers import free_port
from tests.waiting import wait_until

CARRIERS: Final = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientBirthTime", "PatientBirthName", "PatientMotherBirthName"),
    *("OtherPatientIDs", "OtherPatientNames", "IssuerOfPatientID", "PatientAddress", "PatientTelephoneNumbers"),
    *("PatientComments", "AdditionalPatientHistory", "Occupation", "EthnicGroup", "MilitaryRank", "BranchOfService"),
    *("CountryOfResidence", "RegionOfResidence", "PatientReligiousPreference", "MedicalRecordLocator", "MedicalAlerts"),
    *("Allergies", "SpecialNeeds", "PatientState", "CurrentPatientLocation", "AdmissionID", "PatientWeight"),
    *("AccessionNumber", "StudyID", "StudyDescription", "StudyComments", "SeriesDescription", "ProtocolName"),
    *("ReferringPhysicianName", "ReferringPhysicianAddress", "ReferringPhysicianTelephoneNumbers", "OperatorsName"),
    *("PerformingPhysicianName", "PhysiciansOfRecord", "NameOfPhysiciansReadingStudy", "RequestingPhysician"),
    *("InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName", "StationName", "DeviceSerialNumber"),
    *("RequestedProcedureDescription", "RequestedProcedureID", "PerformedProcedureStepDescription", "ImageComments"),
    *("PerformedProcedureStepID", "PerformedProcedureStepStartTime", "FrameOfReferenceUID", "ExposureTime"),
    *("ScheduledProcedureStepStartDateTime", "StationAETitle", "RetrieveURL", "TextValue", "LongCodeValue"),
    *("RouteOfAdmissions", "SmokingStatus"),
)
WITH_TEXT: Final = {"AE", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}
STATES: Final = {"analysed", "conflict", "not-analysed", "failed", "rejected"}
MENDED: Final = {"PatientBirthDate": "DA", "PatientSex": "CS", "AccessionNumber": "SH", "StudyTime": "TM"}


def canary(vr: str, source: random.Random) -> str:
    """Return a valid value of this representation that is nowhere else."""
    word = "".join(source.choices("BCDFGHJKLMNPQRSTVWXZ", k=13))
    number = source.randrange(10**9, 2 * 10**9)
    day, fraction = source.randrange(10, 28), f"{number % 10**6:06}"
    others = {
        "DA": f"19{source.randrange(20, 80)}12{day}",
        "TM": f"{day % 24:02}3157.{fraction}",
        "DT": f"202601{day}103157.{fraction}",
        "DS": f"61.{number}",
        "IS": str(number),
        "UI": f"1.2.276.{number}.{number}",
        "UR": f"https://pacs.example/{word}",
        "PN": f"{word}^{word[::-1]}",
    }
    return others.get(vr, word)


def forms(value: str) -> set[str]:
    """Return how a value might be written."""
    date = re.fullmatch(r"(\d{4})(\d\d)(\d\d)", value)
    parts = {value, *value.split("^")}
    return {part.casefold() for part in parts} | ({"-".join(date.groups())} if date else set())


class Flock:
    """Makes films, and remembers all canaries; the seed is in the message of a failure."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._source = random.Random(seed)
        self._made = 0
        self.values: dict[str, str] = {}  # value -> attribute of which film

    def film(self, name: str, **changes: str) -> Dataset:
        self._made += 1
        image = radiograph(self._made)
        for keyword, value in changes.items():
            setattr(image, keyword, value)
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        for keyword in CARRIERS:
            self._let_go(name, image, keyword, canary(dictionary_VR(keyword), self._source))
        step = Dataset()
        self._let_go(name, step, "ScheduledProcedureStepDescription", canary("LO", self._source))
        image.RequestAttributesSequence = [step]
        image.private_block(0x0011, "CANARY", create=True).add_new(1, "LT", self._known(name, "private"))
        return image

    def mended(self) -> Dataset:
        """Return a film with values that the standard does not allow."""
        image = self.film("mended")
        for keyword, vr in MENDED.items():
            value = f"~{self._known('mended', keyword)}\\{self._known('mended', keyword)}~"
            image[keyword] = DataElement(keyword, vr, value.split("\\"), validation_mode=config.IGNORE)
        return image

    def found_in(self, text: str) -> dict[str, str]:
        """Return which canaries are in a text."""
        folded = text.casefold()
        return {value: where for value, where in self.values.items() if any(form in folded for form in forms(value))}

    def _let_go(self, name: str, image: Dataset, keyword: str, value: str) -> None:
        self.values[value] = f"{keyword} of {name}"
        setattr(image, keyword, value)

    def _known(self, name: str, keyword: str) -> str:
        value = canary("LO", self._source)
        self.values[value] = f"{keyword} of {name}"
        return value


class Watch:
    """Notes every name of a file below a folder, and every title of a process and name of a thread of this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: set[str] = set()
        self.titles: set[str] = set()

    def look(self) -> None:
        with suppress(OSError):  # a file is gone again
            self.names.update(str(path.relative_to(self.folder)) for path in self.folder.rglob("*"))
        for pattern in ("[0-9]*/cmdline", "[0-9]*/task/*/comm"):
            for file in Path("/proc").glob(pattern):
                with suppress(OSError):
                    self.titles.add(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))


@contextmanager
def watched(folder: Path) -> Iterator[Watch]:
    watch, done = Watch(folder), threading.Event()

    def look() -> None:
        while not done.wait(0.02):
            watch.look()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield watch
    finally:
        done.set()
        thread.join()


def states(node: Node) -> set[str]:
    """Return in which states films are."""
    return {row["state"] for row in node.audit()}


def pages(node: Node) -> dict[str, str]:
    """Return what a stranger gets of each page that there is."""
    study = str(node.audit()[0]["study_uid"])
    paths = {f"/studies?study={study}"}
    for found in pkgutil.iter_modules(web_pages.__path__, f"{web_pages.__name__}."):
        router = getattr(importlib.import_module(found.name), "router", APIRouter())
        paths |= {
            route.path for route in router.routes if isinstance(route, APIRoute) and "GET" in (route.methods or ())
        }
    filled = {re.sub(r"\{[^}]+\}", study, path) for path in paths}
    return {path: answer(f"http://127.0.0.1:{node.settings.web.port}{path}") for path in sorted(filled)}


def is_served(node: Node) -> bool:
    try:
        return bool(answer(f"http://127.0.0.1:{node.settings.web.port}/readyz"))
    except urllib.error.URLError:  # the role has not opened its port yet
        return False


def answer(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310 - our own node
            return f"{response.headers}{response.read().decode(errors='replace')}"
    except urllib.error.HTTPError as refused:
        with refused:
            return f"{refused.headers}{refused.read().decode(errors='replace')}"


@pytest.fixture
def flock() -> Flock:
    return Flock(random.SystemRandom().randrange(2**32))


def send_badly(node: Node, flock: Flock) -> None:
    """Send films that are refused, damaged, or cut off."""
    address = ("127.0.0.1", node.settings.listen.port)
    cut, other, damaged, broken = (flock.film(name) for name in ("cut", "other UID", "damaged", "interrupted"))
    with Peer(address) as peer:
        peer.associate([(CR, [EXPLICIT]), (CR, [JPEGBaseline8Bit])])
        uid = str(cut.SOPInstanceUID)
        assert peer.store(without_pixels(encoded(cut)), sop_class=CR, sop_instance=uid).status == 0xC000
        assert peer.store(encoded(cut)[:-9], sop_class=CR, sop_instance=uid).status == 0xC000
        assert peer.store(encoded(other), sop_class=CR, sop_instance="1.2.3.4").status == 0xA900
        assert peer.store(encoded(other), sop_class=CR, sop_instance="1.2.3\nERROR").status == 0x0117
        film = without_pixels(encoded(damaged)) + encapsulated(b"\xff\xd8" + bytes(98) + b"\xff\xd9")
        assert peer.store(film, sop_class=CR, sop_instance=str(damaged.SOPInstanceUID), context=3).status == 0x0000
    with Peer(address) as peer:
        peer.associate([(CR, [EXPLICIT])])
        peer.send_store_command({0x0002: CR, 0x1000: str(broken.SOPInstanceUID)})
        peer.send_pdv(1, encoded(broken)[:4_000], is_last=False)
    with Peer(address) as peer:
        peer.associate([(CR, [EXPLICIT])])
        peer.send_store_command({0x0002: CR, 0x1000: str(broken.SOPInstanceUID)})
        peer.send_raw(encoded(broken)[:4_000])  # no PDU
        peer.is_closed()


def test_no_value_of_a_film_leaves_the_node_but_to_those_who_may_see_it(
    start_node: Callable[..., Node], pacs: StoragePacs, flock: Flock
) -> None:
    assert len(CARRIERS) >= 50
    assert {dictionary_VR(keyword) for keyword in CARRIERS} == WITH_TEXT
    node = start_node(
        destinations=[destination(pacs.port), destination(free_port(), name="away", ae_title="AWAY")],
        web={"enabled": True, "port": free_port()},
        log={"level": "DEBUG", "format": "json"},
    )
    with watched(node.settings.node.data_dir) as watch:
        good, mended = flock.film("good"), flock.mended()
        again = flock.film("conflict", SOPInstanceUID=str(good.SOPInstanceUID))
        lateral = flock.film("lateral", ViewPosition="LL")
        assert node.send(good, mended, good, again, lateral) == [0x0000] * 5
        send_badly(node, flock)
        wait_until(lambda: states(node) == STATES, 180, what="films went all ways")
        wait_until(lambda: "destination paused" in node.log, 90)
        wait_until(lambda: "header mended" in node.log, 90)
        wait_until(lambda: is_served(node), 90, what="web page answers")
        shown = pages(node)
    told = f"seed {flock.seed}"
    assert flock.found_in(node.log) == {}, told
    assert flock.found_in("\n".join(watch.names)) == {}, told
    assert flock.found_in("\n".join(watch.titles)) == {}, told
    assert {path: found for path, text in shown.items() if (found := flock.found_in(text))} == {}, told
    assert len(shown) > 30
    assert "scp_node_results_total" in shown["/metrics"]
    assert any("/tmp/" in name or name.startswith("spool/") for name in watch.names)  # noqa: S108 - in the spool
    assert any("serve --supervised" in title for title in watch.titles)


def test_a_canary_that_gets_out_is_found(flock: Flock) -> None:
    film = flock.film("good")
    for keyword in CARRIERS:
        value = str(film[keyword].value)
        assert list(flock.found_in(f"a line with value='{value.lower()}' in it").values()) == [f"{keyword} of good"]
    born = str(film.PatientBirthDate)
    assert flock.found_in(f"{born[:4]}-{born[4:6]}-{born[6:]}")
