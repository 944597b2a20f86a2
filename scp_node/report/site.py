"""Who sends the report."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import tzinfo

from scp_node.report.uids import derived_uid


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The installation that makes the reports: the device in each of them."""

    installation: str  # names this installation and no other, and stays; at most 64 characters
    ae_title: str
    manufacturer: str
    model_name: str
    software_version: str  # of the node
    series_number: int
    series_description: str
    time_zone: tzinfo | None = None  # of reports whose source states none; None is the host's

    @property
    def device_uid(self) -> str:
        """Return the UID of this installation as an observer (PS3.16 TID 1004)."""
        return derived_uid("device", self.installation)
