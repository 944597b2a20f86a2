"""The words by which the processes of the node are started."""

from __future__ import annotations

from typing import Final

SUPERVISED: Final = "--supervised"  # a role under the supervisor
SUPERVISE: Final = "supervise"  # the supervisor
ALLOW_DIFFERENT: Final = "--allow-different-settings"
