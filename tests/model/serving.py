"""What the network is fed: by a training that prepared a film, and by the node's worker that received it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pneumonia_model.gate import Appearance
from pneumonia_training.films.manifests import OPTIONAL_COLUMNS
from pneumonia_training.films.prepare import prepare
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from scp_node.analysis.answers import Prepared
from scp_node.decoders import DecoderPool
from scp_node.dicom.inspection import Origin
from scp_node.dicom.part10 import PREAMBLE, decode_head
from scp_node.domain import ModelIdentity, NotAnalysed, Priority, ReceivedInstance, Region
from scp_node.inference.ports import Scores
from scp_node.ledger import create_ledger_engine, upgrade
from scp_node.loops.analyse import Analyser
from scp_node.runtime.leases import LeaseKeeper
from scp_node.settings import AnalysisSettings
from scp_node.spool import Spool
from tests.scp_node.ledger_node import LEASE, MODEL, Node
from tests.scp_node.spooled import put


def no_maps(rows: Sequence[int]) -> NDArray[np.float32]:
    """Fail: a test asks for no maps."""
    raise AssertionError(f"nobody asked for {len(rows)} maps")


@dataclass(slots=True)
class Recorder:
    """The worker's decoder and its network in one: decodes as the node does, and keeps what the network is fed."""

    pool: DecoderPool
    identity: ModelIdentity = MODEL
    fed: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    refused: dict[str, NotAnalysed] = field(default_factory=dict)
    _names: list[str] = field(default_factory=list)

    def prepare_many(self, paths: Sequence[Path]) -> list[Prepared | NotAnalysed]:
        outcomes = self.pool.prepare_many(paths)
        self._names = [path.name for path, of in zip(paths, outcomes, strict=True) if isinstance(of, Prepared)]
        self.refused |= {path.name: of for path, of in zip(paths, outcomes, strict=True) if isinstance(of, NotAnalysed)}
        return outcomes

    def same_film(self, path: Path, other: Path) -> bool:
        return self.pool.same_film(path, other)

    def scores(self, inputs: NDArray[np.float32]) -> Scores:
        self.fed |= dict(zip(self._names, inputs, strict=True))
        return Scores(logits=np.zeros(len(inputs), dtype=np.float32), maps=no_maps)

    def appearance(self, picture: NDArray[np.float32]) -> Appearance:
        raise AssertionError(f"nobody asked what {picture.shape} looks like")

    def probability(self, logit: float) -> float:
        return 1 / (1 + math.exp(-logit))

    def regions(self, inputs: NDArray[np.float32]) -> list[tuple[Region, ...]]:
        return [()] * len(inputs)

    def verify(self) -> None:
        pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Fed:
    """One film as both paths have it.

    Attributes:
        read: the file that the training read.
        trained: what the training keeps of it.
        served: what the node's network gets, None if the node refuses the film.
    """

    read: Path
    trained: NDArray[np.uint8]
    served: NDArray[np.float32] | None


def both_paths(files: Sequence[Path], folder: Path) -> dict[Path, Fed]:
    """Send files through the node's spool, ledger, decoder processes and worker, and through `training prepare`.

    The training reads each file as it lies there; one without a file head, which only a network sends, as the node
    stored it.
    """
    folder.mkdir(exist_ok=True)
    spool = Spool(folder / "spool", low_water_bytes=0)
    received = {file: _store(spool, file) for file in files}
    engine = create_ledger_engine(f"sqlite:///{folder / 'ledger.sqlite3'}")
    upgrade(engine)
    node = Node(engine)
    node.ledger.intake.register(list(received.values()))
    with DecoderPool(AnalysisSettings(), processes=2) as pool:
        recorder = Recorder(pool)
        worker = Analyser(
            ledger=node.ledger,
            leases=LeaseKeeper(node.ledger, LEASE),
            files=spool,
            decoder=recorder,
            network=recorder,
            batch_size=16,
            owner="w",
            clock=node.clock,
        )
        while worker.step():
            pass
    engine.dispose()
    names = {file: Path(item.spool_path).name for file, item in received.items()}
    assert recorder.fed.keys() | recorder.refused.keys() == set(names.values())
    with spool.open([item.spool_path for item in received.values()]) as stored:
        paths = {file: file if _has_head(file) else kept for file, kept in zip(received, stored, strict=True)}
    trained = _trained(list(paths.values()), folder / "cache")
    return {
        file: Fed(read=paths[file], trained=trained[str(paths[file])], served=recorder.fed.get(names[file]))
        for file in files
        if str(paths[file]) in trained
    }


def _trained(paths: Sequence[Path], cache: Path) -> dict[str, NDArray[np.uint8]]:
    films = pd.DataFrame({"path": [str(path) for path in paths], "label": 0, "fold": 0})
    films["group"] = [f"film-{row}" for row in range(len(films))]
    for column in OPTIONAL_COLUMNS:
        if column not in films:
            films[column] = ""
    prepared = prepare(films, root=Path(), cache=cache)
    stored = np.load(cache / "images.npy")
    assert np.array_equal(stored, prepared.images)
    return dict(zip(prepared.films["path"], stored, strict=True))


def _has_head(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(len(PREAMBLE))[-4:] == b"DICM"


def _store(spool: Spool, file: Path) -> ReceivedInstance:
    """Put a file's dataset into the spool, byte for byte but for Big Endian, which the node lets a sender convert."""
    octets = memoryview(file.read_bytes())
    syntax, offset = str(ImplicitVRLittleEndian), 0
    if _has_head(file):
        head = decode_head(octets)
        syntax, offset = head.transfer_syntax, head.offset
    dataset = octets[offset:]
    if syntax == ExplicitVRBigEndian:
        syntax, dataset = str(ExplicitVRLittleEndian), _little_endian(dcmread(file))
    origin = Origin(
        calling_ae="CR1", called_ae="PNEUMONIA", peer="127.0.0.1", transfer_syntax=syntax, priority=Priority.ROUTINE
    )
    return put(spool, dataset, origin)


def _little_endian(image: Dataset) -> memoryview:
    bare = Dataset()
    bare.update({element.tag: element for element in image})
    bare.PixelData = np.frombuffer(image.PixelData, dtype=">u2").astype("<u2").tobytes()
    buffer = BytesIO()
    dcmwrite(buffer, bare, implicit_vr=False, little_endian=True, enforce_file_format=False)
    return memoryview(buffer.getvalue())
