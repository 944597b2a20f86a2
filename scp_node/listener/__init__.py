"""The Storage SCP: who may associate, which contexts are accepted, and how each request is answered."""

from scp_node.listener.association import UnsupportedPynetdicomError
from scp_node.listener.listener import Listener, ListenError

__all__ = ["ListenError", "Listener", "UnsupportedPynetdicomError"]
