"""The page of a study: what it says, what it hands out, what it lets a person do, and who looked at it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray
from pneumonia_model.preprocessing import to_display
from pydicom import dcmread

from scp_node.domain import NotAnalysed, Reason
from scp_node.ledger import PersonRole
from tests.scp_node.analysis.films import picture, save
from tests.scp_node.ledger.projecting import followed
from tests.scp_node.ledger_node import Node, ledger_engine
from tests.scp_node.web.site import Page, page_before
from tests.scp_node.web.studies import SEEN, STUDY, Archive

ADMIN: Final = PersonRole.ADMIN
VIEWER: Final = PersonRole.VIEWER
EVIL: Final = "<script>alert(1)</script>"
OTHER: Final = "1.2.826.0.1.3680043.10.77.2"
NAMES: Final = ("pacs", "archive", *(f"ward{number}" for number in range(20)))
DESTINATIONS: Final = [{"name": name, "ae_title": name.upper(), "host": "127.0.0.1"} for name in NAMES]
_NUMBERS: Final = count(2)
WEB: Final = {
    "viewer_url": "https://viewer.example/?study={study_uid}&a={accession}&p={patient_id}",
    "time_zone": "UTC",
}


class Studies:
    """A page before some studies; each test that changes something has a study and a destination of its own."""

    def __init__(self, page: Page, archive: Archive) -> None:
        self.page = page
        self.archive = archive

    def text(self, study: str = STUDY) -> str:
        answer = self.page.get(f"/studies/{study}")
        assert answer.status_code == 200, answer.text
        return answer.text

    def image(self, number: int = 0, study: str = STUDY) -> int:
        found = self.page.site.ledger.study_pages.page(study)
        assert found
        return [image.id for patient in found.patients for image in patient.images][number]


class Fresh(Studies):
    """A study that no other test looks at."""

    def __init__(self, studies: Studies, number: int) -> None:
        super().__init__(studies.page, studies.archive)
        self.study = f"1.2.826.0.1.3680043.10.78.{number}"
        self.place = f"/studies/{self.study}"
        self.destination = DESTINATIONS[number]["name"]

    def receive(self, **attributes: Any) -> str:
        """Receive a film; return the address of the image."""
        self.archive.receive(self.archive.film(1, self.study, **attributes))
        return f"{self.place}/images/{self.image(study=self.study)}"

    def report(self) -> None:
        """Analyse and report the study."""
        self.archive.analyse()
        self.archive.report(self.destination, pictures=False)

    def own_text(self) -> str:
        return self.text(self.study)

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [each for each in self.page.events(kind) if each["study_uid"] == self.study]


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studies]:
    """A study in two versions, one of them refused by a destination, and a study that names two patients."""
    folder = tmp_path_factory.mktemp("site")
    with (
        ledger_engine(folder / "ledger.sqlite3") as engine,
        page_before(Node(engine), folder, web=WEB, destinations=DESTINATIONS) as page,
    ):
        archive = Archive(page.node, page.site.settings.node.data_dir)
        archive.receive(archive.film(1, ImagerPixelSpacing=["0.143", "0.143"]))
        archive.analyse()
        archive.report("pacs", "archive")
        archive.deliver("pacs")
        archive.refuse("archive", detail=f"no room for {EVIL}")
        archive.receive(archive.film(2, ViewPosition="LL"))
        archive.analyse(NotAnalysed(reason=Reason.VIEW, detail="ViewPosition LL"))
        archive.report("pacs")
        archive.receive(archive.film(1, OTHER), archive.film(2, OTHER, PatientID=EVIL, IssuerOfPatientID='Ward"7"'))
        archive.analyse(replace(SEEN, probability=0.121, regions=()))
        archive.report("pacs", pictures=False)
        followed(page.node)
        page.log_in(ADMIN)
        yield Studies(page, archive)


@pytest.fixture
def fresh(studies: Studies) -> Iterator[Fresh]:
    """A study of its own; what the test leaves waiting does not disturb the next one."""
    yield Fresh(studies, next(_NUMBERS))
    studies.archive.analyse()
    studies.archive.report("elsewhere", pictures=False)


class TestThePage:
    def test_without_a_login_nothing_of_a_study_is_told(self, page: Page) -> None:
        for path in ("", "/images/1/pixels", "/images/1/attention", "/images/1/original", "/objects/1.2"):
            answer = page.get(f"/studies/{STUDY}{path}")
            assert (answer.status_code, answer.headers["location"][:6]) == (303, "/login")

    @pytest.mark.parametrize("study", ["1.2.3.4", EVIL, "1.2'OR'1", "1" * 65, "%00"])
    def test_an_unknown_study_is_404_and_not_repeated(self, studies: Studies, study: str) -> None:
        answer = studies.page.get(f"/studies/{study}")
        assert answer.status_code == 404
        assert study not in answer.text

    def test_it_says_the_sentence_of_the_newest_report(self, studies: Studies) -> None:
        text = studies.text()
        assert "Pneumonia: PRESENT (probability 87.3 %, threshold 50 %)" in text
        assert "1 of 2 images NOT ANALYSED: view is outside the intended use (frontal views only)." in text
        assert "From report version 2." in text

    def test_each_image_says_its_own_result(self, studies: Studies) -> None:
        text = studies.text()
        assert text.count("data-film") == 2
        assert '<span class="chip positive">present</span>' in text
        assert '<span class="chip muted">not analysed</span>' in text
        assert text.count("Not for diagnosis") == 2

    def test_the_model_is_named_with_threshold_digest_and_intended_use(self, studies: Studies) -> None:
        text = studies.text()
        assert "test-model-1.0" in text
        assert "sha256:" + "a" * 64 in text
        assert "Frontal chest films (CR, DX) of patients of 18 years or older" in text

    def test_versions_stand_beside_their_predecessors_with_changes_in_words(self, studies: Studies) -> None:
        text = studies.text()
        assert "Report, version 2" in text
        assert "lines differ from version 1" in text
        assert '<th scope="row">added</th>' in text
        assert '<th scope="row">changed</th>' in text
        assert "Image View: left lateral" in text

    def test_the_way_of_an_image_is_told_in_milliseconds(self, studies: Studies) -> None:
        text = studies.text()
        for step in ("received", "registered", "analysed", "reported, version 2"):
            assert f'<th scope="row">{step}</th>' in text
        assert "12 ms" in text

    def test_a_destination_s_own_words_are_text_and_never_markup(self, studies: Studies) -> None:
        text = studies.text()
        assert EVIL not in text
        assert "no room for &lt;script&gt;" in text
        assert "0x0122" in text

    def test_patients_of_one_study_have_a_block_each(self, studies: Studies) -> None:
        text = studies.text(OTHER)
        assert "This study names 2 patients" in text
        assert text.count('<section class="patient"') == 2
        assert EVIL not in text
        assert "of Ward&#34;7&#34;" in text
        assert text.count("STUDY NAMES SEVERAL PATIENTS") >= 2

    def test_the_patient_s_name_sex_age_and_views_are_those_of_the_list(self, studies: Studies) -> None:
        [row] = studies.page.site.ledger.worklist.study(STUDY)
        text = studies.text()
        assert f"<h2>{row.patient_name}</h2>" in text
        assert "64 y" in text
        assert "ID P-0815" in text

    def test_the_site_s_viewer_is_linked_with_encoded_values(self, studies: Studies) -> None:
        assert f"https://viewer.example/?study={STUDY}&amp;a=A-4711&amp;p=P-0815" in studies.text()
        assert "p=%3Cscript%3Ealert%281%29%3C%2Fscript%3E" in studies.text(OTHER)

    def test_events_are_shown_with_their_hashes(self, studies: Studies) -> None:
        text = studies.text()
        page = studies.page.site.ledger.study_pages.page(STUDY)
        assert page
        assert all(event.hash in text for event in page.events[-3:])
        assert "delivery-dead" in text

    def test_a_study_that_waits_says_so(self, fresh: Fresh) -> None:
        fresh.receive()
        text = fresh.own_text()
        assert "There is no report yet." in text
        assert "It waits for its analysis." in text

    def test_a_stored_report_that_cannot_be_read_is_said_so(self, fresh: Fresh) -> None:
        fresh.receive()
        fresh.archive.analyse()
        fresh.page.node.clock.advance(seconds=11)
        while fresh.page.node.report(fresh.destination):  # with a stand-in for the bytes
            pass
        text = fresh.own_text()
        assert "The stored file cannot be read as a report of this node." in text
        assert "From the results of the images." in text


class TestWhoLooked:
    def test_looking_at_a_study_is_noted_once_in_five_minutes(self, fresh: Fresh) -> None:
        fresh.receive()
        for _ in range(3):
            fresh.own_text()
        viewed = {"kind": "web-viewed", "study_uid": fresh.study, "by": "admin", "address": "127.0.0.1"}
        assert fresh.events("web-viewed") == [viewed]
        fresh.page.node.clock.advance(seconds=301)
        fresh.own_text()
        assert fresh.events("web-viewed") == [viewed, viewed]

    def test_a_download_is_noted_with_what_was_taken(self, fresh: Fresh) -> None:
        image = fresh.receive()
        fresh.report()
        uid = fresh.archive.claim(fresh.destination).sop_instance_uid
        assert fresh.page.get(f"{fresh.place}/objects/{uid}").status_code == 200
        assert fresh.page.get(f"{image}/original").status_code == 200
        taken = fresh.events("web-downloaded")
        assert [(event["object"], event["by"]) for event in taken] == [("report", "admin"), ("original", "admin")]


class TestFilms:
    def values(self, studies: Studies, size: str = "fit", number: int = 0) -> tuple[dict[str, object], bytes]:
        answer = studies.page.get(f"/studies/{STUDY}/images/{studies.image(number)}/pixels?size={size}")
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["cache-control"] == "no-store"
        return json.loads(answer.headers["x-film"]), answer.content

    def test_the_viewer_gets_the_values_and_the_greys_that_the_model_sees(self, studies: Studies) -> None:
        view, octets = self.values(studies)
        shape = (view["values_rows"], view["values_columns"])
        assert shape == (512, 512)
        values: NDArray[np.uint16] = np.frombuffer(octets, "<u2", count=512 * 512).reshape(512, 512)
        greys = np.frombuffer(octets, np.uint8, offset=2 * 512 * 512)
        assert len(greys) == view["levels"]
        assert np.array_equal(greys[values], to_display(studies.archive.film()))
        assert view["spacing"] == [0.143, 0.143]
        assert view["spacing_from"] == "ImagerPixelSpacing"

    def test_a_film_outside_the_intended_use_is_shown_too(self, studies: Studies) -> None:
        assert self.values(studies, "full", 1)[0]["rows"] == 512

    def test_another_size_is_422(self, studies: Studies) -> None:
        answer = studies.page.get(f"/studies/{STUDY}/images/{studies.image()}/pixels?size=huge")
        assert (answer.status_code, "size" in answer.text) == (422, True)

    @pytest.mark.parametrize("number", ["0", "999999", "99999999999999999999999"])
    def test_an_image_of_no_or_another_study_is_404(self, studies: Studies, number: str) -> None:
        for what in ("pixels", "attention", "original"):
            assert studies.page.get(f"/studies/{STUDY}/images/{number}/{what}").status_code == 404
            assert studies.page.get(f"/studies/{OTHER}/images/{studies.image()}/{what}").status_code == 404

    def test_the_activation_map_is_handed_out_as_it_is_kept(self, studies: Studies) -> None:
        answer = studies.page.get(f"/studies/{STUDY}/images/{studies.image()}/attention")
        assert answer.content == SEEN.attention
        assert studies.page.get(f"/studies/{STUDY}/images/{studies.image(1)}/attention").status_code == 404

    def test_a_film_that_cannot_be_read_says_why_in_plain_text(self, fresh: Fresh) -> None:
        answer = fresh.page.get(f"{fresh.receive(WindowCenter='1', WindowWidth='-3')}/pixels")
        assert answer.status_code == 422
        assert answer.headers["content-type"].startswith("text/plain")
        assert answer.text == (
            "The film cannot be shown: display attributes (rescale, window, lookup table, padding) are invalid "
            "(WindowWidth)."
        )

    def test_a_file_that_somebody_took_away_is_said_so(self, fresh: Fresh) -> None:
        image = fresh.receive()
        stored = fresh.page.site.ledger.study_pages.image(fresh.study, fresh.image(study=fresh.study))
        assert stored
        fresh.archive.spool.remove(stored.spool_path)
        for what in ("pixels", "original"):
            answer = fresh.page.get(f"{image}/{what}")
            assert answer.status_code == 410
            assert "The file of this image is not on the disk of this node." in answer.text

    def test_a_removed_film_says_when_and_by_which_setting(self, fresh: Fresh) -> None:
        image = fresh.receive()
        fresh.report()
        fresh.archive.deliver(fresh.destination)
        node = fresh.page.node
        node.clock.advance(days=3)
        gone = node.ledger.retention.mark(timedelta(0))
        fresh.archive.spool.remove_for_good([each.spool_path for each in gone])
        node.ledger.retention.close(gone)
        fresh.page.log_in(ADMIN)  # the login was over
        told = "The original was removed on 5 January 2026 by retention.days. Results and reports stay."
        for what in ("pixels", "original"):
            answer = fresh.page.get(f"{image}/{what}")
            assert (answer.status_code, told in answer.text) == (410, True)
        assert "Download the original" not in fresh.own_text()


class TestDownloads:
    def test_a_report_is_handed_out_as_it_was_sent(self, studies: Studies) -> None:
        page = studies.page.site.ledger.study_pages.page(STUDY)
        assert page
        for report in page.patients[0].reports:
            for each in (report.report, *report.companions):
                answer = studies.page.get(f"/studies/{STUDY}/objects/{each.sop_instance_uid}")
                assert dcmread(BytesIO(answer.content)).SOPInstanceUID == each.sop_instance_uid
                name = f"{each.kind}-{each.sop_instance_uid}.dcm"
                assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'
                assert answer.headers["content-type"] == "application/dicom"

    def test_an_object_of_another_study_is_404(self, studies: Studies) -> None:
        page = studies.page.site.ledger.study_pages.page(STUDY)
        assert page
        uid = page.patients[0].reports[0].report.sop_instance_uid
        assert studies.page.get(f"/studies/{OTHER}/objects/{uid}").status_code == 404

    def test_the_original_is_handed_out_as_it_was_received(self, studies: Studies, tmp_path: Path) -> None:
        answer = studies.page.get(f"/studies/{STUDY}/images/{studies.image()}/original")
        received = dcmread(BytesIO(answer.content))
        sent = dcmread(save(studies.archive.film(), tmp_path / "film.dcm"))
        assert received.PixelData == sent.PixelData == picture().astype(np.uint8).tobytes()
        assert answer.headers["content-disposition"] == f'attachment; filename="original-{STUDY}.1.1.dcm"'


class TestSendAgain:
    def refused(self, fresh: Fresh) -> str:
        """Have a destination refuse a report; return the address that sends it again."""
        fresh.receive()
        fresh.report()
        fresh.archive.refuse(fresh.destination)
        return self.address(fresh)

    def address(self, fresh: Fresh) -> str:
        """Return the address that sends the newest report again."""
        page = fresh.page.site.ledger.study_pages.page(fresh.study)
        assert page
        [delivery] = page.patients[0].reports[0].deliveries
        return f"{fresh.place}/deliveries/{delivery.id}/again"

    def test_a_refused_report_is_sent_again_and_the_page_says_what_happens(self, fresh: Fresh) -> None:
        place = self.refused(fresh)
        assert place in fresh.own_text()
        answer = fresh.page.post(place)
        assert answer.status_code == 200
        assert f"It waits to be sent to {fresh.destination} again." in answer.text
        assert f'action="{place}"' not in answer.text
        assert [event["by"] for event in fresh.events("web-resent")] == ["admin"]
        answer = fresh.page.post(place)
        assert answer.status_code == 409
        assert f"Not sent again: it waits to be sent to {fresh.destination} already." in answer.text
        assert fresh.archive.claim(fresh.destination)

    def test_a_report_that_is_sent_again_has_arrived_twice(self, fresh: Fresh) -> None:
        fresh.receive()
        fresh.report()
        fresh.archive.deliver(fresh.destination)
        once, twice = f">delivered to {fresh.destination}<", f">delivered to {fresh.destination} again<"
        assert fresh.page.post(self.address(fresh)).status_code == 200
        waiting = fresh.own_text()
        assert (waiting.count(once), waiting.count(twice)) == (1, 0)
        fresh.archive.deliver(fresh.destination)
        arrived = fresh.own_text()
        assert (arrived.count(once), arrived.count(twice)) == (1, 1)

    def test_only_an_admin_has_something_sent_again(self, fresh: Fresh) -> None:
        place = self.refused(fresh)
        fresh.page.log_in(VIEWER)
        assert "Send again" not in fresh.own_text()
        assert fresh.page.post(place).status_code == 403
        fresh.page.log_in(ADMIN)
        assert fresh.events("web-resent") == []

    def test_a_form_from_elsewhere_sends_nothing(self, fresh: Fresh) -> None:
        place = self.refused(fresh)
        assert fresh.page.client.post(place, data={"csrf": "x"}).status_code == 403
        assert fresh.events("web-resent") == []
