"""The answers that a sender gets, and what the node keeps."""

from __future__ import annotations

import hashlib
import logging
import struct
import threading
from pathlib import Path
from typing import Final

import pytest

from scp_node.dicom.inspection import Inspected, Origin, patient_key
from scp_node.domain import Priority, ReceivedInstance, RejectedInstance, TransferEnded
from scp_node.incoming import Incoming
from scp_node.listener import Listener
from scp_node.settings import Settings
from scp_node.spool import Spool, SpoolFullError
from tests.scp_node.listener import datasets
from tests.scp_node.listener.conftest import Running, Start
from tests.scp_node.listener.datasets import MISSING, encapsulated, radiograph, with_nested, without_pixels
from tests.scp_node.listener.peer import (
    ABORT,
    C_FIND_RQ,
    CLOSED,
    COMMAND_FIELD,
    CR,
    DATASET_TYPE,
    DX,
    IMPLICIT,
    MESSAGE_ID,
    NO_DATASET,
    PRIORITY,
    RELEASE_RP,
    SOP_CLASS,
    SOP_INSTANCE,
    Peer,
)
from tests.waiting import wait_until

JPEG_BASELINE: Final = "1.2.840.10008.1.2.4.50"


def test_a_radiograph_is_on_disk_and_described_when_success_is_said(running: Running) -> None:
    data = radiograph()
    with running.peer() as peer:
        assert peer.store(data).status == 0x0000
    [received] = running.received
    assert list(running.spool.paths()) == [received.spool_path]
    assert running.spool.read(received.spool_path) == received
    assert received == ReceivedInstance(
        sop_instance_uid="1.2.3",
        sop_class_uid=DX,
        study_uid=datasets.STUDY,
        series_uid=datasets.SERIES,
        accession="A-1",
        patient_id="CANARY-ID",
        issuer="",
        patient_key=patient_key(patient_id="CANARY-ID", issuer="", name="", birth_date=""),
        calling_ae="MODALITY1",
        called_ae="PNEUMONIA",
        peer="127.0.0.1",
        transfer_syntax="1.2.840.10008.1.2.1",
        sha256=received.sha256,
        size=len(data),
        spool_path=received.spool_path,
        header=without_pixels(data),
        priority=Priority.ROUTINE,
        received_at=received.received_at,
    )


def test_the_association_is_released_after_a_store(running: Running) -> None:
    with running.peer() as peer:
        peer.store(radiograph())
        assert peer.release() == RELEASE_RP


def test_an_implicit_vr_radiograph_is_stored(running: Running) -> None:
    with running.peer(contexts=[(DX, [IMPLICIT])]) as peer:
        assert peer.store(radiograph(implicit=True)).status == 0x0000
    assert running.spool.read(running.received[0].spool_path) == running.received[0]


def test_a_compressed_radiograph_is_stored(running: Running) -> None:
    data = without_pixels(radiograph()) + encapsulated(b"\xff\xd8\xff\xd9")
    with running.peer(contexts=[(DX, [JPEG_BASELINE])]) as peer:
        assert peer.store(data).status == 0x0000
    [received] = running.received
    assert received.transfer_syntax == JPEG_BASELINE
    assert running.spool.read(received.spool_path) == received


@pytest.mark.parametrize(
    ("data", "lacking"),
    [
        (without_pixels(radiograph()), "Pixel Data"),
        (radiograph(Rows=MISSING), "Rows"),
        (radiograph(Columns=MISSING), "Columns"),
    ],
    ids=["pixels", "rows", "columns"],
)
def test_an_image_that_lacks_what_makes_it_one_is_answered_c000_and_bars_nothing(
    running: Running, data: bytes, lacking: str
) -> None:
    with running.peer() as peer:
        answer = peer.store(data)
        assert peer.store(radiograph()).status == 0x0000
    assert (answer.status, answer.comment) == (0xC000, f"{lacking} is missing")
    assert [received.sop_instance_uid for received in running.received] == ["1.2.3"]


def test_forty_nested_sequences_are_stored(running: Running) -> None:
    with running.peer() as peer:
        assert peer.store(with_nested(40)).status == 0x0000


@pytest.mark.parametrize(
    "uid",
    ["1" * 65, "", MISSING, "../../etc/passwd", "/absolute", "1..2", "1.2.x", "1.2\n.3", b"1.2.\xff"],
    ids=["65 characters", "empty", "missing", "relative path", "absolute path", "dots", "letter", "newline", "bytes"],
)
def test_a_malformed_instance_uid_is_answered_0117_and_the_association_lives(running: Running, uid: object) -> None:
    with running.peer() as peer:
        assert peer.store(radiograph(), {SOP_INSTANCE: uid}).status == 0x0117
        assert peer.store(radiograph()).status == 0x0000
    [rejected] = running.rejected
    assert rejected.status == 0x0117
    assert rejected.sop_instance_uid.isprintable()
    assert rejected.peer == "127.0.0.1"
    assert len(list(running.spool.paths())) == 1


def test_a_class_that_is_not_served_is_answered_0122(running: Running) -> None:
    with running.peer() as peer:
        assert peer.store(radiograph(), {SOP_CLASS: "1.2.840.10008.5.1.4.1.1.2"}).status == 0x0122


@pytest.mark.parametrize(
    ("data", "command", "context"),
    [
        (radiograph(), {SOP_CLASS: CR}, 1),
        (radiograph(), {}, 3),
        (radiograph(SOPClassUID=CR), {}, 1),
        (radiograph(SOPInstanceUID="1.2.4"), {}, 1),
    ],
    ids=["class against context", "context against class", "class against dataset", "instance against dataset"],
)
def test_a_dataset_that_disagrees_with_its_command_is_answered_a900(
    running: Running, data: bytes, command: dict[int, object], context: int
) -> None:
    with running.peer() as peer:
        assert peer.store(data, command, context=context).status == 0xA900
    assert not running.received
    assert running.rejected[0].status == 0xA900


def damaged() -> dict[str, bytes]:
    sound = radiograph()
    pixels = sound.index(b"\xe0\x7f\x10\x00")
    return {
        "empty": b"",
        "random": bytes(range(256)),
        "cut in a header": sound[: pixels + 5],
        "cut in the pixels": sound[:-1],
        "cut in a value": sound[:20],
        "no study": radiograph(StudyInstanceUID=MISSING),
        "no series": radiograph(SeriesInstanceUID=MISSING),
        "malformed study": sound.replace(datasets.STUDY.encode(), b"1.2.x.1"),
        "short pixels": radiograph(Rows=9),
        "bomb": radiograph(Rows=65535, Columns=65535),
        "many frames": radiograph(NumberOfFrames="2147483647"),
        "pixels not encapsulated as declared": without_pixels(sound) + encapsulated(b"\xff\xd8"),
        "element twice": without_pixels(sound) + sound,
        "item outside": sound[:pixels] + b"\xfe\xff\x00\xe0" + bytes(4) + sound[pixels:],
        "garbage in front": b"\r\n\x1a\x00" + sound,
        "much garbage behind": sound + b"\xde\xad\xbe\xef" * 17,
        "garbage without pixels": sound[:pixels] + b"\xde\xad\xbe\xef" * 4,
        "only NULs": bytes(4_096),
        "sequences without end": datasets.nested(3)[:-8] + sound,
        "too deep": with_nested(65),
        "100,000 deep": with_nested(100_000),
    }


@pytest.mark.parametrize("what", damaged())
def test_a_damaged_dataset_is_answered_c000_with_a_comment(running: Running, what: str) -> None:
    with running.peer() as peer:
        answer = peer.store(damaged()[what])
        assert answer.status == 0xC000
        assert 0 < len(answer.comment) <= 64
        assert "CANARY" not in answer.comment.upper()
        assert peer.store(radiograph()).status == 0x0000
    assert [rejected.status for rejected in running.rejected] == [0xC000]
    assert len(list(running.spool.paths())) == 1


@pytest.mark.parametrize("what", datasets.oddities(radiograph()))
def test_an_oddity_that_loses_nothing_is_stored_as_it_came(running: Running, what: str) -> None:
    data = datasets.oddities(radiograph())[what]
    with running.peer() as peer:
        assert peer.store(data).status == 0x0000
    [received] = running.received
    assert (received.size, received.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert running.spool.read(received.spool_path) == received
    with running.spool.open([received.spool_path]) as [file]:
        assert file.read_bytes().endswith(b"dicom://127.0.0.1 " + data)


def test_an_oddity_is_in_the_log(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with running.peer() as peer:
        assert peer.store(radiograph()).status == 0x0000
        assert "oddities" not in caplog.text
        assert peer.store(datasets.oddities(radiograph())["all of it"]).status == 0x0000
    assert "oddities sop_instance_uid=1.2.3 foreign=3 without_vr=1 behind_end=512" in caplog.text


@pytest.mark.parametrize("what", datasets.implicit_oddities(radiograph(implicit=True)))
def test_an_oddity_in_implicit_vr_is_stored_as_it_came(running: Running, what: str) -> None:
    data = datasets.implicit_oddities(radiograph(implicit=True))[what]
    with running.peer(contexts=[(DX, [IMPLICIT])]) as peer:
        assert peer.store(data).status == 0x0000
    assert running.spool.read(running.received[0].spool_path) == running.received[0]
    assert running.received[0].header == datasets.without_pixels(radiograph(implicit=True))


@pytest.mark.parametrize(
    "data",
    [
        radiograph(SamplesPerPixel=MISSING),
        radiograph(PhotometricInterpretation=MISSING),
        radiograph(NumberOfFrames="0"),
        radiograph(NumberOfFrames="1234").replace(b"IS\4\x001234", b"IS\4\x001E99"),
        datasets.without_bits_allocated(radiograph()),
        datasets.without_bits_allocated(radiograph(SamplesPerPixel=MISSING, PhotometricInterpretation=MISSING)),
    ],
    ids=["samples", "photometric", "no frames", "malformed frames", "bits", "all of them"],
)
def test_a_film_that_is_badly_described_is_stored_and_its_outcome_says_so(running: Running, data: bytes) -> None:
    with running.peer() as peer:
        assert peer.store(data).status == 0x0000


def test_a_film_without_samples_per_pixel_must_have_all_its_pixels(running: Running) -> None:
    with running.peer() as peer:
        assert peer.store(radiograph(SamplesPerPixel=MISSING, Rows=9)).status == 0xC000


@pytest.mark.parametrize(
    "pixels",
    [encapsulated(), encapsulated(b"\xff\xd8\xff\xd9")[:-8], encapsulated(b"\xff\xd8\xff\xd9")[:-9]],
    ids=["no fragment", "no delimiter", "cut fragment"],
)
def test_incomplete_fragments_are_answered_c000(running: Running, pixels: bytes) -> None:
    with running.peer(contexts=[(DX, [JPEG_BASELINE])]) as peer:
        assert peer.store(without_pixels(radiograph()) + pixels).status == 0xC000


def test_an_instance_that_is_too_large_is_answered_a700_and_not_kept_in_memory(start_listener: Start) -> None:
    running = start_listener(listen={"max_instance_mib": 1})
    large = radiograph(Rows=800, Columns=800, PixelData=bytes(1_280_000))
    with running.peer() as peer:
        assert peer.store(large).status == 0xA700
        assert peer.store(radiograph()).status == 0x0000
    assert len(list(running.spool.paths())) == 1


def test_an_endless_dataset_ends_the_association(start_listener: Start) -> None:
    running = start_listener(listen={"max_instance_mib": 1})
    with running.peer() as peer, pytest.raises((ConnectionError, TimeoutError)):  # noqa: PT012 - fails at some send
        peer.send_store(bytes(100_000))
        for _ in range(1_000):
            peer.send_pdv(1, bytes(100_000), is_last=False)
    with running.peer() as peer:
        assert peer.echo().status == 0x0000


class FullSpool(Spool):
    """A spool whose disk has become full since the association was opened."""

    def _require_space(self) -> None:
        raise SpoolFullError("no space")

    def has_space(self) -> bool:
        return True  # until now


def test_a_disk_that_is_full_is_answered_a700(start_listener: Start, tmp_path: Path) -> None:
    running = start_listener(FullSpool(tmp_path / "full", low_water_bytes=0))
    with running.peer() as peer:
        answer = peer.store(radiograph())
    assert (answer.status, answer.comment) == (0xA700, "no space to store the instance")
    assert [rejected.status for rejected in running.rejected] == [0xA700]


class FullLater(Spool):
    """A spool whose disk becomes full while the first dataset comes."""

    looks = 0

    def _require_space(self) -> None:
        self.looks += 1
        if self.looks == 2:
            raise SpoolFullError("no space")

    def has_space(self) -> bool:
        return True


def test_a_disk_that_becomes_full_while_a_dataset_comes_is_answered_a700(start_listener: Start, tmp_path: Path) -> None:
    spool = FullLater(tmp_path / "full", low_water_bytes=0)
    running = start_listener(spool)
    with running.peer() as peer:
        peer.send_store_command()
        for _ in range(30):  # more than lies between two looks
            peer.send_pdv(1, bytes(100_000), is_last=False)
        peer.send_pdv(1, bytes(2))
        assert peer.answer().status == 0xA700
        assert not temporary_files(spool)
        assert peer.store(radiograph()).status == 0x0000


def temporary_files(spool: Spool) -> list[Path]:
    return list((spool._folder / "tmp").iterdir())


def test_a_dataset_lies_on_the_disk_while_it_comes_and_is_gone_after_an_abort(running: Running) -> None:
    data = radiograph(Rows=500, Columns=500, PixelData=bytes(500_000))
    with running.peer() as peer:
        peer.send_store_command()
        peer.send_pdv(1, data[:100_000], is_last=False)
        wait_until(lambda: [file.stat().st_size > 100_000 for file in temporary_files(running.spool)] == [True])
        peer.send(ABORT, bytes(4))
        wait_until(lambda: not temporary_files(running.spool))
    assert not list(running.spool.paths())


def test_a_dataset_that_is_refused_by_its_command_is_never_written(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    begin = running.spool.begin

    def noted(sop_class_uid: str, sop_instance_uid: str, origin: Origin) -> Incoming:
        begun.append(sop_instance_uid)
        return begin(sop_class_uid, sop_instance_uid, origin)

    monkeypatch.setattr(running.spool, "begin", noted)
    with running.peer() as peer:
        assert peer.store(radiograph(), {SOP_INSTANCE: "1..2"}).status == 0x0117
        assert peer.store(bytes(200_000), {SOP_CLASS: "1.2.840.10008.5.1.4.1.1.2"}).status == 0x0122
        assert peer.store(radiograph()).status == 0x0000
    assert begun == ["1.2.3"]


def test_a_request_without_a_dataset_is_answered_c000(running: Running) -> None:
    with running.peer() as peer:
        peer.send_store_command({DATASET_TYPE: NO_DATASET})
        answer = peer.answer()
    assert (answer.status, answer.comment) == (0xC000, "dataset is missing")


@pytest.mark.parametrize(("size", "status"), [(1 << 19, 0x0000), (1 << 20, 0xC000)])
def test_a_header_of_more_than_1_mib_is_answered_c000(running: Running, size: int, status: int) -> None:
    with running.peer() as peer:
        answer = peer.store(radiograph(ImageComments="x" * 10, EncapsulatedDocument=bytes(size)))
        assert answer.status == status
        assert peer.echo().status == 0x0000
    assert answer.comment == ("" if status == 0x0000 else "header is larger than the node allows")


def test_requests_that_wait_for_no_answer_are_answered_in_turn_and_not_read_ahead(start_listener: Start) -> None:
    running = start_listener(listen={"max_instance_mib": 8})
    data = radiograph(Rows=1000, Columns=1000, PixelData=bytes(2_000_000))
    with running.peer() as peer:

        def send_all() -> None:
            for _ in range(5):
                peer.send_store(data)

        sender = threading.Thread(target=send_all)
        sender.start()
        most = 0
        for _ in range(5):
            most = max(most, len(temporary_files(running.spool)))
            assert peer.answer().status == 0x0000
        sender.join()
    assert most <= 1
    assert len(running.received) == 5


class BrokenSpool(Spool):
    def keep(self, incoming: Incoming, inspected: Inspected, origin: Origin) -> ReceivedInstance:  # noqa: ARG002
        raise ZeroDivisionError


def test_a_bug_of_ours_is_answered_a700_and_logged(
    start_listener: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    running = start_listener(BrokenSpool(tmp_path / "broken", low_water_bytes=0))
    with running.peer() as peer:
        assert peer.store(radiograph()).status == 0xA700
    assert "store failed sop_instance_uid=1.2.3 peer=127.0.0.1" in caplog.text


def test_callbacks_that_fail_change_no_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: ReceivedInstance | RejectedInstance | TransferEnded) -> None:
        raise ZeroDivisionError

    spool = Spool(tmp_path / "spool", low_water_bytes=0)
    listener = Listener(Settings(listen={"port": 0}), spool, on_received=fail, on_rejected=fail, on_ended=fail)
    listener.start()
    try:
        with Peer(listener.address) as peer:
            peer.associate()
            assert peer.store(radiograph()).status == 0x0000
            assert peer.store(b"").status == 0xC000
            assert peer.release() == RELEASE_RP
        wait_until(lambda: "end of an association not recorded" in caplog.text)
    finally:
        listener.stop(1)
    assert "registration failed" in caplog.text
    assert "audit of a refusal failed" in caplog.text


@pytest.mark.parametrize(
    ("data", "command", "calling", "priority"),
    [
        (radiograph(), {}, "MODALITY1", Priority.ROUTINE),
        (radiograph(), {PRIORITY: 1}, "MODALITY1", Priority.HIGH),
        (radiograph(), {PRIORITY: 2}, "MODALITY1", Priority.ROUTINE),
        (radiograph(RequestedProcedurePriority="HIGH"), {}, "MODALITY1", Priority.HIGH),
        (radiograph(RequestedProcedurePriority="STAT"), {PRIORITY: 2}, "MODALITY1", Priority.STAT),
        (radiograph(), {}, "EMERGENCY", Priority.STAT),
        (radiograph(), {}, "emergency", Priority.ROUTINE),
    ],
)
def test_priority_comes_from_the_command_the_dataset_and_the_sender(
    start_listener: Start, data: bytes, command: dict[int, object], calling: str, priority: Priority
) -> None:
    running = start_listener(routing={"stat_calling_ae": ["EMERGENCY"]})
    with running.peer(calling=calling) as peer:
        assert peer.store(data, command).status == 0x0000
    [received] = running.received
    assert received.priority is priority
    assert running.spool.read(received.spool_path).priority is priority


@pytest.mark.parametrize(
    "command",
    [
        {COMMAND_FIELD: C_FIND_RQ},
        {COMMAND_FIELD: MISSING},
        {COMMAND_FIELD: 0x7777},
        {MESSAGE_ID: MISSING},
        {PRIORITY: 99},
    ],
    ids=["C-FIND", "no command field", "unknown command", "no message ID", "unknown priority"],
)
def test_a_request_that_cannot_be_answered_ends_the_association_only(
    running: Running, command: dict[int, object]
) -> None:
    with running.peer() as peer:
        peer.send_store(radiograph(), command)
        assert peer.receive()[0] in (ABORT, CLOSED)
    with running.peer() as peer:
        assert peer.store(radiograph()).status == 0x0000


def test_a_message_in_a_context_that_was_not_negotiated_ends_the_association(running: Running) -> None:
    with running.peer() as peer:
        peer.send_store(radiograph(), context=99)
        assert peer.is_closed()


def test_refused_stores_of_one_reason_are_a_line_and_their_number(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    with running.peer() as peer:
        for number in range(50):
            assert peer.store(b"", sop_instance=f"1.2.{number}").status == 0xC000
    running.listener.stop(5)
    lines = [line for line in caplog.messages if line.startswith("instance refused")]
    assert [line.split(" status")[0] for line in lines] == [
        "instance refused sop_instance_uid=1.2.0",
        "instance refused sop_instance_uid=1.2.49",
    ]
    assert lines[1].endswith("peer=127.0.0.1 reason='SOP Class UID is missing' unsaid=49")
    assert len(running.rejected) == 50


def test_no_patient_data_reaches_the_log(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    canary = radiograph(PatientBirthDate=MISSING) + b""
    bad_date = b"\x10\x00\x30\x00DA\x0c\x00CANARY 1901 "
    place = canary.index(struct.pack("<HH", 0x0020, 0x000D))
    with running.peer() as peer:
        assert peer.store(canary[:place] + bad_date + canary[place:]).status == 0x0000
        assert peer.store(radiograph().replace(datasets.STUDY.encode(), b"CANARY1")).status == 0xC000
        assert peer.store(radiograph(), {SOP_INSTANCE: "1.2.3\nERROR forged"}).status == 0x0117
    assert "CANARY" not in caplog.text.upper()
    assert "\nERROR forged" not in caplog.text
    assert "instance received sop_instance_uid=1.2.3 status=0x0000" in caplog.text
