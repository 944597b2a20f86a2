"""The names of this implementation in associations and in files."""

from __future__ import annotations

from typing import Final

IMPLEMENTATION_CLASS_UID: Final = "2.25.300705481091280484258381383049355184978"  # PS3.7 D.3.3.2; never to change
IMPLEMENTATION_VERSION_NAME: Final = "SCP_NODE_010"  # PS3.7 D.3.3.2: at most 16 characters
