"""The sender's process: for each destination a loop that delivers and one that checks what has arrived.

One more loop seals the events of the audit trail: this process waits for networks most of the time, needs no model and
has a share in every node. Where the site has a collector of audit messages, another one sends them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import timedelta

from scp_node.audit_messages.collector import LONGEST_BATCH, Collector
from scp_node.audit_messages.events import source_of
from scp_node.delivery import CommitmentScu, QueryScu, StorageScu
from scp_node.domain import LARGEST_REQUEST
from scp_node.ledger import AWAY, Ledger
from scp_node.loops.associations import Associations
from scp_node.loops.audit_messages import AuditSender
from scp_node.loops.commit import Committer
from scp_node.loops.deliver import FurtherSender, Sender
from scp_node.opening import lease_of
from scp_node.report.sop_class import COMPANION_SOP_CLASSES, with_sop_class
from scp_node.roles.common import STEP_SECONDS, Loop, await_ledger, open_bells, owner_named, run_loops, sealing
from scp_node.roles.presence import deciding, presence
from scp_node.runtime.heartbeat import Heartbeat, Progress
from scp_node.runtime.leases import LeaseKeeper
from scp_node.runtime.patience import Patience
from scp_node.settings import DestinationSettings, Settings
from scp_node.tls.contexts import ClientTls, client_tls


def open_scu(settings: Settings, destination: DestinationSettings, tls: ClientTls | None) -> StorageScu:
    """Return what sends all that a report consists of to a destination, by `tls` where it is given."""
    return StorageScu(
        destination,
        calling_ae=settings.node.ae_title,
        sop_classes=settings.report.sop_classes,
        other_sop_classes=COMPANION_SOP_CLASSES,
        settings=settings.delivery,
        recast=with_sop_class,
        tls=tls,
    )


def _open_audit_sender(settings: Settings, ledger: Ledger) -> AuditSender:
    return AuditSender(
        ledger=ledger,
        collector=Collector(settings.audit_messages),
        source=source_of(settings),
        owner=owner_named("audit-messages"),
    )


def _release(telling: AuditSender) -> None:
    with suppress(*AWAY):
        telling.close()


def run_sender(settings: Settings, stop: threading.Event, heart: Heartbeat, *, allow_different: bool = False) -> int:
    """Deliver and commit until `stop` is set; return the exit status of the role.

    Raises:
        LedgerError: the schema of the database is not this program's, or another process of the ledger has other
            settings.
        SettingsError: a certificate for a destination, or for the collector of audit messages, cannot be used.
    """
    with ExitStack() as stack:
        bells = stack.enter_context(open_bells(settings))
        if (ledger := await_ledger(settings, stop, heart, bells)) is None:
            return 0
        stack.callback(ledger.close)
        decided = deciding(settings)
        stack.enter_context(presence(ledger, owner_named("sender"), decided, stop, allow_different=allow_different))
        leases = LeaseKeeper(ledger, lease_of(settings), hangs=heart.late).start()
        stack.callback(leases.close)

        def open_sender(
            destination: DestinationSettings,
            tls: ClientTls | None,
            progress: Progress,
            associations: Associations,
            kind: type[Sender],
        ) -> Callable[[], bool]:
            patience = Patience(stop, name=progress.name, renew=progress.renew)
            scu = open_scu(settings, destination, tls)
            stack.callback(scu.close)
            is_checked = destination.commitment or destination.find
            return kind(
                name=destination.name,
                scu=scu,
                ledger=ledger,
                leases=leases,
                settings=settings.delivery,
                owner=owner_named(f"sender:{destination.name}"),
                patiently=patience,
                check_after=timedelta(seconds=settings.delivery.commit_after_seconds) if is_checked else None,
                associations=associations,
            ).step

        def open_committer(destination: DestinationSettings, tls: ClientTls | None) -> Callable[[], bool]:
            calling_ae = settings.node.ae_title
            asker = CommitmentScu(destination, calling_ae=calling_ae, settings=settings.delivery, tls=tls)
            finder = QueryScu(destination, calling_ae=calling_ae, settings=settings.delivery, tls=tls)
            return Committer(
                name=destination.name,
                ledger=ledger,
                leases=leases,
                settings=settings.delivery,
                asker=asker if destination.commitment else None,
                finder=finder if destination.find else None,
                owner=owner_named(f"committer:{destination.name}"),
            ).step

        delivery = settings.delivery
        sending = STEP_SECONDS + delivery.connect_seconds + 3 * delivery.send_seconds
        asking = sending + delivery.commit_answer_seconds + LARGEST_REQUEST * delivery.send_seconds
        loops = sealing(ledger, heart)
        for entry in settings.destinations:
            tls = client_tls(entry)  # one for all that speak to the destination: its files are loaded once
            associations = Associations(entry.name, pause=delivery.probe_seconds)
            for number in range(1, entry.associations + 1):
                name = f"deliver:{entry.name}" if number == 1 else f"deliver:{entry.name}:{number}"
                progress = heart.loop(name, sending)
                kind = Sender if number == 1 else FurtherSender
                step = open_sender(entry, tls, progress, associations, kind)
                loops.append(Loop(progress=progress, step=step))
            committing = heart.loop(f"commit:{entry.name}", asking)
            loops.append(Loop(progress=committing, step=open_committer(entry, tls)))
        if settings.audit_messages.host:
            telling = _open_audit_sender(settings, ledger)
            stack.callback(_release, telling)
            loops.append(Loop(progress=heart.loop("audit-messages", STEP_SECONDS + LONGEST_BATCH), step=telling.step))
        return run_loops(stop, heart, loops, bells)
