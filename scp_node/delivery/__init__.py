"""The Storage SCU: reports to destinations, what their answers mean, and whether the reports are really there."""

from scp_node.delivery.commitment import Asked, AskResult, CommitmentScu
from scp_node.delivery.disposition import Disposition, classify, pause_before, remark
from scp_node.delivery.query import FindResult, QueryScu, Wanted
from scp_node.delivery.scu import SendResult, StorageScu
from scp_node.delivery.send_files import Unsent, send_files

__all__ = [
    "AskResult",
    "Asked",
    "CommitmentScu",
    "Disposition",
    "FindResult",
    "QueryScu",
    "SendResult",
    "StorageScu",
    "Unsent",
    "Wanted",
    "classify",
    "pause_before",
    "remark",
    "send_files",
]
