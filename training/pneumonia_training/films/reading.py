"""Reads films through the node's preprocessing, in several processes and in order; a bad film harms no other."""

import contextlib
import hashlib
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
from numpy.typing import NDArray
from pneumonia_model.preprocessing import input_from_display, to_display
from pydicom import dcmread

from pneumonia_training.films.manifests import ManifestError
from pneumonia_training.films.problems import Problem, fingerprint

Picture = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadFilm:
    """The result of reading one film, or its problem; `pixels` is a hash of the pixels, `fingerprint` is in hex."""

    problem: str = ""
    detail: str = ""
    pixels: str = ""
    fingerprint: str = ""
    view: str = ""
    age: str = ""
    sex: str = ""


Chunk = list[tuple[ReadFilm, Picture | None]]


def film_input(path: Path) -> NDArray[np.float32]:
    """Return a DICOM, JPEG or PNG film as the network's input."""
    return input_from_display(_display(path)[0])


def _display(path: Path) -> tuple[Picture, dict[str, str]]:
    """Return a film's display values at full size, with the view, age and sex from its header."""
    if path.suffix.lower() in {".jpg", ".jpeg", ".png"}:
        octets = path.read_bytes()
        display = cv2.imdecode(np.frombuffer(octets, dtype=np.uint8), cv2.IMREAD_GRAYSCALE) if octets else None
        if display is None or _is_cut(octets):
            raise ManifestError(f"{path.name}: not a readable picture, or only a part of one")
        return np.asarray(display, dtype=np.uint8), {}
    image = dcmread(path)
    keywords = {"view": "ViewPosition", "age": "PatientAge", "sex": "PatientSex"}
    return to_display(image), {name: str(image.get(keyword) or "").strip() for name, keyword in keywords.items()}


def _is_cut(octets: bytes) -> bool:
    """Return whether a JPEG stream stops within its scan: OpenCV 4 paints the missing part grey without a warning."""
    return octets.startswith(b"\xff\xd8") and octets.rfind(b"\xff\xd9") < octets.rfind(b"\xff\xda")


def read_films(paths: Sequence[Path]) -> Chunk:
    """Return the result for each film and, if it could be read, its input in 8 bits, shape (224, 224)."""
    return [_read_film(path) for path in paths]


def _read_film(path: Path) -> tuple[ReadFilm, Picture | None]:
    if not path.is_file():
        return ReadFilm(problem=Problem.MISSING, detail="no such file"), None
    try:
        display, header = _display(path)
    except Exception as error:  # noqa: BLE001 - decoders of other makers meet any file that a user names
        return ReadFilm(problem=Problem.UNREADABLE, detail=str(error) or type(error).__name__), None
    # An input is a resized 8-bit picture divided by 255, so 8 bits lose nothing.
    picture = np.rint(input_from_display(display) * 255).astype(np.uint8)
    pixels = hashlib.sha256(f"{display.shape}".encode() + display.tobytes()).hexdigest()
    return ReadFilm(pixels=pixels, fingerprint=fingerprint(picture).hex(), **header), picture


def read_in_order(
    chunks: Iterable[Sequence[Path]], *, jobs: int, read: Callable[[Sequence[Path]], Chunk] = read_films
) -> Iterator[Chunk]:
    """Yield the result of `read` for each chunk, in order, from `jobs` processes (0: from this one).

    A film that ends its process, as a decoder in C may, counts as unreadable; the rest of its chunk is read again.
    """
    if jobs == 0:
        yield from map(read, chunks)
        return
    source, waiting = iter(chunks), deque[tuple[Sequence[Path], Future[Chunk]]]()
    pool = _pool(jobs)
    try:
        while True:
            while len(waiting) <= 2 * jobs and (chunk := next(source, None)) is not None:
                waiting.append((chunk, _submit(pool, read, chunk)))
            if not waiting:
                return
            chunk, future = waiting.popleft()
            try:
                result = future.result()
            except BrokenProcessPool:
                pool.shutdown()
                result = _read_one_by_one(chunk, read)
                pool = _pool(jobs)
                waiting = deque((later, _submit(pool, read, later)) for later, _ in waiting)
            yield result
    finally:
        pool.shutdown(cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, read: Callable[[Sequence[Path]], Chunk], chunk: Sequence[Path]) -> Future[Chunk]:
    """Return the chunk's future; if the pool has just broken, the future fails like those submitted before."""
    try:
        return pool.submit(read, chunk)
    except BrokenProcessPool as error:
        failed = Future[Chunk]()
        failed.set_exception(error)
        return failed


def _read_one_by_one(paths: Sequence[Path], read: Callable[[Sequence[Path]], Chunk]) -> Chunk:
    """Return the result of `read` for each film, one at a time, to find the film that ends its process."""
    films: Chunk = []
    with contextlib.ExitStack() as pools:
        pool = pools.enter_context(_pool(1))
        for path in paths:
            try:
                films += pool.submit(read, [path]).result()
            except BrokenProcessPool:
                films.append((ReadFilm(problem=Problem.UNREADABLE, detail="its decoder ended the process"), None))
                pool = pools.enter_context(_pool(1))
    return films


class _ReaderProcess(SpawnProcess):
    """A new process without the parent's `__main__`, since the command line's loads torch, 1 GB in each process."""

    def start(self) -> None:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")  # has no origin for multiprocessing to pass on
        try:
            super().start()
        finally:
            sys.modules["__main__"] = main


class _ReaderContext(SpawnContext):
    Process = _ReaderProcess


def _pool(jobs: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(jobs, mp_context=_ReaderContext(), initializer=_start_process)


def _start_process() -> None:
    """Use one core, leave an interrupt from the keyboard to the parent, and end if the parent is killed."""
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
