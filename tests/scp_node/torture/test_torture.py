"""Attacks on a Storage SCP: the node holds, an SCP that does not is seen, and the bounds are kept."""

from __future__ import annotations

import json
import operator
import time
from collections import Counter
from dataclasses import replace
from io import StringIO
from random import Random
from typing import Final

from rich.console import Console

from scp_node.cli.torture import print_rows
from scp_node.torture.attacks import ATTACKS, Ending, Titles, next_word
from scp_node.torture.conversations import changed, sound_conversation
from scp_node.torture.peer import Peer
from scp_node.torture.rows import Row, Verdict, attacks_named, number_of, rows_of, target_of
from scp_node.torture.swarm import Bounds, Swarm
from scp_node.torture.witness import Echo, Echoes
from tests.certificates import Certificates
from tests.chaos.kit.process_tree import Process, processes
from tests.command import run_here
from tests.node import Node
from tests.scp_node.listener.conftest import Running, Start
from tests.scp_node.torture.conftest import PlainScp
from tests.waiting import wait_until

TITLES: Final = Titles("TORTURE", "PNEUMONIA")
SHORT: Final = Bounds(seconds=0.2, most=400, seed=1, echo_every_seconds=0.05, recovery_seconds=20)
FUZZED: Final = 200  # conversations


def tortured(port: int, *names: str, bounds: Bounds = SHORT) -> list[Row]:
    """Return the rows of these attacks, or of all, behind the one without an attack."""
    return list(rows_of(target_of("127.0.0.1", port, TITLES), bounds, attacks_named(names)))


def verdicts(port: int, *names: str, bounds: Bounds = SHORT) -> list[Verdict]:
    return [row.verdict for row in tortured(port, *names, bounds=bounds)[1:]]


def test_the_node_holds_against_every_attack_with_every_echo_answered(node: Node) -> None:
    patient = replace(SHORT, patience_seconds=60)  # other tests use the processor as well
    rows = tortured(node.settings.listen.port, bounds=patient)
    assert [row.attack for row in rows] == ["nothing", *(attack.name for attack in ATTACKS)]
    assert {row.attack: row.verdict for row in rows if row.verdict not in {Verdict.HELD, Verdict.SLOW}} == {}
    assert all(row.opened for row in rows[1:])
    assert "Traceback" not in node.log


def test_changed_conversations_leave_nothing_behind_in_the_node(node: Node) -> None:
    assert node.process is not None
    [listener] = [each for each in processes(node.process.pid) if each.role == "listener"]
    [mutated] = attacks_named(["mutated"])
    target = target_of("127.0.0.1", node.settings.listen.port, TITLES).of_attack(number_of(mutated))
    Swarm(mutated, target, Bounds(seconds=30, most=50, seed=19)).run()  # what is opened once
    before = settled(listener)
    ended = Swarm(mutated, target, Bounds(seconds=30, most=FUZZED, seed=20)).run()
    assert ended.opened == FUZZED
    assert not {"unanswered", "still open", "not connected", "odd answer"} & set(ended.number)
    wait_until(lambda: all(map(operator.le, listener.held(), before)), what="threads and descriptors are as before")
    assert node.is_listening()
    assert "Traceback" not in node.log


def settled(process: Process) -> tuple[int, int]:
    """Return threads and descriptors once they are the same for half a second."""
    since, last = time.monotonic(), process.held()

    def is_steady() -> bool:
        nonlocal since, last
        if (now := process.held()) != last:
            since, last = time.monotonic(), now
        return time.monotonic() > since + 0.5

    wait_until(is_steady)
    return last


def test_what_the_attacks_change_is_a_conversation_that_the_node_takes(running: Running) -> None:
    words: Counter[str] = Counter()
    for seed in range(20):
        first, *rest = sound_conversation(Random(seed), calling=TITLES.calling, called=TITLES.called)
        with Peer(running.address) as peer:
            peer.send_raw(first)
            assert next_word(peer) == "accepted"
            for pdu in rest:
                peer.send_raw(pdu)
            while (word := next_word(peer)) != "closed":
                words[word] += 1
    assert set(words) == {"0x0000", "released"}
    assert words["released"] == 20
    assert running.received


def test_an_scp_that_believes_everything_is_misled_and_one_of_few_places_starves_the_others(
    plain_scp: PlainScp,
) -> None:
    bounds = replace(SHORT, seconds=1.5, echo_every_seconds=0.2, patience_seconds=0.5)  # shorter than the attack
    assert verdicts(plain_scp.port, "truncated", "idle", bounds=bounds) == [Verdict.MISLED, Verdict.STARVED]


def test_an_scp_that_does_not_come_back_is_down_and_is_attacked_no_more(plain_scp: PlainScp) -> None:
    plain_scp.shut.set()
    bounds = replace(SHORT, most=8, recovery_seconds=1)
    assert verdicts(plain_scp.port, "abort-storm", "idle", bounds=bounds) == [Verdict.DOWN]


def test_an_attack_that_gets_no_association_was_not_tried(start_listener: Start) -> None:
    running = start_listener(peers=[{"ae_title": "TORTURE", "address": "127.0.0.1"}])
    [row] = tortured(running.port, "unknown-pdus", bounds=replace(SHORT, seconds=2.0, most=8))[1:]
    assert row.verdict is Verdict.NOT_TRIED
    assert all(ending.startswith("no association: ") for ending in row.endings)


def test_neither_time_nor_number_is_exceeded(running: Running) -> None:
    target = target_of("127.0.0.1", running.port, TITLES).of_attack(1)
    [storm] = attacks_named(["abort-storm"])
    assert Swarm(storm, target, Bounds(seconds=20, most=30, seed=1)).run().opened == 30
    [silent] = attacks_named(["silent"])
    began = time.monotonic()
    ended = Swarm(silent, target, Bounds(seconds=0.2, most=10_000, seed=1)).run()
    assert time.monotonic() - began < 5
    assert "still open" in ended.number


def test_a_seed_repeats_a_conversation_and_another_one_changes_it() -> None:
    def conversation(seed: int) -> list[bytes]:
        random = Random(seed)
        return changed(sound_conversation(random, calling="A", called="B"), random)

    assert conversation(7) == conversation(7)
    assert len({tuple(conversation(seed)) for seed in range(100)}) == 100


def test_most_changed_conversations_are_no_longer_sound() -> None:
    same = 0
    for seed in range(200):
        random = Random(seed)
        sound = sound_conversation(random, calling="A", called="B")
        same += changed(sound, random) == sound
    assert same < 10


def test_the_times_of_echoes_are_those_of_the_answered_ones() -> None:
    echoes = [Echo(number, 0.0, number / 1000) for number in range(1, 101)]
    lost = Echo(101, 0.0, 3.0, "peer does not answer in time")
    assert Echoes.of([*echoes, lost]) == Echoes(asked=101, answered=100, p50_ms=50.0, p99_ms=99.0)
    assert Echoes.of([lost]) == Echoes(asked=1, answered=0, p50_ms=0.0, p99_ms=0.0)


def test_the_command_prints_a_row_of_json_for_each_attack(node: Node) -> None:
    words = ("--i-own-this", "--seconds", "1", "--most", "8", "--only", "bad-uids", "--seed", "5", "--json")
    ended = run_here("torture", f"127.0.0.1:{node.settings.listen.port}", *words)
    rows = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [(row["seed"], row["attack"]) for row in rows] == [(5, "nothing"), (5, "bad-uids")]
    assert {"0x0117"} <= set(rows[1]["endings"]) <= {"0x0117", Ending.OPEN}
    assert ended.returncode == (0 if all(row["verdict"] == "held" for row in rows) else 1)


def test_a_port_that_speaks_tls_alone_is_attacked_by_tls(start_listener: Start, certificates: Certificates) -> None:
    running = start_listener(listen={"tls": certificates.listen()})
    spoken = certificates.destination(certificates.modality)
    options = (f"--{name.replace('_', '-')}={spoken[name]}" for name in ("ca_file", "certificate", "key"))
    attacks = ("random-bytes", "one-byte-values", "malformed-commands", "truncated")
    words = ("--i-own-this", "--seconds", "0.5", "--most", "8", "--json", *(f"--only={name}" for name in attacks))
    ended = run_here("torture", f"127.0.0.1:{running.tls_address[1]}", *words, "--tls", *options)
    rows = {row["attack"]: row for row in map(json.loads, ended.stdout.splitlines())}
    assert [name for name in ("nothing", *attacks) if rows[name]["verdict"] not in {"held", "slow"}] == []
    assert set(rows["truncated"]["endings"]) <= {"0xC000", Ending.OPEN}
    assert all(row["opened"] for name, row in rows.items() if name != "nothing")


def test_the_table_says_what_was_asked_what_came_and_how_to_repeat_it() -> None:
    echoes = Echoes(asked=10, answered=9, p50_ms=12.4, p99_ms=80.0)
    row = Row(
        attack="truncated",
        asked="a film that is cut off",
        at_once=8,
        opened=5,
        endings={"0xC000": 4, "aborted": 1},
        longest_seconds=0.25,
        echoes=echoes,
        verdict=Verdict.STARVED,
    )
    console = Console(file=StringIO(), width=200)
    print_rows([row], 5, console)
    assert isinstance(console.file, StringIO)
    printed = " ".join(console.file.getvalue().split())
    assert (
        "truncated │ a film that is cut off │ 8 │ 4 0xC000, 1 aborted │ 0.2 s │ 9 of 10 │ 12, 80 ms │ starved"
        in printed
    )
    assert "seed 5" in printed
