"""Weights to start from: what is taken, what is refused, and that a stage starts from them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from pneumonia_training.learning.fit import new_module
from pneumonia_training.learning.recipe import Stage
from pneumonia_training.learning.start_weights import StartWeightsError, licence_title, read_start_weights

from tests.training.start_weights import LICENCE_TEXT, random_weights, write_start_weights


def test_weights_are_read_with_their_licence_and_hash(tmp_path: Path) -> None:
    weights = random_weights()
    path = write_start_weights(tmp_path, weights)
    start = read_start_weights(path)
    assert start.weights.keys() == weights.keys()
    assert all(torch.equal(start.weights[name], value) for name, value in weights.items())
    assert start.document() == {
        "path": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "licence": LICENCE_TEXT.strip(),
    }
    assert licence_title(start.licence) == "The Licence of a Test"


def test_half_precision_is_widened_and_counters_may_be_there(tmp_path: Path) -> None:
    weights = random_weights()
    short = {name: value.half() for name, value in weights.items()} | {"bn1.num_batches_tracked": torch.tensor(7)}
    start = read_start_weights(write_start_weights(tmp_path, short))
    assert start.weights.keys() == weights.keys()
    assert {value.dtype for value in start.weights.values()} == {torch.float32}


def test_three_channels_are_summed_for_a_gray_film(tmp_path: Path) -> None:
    weights, film = random_weights(), torch.rand(2, 1, 32, 32)
    coloured = torch.rand(64, 3, 7, 7)
    start = read_start_weights(write_start_weights(tmp_path, weights | {"conv1.weight": coloured}))
    of_colour = torch.nn.functional.conv2d(film.expand(-1, 3, -1, -1), coloured)
    of_gray = torch.nn.functional.conv2d(film, start.weights["conv1.weight"])
    assert torch.allclose(of_colour, of_gray, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("layer9.weight", torch.zeros(1), "layer9.weight: unknown"),
        ("fc.weight", torch.zeros(1000, 512), "fc.weight: unknown; a ResNet-18 without its head"),
        ("layer1.0.conv1.weight", None, "layer1.0.conv1.weight: missing"),
        ("layer1.0.conv1.weight", torch.zeros(64, 64, 1, 1), r"layer1.0.conv1.weight is \(64, 64, 1, 1\), expected"),
        ("conv1.weight", torch.zeros(64, 2, 7, 7), r"conv1.weight is \(64, 2, 7, 7\), expected \(64, 1, 7, 7\)"),
        ("bn1.bias", torch.full((64,), torch.nan), "bn1.bias holds a number that is not finite"),
    ],
)
def test_other_weights_are_refused_by_name(tmp_path: Path, name: str, value: torch.Tensor | None, said: str) -> None:
    weights = random_weights()
    if value is None:
        del weights[name]
    else:
        weights[name] = value
    with pytest.raises(StartWeightsError, match=said):
        read_start_weights(write_start_weights(tmp_path, weights))


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    path = write_start_weights(tmp_path, random_weights())
    (tmp_path / "LICENSE").write_text(" \n")
    with pytest.raises(StartWeightsError, match="LICENSE: the licence of the start weights is empty"):
        read_start_weights(path)
    (tmp_path / "LICENSE").unlink()
    with pytest.raises(StartWeightsError, match="LICENSE: the licence of the start weights cannot be read"):
        read_start_weights(path)
    path.write_bytes(b"no weights")
    with pytest.raises(StartWeightsError, match="not a safetensors file"):
        read_start_weights(path)
    with pytest.raises(StartWeightsError, match="absent: cannot be read: No such file"):
        read_start_weights(tmp_path / "absent")


def test_a_stage_starts_from_them_and_so_does_its_average(tmp_path: Path) -> None:
    start = read_start_weights(write_start_weights(tmp_path, random_weights()))
    stage = Stage(name="films", epochs=1, side=32, learning_rate=1e-3, batch_size=2)
    module = new_module(stage, start=start)
    assert module.average is not None
    for network in (module.network, module.average.module):
        state = network.state_dict()
        assert all(torch.equal(state[name], value) for name, value in start.weights.items())
        assert state["bn1.num_batches_tracked"] == 0
    assert torch.equal(module.network.fc.weight, module.average.module.state_dict()["fc.weight"])


def test_the_body_learns_at_its_own_rate() -> None:
    stage = Stage(name="films", epochs=1, side=32, learning_rate=1e-2, batch_size=2, optimizer="adam", body_rate=0.25)
    module = new_module(stage)
    optimizer = module.configure_optimizers()
    rates = {id(each): group["lr"] for group in optimizer.param_groups for each in group["params"]}
    assert rates.keys() == {id(each) for each in module.network.parameters()}
    assert rates[id(module.network.conv1.weight)] == 0.0025
    assert rates[id(module.network.fc.weight)] == 0.01
