"""Decodes in separate processes: a bomb, a hang or a crash of a decoder ends only its process."""

from __future__ import annotations

import selectors
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from scp_node.analysis.answers import Equipment, Film, Picture, Prepared
from scp_node.decoders.process import START_SECONDS, DecoderEndedError, DecoderProcess, DecoderStartError
from scp_node.decoders.wire import Compared, OutOfMemory, Question, Setup, Wanted
from scp_node.domain import NotAnalysed, Reason
from scp_node.settings import AnalysisSettings

DECODER: Final = ("-P", "-m", "scp_node.decoders.program")  # -P: do not import modules from the working folder

_MOST_FAILED_STARTS: Final = 3  # in one call; somebody else may have ended one of the processes
_MISUNDERSTOOD: Final = NotAnalysed(reason=Reason.UNREADABLE_PIXELS, detail="decoder answered another question")


class DecoderPool:
    """Decoder processes that are reused from image to image; for many threads, which take turns.

    If a decoder crashes or runs out of memory, a second one gets the image before the image is blamed: somebody else
    may have ended the first, or earlier images may have filled its memory.
    """

    def __init__(
        self,
        rules: AnalysisSettings,
        *,
        processes: int = 2,
        memory_mib: int = 1_536,
        own: Equipment | None = None,
        program: Sequence[str] = DECODER,
        at_first_image: bool = False,
    ) -> None:
        """Start the processes, without waiting for them.

        Args:
            rules: the intended use, and the time limit for one image.
            processes: number of images that are read at the same time, at least 1.
            memory_mib: growth allowed to a process while it reads an image; the largest accepted image needs 850.
            own: the signature of this node's objects.
            program: arguments of the Python interpreter that start a decoder process.
            at_first_image: start them only when the first image is to be read: many nodes never show one.

        Raises:
            DecoderStartError: the system cannot start a process.
        """
        if processes < 1:
            raise ValueError("a pool has at least one process")
        self._seconds = rules.decode_seconds
        self._setup = Setup(rules=rules, own=own, memory_mib=memory_mib)
        self._program = tuple(program)
        self._lock = threading.Lock()
        self._closed = False
        self._size = processes
        self._processes: list[DecoderProcess] = []
        try:
            if not at_first_image:
                self._fill_up()
        except DecoderStartError:
            self.close()
            raise

    def longest_seconds(self, images: int) -> float:
        """Return the longest time in which `images` images are read, each tried at most twice."""
        rounds = -(-images // self._size)
        return 2 * rounds * (self._seconds + START_SECONDS)

    def prepare_many(self, paths: Sequence[Path]) -> list[Prepared | NotAnalysed]:
        """Return for each DICOM file, in order, the network's input or the reason why the image gets no score.

        Raises:
            DecoderStartError: a decoder process does not start.
        """
        answers = self._ask([Question(path=path) for path in paths])
        return [answer if isinstance(answer, Prepared | NotAnalysed) else _MISUNDERSTOOD for answer in answers]

    def picture(self, path: Path) -> Picture | NotAnalysed:
        """Return the picture of a DICOM file that was analysed before, or the reason why that is no longer possible.

        Raises:
            DecoderStartError: a decoder process does not start.
        """
        [answer] = self._ask([Question(path=path, wanted=Wanted.PICTURE)])
        return answer if isinstance(answer, Picture | NotAnalysed) else _MISUNDERSTOOD

    def film(self, path: Path, *, full: bool = False) -> Film | NotAnalysed:
        """Return a DICOM file for a viewer, its long side at most FILM_SIDE unless `full`, or why it cannot be read.

        Raises:
            DecoderStartError: a decoder process does not start.
        """
        [answer] = self._ask([Question(path=path, wanted=Wanted.WHOLE_FILM if full else Wanted.FILM)])
        return answer if isinstance(answer, Film | NotAnalysed) else _MISUNDERSTOOD

    def same_film(self, path: Path, other: Path) -> bool:
        """Return whether two DICOM files hold one film in two encodings; False if that cannot be told.

        Raises:
            DecoderStartError: a decoder process does not start.
        """
        [answer] = self._ask([Question(path=path, wanted=Wanted.COMPARISON, other=other)])
        return isinstance(answer, Compared) and answer.same

    def _ask(self, questions: Sequence[Question]) -> list[Prepared | Picture | Film | Compared | NotAnalysed]:
        with self._lock:
            if self._closed:
                raise ValueError("the pool is closed")
            batch = _Batch(questions)
            try:
                while len(batch.outcomes) < len(questions):
                    self._hand_out(batch)
                    self._collect(batch)
            finally:
                for process in batch.busy:  # after an exception: nobody may take its answer for a later one
                    self._discard(process)
            return [batch.outcomes[index] for index in range(len(questions))]

    def close(self) -> None:
        """End the processes after the images of other threads; a second call does nothing."""
        with self._lock:
            self._closed = True
            while self._processes:
                self._processes.pop().stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fill_up(self) -> None:
        while len(self._processes) < self._size:
            self._processes.append(DecoderProcess(self._program, self._setup))

    def _discard(self, process: DecoderProcess) -> int | None:
        self._processes.remove(process)
        return process.stop()

    def _hand_out(self, batch: _Batch) -> None:
        self._fill_up()
        for process in [process for process in self._processes if process.is_idle]:
            if not batch.waiting:
                return
            index = batch.waiting.popleft()
            if process.ask(batch.questions[index], self._seconds):
                batch.busy[process] = index
            else:
                batch.waiting.appendleft(index)
                self._discard(process)

    def _collect(self, batch: _Batch) -> None:
        expected = [process for process in self._processes if not process.is_idle]
        for process in _readable(expected):
            self._receive(process, batch)
        for process in expected:
            if not process.is_idle and process in self._processes and process.deadline <= time.monotonic():
                self._give_up(process, batch, "deadline")

    def _receive(self, process: DecoderProcess, batch: _Batch) -> None:
        try:
            answer = process.receive()
        except DecoderEndedError:
            self._give_up(process, batch, "crash")
            return
        if isinstance(answer, OutOfMemory):
            self._give_up(process, batch, "memory")
        elif answer is not None:
            batch.outcomes[batch.busy.pop(process)] = answer

    def _give_up(self, process: DecoderProcess, batch: _Batch, why: str) -> None:
        status = self._discard(process)
        if process not in batch.busy:
            batch.failed_starts += 1
            if batch.failed_starts == _MOST_FAILED_STARTS:
                raise DecoderStartError(f"decoder process ended before it was ready: {why}, exit status {status}")
            return
        index = batch.busy.pop(process)
        if why != "deadline" and index not in batch.asked_again:
            batch.asked_again.add(index)
            batch.waiting.appendleft(index)
        else:
            detail = f"decoder stopped: {why}"
            batch.outcomes[index] = NotAnalysed(reason=Reason.UNREADABLE_PIXELS, detail=detail)


class _Batch:
    """The images of one call, by their index in it."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self.questions = questions
        self.waiting = deque(range(len(questions)))
        self.busy: dict[DecoderProcess, int] = {}
        self.asked_again: set[int] = set()
        self.failed_starts = 0
        self.outcomes: dict[int, Prepared | Picture | Film | Compared | NotAnalysed] = {}


def _readable(processes: Sequence[DecoderProcess]) -> list[DecoderProcess]:
    """Wait until a process writes something, or for the first deadline; return the processes that wrote."""
    if not processes:
        return []
    with selectors.DefaultSelector() as selector:
        for process in processes:
            selector.register(process, selectors.EVENT_READ)
        first_deadline = min(process.deadline for process in processes)
        events = selector.select(max(0.0, first_deadline - time.monotonic()))
    return [process for process in processes if process.fileno() in {key.fd for key, _ in events}]
