"""The Storage SCP: who may associate, what is accepted, and what each C-STORE is answered."""

from scp_node.listener.association import UnsupportedPynetdicomError
from scp_node.listener.commitment import CommitmentAnswer
from scp_node.listener.listener import Listener, ListenError
from scp_node.listener.store import RejectedInstance

__all__ = ["CommitmentAnswer", "ListenError", "Listener", "RejectedInstance", "UnsupportedPynetdicomError"]
