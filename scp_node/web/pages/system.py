"""How the node is: what needs a person first, then queues, disk, processes and versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Final, Literal
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Depends, Form, HTTPException, Query, Request
from starlette.responses import RedirectResponse, Response

from scp_node.ledger import (
    RECENT_RESULTS,
    Candidate,
    LedgerError,
    Overview,
    PersonRole,
    ProcessAtWork,
    QueueKind,
    Trouble,
    Use,
    WorkSelection,
)
from scp_node.settings import ae_title
from scp_node.web.access import Admin, Viewer, Visitor
from scp_node.web.errors import UnknownValueError
from scp_node.web.machine import Disk, disk_of, versions
from scp_node.web.rendering import render
from scp_node.web.site import Site, SiteOf
from scp_node.web.words import sentence_of

router = APIRouter()

Action = Literal["requeue", "discard"]
LONGEST_REASON: Final = 2_000
_UID_LENGTH: Final = 64

_STEPS: Final[Mapping[QueueKind, str]] = {
    QueueKind.ANALYSE: "Analysis",
    QueueKind.REPORT: "Report",
    QueueKind.COMPANIONS: "What goes with a report",
    QueueKind.DELIVER: "Delivery",
    QueueKind.COMMIT: "Question whether it is kept",
    QueueKind.SHADOW: "Trial of another bundle",
}
_ADVICE: Final[Mapping[QueueKind, str]] = {
    QueueKind.ANALYSE: "It stopped its worker again and again, and is reported as failed. Look into the log of the "
    "worker, then put it back.",
    QueueKind.REPORT: "The report could not be made. Correct what the reason names, then put it back.",
    QueueKind.COMPANIONS: "The report is made. Look into the log of the reporter, then put it back, or discard: "
    "nothing goes with the report then.",
    QueueKind.DELIVER: "Correct what the reason names, try it under Doctor, then put it back. What is discarded is "
    "never sent there.",
    QueueKind.COMMIT: "The object arrived; the destination never said that it keeps it. Put back: it is asked again. "
    "Discard: it stays as delivered.",
    QueueKind.SHADOW: "No report waits for it. Look into the log of the worker, then put it back, or discard: the "
    "comparison of the two bundles then lacks the image.",
}
_LATE: Final[Mapping[QueueKind, str]] = {
    QueueKind.ANALYSE: "Is a worker at work (below)? Its log says what it waits for.",
    QueueKind.REPORT: "Is a reporter at work (below)? Its log says what it waits for.",
    QueueKind.COMPANIONS: "Reports go first. Is a reporter at work (below)?",
    QueueKind.DELIVER: "It is tried again by itself. Doctor says whether the destination answers.",
    QueueKind.COMMIT: "It is asked again by itself. Doctor says whether the destination answers.",
    QueueKind.SHADOW: "No report waits for it: it comes after all else that a worker has to do.",
}
_NOT_NAMED: Final = "The settings name no such destination: nothing is sent there. Name it again, or discard."


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One line of what needs a person."""

    title: str
    reason: str
    number: int
    since: datetime | None
    advice: str
    requeue: str = ""  # address of the question before it is done; "": it cannot work
    discard: str = ""
    link: str = ""  # where to look
    link_text: str = ""
    resume: str = ""  # name of a paused destination that may be tried now


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """The conditions of the page, as its address holds them."""

    kind: QueueKind | None = None
    destination: str = ""
    calling_ae: str = ""
    reason: str = ""
    study: str = ""

    @property
    def values(self) -> dict[str, str]:
        """Return those that are set, by the names in the address."""
        kind = self.kind.value if self.kind else ""
        every = {"kind": kind, "destination": self.destination, "calling_ae": self.calling_ae}
        return {name: value for name, value in {**every, "reason": self.reason, "study": self.study}.items() if value}

    def selection(self, trouble: Trouble = Trouble.GIVEN_UP) -> WorkSelection:
        """Return what it selects of one kind of trouble."""
        return WorkSelection(
            trouble=trouble,
            kind=self.kind,
            destination=self.destination or None,
            calling_ae=self.calling_ae or None,
            reason=self.reason or None,
            study_uid=self.study or None,
        )

    def ask(self, action: Action, trouble: Trouble, **more: str) -> str:
        """Return the address of the question before `action` is done to all of it that also meets `more`."""
        return "/system/confirm?" + urlencode({"action": action, "trouble": trouble.value, **self.values, **more})


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemPage:
    """What the templates of the page show."""

    overview: Overview
    problems: list[Problem]
    bulk: Problem | None  # what can be done to all that was given up
    chosen: Filter
    destinations: list[str]  # that the settings name, or that have work
    disk: Disk | None
    low_disk: Problem | None
    versions: tuple[tuple[str, str], ...]  # name and version
    processes: list[ProcessAtWork]
    kinds: tuple[QueueKind, ...] = tuple(QueueKind)
    steps: Mapping[QueueKind, str] = field(default_factory=lambda: _STEPS)

    @property
    def query(self) -> str:
        """Return the filter as it stands in the address."""
        return urlencode(self.chosen.values)


def checked_filter(
    *, kind: str = "", destination: str = "", calling_ae: str = "", reason: str = "", study: str = ""
) -> Filter:
    """Return the filter.

    Raises:
        UnknownValueError: a value cannot be one.
    """
    if kind and kind not in set(QueueKind):
        raise UnknownValueError(f"kind: one of {', '.join(QueueKind)}.")
    if len(destination) > 32 or not destination.isprintable():
        raise UnknownValueError("destination: a name has 1 to 32 characters.")
    if calling_ae:
        try:
            calling_ae = ae_title(calling_ae)
        except ValueError as error:
            raise UnknownValueError(f"calling_ae: {error}.") from None
    if study and (len(study) > _UID_LENGTH or not study.isascii() or not study.isprintable()):
        raise UnknownValueError("study: give a Study Instance UID, at most 64 characters.")
    if len(reason) > LONGEST_REASON or "\0" in reason:
        raise UnknownValueError(f"reason: at most {LONGEST_REASON} characters.")
    known = QueueKind(kind) if kind else None
    return Filter(kind=known, destination=destination, calling_ae=calling_ae, reason=reason, study=study)


def _of_address(
    kind: str = "", destination: str = "", calling_ae: str = "", reason: str = "", study: str = ""
) -> Filter:
    return checked_filter(kind=kind, destination=destination, calling_ae=calling_ae, reason=reason, study=study)


FilterOf = Annotated[Filter, Depends(_of_address)]
_DONE: Final[Mapping[str, str]] = {
    "requeue": "{number} put back",
    "discard": "{number} discarded",
    "try": "It is tried now, the oldest report first",
}
_ROLES: Final[Mapping[str, str]] = {
    "listener": "Nothing is received, or what is received is not registered.",
    "worker": "Nothing is analysed.",
    "reporter": "Nothing is reported.",
    "sender": "Nothing is sent.",
}
_ONE_AND_MANY: Final[Mapping[Trouble, tuple[str, str]]] = {
    Trouble.GIVEN_UP: ("piece of work that was given up", "pieces of work that were given up"),
    Trouble.FAILED: ("image whose analysis failed", "images whose analysis failed"),
    Trouble.UNDELIVERABLE: ("report that nobody gets", "reports that nobody gets"),
}
_COMPARED: Final = ("patient_id", "accession", "study_uid", "calling_ae", "peer", "size", "sha256")


@router.get("/system", include_in_schema=False)
def system(
    request: Request,
    site: SiteOf,
    visitor: Viewer,
    chosen: FilterOf,
    done: str = "",
    number: Annotated[int, Query(ge=0)] = 0,
    left_out: Annotated[int, Query(ge=0)] = 0,
) -> Response:
    """Show the page; `done`, `number` and `left_out` are what the last action did."""
    message = _DONE[done].format(number=number) if done in _DONE else ""
    if message and left_out:
        message += f", {left_out} left out: their originals are no longer kept"
    return render(request, "system.html", visitor, message=message, page=_page(site, visitor, chosen))


@router.get("/system/live", include_in_schema=False)
def live(request: Request, site: SiteOf, visitor: Viewer, chosen: FilterOf) -> Response:
    """Return the part of the page that changes by itself."""
    return render(request, "system_live.html", visitor, page=_page(site, visitor, chosen))


@router.get("/api/v1/system")
def state(site: SiteOf, _visitor: Viewer, chosen: FilterOf) -> Overview:
    """Return what needs a person, and what the queues hold; the filter is for what was given up or failed."""
    return site.ledger.problems.overview(chosen.selection())


@router.get("/system/confirm", include_in_schema=False)
def confirm(
    request: Request, site: SiteOf, visitor: Admin, chosen: FilterOf, action: Action, trouble: Trouble
) -> Response:
    """Ask before something is done to many, and say to how many."""
    _check(action, trouble)
    matching = site.ledger.upkeep.matching(chosen.selection(trouble))
    return render(
        request,
        "system_confirm.html",
        visitor,
        action=action,
        trouble=trouble,
        chosen=chosen,
        matching=matching,
        what=_ONE_AND_MANY[trouble][matching.number != 1],
    )


@router.post("/system/act", include_in_schema=False)
def act(
    site: SiteOf,
    visitor: Admin,
    action: Annotated[Action, Form()],
    trouble: Annotated[Trouble, Form()],
    kind: Annotated[str, Form()] = "",
    destination: Annotated[str, Form()] = "",
    calling_ae: Annotated[str, Form()] = "",
    reason: Annotated[str, Form()] = "",
    study: Annotated[str, Form()] = "",
) -> Response:
    """Put back or discard all that matches, and say how much that was."""
    _check(action, trouble)
    chosen = checked_filter(kind=kind, destination=destination, calling_ae=calling_ae, reason=reason, study=study)
    selection, upkeep, left_out = chosen.selection(trouble), site.ledger.upkeep, 0
    if action == "requeue":
        left_out = upkeep.matching(selection).without_original
        number = upkeep.requeue(selection, actor=visitor.actor)
    else:
        number = upkeep.discard(selection, actor=visitor.actor)
    told = {"done": action, "number": number, "left_out": left_out}
    return RedirectResponse("/system?" + urlencode(told), status_code=303)


@router.post("/system/try", include_in_schema=False)
def try_now(site: SiteOf, visitor: Admin, destination: Annotated[str, Form(max_length=32)]) -> Response:
    """Let a paused destination be used again at once; its next failure pauses it."""
    if destination not in {entry.name for entry in site.settings.destinations}:
        raise UnknownValueError("destination: the settings name no such destination.")
    site.ledger.visits.note("web-destination-tried", visitor.actor, detail={"destination": destination})
    site.ledger.deliveries.destination_on_trial(destination, hasten=True)
    return RedirectResponse("/system?done=try&number=1", status_code=303)


@router.get("/system/conflicts/{uid}", include_in_schema=False)
def conflict(
    request: Request, site: SiteOf, visitor: Viewer, uid: str, number: Annotated[int, Query(ge=0, le=10_000)] = 0
) -> Response:
    """Show the images of one SOP Instance UID side by side; with `number`, ask whether to read that one."""
    candidates = site.ledger.resolution.candidates(uid) if len(uid) <= _UID_LENGTH else []
    if not candidates:
        raise HTTPException(404)
    for study in sorted({each.study_uid for each in candidates}):
        site.ledger.visits.note_view(visitor.actor, study)
    waits = any(each.use is Use.CONFLICT for each in candidates)
    may_choose = visitor.may(PersonRole.ADMIN)
    choice = [each for each in candidates if each.may_be_read or (each.use is Use.READ and waits)] if may_choose else []
    return render(
        request,
        "conflict.html",
        visitor,
        uid=uid,
        candidates=candidates,
        names=_names(site, candidates),
        asked=next((each for each in choice if each.number == number), None),
        same={name: len({getattr(each, name) for each in candidates}) == 1 for name in _COMPARED},
        choice=choice,
        may_choose=may_choose,
        done="done" in request.query_params,
    )


def _names(site: Site, candidates: Sequence[Candidate]) -> dict[int, str]:
    """Return the patient's name of each image, by its number, as far as the list of studies knows it."""
    rows = {uid: site.ledger.worklist.study(uid) for uid in {each.study_uid for each in candidates}}
    return {
        each.number: next((row.patient_name for row in rows[each.study_uid] if row.patient_id == each.patient_id), "")
        for each in candidates
    }


@router.post("/system/conflicts/{uid}", include_in_schema=False)
def resolve(
    site: SiteOf,
    visitor: Admin,
    uid: str,
    number: Annotated[int, Form(ge=1, le=10_000)],
    sha256: Annotated[str, Form(max_length=64)],
) -> Response:
    """Have one of the images read; `sha256` is what the person saw."""
    candidates = site.ledger.resolution.candidates(uid)
    if not any(each.number == number and each.sha256 == sha256 for each in candidates):
        raise LedgerError("The images have changed meanwhile: look at them again.")
    site.ledger.resolution.choose(uid, number, actor=visitor.actor)
    return RedirectResponse(f"/system/conflicts/{quote(uid)}?done=1", status_code=303)


def _check(action: Action, trouble: Trouble) -> None:
    if action == "discard" and trouble is Trouble.FAILED:
        raise UnknownValueError("action: a failed analysis is closed; it can only be put back.")


def _page(site: Site, visitor: Visitor, chosen: Filter) -> SystemPage:
    problems = site.ledger.problems
    overview = problems.overview(chosen.selection())
    may_act = visitor.may(PersonRole.ADMIN)
    named = [entry.name for entry in site.settings.destinations]
    rows = _Rows(overview, chosen, named=named, may_act=may_act, late=site.settings.web.late_minutes)
    disk, processes = disk_of(site.settings), site.ledger.processes.at_work()
    return SystemPage(
        overview=overview,
        problems=[*_missing_roles(processes), *rows.problems()],
        bulk=rows.bulk(),
        chosen=chosen,
        destinations=sorted({*named, *(each.destination for each in overview.depths)} - {""}),
        disk=disk,
        low_disk=_low_disk(disk),
        versions=(*versions(), ("schema", problems.schema()), ("database", problems.database())),
        processes=processes,
    )


def _missing_roles(processes: Sequence[ProcessAtWork]) -> Iterator[Problem]:
    """Yield a line for each role that no process has; nothing where not even the web role has a row."""
    if not processes:
        return
    for role, harm in _ROLES.items():
        if role not in {each.role for each in processes}:
            reason = f"No process has shown for a while that it works as {role}"
            advice = f"{harm} Look at the log of `scp-node serve`; it starts a role again that ended."
            yield Problem(title=f"No {role} at work", reason=reason, number=1, since=None, advice=advice)


def _low_disk(disk: Disk | None) -> Problem | None:
    if disk is None or not disk.is_scarce:
        return None
    title = "No store is accepted" if disk.is_low else "The disk is nearly full"
    reason = f"{disk.free // 2**20} MiB free; below {disk.low_water // 2**20} MiB every store is refused"
    return Problem(
        title=title, reason=reason, number=1, since=None, advice="Make room, or let retention.days remove originals."
    )


class _Rows:
    """Makes the lines of what needs a person."""

    def __init__(self, overview: Overview, chosen: Filter, *, named: list[str], may_act: bool, late: float) -> None:
        self._overview = overview
        self._chosen = chosen
        self._named = named
        self._may_act = may_act
        self._late = timedelta(minutes=late)

    def problems(self) -> list[Problem]:
        """Return the lines, in the order of what harms most."""
        return [
            *self._given_up(),
            *self._paused(),
            *self._undeliverable(),
            *self._late_work(),
            *self._failed(),
            *self._conflicts(),
            *self._unregistrable(),
        ]

    def bulk(self) -> Problem | None:
        """Return what can be done to all that was given up and matches the filter; None where one line says it all."""
        groups = self._overview.given_up
        if len(groups) < 2 or not self._may_act:
            return None
        all_named = all(self._can_be_sent(each.destination) for each in groups)
        return Problem(
            title="All of it",
            reason="",
            number=sum(each.number for each in groups),
            since=None,
            advice="",
            requeue=self._chosen.ask("requeue", Trouble.GIVEN_UP) if all_named else "",
            discard=self._chosen.ask("discard", Trouble.GIVEN_UP),
        )

    def _can_be_sent(self, destination: str) -> bool:
        return not destination or destination in self._named

    def _given_up(self) -> Iterator[Problem]:
        for each in self._overview.given_up:
            only = {"kind": each.kind.value, "reason": each.reason[:LONGEST_REASON]}
            if each.destination:
                only["destination"] = each.destination
            can = self._can_be_sent(each.destination)
            may_act = self._may_act and bool(each.reason) and len(each.reason) <= LONGEST_REASON
            yield Problem(
                title=f"{_STEPS[each.kind]} given up" + (f": {each.destination}" if each.destination else ""),
                reason=each.reason or "no reason is noted",
                number=each.number,
                since=each.since,
                advice=_ADVICE[each.kind] if can else _NOT_NAMED,
                requeue=self._chosen.ask("requeue", Trouble.GIVEN_UP, **only) if may_act and can else "",
                discard=self._chosen.ask("discard", Trouble.GIVEN_UP, **only) if may_act else "",
            )

    def _paused(self) -> Iterator[Problem]:
        waiting = {each.destination: each.waiting for each in self._overview.depths if each.kind is QueueKind.DELIVER}
        for each in self._overview.paused:
            if self._chosen.destination not in {"", each.name}:
                continue
            yield Problem(
                title=f"Destination paused: {each.name}",
                reason=f"{each.reason} (failures in a row: {each.failures})",
                number=waiting.get(each.name, 0),
                since=each.since,
                advice="It is asked by C-ECHO until it answers; then everything is sent by itself. Doctor says why it "
                "does not.",
                resume=each.name if self._may_act and each.name in self._named else "",
            )

    def _undeliverable(self) -> Iterator[Problem]:
        found = self._overview.undeliverable
        if found.number:
            can = self._may_act and bool(self._named)
            yield Problem(
                title="Reports that nobody gets",
                reason="No destination was to get them, by the settings of their time",
                number=found.number,
                since=found.since,
                advice="Name a destination in [[destinations]] and routing.reply_to, start the node again, then put "
                "them back.",
                requeue=self._chosen.ask("requeue", Trouble.UNDELIVERABLE) if can else "",
                discard=self._chosen.ask("discard", Trouble.UNDELIVERABLE) if self._may_act else "",
            )

    def _late_work(self) -> Iterator[Problem]:
        for each in self._overview.depths:
            if self._chosen.kind not in {None, each.kind} or self._chosen.destination not in {"", each.destination}:
                continue
            if each.oldest and self._overview.at - each.oldest > self._late:
                yield Problem(
                    title=f"{_STEPS[each.kind]} waits too long" + (f": {each.destination}" if each.destination else ""),
                    reason=f"The oldest waits for longer than {self._late.total_seconds() / 60:g} min",
                    number=each.waiting,
                    since=each.oldest,
                    advice=_LATE[each.kind] if self._can_be_sent(each.destination) else _NOT_NAMED,
                )

    def _failed(self) -> Iterator[Problem]:
        for each in self._overview.failed:
            gone = (
                f"; {each.without_original} of them cannot be: their originals are gone"
                if each.without_original
                else ""
            )
            can = self._may_act and each.number > each.without_original
            yield Problem(
                title="Analysis failed",
                reason=sentence_of(each.reason),
                number=each.number,
                since=each.since,
                advice=f"Reported as failed. Analyse again once the cause is gone{gone}. Of the newest "
                f"{RECENT_RESULTS:,} results.",
                requeue=self._chosen.ask("requeue", Trouble.FAILED, reason=each.reason) if can else "",
            )

    def _conflicts(self) -> Iterator[Problem]:
        for each in self._overview.conflicts:
            yield Problem(
                title="Two images, one SOP Instance UID",
                reason=each.sop_instance_uid,
                number=each.number,
                since=each.since,
                advice="The first one is read. Look at them side by side, and choose.",
                link=f"/system/conflicts/{quote(each.sop_instance_uid)}",
                link_text="Compare",
            )

    def _unregistrable(self) -> Iterator[Problem]:
        for each in self._overview.unregistrable:
            yield Problem(
                title=f"File cannot be registered, from {each.calling_ae or 'an unknown sender'}",
                reason=f"{each.reason} ({each.path})",
                number=1,
                since=each.received_at,
                advice="It is kept in the folder spool, and nobody reads it. Have its sender send the image again.",
            )
