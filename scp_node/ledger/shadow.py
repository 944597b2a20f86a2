"""Reads what a bundle on trial said beside the findings that were reported, and records that it was promoted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, exists, func, or_, select

from scp_node.domain import Verdict
from scp_node.ledger.database.schema import Use, feedback, instance, result, shadow_result, study_patient, work
from scp_node.ledger.feedback import truths_of
from scp_node.ledger.feedback_rows import Truth, consensus
from scp_node.ledger.queue import OPEN_STATES, WorkState
from scp_node.ledger.queue_kinds import SHADOW, in_queue
from scp_node.ledger.selecting import behind, chunks
from scp_node.ledger.trail.events import record_event
from scp_node.ledger.transactions import Transactions

PAGE: Final = 50  # rows, unless told otherwise
_IS_PAIR: Final = shadow_result.c.verdict.is_not(None)
_NEWEST_FIRST: Final = (shadow_result.c.at.desc(), shadow_result.c.id.desc())


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowStatement:
    """What one bundle said of an image, or of a study by its image of the highest probability."""

    bundle: str  # NAME-VERSION
    bundle_digest: str
    probability: float  # calibrated, 0..1
    threshold: float  # 0..1
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class PairKey:
    """The place of a row in the order of its page, newest first."""

    at: datetime
    id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowPair:
    """One image, of which both bundles have a finding."""

    key: PairKey  # its instant is when the bundle on trial was run
    study_uid: str
    sop_instance_uid: str
    calling_ae: str
    received_at: datetime
    reporting: ShadowStatement
    shadow: ShadowStatement

    @property
    def agrees(self) -> bool:
        """Return whether both verdicts are the same."""
        return self.reporting.verdict is self.shadow.verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowStudy:
    """One study, for each bundle by its image of the highest probability; only images that are read count."""

    key: PairKey  # of its newest pair
    study_uid: str
    images: int  # that both bundles have a finding of
    unpaired: int  # that have a finding and that the bundle on trial has not seen or could not read
    reporting: ShadowStatement
    shadow: ShadowStatement


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedStudy:
    """A study of one patient that both bundles and the readers spoke of."""

    study_uid: str
    is_positive: bool  # as most of the readers say who know
    reporting: ShadowStatement  # of its image of the highest probability, as the next
    shadow: ShadowStatement


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowQuery:
    """Selects what one bundle on trial said; every condition that is set must hold."""

    bundle_digest: str
    reporting_digest: str | None = None  # of the bundle whose finding it stands beside
    since: datetime | None = None  # run at or after
    until: datetime | None = None  # run before
    calling_ae: str | None = None
    study_uid: str | None = None
    disagreeing: bool = False  # only where the two verdicts differ


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowPage:
    """Some rows, newest first, and the key behind which the next page begins; None after the last."""

    pairs: tuple[ShadowPair, ...]
    next_key: PairKey | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowStudyPage:
    """Some studies, those with the newest pairs first, and the key behind which the next page begins."""

    studies: tuple[ShadowStudy, ...]
    next_key: PairKey | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictCount:
    """How many images have these two verdicts."""

    reporting: Verdict
    shadow: Verdict
    images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowCounts:
    """The numbers of images by both verdicts, and of those without a verdict of the bundle on trial."""

    pairs: tuple[VerdictCount, ...]
    failed: int  # it was run and gave no finding

    @property
    def images(self) -> int:
        """Return the number of pairs."""
        return sum(count.images for count in self.pairs)

    @property
    def disagreeing(self) -> int:
        """Return the number of pairs whose verdicts differ."""
        return sum(count.images for count in self.pairs if count.reporting is not count.shadow)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowWaiting:
    """The work of the bundle on trial that is not done."""

    open: int
    given_up: int  # `requeue` brings it back


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowBundle:
    """A bundle that was on trial, and between which instants it was run."""

    bundle: str
    bundle_digest: str
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """The bundle on trial becomes the reporting one."""

    bundle: str
    bundle_digest: str
    former_bundle: str
    former_digest: str
    by: str  # the person


class Shadow:
    """The bundles on trial, as a person compares them with those that report."""

    def __init__(self, transactions: Transactions) -> None:
        """Read through `transactions`."""
        self._transactions = transactions

    def bundles(self) -> list[ShadowBundle]:
        """Return the bundles that were on trial, in the order of their digests; each costs a look into the index."""
        with self._transactions.reading() as (connection, _now):
            return list(_bundles(connection))

    def pairs(self, query: ShadowQuery, *, after: PairKey | None = None, most: int = PAGE) -> ShadowPage:
        """Return up to `most` pairs behind the key `after`, newest first; a page costs the same wherever it lies."""
        chosen = _pairs(query).where(*_behind(after)).order_by(*_NEWEST_FIRST).limit(most)
        with self._transactions.reading() as (connection, _now):
            found = tuple(map(_pair, connection.execute(chosen)))
        return ShadowPage(pairs=found, next_key=found[-1].key if len(found) == most else None)

    def counts(self, query: ShadowQuery) -> ShadowCounts:
        """Return how many images have which two verdicts.

        Without `reporting_digest` and `calling_ae` an index answers alone, and reads every pair of the time.
        """
        verdicts = (shadow_result.c.reported_verdict, shadow_result.c.verdict)
        statement = _joined(select(*verdicts, func.count().label("images")), query).where(*_conditions(query))
        with self._transactions.reading() as (connection, _now):
            rows = connection.execute(statement.group_by(*verdicts).order_by(*verdicts)).all()
        return ShadowCounts(
            pairs=tuple(
                VerdictCount(reporting=Verdict(row.reported_verdict), shadow=Verdict(row.verdict), images=row.images)
                for row in rows
                if row.verdict is not None
            ),
            failed=sum(row.images for row in rows if row.verdict is None),
        )

    def studies(self, query: ShadowQuery, *, after: PairKey | None = None, most: int = PAGE) -> ShadowStudyPage:
        """Return up to `most` studies that have a pair, by their newest pair behind the key `after`.

        With `disagreeing` these are the studies in which an image has two verdicts; the study's own may be the same.
        """
        chosen = _pairs(query).where(*_behind(after), instance.c.use == Use.READ, ~_has_newer(query))
        with self._transactions.reading() as (connection, _now):
            newest = [_pair(row) for row in connection.execute(chosen.order_by(*_NEWEST_FIRST).limit(most))]
            whole = ShadowQuery(bundle_digest=query.bundle_digest, reporting_digest=query.reporting_digest)
            found = tuple(_studies(connection, whole, newest))
        return ShadowStudyPage(studies=found, next_key=newest[-1].key if len(newest) == most else None)

    def judged(self, query: ShadowQuery) -> list[JudgedStudy]:
        """Return the studies of which readers know the truth; those that name several patients are left out."""
        with self._transactions.reading() as (connection, _now):
            truths = _known_truths(connection)
            found = []
            for chunk in chunks(list(truths)):
                of_study: dict[str, list[ShadowPair]] = defaultdict(list)
                in_chunk = _pairs(query).where(shadow_result.c.study_uid.in_(chunk), instance.c.use == Use.READ)
                for pair in map(_pair, connection.execute(in_chunk)):
                    of_study[pair.study_uid].append(pair)
                found += [_judged(uid, of_study[uid], is_positive=truths[uid]) for uid in chunk if uid in of_study]
        return found

    def waiting(self) -> ShadowWaiting:
        """Return how much work of a bundle on trial is not done."""
        with self._transactions.reading() as (connection, _now):
            numbers = {state: _number(connection, state) for state in (*OPEN_STATES, WorkState.DEAD)}
        return ShadowWaiting(open=sum(numbers[state] for state in OPEN_STATES), given_up=numbers[WorkState.DEAD])

    def promote(self, promotion: Promotion, apply: Callable[[], None]) -> None:
        """Record that a person promoted a bundle, and call `apply` before the commit.

        What `apply` raises undoes the record.
        """
        with self._transactions.writing() as (connection, now):
            record_event(connection, now, "model-promoted", detail=asdict(promotion))
            apply()


def _pairs(query: ShadowQuery) -> Select[Any]:
    columns = (
        shadow_result.c.id,
        shadow_result.c.at,
        shadow_result.c.bundle,
        shadow_result.c.bundle_digest,
        shadow_result.c.probability,
        shadow_result.c.threshold,
        shadow_result.c.verdict,
        result.c.bundle.label("reporting_bundle"),
        result.c.bundle_digest.label("reporting_digest"),
        result.c.probability.label("reporting_probability"),
        result.c.threshold.label("reporting_threshold"),
        result.c.verdict.label("reporting_verdict"),
        shadow_result.c.study_uid,
        instance.c.sop_instance_uid,
        instance.c.calling_ae,
        instance.c.received_at,
    )
    joined = select(*columns).join(result, result.c.id == shadow_result.c.result_id)
    joined = joined.join(instance, instance.c.id == shadow_result.c.instance_id)
    return joined.where(_IS_PAIR, *_conditions(query))


def _joined(statement: Select[Any], query: ShadowQuery) -> Select[Any]:
    """Return a statement about the table alone with the tables that the conditions need."""
    statement = statement.select_from(shadow_result)
    if query.reporting_digest is not None:
        statement = statement.join(result, result.c.id == shadow_result.c.result_id)
    if query.calling_ae is not None:
        statement = statement.join(instance, instance.c.id == shadow_result.c.instance_id)
    return statement


def _conditions(query: ShadowQuery) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [shadow_result.c.bundle_digest == query.bundle_digest]
    if query.since is not None:
        conditions.append(shadow_result.c.at >= query.since)
    if query.until is not None:
        conditions.append(shadow_result.c.at < query.until)
    if query.disagreeing:
        conditions.append(~shadow_result.c.agrees)
    if query.reporting_digest is not None:
        conditions.append(result.c.bundle_digest == query.reporting_digest)
    if query.calling_ae is not None:
        conditions.append(instance.c.calling_ae == query.calling_ae)
    if query.study_uid is not None:
        conditions.append(shadow_result.c.study_uid == query.study_uid)
    return conditions


def _behind(key: PairKey | None) -> list[ColumnElement[bool]]:
    return [behind(shadow_result.c.at, shadow_result.c.id, (key.at, key.id))] if key else []


def _has_newer(query: ShadowQuery) -> ColumnElement[bool]:
    """Return the condition that the study of a pair has a newer pair that the query selects."""
    pair, image = shadow_result.alias(), instance.alias()
    of_study = (pair.c.study_uid == shadow_result.c.study_uid) & (image.c.use == Use.READ)
    later = or_(pair.c.at > shadow_result.c.at, and_(pair.c.at == shadow_result.c.at, pair.c.id > shadow_result.c.id))
    same = (pair.c.bundle_digest == query.bundle_digest) & pair.c.verdict.is_not(None)
    newer = select(pair.c.id).join(image, image.c.id == pair.c.instance_id).where(of_study, same, later)
    if query.until is not None:
        newer = newer.where(pair.c.at < query.until)
    if query.disagreeing:
        newer = newer.where(~pair.c.agrees)
    if query.reporting_digest is not None:
        reported = result.alias()
        newer = newer.join(reported, reported.c.id == pair.c.result_id)
        newer = newer.where(reported.c.bundle_digest == query.reporting_digest)
    if query.calling_ae is not None:
        newer = newer.where(image.c.calling_ae == query.calling_ae)
    return newer.correlate(shadow_result).exists()


def _studies(connection: Connection, query: ShadowQuery, newest: Sequence[ShadowPair]) -> Iterator[ShadowStudy]:
    uids = [pair.study_uid for pair in newest]
    is_read = instance.c.use == Use.READ
    in_studies = instance.c.study_uid.in_(uids) & is_read
    of_study: dict[str, list[ShadowPair]] = {uid: [] for uid in uids}
    for pair in map(_pair, connection.execute(_pairs(query).where(shadow_result.c.study_uid.in_(uids), is_read))):
        of_study[pair.study_uid].append(pair)
    is_paired = exists().where(
        shadow_result.c.instance_id == instance.c.id, shadow_result.c.bundle_digest == query.bundle_digest, _IS_PAIR
    )
    has_finding = exists().where(
        result.c.instance_id == instance.c.id,
        result.c.outcome == "finding",
        result.c.bundle_digest != query.bundle_digest,
    )
    lonely = select(instance.c.study_uid, func.count().label("images")).where(in_studies, has_finding, ~is_paired)
    unpaired = {row.study_uid: row.images for row in connection.execute(lonely.group_by(instance.c.study_uid))}
    for first in newest:
        pairs = of_study[first.study_uid]
        yield ShadowStudy(
            key=first.key,
            study_uid=first.study_uid,
            images=len(pairs),
            unpaired=unpaired.get(first.study_uid, 0),
            reporting=_highest(pair.reporting for pair in pairs),
            shadow=_highest(pair.shadow for pair in pairs),
        )


def _highest(said: Iterable[ShadowStatement]) -> ShadowStatement:
    """Return what a bundle said of the image of a study with the highest probability."""
    return max(said, key=lambda each: each.probability)


def _known_truths(connection: Connection) -> dict[str, bool]:
    """Return whether the finding is there, for each study of one patient of which that is known."""
    alone = select(study_patient.c.study_uid).group_by(study_patient.c.study_uid).having(func.count() == 1)
    subjects = select(study_patient.c.id, study_patient.c.study_uid).where(
        study_patient.c.id.in_(select(feedback.c.study_patient_id)), study_patient.c.study_uid.in_(alone)
    )
    uids = {row.id: row.study_uid for row in connection.execute(subjects.order_by(study_patient.c.id))}
    truths = {uids[key]: consensus(said.values()) for key, said in truths_of(connection, list(uids)).items()}
    return {uid: truth is Truth.POSITIVE for uid, truth in truths.items() if truth is not Truth.UNKNOWN}


def _judged(study_uid: str, pairs: Sequence[ShadowPair], *, is_positive: bool) -> JudgedStudy:
    return JudgedStudy(
        study_uid=study_uid,
        is_positive=is_positive,
        reporting=_highest(pair.reporting for pair in pairs),
        shadow=_highest(pair.shadow for pair in pairs),
    )


def _pair(row: Row[Any]) -> ShadowPair:
    return ShadowPair(
        key=PairKey(at=row.at, id=row.id),
        study_uid=row.study_uid,
        sop_instance_uid=row.sop_instance_uid,
        calling_ae=row.calling_ae,
        received_at=row.received_at,
        reporting=ShadowStatement(
            bundle=row.reporting_bundle,
            bundle_digest=row.reporting_digest,
            probability=row.reporting_probability,
            threshold=row.reporting_threshold,
            verdict=Verdict(row.reporting_verdict),
        ),
        shadow=ShadowStatement(
            bundle=row.bundle,
            bundle_digest=row.bundle_digest,
            probability=row.probability,
            threshold=row.threshold,
            verdict=Verdict(row.verdict),
        ),
    )


def _bundles(connection: Connection) -> Iterator[ShadowBundle]:
    """Yield the bundles by skipping from digest to digest: a list of distinct ones would read every row."""
    digest: str | None = connection.scalar(select(func.min(shadow_result.c.bundle_digest)))
    while digest is not None:
        of_bundle = shadow_result.c.bundle_digest == digest
        ends = select(shadow_result.c.bundle, shadow_result.c.at).where(of_bundle)
        first = connection.execute(ends.order_by(shadow_result.c.at, shadow_result.c.id).limit(1)).one()
        last = connection.execute(ends.order_by(*_NEWEST_FIRST).limit(1)).one()
        yield ShadowBundle(bundle=last.bundle, bundle_digest=digest, first_at=first.at, last_at=last.at)
        following = select(func.min(shadow_result.c.bundle_digest)).where(shadow_result.c.bundle_digest > digest)
        digest = connection.scalar(following)


def _number(connection: Connection, state: WorkState) -> int:
    counted = select(func.count()).select_from(work).where(in_queue(SHADOW), work.c.state == state)
    return connection.execute(counted).scalar_one()
