"""The ledger: one SQL database for queue, results, deliveries and audit. No other package writes SQL."""

from scp_node.ledger.analyses import Analysed, AnalysisTask
from scp_node.ledger.audit import AuditQuery
from scp_node.ledger.audit_rows import AuditDelivery, AuditEvent, AuditPage, AuditRow, DeliveryState, ImageState
from scp_node.ledger.commitments import CommitmentOutcome, CommitmentTask
from scp_node.ledger.copying import Copied
from scp_node.ledger.daily import DailyQuery, DayCounts, FilmOutcome, InputCounts, seconds_within
from scp_node.ledger.database.engine import create_ledger_engine
from scp_node.ledger.database.errors import AWAY, LedgerError, LedgerGoneError, LedgerUnreachableError, blames_values
from scp_node.ledger.database.revision import check_revision, is_begun, is_up_to_date, upgrade
from scp_node.ledger.database.schema import Use
from scp_node.ledger.deliveries import REPORT_KIND, DeliveryTask, DestinationState
from scp_node.ledger.dispatch import Takes, takes_all
from scp_node.ledger.entrance import Limit, limits
from scp_node.ledger.feedback_rows import (
    Answer,
    Assessment,
    FeedbackError,
    FeedbackRow,
    Imported,
    ImportedTruth,
    LineProblem,
    Opinion,
    Source,
    Statement,
    Subject,
    Truth,
)
from scp_node.ledger.figures import DeliveryKey, Happened, ResultKey, State
from scp_node.ledger.intake import Duplicate, Registration
from scp_node.ledger.ledger import Ledger
from scp_node.ledger.people import OpenSession, Origin, Person, PersonRole, Session, Token, known_name
from scp_node.ledger.problems import GivenUp, Overview, QueueDepth
from scp_node.ledger.processes import ProcessAtWork
from scp_node.ledger.projector import Progress, Projector
from scp_node.ledger.queue import Claim, Suspects, WorkState
from scp_node.ledger.queue_kinds import QueueKind
from scp_node.ledger.reading_sample import Drawn, Pair, ReadingTask, SampleData, SampledStudy, SampleQuery
from scp_node.ledger.resolution import Candidate
from scp_node.ledger.retention import HeldBack, Original
from scp_node.ledger.selection import RECENT_RESULTS, Matching, Trouble, WorkSelection
from scp_node.ledger.shadow import (
    JudgedStudy,
    PairKey,
    Promotion,
    ShadowBundle,
    ShadowCounts,
    ShadowPage,
    ShadowPair,
    ShadowQuery,
    ShadowStatement,
    ShadowStudy,
    ShadowStudyPage,
    ShadowWaiting,
    VerdictCount,
)
from scp_node.ledger.shadow_queue import ShadowOutcome, ShadowTask
from scp_node.ledger.snapshots import CompanionsTask, NothingToReport, ReportTask, StudyPending, StudySnapshot
from scp_node.ledger.trail.feed import Backlog, FedEvent, FedPatient
from scp_node.ledger.trail.journal import ANY_PERSON, JournalEvent, JournalPage, JournalQuery, StudyVisitor
from scp_node.ledger.trail.sealer import Sealer, Unsealed
from scp_node.ledger.transactions import Policy, Ring
from scp_node.ledger.unregistrable import UnregistrableFile
from scp_node.ledger.verification import Verification
from scp_node.ledger.worklist_rows import (
    WORKLIST_FIELDS,
    Count,
    Key,
    Menus,
    Opinions,
    Standing,
    StudyState,
    WorklistPage,
    WorklistQuery,
    WorklistRow,
)

__all__ = [
    "ANY_PERSON",
    "AWAY",
    "RECENT_RESULTS",
    "REPORT_KIND",
    "WORKLIST_FIELDS",
    "Analysed",
    "AnalysisTask",
    "Answer",
    "Assessment",
    "AuditDelivery",
    "AuditEvent",
    "AuditPage",
    "AuditQuery",
    "AuditRow",
    "Backlog",
    "Candidate",
    "Claim",
    "CommitmentOutcome",
    "CommitmentTask",
    "CompanionsTask",
    "Copied",
    "Count",
    "DailyQuery",
    "DayCounts",
    "DeliveryKey",
    "DeliveryState",
    "DeliveryTask",
    "DestinationState",
    "Drawn",
    "Duplicate",
    "FedEvent",
    "FedPatient",
    "FeedbackError",
    "FeedbackRow",
    "FilmOutcome",
    "GivenUp",
    "Happened",
    "HeldBack",
    "ImageState",
    "Imported",
    "ImportedTruth",
    "InputCounts",
    "JournalEvent",
    "JournalPage",
    "JournalQuery",
    "JudgedStudy",
    "Key",
    "Ledger",
    "LedgerError",
    "LedgerGoneError",
    "LedgerUnreachableError",
    "Limit",
    "LineProblem",
    "Matching",
    "Menus",
    "NothingToReport",
    "OpenSession",
    "Opinion",
    "Opinions",
    "Origin",
    "Original",
    "Overview",
    "Pair",
    "PairKey",
    "Person",
    "PersonRole",
    "Policy",
    "ProcessAtWork",
    "Progress",
    "Projector",
    "Promotion",
    "QueueDepth",
    "QueueKind",
    "ReadingTask",
    "Registration",
    "ReportTask",
    "ResultKey",
    "Ring",
    "SampleData",
    "SampleQuery",
    "SampledStudy",
    "Sealer",
    "Session",
    "ShadowBundle",
    "ShadowCounts",
    "ShadowOutcome",
    "ShadowPage",
    "ShadowPair",
    "ShadowQuery",
    "ShadowStatement",
    "ShadowStudy",
    "ShadowStudyPage",
    "ShadowTask",
    "ShadowWaiting",
    "Source",
    "Standing",
    "State",
    "Statement",
    "StudyPending",
    "StudySnapshot",
    "StudyState",
    "StudyVisitor",
    "Subject",
    "Suspects",
    "Takes",
    "Token",
    "Trouble",
    "Truth",
    "UnregistrableFile",
    "Unsealed",
    "Use",
    "VerdictCount",
    "Verification",
    "WorkSelection",
    "WorkState",
    "WorklistPage",
    "WorklistQuery",
    "WorklistRow",
    "blames_values",
    "check_revision",
    "create_ledger_engine",
    "is_begun",
    "is_up_to_date",
    "known_name",
    "limits",
    "seconds_within",
    "takes_all",
    "upgrade",
]
