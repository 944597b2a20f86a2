"""Syslog messages (RFC 5424), and how they stand on a connection (RFC 5425 section 4.3)."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

from scp_node.audit_messages.message import instant

_PRIORITY: Final = 10 * 8 + 5  # facility security/authorization, severity notice (PS3.15 A.6)
_APP_NAME: Final = "scp-node"
_MSGID: Final = "DICOM+RFC3881"  # PS3.15 A.6
_NOT_PRINTABLE: Final = re.compile(r"[^\x21-\x7e]")


def syslog_message(content: bytes, *, at: datetime, host: str) -> bytes:
    """Return a syslog message with this content in UTF-8; `host` is the name of this machine."""
    name = _NOT_PRINTABLE.sub("-", host)[:255] or "-"
    header = f"<{_PRIORITY}>1 {instant(at)} {name} {_APP_NAME} - {_MSGID} - "
    return header.encode("ascii") + content


def framed(message: bytes) -> bytes:
    """Return a message with its length before it: octet counting."""
    return b"%d %b" % (len(message), message)
