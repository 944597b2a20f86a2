"""The listener's fixtures, for the tools of others."""

from tests.scp_node.listener.conftest import running, start_listener

__all__ = ["running", "start_listener"]
