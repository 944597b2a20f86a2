"""C-ECHO to ourselves and to destinations."""

from __future__ import annotations

from scp_node.delivery import StorageScu
from scp_node.settings import DestinationSettings, Settings


def answers_echo(settings: Settings) -> bool:
    """Return whether the running node answers a C-ECHO."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.listen.host, settings.listen.host)  # noqa: S104 - a test
    ourselves = DestinationSettings(name="self", ae_title=settings.node.ae_title, host=host, port=settings.listen.port)
    return echo(settings, ourselves)


def echo(settings: Settings, destination: DestinationSettings) -> bool:
    """Return whether the destination answers a C-ECHO from us."""
    scu = StorageScu(
        destination,
        calling_ae=settings.node.ae_title,
        sop_classes=settings.report.sop_classes,
        settings=settings.delivery,
        recast=_never,
    )
    try:
        return scu.echo()
    finally:
        scu.close()


def _never(file: bytes, sop_class_uid: str) -> bytes:
    raise AssertionError(f"nothing is sent here: {len(file)} bytes as {sop_class_uid}")
