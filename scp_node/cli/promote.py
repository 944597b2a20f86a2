"""`scp-node model promote`: a person makes the bundle on trial the one that reports."""

from __future__ import annotations

import getpass
import os
import socket
from contextlib import closing
from pathlib import Path
from typing import Final

from scp_node.app import check_demonstration
from scp_node.cli.bundle_lines import Replacement, replacement_of_bundle
from scp_node.cli.console import UsageError, out, settings_of
from scp_node.inference.identity import ShadowRefusedError, identify, promoted
from scp_node.inference.served_model import ServedModel
from scp_node.inference.shadow import identify_shadow
from scp_node.ledger import Ledger, Promotion, ShadowQuery
from scp_node.opening import open_ledger

_LONGEST_NAME: Final = 128  # of a person


def promote(config: Path | None, by: str | None, *, yes: bool) -> None:
    """Check the bundle on trial, show what would be changed, and with `yes` change it.

    Raises:
        UsageError: `yes` is False, `by` is no name, or no bundle is on trial that could report.
        SettingsError: the settings file cannot be changed, or the node would not start with the bundle.
        BundleError, BackendError: the bundle cannot be served, or its golden check fails.
        LedgerError: the ledger cannot be used.
    """
    person = _person(by)
    settings = settings_of(config)
    reporting = identify(settings.inference)
    try:
        trial = identify_shadow(settings.inference, reporting)
        changed = promoted(settings.inference)
    except ShadowRefusedError as error:
        raise UsageError(f"model promote: {error}") from None
    replacement = replacement_of_bundle(config, settings)
    check_demonstration(settings.model_copy(update={"inference": changed}))
    served = ServedModel.open(changed)  # with its golden check
    promotion = Promotion(
        bundle=trial.bundle,
        bundle_digest=trial.digest,
        former_bundle=reporting.bundle,
        former_digest=reporting.digest,
        by=person,
    )
    with closing(open_ledger(settings)) as ledger:
        _show(ledger, promotion, replacement, served.runtime)
        if not yes:
            raise UsageError("model promote: nothing is changed; --yes does it")
        with replacement.undone_on_error():
            ledger.shadow.promote(promotion, replacement.carry_out)
    out.print(
        f"{replacement.path} written; what it was is kept as {replacement.kept.name}\n"
        "Next: restart the node, on every host, each with these settings.",
        highlight=False,
        markup=False,
    )


def _show(ledger: Ledger, promotion: Promotion, replacement: Replacement, runs_on: str) -> None:
    query = ShadowQuery(bundle_digest=promotion.bundle_digest, reporting_digest=promotion.former_digest)
    counts = ledger.shadow.counts(query)
    out.print(
        f"reporting  {promotion.former_bundle}  {promotion.former_digest}\n"
        f"on trial   {promotion.bundle}  {promotion.bundle_digest}\n"
        f"golden inputs agree on {runs_on}\n"
        f"both looked at {counts.images} images and disagree about {counts.disagreeing}\n"
        f"in {replacement.path}:\n{replacement.shown}",
        highlight=False,
        markup=False,
    )


def _person(by: str | None) -> str:
    if by is None:
        return f"{_user()}@{socket.gethostname()}"
    if not by.isprintable() or len(by) > _LONGEST_NAME:
        raise UsageError(f"--by: give a name of at most {_LONGEST_NAME} printable characters")
    return by


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may run as a user without a name
        return str(os.geteuid())
