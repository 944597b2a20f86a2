"""Notes and logs an answer about delivered objects, in the same way for every channel it comes through."""

from __future__ import annotations

from collections.abc import Collection

from scp_node.domain import CommitmentReport
from scp_node.ledger import CommitmentOutcome, Ledger
from scp_node.logs import get_logger

log = get_logger(__name__)


def settle(ledger: Ledger, report: CommitmentReport, destinations: Collection[str]) -> None:
    """Note the report of one of `destinations`, and log each outcome."""
    outcomes = ledger.commitments.answered(report, destinations)
    if outcomes is None:
        log.warning(
            "commitment report of an unknown transaction",
            transaction_uid=report.transaction_uid,
            destination=sorted(destinations),
        )
    for outcome in outcomes or []:
        tell(outcome)


def tell(outcome: CommitmentOutcome) -> None:
    """Log an outcome, as an error if the object is given up: then a person has to look."""
    uid, name, reason = outcome.sop_instance_uid, outcome.destination, outcome.reason
    match outcome.state:
        case "dead":
            log.error("report not committed, given up", report_uid=uid, destination=name, reason=reason)
        case "waiting":
            log.warning("report not committed, sent again", report_uid=uid, destination=name, reason=reason)
        case "delivered":
            log.warning("report not committed, stays", report_uid=uid, destination=name, reason=reason)
        case state:
            log.info("storage commitment answered", state=state, report_uid=uid, destination=name)
