"""The PACS of the demonstration, which tests use as well."""

from __future__ import annotations

from pathlib import Path

from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from scp_node.demo.pacs import StoragePacs
from tests.waiting import wait_until


def test_a_pacs_that_is_closed_ends_the_associations_that_its_peers_keep_open(tmp_path: Path) -> None:
    pacs = StoragePacs(tmp_path / "pacs")
    peer = AE()
    peer.add_requested_context(Verification)
    association = peer.associate("127.0.0.1", pacs.port)
    assert association.is_established
    assert association.send_c_echo().Status == 0x0000
    pacs.close()
    wait_until(lambda: association.is_aborted, what="the PACS has gone")
