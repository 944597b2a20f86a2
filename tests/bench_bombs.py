"""`make bench`: what each bomb costs a decoder process, and the film after it. The most of several runs."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from scp_node.analysis.answers import Prepared
from scp_node.decoders import DecoderPool
from scp_node.domain import NotAnalysed
from scp_node.settings import AnalysisSettings
from tests.scp_node.analysis.films import radiograph, save
from tests.scp_node.decoders.bombs import BOMBS, bomb, decoder_process, peak_mib


def main() -> None:
    """Give each bomb to a decoder process of its own and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    table = Table(
        "bomb", "file", "refused after", "peak", "next film", "because", title=f"{len(BOMBS)} bombs, {runs} runs"
    )
    with tempfile.TemporaryDirectory() as folder:
        good = save(radiograph(), Path(folder) / "film.dcm")
        for name in BOMBS:
            path = save(bomb(name), Path(folder) / "bomb.dcm")
            costs = [_cost(path, good) for _ in range(runs)]
            table.add_row(
                name,
                f"{path.stat().st_size / 1024:,.0f} KiB",
                f"{max(cost[0] for cost in costs):.3f} s",
                f"{max(cost[1] for cost in costs):,} MiB",
                f"{max(cost[2] for cost in costs):.3f} s",
                costs[0][3],
            )
    Console(width=200).print(table)


def _cost(path: Path, good: Path) -> tuple[float, int, float, str]:
    """Return the seconds to the refusal, the peak in MiB, the seconds of the next film, and the reason."""
    with DecoderPool(AnalysisSettings(), processes=1) as pool:
        pool.prepare_many([good])
        process = decoder_process(pool)
        began = time.perf_counter()
        (outcome,) = pool.prepare_many([path])
        refused = time.perf_counter()
        (following,) = pool.prepare_many([good])
        read = time.perf_counter()
        if not isinstance(following, Prepared) or not isinstance(outcome, NotAnalysed):
            raise SystemExit(f"{path}: {outcome}, and then {following}")
        if decoder_process(pool) != process:
            raise SystemExit(f"{path}: the decoder process ended: {outcome}")
        return refused - began, peak_mib(process), read - refused, f"{outcome.reason}: {outcome.detail}"


if __name__ == "__main__":
    main()
