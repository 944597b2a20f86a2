"""The decoders for one loop of the worker: a read that takes minutes does not count as a hang of the loop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scp_node.analysis.answers import Picture, Prepared
from scp_node.decoders.pool import DecoderPool
from scp_node.domain import NotAnalysed
from scp_node.runtime.heartbeat import Progress


class WatchedDecoder:
    """Decoders with a deadline for each image; the deadline of the loop starts again when they are done."""

    def __init__(self, pool: DecoderPool, progress: Progress, *, others: int) -> None:
        """Read with `pool`, which may first have to read `others` images of another loop."""
        self._pool = pool
        self._progress = progress
        self._others = others

    def prepare_many(self, paths: Sequence[Path]) -> list[Prepared | NotAnalysed]:
        """See `DecoderPool.prepare_many`."""
        with self._progress.stage(self._pool.longest_seconds(len(paths) + self._others)):
            return self._pool.prepare_many(paths)

    def same_film(self, path: Path, other: Path) -> bool:
        """See `DecoderPool.same_film`."""
        with self._progress.stage(self._pool.longest_seconds(1 + self._others)):
            return self._pool.same_film(path, other)

    def picture(self, path: Path) -> Picture | NotAnalysed:
        """See `DecoderPool.picture`."""
        with self._progress.stage(self._pool.longest_seconds(1 + self._others)):
            return self._pool.picture(path)
