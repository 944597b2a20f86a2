"""The Storage SCU: reports to destinations, and what their answers mean."""

from scp_node.delivery.disposition import Disposition, classify, pause_before
from scp_node.delivery.scu import SendResult, StorageScu
from scp_node.delivery.send_files import send_files

__all__ = ["Disposition", "SendResult", "StorageScu", "classify", "pause_before", "send_files"]
