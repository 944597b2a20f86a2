"""A report speaks of one patient, and of every image of the patient that nobody read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pytest
from sqlalchemy import text

from scp_node.domain import Actor, BuiltObject, BuiltReport, Finding, NotAnalysed, Reason
from scp_node.ledger import Analysed, AnalysisTask, LedgerError, StudySnapshot
from scp_node.ledger.database.schema import Use
from tests.scp_node.ledger.test_studies import interrupt
from tests.scp_node.ledger_node import MODEL, Node, built_report

STUDY: Final = "1.2.3"
PICTURE: Final = BuiltObject(
    kind="overlay",
    sop_class_uid="1.2.840.10008.5.1.4.1.1.7",
    sop_instance_uid="2.25.9",
    series_instance_uid="2.25.8",
    file=b"picture",
)
OTHER: Final = {"patient_id": "P2", "patient_key": "key of P2"}


def reports(node: Node, *destinations: str) -> list[StudySnapshot]:
    """Report everything that is quiet."""
    node.clock.advance(seconds=node.policy.quiet.total_seconds())
    made = []
    while snapshot := node.report(*(destinations or ("pacs",))):
        made.append(snapshot)
    return made


def names(snapshot: StudySnapshot) -> list[str]:
    return [image.sop_instance_uid for image in snapshot.images]


def kinds(node: Node) -> list[str]:
    return [event.kind for event in node.ledger.audit.events(STUDY)]


def test_two_patients_under_one_study_uid_get_a_report_each(node: Node) -> None:
    node.receive("1")
    node.receive("2", **OTHER)
    node.analyse()
    first, second = reports(node)
    assert [names(first), names(second)] == [["1.2.3.1"], ["1.2.3.2"]]
    assert [first.patients, second.patients] == [2, 2]
    assert node.rows("SELECT study_uid, version, supersedes FROM report ORDER BY id") == [
        (STUDY, 1, None),
        (STUDY, 2, None),
    ]


def test_another_patient_that_comes_later_makes_the_first_report_anew(node: Node) -> None:
    node.receive("1")
    node.analyse()
    [alone] = reports(node)
    assert alone.patients == 1
    assert node.ledger.intake.register([node.instance("2", **OTHER)]).several_patients == (STUDY,)
    node.analyse()
    again, other = sorted(reports(node), key=names)
    assert (names(again), again.patients) == (["1.2.3.1"], 2)
    assert again.previous is not None
    assert again.previous.version == 1
    assert (names(other), other.previous) == (["1.2.3.2"], None)
    assert kinds(node).count("several-patients") == 1


def test_the_third_image_of_a_known_patient_is_no_news(node: Node) -> None:
    node.receive("1")
    node.receive("2", **OTHER)
    assert node.ledger.intake.register([node.instance("3", **OTHER)]).several_patients == ()
    node.analyse()
    assert sorted(map(names, reports(node))) == [["1.2.3.1"], ["1.2.3.2", "1.2.3.3"]]


def test_our_own_picture_that_comes_back_under_another_id_names_no_patient(node: Node) -> None:
    node.receive("1")
    node.analyse()
    node.clock.advance(seconds=node.policy.quiet.total_seconds())
    node.report("pacs", companions=lambda _snapshot: [PICTURE])
    routed = node.instance("picture", sop_instance_uid=PICTURE.sop_instance_uid, **OTHER)
    assert node.ledger.intake.register([routed]).several_patients == ()
    node.analyse(NotAnalysed(reason=Reason.MODALITY))
    assert reports(node) == []


def test_a_picture_of_ours_that_comes_back_as_another_object_names_no_patient(node: Node) -> None:
    node.receive("1")
    node.analyse()
    node.receive("picture", **OTHER)
    node.analyse(NotAnalysed(reason=Reason.OWN_OBJECT))
    assert [snapshot.patients for snapshot in reports(node)] == [1]


def test_a_report_waits_for_the_films_of_all_patients(node: Node) -> None:
    node.receive("1")
    node.analyse()
    node.receive("2", **OTHER)
    assert reports(node) == []
    node.clock.advance(seconds=1)
    node.analyse()
    assert len(reports(node)) == 2


def test_an_interruption_concerns_the_reports_of_all_patients(node: Node) -> None:
    node.receive("1")
    node.receive("2", **OTHER)
    node.analyse()
    reports(node)
    interrupt(node)
    assert [snapshot.incomplete for snapshot in reports(node)] == [True, True]


def test_a_report_that_is_built_while_another_patient_comes_is_not_stored(node: Node) -> None:
    node.receive("1")
    node.analyse()

    def and_another(study_uid: str, snapshot: StudySnapshot) -> BuiltReport:
        node.receive("2", **OTHER)
        return built_report(study_uid, snapshot)

    node.clock.advance(seconds=node.policy.quiet.total_seconds())
    assert node.report("pacs", build=and_another) is None
    node.analyse()
    assert [snapshot.patients for snapshot in reports(node)] == [2, 2]


def test_two_reports_of_one_study_that_are_built_at_once_get_two_numbers(node: Node) -> None:
    node.receive("1")
    node.receive("2", **OTHER)
    node.analyse()
    node.clock.advance(seconds=node.policy.quiet.total_seconds())
    node.ledger.upkeep.sweep(MODEL)
    tasks = [node.ledger.reports.claim(owner="w") for _ in range(2)]
    pairs = [(task, node.ledger.reports.snapshot(task, MODEL)) for task in tasks if task]
    saved = [
        node.ledger.reports.save(task, snapshot, built_report(STUDY, snapshot), MODEL, ["pacs"])
        for task, snapshot in pairs
        if isinstance(snapshot, StudySnapshot)
    ]
    assert saved == [True, False]
    [late] = reports(node)
    assert late.version == 2


def test_an_image_in_conflict_is_named_in_the_report(node: Node) -> None:
    node.receive("1")
    node.receive("2", sop_instance_uid="1.2.3.1")
    node.analyse()
    [snapshot] = reports(node)
    finding, unread = (image.outcome for image in snapshot.images)
    assert isinstance(finding, Finding)
    assert unread == NotAnalysed(reason=Reason.CONFLICTING_INSTANCE)


def test_a_conflict_that_comes_later_makes_the_report_anew(node: Node) -> None:
    node.receive("1")
    node.analyse()
    reports(node)
    node.receive("2", sop_instance_uid="1.2.3.1")
    node.analyse()
    [again] = reports(node)
    assert len(again.images) == 2
    assert again.previous is not None


def test_a_conflict_under_another_patient_is_reported_there(node: Node) -> None:
    node.receive("1")
    node.receive("2", sop_instance_uid="1.2.3.1", study="1.2.4", **OTHER)
    node.analyse()
    first, second = sorted(reports(node), key=lambda snapshot: len(snapshot.unread))
    assert [len(first.images), first.unread] == [1, ()]
    assert [image.outcome for image in second.images] == [NotAnalysed(reason=Reason.CONFLICTING_INSTANCE)]


def test_a_report_waits_until_a_conflict_is_compared(node: Node) -> None:
    node.receive("1")
    node.receive("2", sop_instance_uid="1.2.3.1")
    first, other = node.ledger.analyses.claim(owner="w", limit=2)
    assert (first.in_conflict, other.in_conflict, other.rival_path) == (False, True, "1.dcm")
    analysed(node, first)
    assert reports(node) == []
    assert node.ledger.analyses.compared(other, same=False)
    [snapshot] = reports(node)
    assert len(snapshot.images) == 2


def test_the_same_image_in_another_encoding_is_no_conflict(node: Node) -> None:
    node.receive("1")
    node.receive("2", sop_instance_uid="1.2.3.1")
    first, other = node.ledger.analyses.claim(owner="w", limit=2)
    assert not node.ledger.analyses.compared(other, same=True)
    analysed(node, first)
    [snapshot] = reports(node)
    assert (len(snapshot.images), snapshot.unread) == (1, ())
    assert [row["state"] for row in node.audit()] == ["analysed", "duplicate"]
    assert "same-image" in kinds(node)
    assert node.ledger.verifier.verify().problems == ()


def analysed(node: Node, task: AnalysisTask) -> None:
    finding = Finding(probability=0.9, logit=2.0, threshold=0.5)
    node.ledger.analyses.record([Analysed(task=task, outcome=finding, started_at=node.clock())], MODEL)


def in_conflict(node: Node) -> None:
    """Report a film, and another one of its SOP Instance UID as not read."""
    node.receive("1")
    node.receive("2", sop_instance_uid="1.2.3.1")
    node.analyse()
    reports(node)


def choose(node: Node, number: int, uid: str = "1.2.3.1") -> None:
    node.ledger.resolution.choose(uid, number, actor=Actor(name="radiographer@console", address=""))


def test_a_person_chooses_the_other_image_and_the_report_is_made_anew(node: Node) -> None:
    node.receive("1")
    node.receive("2", sop_instance_uid="1.2.3.1")
    node.analyse(NotAnalysed(reason=Reason.VIEW))
    reports(node)
    assert [each.use for each in node.ledger.resolution.candidates("1.2.3.1")] == [Use.READ, Use.CONFLICT]
    choose(node, 2)
    assert node.analyse() == 1
    [again] = reports(node)
    finding, set_aside = (image.outcome for image in again.images)
    assert set_aside == NotAnalysed(reason=Reason.SET_ASIDE)
    assert isinstance(finding, Finding)
    assert again.previous is not None
    assert [row["state"] for row in node.audit()] == ["set-aside", "analysed"]
    [event] = [event for event in node.ledger.audit.events(STUDY) if event.kind == "resolved"]
    assert event.detail["by"] == "radiographer@console"
    assert event.detail["input_sha256"] == [f"{2:0>64}"]
    assert event.detail["set_aside_sha256"] == [f"{1:0>64}"]
    assert node.ledger.verifier.verify().problems == ()


def test_a_corrected_patient_gets_the_report_and_the_wrong_one_loses_it(node: Node) -> None:
    node.receive("1")
    node.receive("2", sop_instance_uid="1.2.3.1", **OTHER)
    node.analyse()
    reports(node)
    choose(node, 2)
    node.analyse()
    wrong, right = sorted(reports(node), key=lambda snapshot: len(snapshot.result_ids))
    assert [image.outcome for image in wrong.images] == [NotAnalysed(reason=Reason.SET_ASIDE)]
    assert [type(image.outcome) for image in right.images] == [Finding]


UNREADABLE: Final = NotAnalysed(reason=Reason.UNREADABLE_PIXELS)


def test_an_image_that_could_not_be_analysed_makes_way_for_the_next_one_of_its_uid(node: Node) -> None:
    node.receive("1")
    node.analyse(UNREADABLE)
    reports(node)
    node.receive("2", sop_instance_uid="1.2.3.1")
    node.analyse()  # compares
    node.analyse()
    [again] = reports(node)
    finding, damaged = (image.outcome for image in again.images)
    assert isinstance(finding, Finding)
    assert damaged == NotAnalysed(reason=Reason.SET_ASIDE)
    assert [row["state"] for row in node.audit()] == ["set-aside", "analysed"]
    [event] = [event for event in node.ledger.audit.events(STUDY) if event.kind == "resolved"]
    assert (event.detail["by"], event.detail["set_aside_sha256"]) == ("node", [f"{1:0>64}"])
    assert node.ledger.verifier.verify().problems == ()


def test_it_makes_way_also_when_the_other_one_has_been_compared_before(node: Node) -> None:
    node.receive("1")
    node.receive("2", sop_instance_uid="1.2.3.1")
    first, other = node.ledger.analyses.claim(owner="w", limit=2)
    assert node.ledger.analyses.compared(other, same=False)
    node.ledger.analyses.record([Analysed(task=first, outcome=UNREADABLE, started_at=node.clock())], MODEL)
    assert [each.use for each in node.ledger.resolution.candidates("1.2.3.1")] == [Use.SET_ASIDE, Use.READ]
    assert node.analyse() == 1
    [snapshot] = reports(node)
    assert [type(image.outcome) for image in snapshot.images] == [Finding, NotAnalysed]


def test_it_waits_for_one_that_is_still_to_be_compared(node: Node) -> None:
    node.receive("1")
    node.receive("2", sop_instance_uid="1.2.3.1")
    first, other = node.ledger.analyses.claim(owner="w", limit=2)
    node.ledger.analyses.record([Analysed(task=first, outcome=UNREADABLE, started_at=node.clock())], MODEL)
    assert [each.use for each in node.ledger.resolution.candidates("1.2.3.1")] == [Use.READ, Use.CONFLICT]
    assert not node.ledger.analyses.compared(other, same=False)
    assert [each.use for each in node.ledger.resolution.candidates("1.2.3.1")] == [Use.SET_ASIDE, Use.READ]


@pytest.mark.parametrize("reason", [Reason.VIEW, Reason.UNLIKE_A_FRONTAL_CHEST_FILM, Reason.MODALITY])
def test_an_image_that_was_read_makes_no_way(node: Node, reason: Reason) -> None:
    node.receive("1")
    node.analyse(NotAnalysed(reason=reason))
    node.receive("2", sop_instance_uid="1.2.3.1")
    node.analyse()
    assert [each.use for each in node.ledger.resolution.candidates("1.2.3.1")] == [Use.READ, Use.CONFLICT]


def test_it_makes_no_way_for_another_patient(node: Node) -> None:
    node.receive("1")
    node.analyse(UNREADABLE)
    node.receive("2", sop_instance_uid="1.2.3.1", **OTHER)
    node.analyse()
    assert [each.use for each in node.ledger.resolution.candidates("1.2.3.1")] == [Use.READ, Use.CONFLICT]


def test_it_makes_no_way_for_an_image_whose_original_is_gone(node: Node) -> None:
    node.receive("1")
    node.receive("2", sop_instance_uid="1.2.3.1")
    first, other = node.ledger.analyses.claim(owner="w", limit=2)
    node.ledger.analyses.compared(other, same=False)
    with node.engine.begin() as connection:
        connection.execute(text("UPDATE instance SET purging_at = received_at WHERE conflict"))
    node.ledger.analyses.record([Analysed(task=first, outcome=UNREADABLE, started_at=node.clock())], MODEL)
    assert [each.use for each in node.ledger.resolution.candidates("1.2.3.1")] == [Use.READ, Use.CONFLICT]


def test_a_person_may_choose_again_and_what_was_read_before_is_not_read_twice(node: Node) -> None:
    in_conflict(node)
    choose(node, 2)
    node.analyse()
    reports(node)
    choose(node, 1)
    node.analyse()
    [back] = reports(node)
    assert [type(image.outcome) for image in back.images] == [Finding, NotAnalysed]
    assert back.images[0].sha256 == f"{1:0>64}"


def test_what_a_report_says_of_the_patient_is_taken_from_a_film_that_is_read(node: Node) -> None:
    node.receive("1")
    node.receive("2", sop_instance_uid="1.2.3.1")
    node.receive("3")
    node.analyse()
    choose(node, 2)
    node.analyse()
    [snapshot] = reports(node)
    assert [image.sha256 for image in snapshot.images] == [f"{2:0>64}", f"{3:0>64}", f"{1:0>64}"]
    assert snapshot.spool_paths == ("2.dcm", "3.dcm", "1.dcm")


def test_the_same_picture_of_another_patient_is_a_conflict_unseen(node: Node) -> None:
    node.receive("1")
    node.receive("2", sop_instance_uid="1.2.3.1", **OTHER)
    _, other = node.ledger.analyses.claim(owner="w", limit=2)
    assert (other.in_conflict, other.rival_path) == (True, None)


def test_a_film_that_is_set_aside_shows_no_finding_in_the_audit(node: Node) -> None:
    in_conflict(node)
    choose(node, 2)
    row = node.audit()[0]
    assert (row["state"], row["reason"], row["verdict"], row["probability"]) == ("set-aside", "set-aside", None, None)
    assert "see the events of its study" in row["detail"]


def test_to_choose_the_first_confirms_it(node: Node) -> None:
    in_conflict(node)
    choose(node, 1)
    assert node.analyse() == 0
    assert [image.spool_path for image in node.ledger.reanalysis.ended()] == ["1.dcm"]
    [confirmed] = reports(node)
    assert [use for _, use in confirmed.unread] == [Use.SET_ASIDE]


def test_a_choice_that_cannot_be_is_refused_and_changes_nothing(node: Node) -> None:
    node.receive("1")
    for number, uid, why in ((1, "1.2.3.1", "nothing to choose"), (3, "1.2.3.1", "no number 3"), (1, "9", "has 0")):
        assert why in _refusal(node, number, uid)
    node.receive("2", sop_instance_uid="1.2.3.1")
    with node.engine.begin() as connection:
        connection.execute(text("UPDATE instance SET purging_at = received_at WHERE conflict"))
    assert "no longer kept" in _refusal(node, 2, "1.2.3.1")
    assert [each.use for each in node.ledger.resolution.candidates("1.2.3.1")] == [Use.READ, Use.CONFLICT]


def _refusal(node: Node, number: int, uid: str) -> str:
    with pytest.raises(LedgerError) as refused:
        choose(node, number, uid)
    return str(refused.value)


def deliveries(node: Node) -> list[Any]:
    return node.rows("SELECT destination, state FROM delivery ORDER BY id")


def undeliverable(node: Node) -> None:
    node.receive("1")
    node.analyse()
    node.clock.advance(seconds=node.policy.quiet.total_seconds())
    assert node.report() is not None


def test_a_report_that_no_destination_gets_is_undeliverable_and_found(node: Node) -> None:
    undeliverable(node)
    assert deliveries(node) == [("", "undeliverable")]
    assert node.ledger.upkeep.undeliverable() == 1
    [row] = node.audit()
    assert [each["state"] for each in row["deliveries"]] == ["undeliverable"]


def test_requeue_routes_it_anew(node: Node) -> None:
    undeliverable(node)
    assert node.ledger.upkeep.requeue() == 1
    again(node)
    assert deliveries(node) == [("pacs", "waiting")]
    assert node.ledger.upkeep.undeliverable() == 0
    assert {"requeued", "routed-again"} <= set(kinds(node))


def test_so_does_a_new_analysis_that_says_the_same(node: Node) -> None:
    undeliverable(node)
    node.ledger.reanalysis.request(node.ledger.reanalysis.ended())
    node.analyse()
    again(node)
    assert node.ledger.upkeep.undeliverable() == 0


def test_where_there_is_still_no_destination_it_stays_undeliverable(node: Node) -> None:
    undeliverable(node)
    assert node.ledger.upkeep.requeue(STUDY) == 1
    again(node, [])
    assert deliveries(node) == [("", "undeliverable")]


def test_a_person_may_discard_it(node: Node) -> None:
    undeliverable(node)
    assert node.ledger.upkeep.discard(STUDY) == 1
    assert deliveries(node) == [("", "discarded")]
    assert node.ledger.upkeep.undeliverable() == 0


def again(node: Node, destinations: Sequence[str] = ("pacs",)) -> None:
    """Look at the study as the worker does."""
    node.clock.advance(seconds=node.policy.quiet.total_seconds())
    node.ledger.upkeep.sweep(MODEL)
    task = node.ledger.reports.claim(owner="w")
    assert task is not None
    snapshot = node.ledger.reports.snapshot(task, MODEL)
    assert isinstance(snapshot, StudySnapshot)
    built = built_report(STUDY, snapshot)
    if built.content_digest == snapshot.previous_content_digest:
        node.ledger.reports.complete_unchanged(task, snapshot, MODEL, destinations)
    else:
        node.ledger.reports.save(task, snapshot, built, MODEL, destinations)
