"""Who sends the report."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import tzinfo

from scp_node.report.uids import derived_uid
from scp_node.settings import Settings


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

    @classmethod
    def of(cls, settings: Settings, installation: str, software_version: str) -> Site:
        """Return the installation of these settings."""
        return cls(
            installation=installation,
            ae_title=settings.node.ae_title,
            manufacturer=settings.node.manufacturer,
            model_name=settings.node.model_name,
            software_version=software_version,
            series_number=settings.report.series_number,
            series_description=settings.report.series_description,
        )

    @property
    def device_uid(self) -> str:
        """Return the UID of this installation as an observer (PS3.16 TID 1004)."""
        return derived_uid("device", self.installation)
