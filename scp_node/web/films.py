"""Films for the viewer, read in a decoder process: no pixel is decoded in the process of the page."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Final, Self

import anyio
import numpy as np
from anyio import to_thread
from fastapi import Depends, Request

from scp_node.analysis.answers import Film
from scp_node.decoders.pool import DecoderPool
from scp_node.decoders.process import DecoderStartError
from scp_node.domain import NotAnalysed
from scp_node.opening import stored_files
from scp_node.settings import Settings
from scp_node.spool import SpoolError

_CHUNK: Final = 2**20
_AT_ONCE: Final = 2  # requests that hold a film in memory; the others wait


class FilmNotShownError(Exception):
    """A film cannot be shown now or ever; the message is for people."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncodedFilm:
    """A film as the viewer takes it.

    Attributes:
        description: one object of JSON: the fields of `FilmView`, and rows, columns and levels of the octets.
        parts: the values as little-endian uint16, row by row, then the grey of each level.
    """

    description: str
    parts: tuple[memoryview, ...]

    @property
    def size(self) -> int:
        """Return the number of octets."""
        return sum(part.nbytes for part in self.parts)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the octets piece by piece: a whole film of the largest size has 128 MiB."""
        for part in self.parts:
            for begin in range(0, part.nbytes, _CHUNK):
                yield bytes(part[begin : begin + _CHUNK])


class Films:
    """Reads films one after another, in a process that starts with the first of them."""

    def __init__(self, settings: Settings) -> None:
        """Read the films of this node."""
        self._settings = settings
        self._files = stored_files(settings)
        self._lock = threading.Lock()
        self._pool: DecoderPool | None = None
        self._limiter = anyio.CapacityLimiter(_AT_ONCE)

    async def encoded(self, spool_path: str, *, full: bool) -> EncodedFilm:
        """Return a film as the viewer takes it.

        Raises:
            FilmNotShownError: its file is gone, or it cannot be read.
        """
        return await to_thread.run_sync(lambda: encoded(self._film(spool_path, full=full)), limiter=self._limiter)

    def file(self, spool_path: str) -> Path:
        """Return the stored file of an image.

        Raises:
            FilmNotShownError: it is gone.
        """
        try:
            with self._files.open([spool_path]) as [path]:
                if not self._files.holds(spool_path):
                    raise FilmNotShownError("The file of this image is not on the disk of this node.", 410)
                return path
        except SpoolError as error:
            raise FilmNotShownError("The file of this image cannot be read from the disk.", 503) from error

    def close(self) -> None:
        """End the process."""
        with self._lock:
            if self._pool:
                self._pool.close()
                self._pool = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _film(self, spool_path: str, *, full: bool) -> Film:
        path = self.file(spool_path)
        try:
            film = self._decoder().film(path, full=full)
        except DecoderStartError as error:
            raise FilmNotShownError("The process that reads films does not start: see the log.", 503) from error
        if isinstance(film, NotAnalysed):
            raise FilmNotShownError(f"The film cannot be shown: {film.sentence}.", 422)
        return film

    def _decoder(self) -> DecoderPool:
        with self._lock:
            if self._pool is None:
                analysis = self._settings.analysis
                self._pool = DecoderPool(analysis, processes=1, memory_mib=analysis.decoder_memory_mib)
            return self._pool


def encoded(film: Film) -> EncodedFilm:
    """Return a film as the viewer takes it."""
    rows, columns = film.values.shape
    described = asdict(film.view) | {"values_rows": rows, "values_columns": columns, "levels": film.greys.size}
    values = np.ascontiguousarray(film.values, dtype="<u2").data.cast("B")
    return EncodedFilm(description=json.dumps(described), parts=(values, np.ascontiguousarray(film.greys).data))


def _films(request: Request) -> Films:
    films: Films = request.app.state.films
    return films


FilmsOf = Annotated[Films, Depends(_films)]
