"""The ledger: one SQL database for queue, results, deliveries and audit. No other package writes SQL."""

from scp_node.ledger.analyses import Analysed, AnalysisTask
from scp_node.ledger.audit import AuditQuery
from scp_node.ledger.audit_rows import AuditDelivery, AuditEvent, AuditPage, AuditRow, DeliveryState, ImageState
from scp_node.ledger.commitments import CommitmentOutcome, CommitmentTask
from scp_node.ledger.copying import Copied
from scp_node.ledger.database.engine import create_ledger_engine
from scp_node.ledger.database.errors import AWAY, LedgerError, LedgerGoneError, LedgerUnreachableError, blames_values
from scp_node.ledger.database.revision import check_revision, is_begun, is_up_to_date, upgrade
from scp_node.ledger.deliveries import REPORT_KIND, DeliveryTask, DestinationState
from scp_node.ledger.dispatch import Takes, takes_all
from scp_node.ledger.entrance import Limit, limits
from scp_node.ledger.intake import Duplicate, Registration
from scp_node.ledger.ledger import Ledger
from scp_node.ledger.people import OpenSession, Origin, Person, PersonRole, Session, Token, known_name
from scp_node.ledger.queue import Claim, Suspects, WorkState
from scp_node.ledger.resolution import Candidate
from scp_node.ledger.retention import HeldBack, Original
from scp_node.ledger.snapshots import NothingToReport, ReportTask, StudyPending, StudySnapshot
from scp_node.ledger.trail.journal import ANY_PERSON, JournalEvent, JournalPage, JournalQuery, StudyVisitor
from scp_node.ledger.transactions import Policy
from scp_node.ledger.unregistrable import UnregistrableFile
from scp_node.ledger.verification import Verification

__all__ = [
    "ANY_PERSON",
    "AWAY",
    "REPORT_KIND",
    "Analysed",
    "AnalysisTask",
    "AuditDelivery",
    "AuditEvent",
    "AuditPage",
    "AuditQuery",
    "AuditRow",
    "Candidate",
    "Claim",
    "CommitmentOutcome",
    "CommitmentTask",
    "Copied",
    "DeliveryState",
    "DeliveryTask",
    "DestinationState",
    "Duplicate",
    "HeldBack",
    "ImageState",
    "JournalEvent",
    "JournalPage",
    "JournalQuery",
    "Ledger",
    "LedgerError",
    "LedgerGoneError",
    "LedgerUnreachableError",
    "Limit",
    "NothingToReport",
    "OpenSession",
    "Origin",
    "Original",
    "Person",
    "PersonRole",
    "Policy",
    "Registration",
    "ReportTask",
    "Session",
    "StudyPending",
    "StudySnapshot",
    "StudyVisitor",
    "Suspects",
    "Takes",
    "Token",
    "UnregistrableFile",
    "Verification",
    "WorkState",
    "blames_values",
    "check_revision",
    "create_ledger_engine",
    "is_begun",
    "is_up_to_date",
    "known_name",
    "limits",
    "takes_all",
    "upgrade",
]
