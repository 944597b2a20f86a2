"""What a decoder does to its process stays there: the node goes on, and every image gets its own outcome."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pneumonia_model.preprocessing import to_display
from pydicom.dataset import Dataset

from scp_node.analysis.analyse import analyse_file, film_file
from scp_node.analysis.answers import Equipment, Film, FilmView, Picture, Prepared
from scp_node.decoders import DecoderPool, DecoderStartError
from scp_node.decoders.wire import GarbledReplyError, Wanted, encode_reply, most_pixel_bytes, take_reply
from scp_node.domain import NotAnalysed, Note, Reason
from scp_node.settings import AnalysisSettings
from tests.scp_node.analysis.films import MISSING, picture, radiograph, save
from tests.waiting import wait_until

MISBEHAVING: Final = (str(Path(__file__).with_name("misbehaving_decoder.py")),)
CREDENTIALS: Final = "SCP_NODE_DATABASE__URL"
QUICK: Final = AnalysisSettings(decode_seconds=0.5, confine_decoders=False)  # a decoder that misbehaves writes files
PATIENT: Final = AnalysisSettings()

WriteFilm = Callable[[str], Path]


@pytest.fixture
def film(tmp_path: Path) -> WriteFilm:
    """Write a chest film under a name, and return its path."""
    return lambda name: save(radiograph(), tmp_path / f"{name}.dcm")


@pytest.fixture(scope="module")
def real() -> Iterator[DecoderPool]:
    """Two decoder processes as the node has them."""
    with DecoderPool(PATIENT, processes=2, own=Equipment(manufacturer="us", model_name="node")) as pool:
        yield pool


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    """Two decoder processes that misbehave when asked to, with half a second for an image."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(CREDENTIALS, "postgresql://user:secret@host/db")
        with DecoderPool(QUICK, processes=2, program=MISBEHAVING) as pool:
            yield pool


def stopped(why: str) -> NotAnalysed:
    return NotAnalysed(reason=Reason.UNREADABLE_PIXELS, detail=f"decoder stopped: {why}")


def decoders() -> set[int]:
    """Return the child processes of this one that decode; servers of other tests are children, too."""
    return {child for child in children() if b"decoder" in _command(child)}


def _command(process: int) -> bytes:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{process}/cmdline").read_bytes()
    return b""


def children() -> set[int]:
    """Return the child processes of this one, those that ended and were not waited for among them."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            parent = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1]
            if int(parent) == os.getpid():
                found.add(int(stat.parent.name))
    return found


def descriptors() -> set[str]:
    """Return the descriptors that this process has open, and one for looking."""
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


class TestWithTheRealDecoder:
    def test_an_image_is_read_as_it_is_in_this_process(self, real: DecoderPool, film: WriteFilm) -> None:
        (there,), here = real.prepare_many([film("film")]), analyse_file(film("film"), PATIENT)
        assert isinstance(there, Prepared)
        assert isinstance(here, Prepared)
        assert np.array_equal(there.inputs, here.inputs)
        assert there.inputs.dtype == np.float32
        assert (there.notes, there.input_stats) == (here.notes, here.input_stats)

    def test_outcomes_come_in_the_order_of_the_images(self, real: DecoderPool, tmp_path: Path) -> None:
        views = ["PA", "LL", "AP", MISSING, "RL", "LAT", "LLD"]
        paths = [save(radiograph(ViewPosition=view), tmp_path / f"{i}.dcm") for i, view in enumerate(views)]
        said = [o.detail if isinstance(o, NotAnalysed) else o.notes for o in real.prepare_many(paths)]
        assert said == [
            (),
            "ViewPosition LL",
            (),
            (Note.VIEW_MISSING,),
            "ViewPosition RL",
            "ViewPosition LAT",
            "ViewPosition LLD",
        ]

    def test_the_nodes_own_objects_are_known_there_too(self, real: DecoderPool, tmp_path: Path) -> None:
        overlay = save(radiograph(Manufacturer="us", ManufacturerModelName="node"), tmp_path / "overlay.dcm")
        (outcome,) = real.prepare_many([overlay])
        assert isinstance(outcome, NotAnalysed)
        assert outcome.reason is Reason.OWN_OBJECT

    def test_no_images_are_no_work(self, real: DecoderPool) -> None:
        assert real.prepare_many([]) == []

    def test_a_missing_file_is_that_images_failure(self, real: DecoderPool, film: WriteFilm, tmp_path: Path) -> None:
        missing, present = real.prepare_many([tmp_path / "gone.dcm", film("film")])
        assert missing == NotAnalysed(reason=Reason.UNREADABLE_HEADER, detail="file: FileNotFoundError")
        assert isinstance(present, Prepared)

    @pytest.mark.parametrize(("size", "shape"), [((300, 600), (300, 600)), ((3000, 1500), (1024, 512))])
    def test_a_picture_keeps_its_aspect_ratio_and_is_as_large_as_a_screen_shows(
        self, real: DecoderPool, tmp_path: Path, size: tuple[int, int], shape: tuple[int, int]
    ) -> None:
        image = filmed(picture(*size))
        shown = real.picture(save(image, tmp_path / "film.dcm"))
        assert isinstance(shown, Picture)
        assert shown.display.shape == shape
        if size == shape:
            assert np.array_equal(shown.display, to_display(image))

    def test_a_picture_of_inverted_values_shows_the_same_film(self, real: DecoderPool, tmp_path: Path) -> None:
        upright = filmed(picture(300, 300))
        inverted = filmed(255 - picture(300, 300), PhotometricInterpretation="MONOCHROME1")
        shown = [real.picture(save(film, tmp_path / f"{i}.dcm")) for i, film in enumerate([upright, inverted])]
        assert all(isinstance(each, Picture) for each in shown)
        displays = [each.display.astype(int) for each in shown if isinstance(each, Picture)]
        assert np.abs(displays[0] - displays[1]).max() <= 1

    def test_a_picture_that_cannot_be_read_is_said_so(self, real: DecoderPool, tmp_path: Path) -> None:
        gone = real.picture(tmp_path / "gone.dcm")
        assert gone == NotAnalysed(reason=Reason.UNREADABLE_HEADER, detail="file: FileNotFoundError")
        (tmp_path / "text.dcm").write_text("no film")
        text = real.picture(tmp_path / "text.dcm")
        assert text == NotAnalysed(reason=Reason.UNREADABLE_PIXELS, detail="not readable again")

    @pytest.mark.parametrize(("full", "shape"), [(False, (2048, 1024)), (True, (3000, 1500))])
    def test_a_film_arrives_as_it_is_read_in_this_process(
        self, real: DecoderPool, tmp_path: Path, full: bool, shape: tuple[int, int]
    ) -> None:
        path = save(filmed(picture(3000, 1500), PixelSpacing=["0.14", "0.14"]), tmp_path / "film.dcm")
        there, here = real.film(path, full=full), film_file(path, full=full)
        assert isinstance(there, Film)
        assert isinstance(here, Film)
        assert there.values.shape == shape
        assert there.values.dtype == np.dtype("<u2")
        assert np.array_equal(there.values, here.values)
        assert np.array_equal(there.greys, here.greys)
        assert there.view == here.view

    def test_a_film_that_cannot_be_read_is_said_so(self, real: DecoderPool, tmp_path: Path) -> None:
        gone = real.film(tmp_path / "gone.dcm")
        assert gone == NotAnalysed(reason=Reason.UNREADABLE_HEADER, detail="file: FileNotFoundError")

    def test_several_threads_take_turns(self, real: DecoderPool, film: WriteFilm) -> None:
        path = film("film")
        outcomes: list[Prepared | NotAnalysed] = []
        threads = [threading.Thread(target=lambda: outcomes.extend(real.prepare_many([path] * 3))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [type(outcome) for outcome in outcomes] == [Prepared] * 12

    def test_a_film_that_needs_more_memory_than_allowed_fails(self, real: DecoderPool, tmp_path: Path) -> None:
        large = np.kron(picture(largest=4095), np.ones((8, 8), np.uint16))
        deep = {"Rows": 4096, "Columns": 4096, "BitsAllocated": 16, "BitsStored": 12, "HighBit": 11}
        path = save(radiograph(PixelData=large.tobytes(), **deep), tmp_path / "large.dcm")
        with DecoderPool(PATIENT, processes=1, memory_mib=64) as narrow:
            assert narrow.prepare_many([path]) == [stopped("memory")]
        assert isinstance(real.prepare_many([path])[0], Prepared)


class TestWithADecoderThatMisbehaves:
    def test_a_decoder_that_hangs_is_stopped_at_its_deadline(self, pool: DecoderPool, film: WriteFilm) -> None:
        hung, *others = pool.prepare_many([film("hang"), *[film("film")] * 4])
        assert hung == stopped("deadline")
        assert [type(outcome) for outcome in others] == [Prepared] * 4

    def test_a_decoder_that_crashes_takes_no_other_image_with_it(self, pool: DecoderPool, film: WriteFilm) -> None:
        first, crashed, last = pool.prepare_many([film("film"), film("crash"), film("film")])
        assert crashed == stopped("crash")
        assert isinstance(first, Prepared)
        assert isinstance(last, Prepared)

    def test_an_image_whose_decoder_was_ended_by_somebody_else_is_read_by_another(
        self, pool: DecoderPool, film: WriteFilm
    ) -> None:
        assert isinstance(pool.prepare_many([film("crash_once")])[0], Prepared)

    def test_an_idle_decoder_that_was_killed_is_replaced(self, pool: DecoderPool, film: WriteFilm) -> None:
        for child in decoders():
            os.kill(child, signal.SIGKILL)
        assert [type(o) for o in pool.prepare_many([film("film")] * 3)] == [Prepared] * 3

    def test_a_polite_request_to_end_is_the_nodes_affair(self, pool: DecoderPool, film: WriteFilm) -> None:
        pool.prepare_many([film("film")])
        before = decoders()
        wait_until(lambda: all(ignores_sigterm(child) for child in before), what="all decoders have started")
        for child in before:
            os.kill(child, signal.SIGTERM)  # as systemd does to all processes of a unit
            os.kill(child, signal.SIGINT)
        assert [type(o) for o in pool.prepare_many([film("film")] * 3)] == [Prepared] * 3
        assert decoders() == before

    def test_what_a_library_prints_is_not_taken_for_an_answer(self, pool: DecoderPool, film: WriteFilm) -> None:
        assert isinstance(pool.prepare_many([film("talk")])[0], Prepared)

    def test_a_decoder_can_write_no_file(self, pool: DecoderPool, film: WriteFilm, tmp_path: Path) -> None:
        assert isinstance(pool.prepare_many([film("write")])[0], Prepared)
        assert (tmp_path / "write.copy").stat().st_size == 0

    def test_a_decoder_does_not_know_our_secrets(self, pool: DecoderPool, film: WriteFilm) -> None:
        (outcome,) = pool.prepare_many([film("environment")])
        assert isinstance(outcome, NotAnalysed)
        assert "PATH" in outcome.detail
        assert CREDENTIALS not in outcome.detail

    def test_a_decoder_loads_neither_the_network_nor_the_report(self, pool: DecoderPool, film: WriteFilm) -> None:
        (outcome,) = pool.prepare_many([film("modules")])
        assert isinstance(outcome, NotAnalysed)
        loaded = {name.partition(".")[0] for name in outcome.detail.split()}
        assert "cv2" in loaded
        assert loaded.isdisjoint({"torch", "onnxruntime", "highdicom", "sqlalchemy", "pynetdicom"})

    def test_an_interrupted_call_leaves_no_answer_for_the_next_one(self, pool: DecoderPool, film: WriteFilm) -> None:
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(KeyboardInterrupt):
                pool.prepare_many([film("hang")])
        finally:
            signal.signal(signal.SIGALRM, before)
        assert isinstance(pool.prepare_many([film("film")])[0], Prepared)

    def test_nothing_is_left_behind_by_any_of_it(self, film: WriteFilm) -> None:
        processes, opened = children(), descriptors()
        with DecoderPool(QUICK, processes=1, program=MISBEHAVING) as pool:
            pool.prepare_many([film(name) for name in ("film", "hang", "crash_once")])
            assert len(children()) == len(processes) + 1
        assert children() == processes  # a zombie would be one of them
        assert descriptors() == opened


class TestStartAndEnd:
    @pytest.mark.parametrize(
        "program", ["raise SystemExit(3)", "import os, sys; os.write(1, bytes(99)); sys.stdin.read()"]
    )
    def test_a_decoder_that_does_not_start_is_no_fault_of_an_image(self, film: WriteFilm, program: str) -> None:
        with (
            DecoderPool(PATIENT, processes=1, program=("-c", program)) as pool,
            pytest.raises(DecoderStartError, match="before it was ready"),
        ):
            pool.prepare_many([film("film")])

    def test_an_answer_to_another_request_is_not_taken(self, film: WriteFilm) -> None:
        program = """if True:
            import sys
            from scp_node.decoders.wire import *
            from scp_node.domain import *
            out = sys.stdout.buffer
            out.write(encode_reply(0, Ready())); out.flush()
            sys.stdin.readline()
            for line in sys.stdin:
                number = Request.decode(line).number
                out.write(encode_reply(number + {OFFSET}, NotAnalysed(reason=Reason.VIEW))); out.flush()
        """
        for offset, expected in (("1", stopped("crash")), ("0", NotAnalysed(reason=Reason.VIEW))):
            with DecoderPool(PATIENT, processes=1, program=("-c", program.replace("{OFFSET}", offset))) as pool:
                assert pool.prepare_many([film("film")]) == [expected]

    def test_a_closed_pool_says_so(self, film: WriteFilm) -> None:
        pool = DecoderPool(PATIENT, processes=1)
        pool.close()
        pool.close()
        with pytest.raises(ValueError, match="closed"):
            pool.prepare_many([film("film")])

    def test_a_pool_has_at_least_one_process(self) -> None:
        with pytest.raises(ValueError, match="at least one"):
            DecoderPool(PATIENT, processes=0)

    @pytest.mark.parametrize("state", ["idle", "busy"])
    def test_decoders_end_when_the_node_is_killed(self, film: WriteFilm, tmp_path: Path, state: str) -> None:
        path = film("hang" if state == "busy" else "film")
        node = f"""if True:
            import pathlib, signal
            from scp_node.decoders import DecoderPool
            from scp_node.settings import AnalysisSettings
            pool = DecoderPool(AnalysisSettings(confine_decoders=False), processes=1, program=({MISBEHAVING[0]!r},))
            print(pool._processes[0]._process.pid, flush=True)
            pool.prepare_many([pathlib.Path({str(path)!r})])
            print("done", flush=True)
            signal.pause()
        """
        with subprocess.Popen([sys.executable, "-c", node], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            decoder = int(process.stdout.readline())
            if state == "busy":
                wait_until((tmp_path / "hang.started").exists)
            else:
                assert process.stdout.readline() == "done\n"
            assert is_running(decoder)
            process.kill()
        wait_until(lambda: not is_running(decoder), what="the decoder has ended")


def test_a_pool_for_rare_images_starts_no_process_before_the_first(film: WriteFilm) -> None:
    before = decoders()
    with DecoderPool(PATIENT, processes=1, at_first_image=True) as pool:
        assert decoders() == before
        assert isinstance(pool.picture(film("first")), Picture)
        assert len(decoders() - before) == 1


def test_a_process_that_only_asks_loads_no_library_that_reads_images() -> None:
    code = "import sys, scp_node.decoders, scp_node.spool, scp_node.report.text; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "numpy" in loaded
    assert set(loaded).isdisjoint({"cv2", "pydicom", "gdcm", "onnxruntime", "sqlalchemy", "pynetdicom"})


def ignores_sigterm(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    ignored = next(line for line in status.splitlines() if line.startswith("SigIgn:"))
    return bool(int(ignored.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def filmed(pixels: NDArray[np.uint16], **attributes: object) -> Dataset:
    rows, columns = pixels.shape
    return radiograph(PixelData=pixels.astype(np.uint8).tobytes(), Rows=rows, Columns=columns, **attributes)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("sizes", [(2**31, 0), (2, 2**31), (2, 1024 * 1024 + 1)])
def test_a_decoder_cannot_make_the_node_wait_for_gigabytes(sizes: tuple[int, int]) -> None:
    with pytest.raises(GarbledReplyError):
        take_reply(bytearray(struct.pack("<III", 1, *sizes)), 1024 * 1024)


def spoilt(film: Film, change: Callable[[dict[str, Any]], object]) -> bytes:
    """Return the reply with this film after a change of its JSON."""
    number, text, pixels = struct.unpack("<III", (whole := encode_reply(1, film))[:12])
    fields = json.loads(whole[12 : 12 + text])
    change(fields)
    changed = json.dumps(fields).encode()
    return struct.pack("<III", number, len(changed), pixels) + changed + whole[12 + text :]


VIEW: Final = FilmView(centre=1.5, width=3.0, has_own_view=True, base=0.0, step=1.0, rows=3, columns=2)
SMALL: Final = Film(values=np.zeros((3, 2), np.uint16), greys=np.arange(5, dtype=np.uint8), view=VIEW)


def test_a_film_that_no_change_spoilt_is_taken() -> None:
    reply = take_reply(bytearray(spoilt(SMALL, lambda _: None)), most_pixel_bytes(Wanted.FILM))
    assert reply is not None
    assert isinstance(reply[1], Film)
    assert reply[1].view == VIEW


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields.update(shape=[3, 3]),  # no greys are left
        lambda fields: fields.update(shape=[3000, 3000]),
        lambda fields: fields.update(shape=[-3, -2]),
        lambda fields: fields.update(shape=[0, 2]),
        lambda fields: fields.update(shape=[6]),
        lambda fields: fields["view"].update(width=0),
        lambda fields: fields["view"].update(centre=float("nan")),
        lambda fields: fields["view"].update(spacing=["x"]),
        lambda fields: fields["view"].pop("step"),
        lambda fields: fields.update(kind="Movie"),
    ],
)
def test_a_film_with_another_form_is_no_reply(change: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(GarbledReplyError):
        take_reply(bytearray(spoilt(SMALL, change)), most_pixel_bytes(Wanted.FILM))


def test_a_decoder_sends_no_more_pixels_than_it_was_asked_for() -> None:
    large = Film(values=np.zeros((2049, 2048), np.uint16), greys=np.zeros(65_536, np.uint8), view=VIEW)
    reply = encode_reply(1, large)
    with pytest.raises(GarbledReplyError):
        take_reply(bytearray(reply), most_pixel_bytes(Wanted.FILM))
    assert take_reply(bytearray(reply), most_pixel_bytes(Wanted.WHOLE_FILM)) is not None


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_of_a_decoder_are_taken_for_more_than_they_are(written: bytes) -> None:
    received = bytearray(written)
    try:
        reply = take_reply(received, 0)
    except GarbledReplyError:
        return
    assert reply is None


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(Reason), st.text(max_size=50), st.integers(1, 40))
def test_a_reply_arrives_as_it_was_sent_however_it_is_cut(number: int, reason: Reason, detail: str, cut: int) -> None:
    sent = NotAnalysed(reason=reason, detail=detail)
    whole = encode_reply(number, sent)
    received = bytearray(whole[:cut])
    assert take_reply(received, 0) is None
    received += whole[cut:]
    assert take_reply(received, 0) == (number, sent)
    assert not received
