"""The Storage SCP: who may associate, what is accepted, and what each C-STORE is answered."""

from scp_node.listener.association import UnsupportedPynetdicomError
from scp_node.listener.listener import Listener, ListenError

__all__ = ["ListenError", "Listener", "UnsupportedPynetdicomError"]
