"""The metrics for Prometheus: numbers of the ledger and of this machine, and nothing about a patient."""

from __future__ import annotations

import platform
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from scp_node import __version__
from scp_node.ledger import AWAY, DeliveryKey, QueueDepth, QueueKind, ResultKey, State
from scp_node.logs import get_logger
from scp_node.settings import SettingsError
from scp_node.tls.certificates import expiry_of, own_certificates
from scp_node.web.machine import disk_of
from scp_node.web.site import Site

if TYPE_CHECKING:
    from prometheus_client import Metric

log = get_logger(__name__)

CACHED_SECONDS: Final = 5.0
BUCKETS: Final = (2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 120.0, 300.0, 900.0, 3_600.0, 86_400.0)  # seconds
_STATES: Final = ("ready", "leased", "delayed", "dead")


class Collector:
    """Reads the ledger for the metrics, at most once in `CACHED_SECONDS`.

    Results are counted over the whole ledger. Deliveries and their times are counted since this process began, as
    counters of Prometheus may: a rate takes a new beginning for what it is.
    """

    def __init__(self, site: Site) -> None:
        """Count nothing yet: the first reading begins."""
        self._site = site
        self._lock = threading.Lock()
        self._position: int | None = None
        self._results: Counter[ResultKey] = Counter()
        self._deliveries: Counter[DeliveryKey] = Counter()
        self._times = [0] * (len(BUCKETS) + 1)
        self._times_sum = 0.0
        self._read_at = float("-inf")
        self._known: tuple[Metric, ...] = ()

    def text(self) -> str:
        """Return the metrics in Prometheus' text format 0.0.4."""
        from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415 - at the first reading

        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry).decode()

    def describe(self) -> Sequence[Metric]:
        """Return nothing: to name the metrics would need the ledger."""
        return ()

    def collect(self) -> Sequence[Metric]:
        """Return the metrics."""
        with self._lock:
            if time.monotonic() - self._read_at >= CACHED_SECONDS:
                self._known = tuple(self._read())
                self._read_at = time.monotonic()
            return self._known

    def _read(self) -> Iterator[Metric]:
        yield from self._of_machine()
        try:
            self._count()
            state = self._site.ledger.figures.state(idle=self._site.idle)
        except AWAY as error:
            log.warning("database is away, metrics without it", error=type(error).__name__)
            yield _gauge("database_up", "Whether the database answers.", 0)
            return
        yield _gauge("database_up", "Whether the database answers.", 1)
        yield from self._of_queues(state)
        yield from self._of_state(state)
        yield from self._counted()

    def _count(self) -> None:
        figures = self._site.ledger.figures
        if self._position is None:
            start = figures.start()
            self._results.update(start.results)
            self._position = start.position
        more = True
        while more:
            happened = figures.happened(self._position)
            self._position, more = happened.position, happened.more
            self._results.update(happened.results)
            self._deliveries.update(happened.deliveries)
            for seconds in happened.seconds:
                self._times_sum += seconds
                self._times[sum(seconds > limit for limit in BUCKETS)] += 1

    def _of_machine(self) -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily  # noqa: PLC0415

        program = InfoMetricFamily("scp_node_build", "The program that runs.")
        program.add_metric([], {"version": __version__, "python": platform.python_version()})
        yield program
        if model := self._site.model:
            served = InfoMetricFamily("scp_node_model", "The model that the settings name.")
            named = {"name": model.name, "version": model.version, "status": model.status, "digest": model.digest}
            served.add_metric([], named)
            yield served
        if disk := disk_of(self._site.settings):
            yield _gauge("disk_free_bytes", "Free space for received images.", disk.free)
            yield _gauge("disk_low_water_bytes", "Below this, no store is accepted.", disk.low_water)
        expiries = GaugeMetricFamily(
            "scp_node_certificate_expiry_timestamp_seconds",
            "When a certificate of ours expires, by the setting that names it.",
            labels=("setting",),
        )
        for used in own_certificates(self._site.settings):
            try:
                expiries.add_metric([used.setting], expiry_of(used.file, used.setting).timestamp())
            except SettingsError as error:
                log.warning("certificate cannot be read", reason=error)
        yield expiries

    def _of_queues(self, state: State) -> Iterator[Metric]:
        from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415

        depth = GaugeMetricFamily(
            "scp_node_queue_depth", "Work that is not closed.", labels=("queue", "destination", "state")
        )
        oldest = GaugeMetricFamily(
            "scp_node_queue_oldest_waiting_seconds",
            "How long the oldest due work waits; 0: nothing waits.",
            labels=("queue", "destination"),
        )
        for each in self._every_queue(state):
            names = [each.kind.value, each.destination]
            for word in _STATES:
                depth.add_metric([*names, word], getattr(each, word))
            oldest.add_metric(names, (state.at - each.oldest).total_seconds() if each.oldest else 0.0)
        yield from (depth, oldest)

    def _every_queue(self, state: State) -> list[QueueDepth]:
        """Return all queues that there should be, those with nothing in them as well: an alarm needs their zero."""
        found = {(each.kind, each.destination): each for each in state.depths}
        names = [entry.name for entry in self._site.settings.destinations]
        wanted = [(QueueKind.ANALYSE, ""), (QueueKind.REPORT, "")]
        wanted += [(kind, name) for kind in (QueueKind.DELIVER, QueueKind.COMMIT) for name in names]
        for kind, name in wanted:
            found.setdefault((kind, name), QueueDepth(kind=kind, destination=name))
        return list(found.values())

    def _of_state(self, state: State) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415

        paused = GaugeMetricFamily(
            "scp_node_destination_paused", "Whether it is only probed at present.", labels=("destination",)
        )
        failures = GaugeMetricFamily("scp_node_destination_failures", "Failures in a row.", labels=("destination",))
        for name in sorted({entry.name for entry in self._site.settings.destinations} | set(state.failures)):
            paused.add_metric([name], float(name in state.paused))
            failures.add_metric([name], state.failures.get(name, 0))
        yield from (paused, failures)
        yield _gauge("undeliverable_reports", "Reports that no destination is to get.", state.undeliverable)
        yield _gauge("conflicting_images", "Images that wait for a person to choose.", state.conflicts)
        yield _gauge("unregistrable_files", "Received files without a row in the ledger.", state.unregistrable)
        yield _gauge("web_sessions", "Logins to the web page that are not idle.", state.sessions)
        newest = state.newest_image.timestamp() if state.newest_image else 0.0
        yield _gauge("last_image_timestamp_seconds", "When the newest image came, Unix time; 0: none has.", newest)
        unsent = state.unsent if self._site.settings.audit_messages.host else 0
        yield _gauge("audit_messages_waiting", "Events that the collector of audit messages has not got.", unsent)
        yield _gauge("audit_unsealed", "Events that have no place in the hash chain yet.", state.unsealed.events)
        yield _gauge("audit_oldest_unsealed_seconds", "How long one waits; 0: none does.", state.unsealed.seconds)
        yield CounterMetricFamily(
            "scp_node_audit_events", "Length of the hash chain of the audit trail.", value=state.events
        )

    def _counted(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily  # noqa: PLC0415

        results = CounterMetricFamily(
            "scp_node_results", "Results of analyses, in the whole ledger.", labels=("outcome", "verdict", "reason")
        )
        for key, number in sorted(self._results.items(), key=str):
            results.add_metric([key.outcome, key.verdict, key.reason], number)
        yield results
        deliveries = CounterMetricFamily(
            "scp_node_deliveries",
            "What became of tries to deliver, since this process began.",
            labels=("destination", "outcome"),
        )
        for sent, number in sorted(self._deliveries.items(), key=str):
            deliveries.add_metric([sent.destination, sent.outcome], number)
        yield deliveries
        bounds = [*(f"{limit:g}" for limit in BUCKETS), "+Inf"]
        yield HistogramMetricFamily(
            "scp_node_receipt_to_delivery_seconds",
            "From the last image of a report to its delivery, since this process began.",
            buckets=list(zip(bounds, map(float, accumulate(self._times)), strict=True)),
            sum_value=self._times_sum,
        )


def _gauge(name: str, meaning: str, value: float) -> Metric:
    from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415

    return GaugeMetricFamily(f"scp_node_{name}", meaning, value=value)
