"""A class activation map shares out the score: it adds up to the logit, and the two runtimes draw the same one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from pneumonia_model.bundle import GRAPH, WEIGHTS, Bundle, file_sha256, load_bundle
from pneumonia_model.errors import BackendError
from pneumonia_model.network import pneumonia_resnet18
from pneumonia_model.opening import open_backend
from pneumonia_model.prediction import MAP_SIDE, Backend
from pneumonia_model.preprocessing import to_input
from pneumonia_training.release.onnx_graph import write_graph
from pydicom import dcmread
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_tensors
from torch.nn.functional import pad
from torchvision.models import ResNet

RUNTIMES: Final[tuple[Literal["onnxruntime", "torch"], ...]] = ("onnxruntime", "torch")
REAL_FILMS: Final = 12


@pytest.fixture(scope="module")
def released(repository: Path) -> Bundle:
    """The bundle that this repository ships."""
    (folder,) = sorted((repository / "model" / "bundles").iterdir())
    return load_bundle(folder)


@pytest.fixture(scope="module")
def backends(released: Bundle) -> dict[str, Backend]:
    return {name: open_backend(released, name, "cpu", threads=2) for name in RUNTIMES}


@pytest.fixture(scope="module")
def made(released: Bundle) -> NDArray[np.float32]:
    """Synthetic films, noise, and films of one grey: the border's zeros then weigh most."""
    noise = np.random.default_rng(7).random((3, 224, 224), dtype=np.float32)
    plain = np.stack([np.full((224, 224), grey, dtype=np.float32) for grey in (0, 1)])
    return np.concatenate([released.golden_inputs(), noise, plain])


@pytest.fixture(scope="module")
def real(shared_data: Path) -> NDArray[np.float32]:
    files = sorted((shared_data / "dicom" / "rsna_rebuilt").glob("*.dcm"))[:REAL_FILMS]
    return np.stack([to_input(dcmread(file)) for file in files])


def bias(bundle: Bundle) -> float:
    return float(load_file(bundle.path / WEIGHTS)["fc.bias"][0])


def maps_of(backend: Backend, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    return backend.scores(inputs).maps(range(len(inputs)))


def check_sum(bundle: Bundle, backend: Backend, inputs: NDArray[np.float32]) -> None:
    maps = maps_of(backend, inputs)
    assert maps.shape == (len(inputs), MAP_SIDE, MAP_SIDE)
    assert np.abs(maps[:, ::2, ::2].mean(axis=(1, 2)) + bias(bundle) - backend.logits(inputs)).max() <= 1e-5


@pytest.mark.parametrize("name", RUNTIMES)
def test_every_second_place_of_a_map_adds_up_to_the_logit(
    released: Bundle, backends: dict[str, Backend], made: NDArray[np.float32], name: str
) -> None:
    check_sum(released, backends[name], made)


@pytest.mark.parametrize("name", RUNTIMES)
def test_so_it_does_on_real_films(
    released: Bundle, backends: dict[str, Backend], real: NDArray[np.float32], name: str
) -> None:
    assert len(real) == REAL_FILMS
    check_sum(released, backends[name], real)


def test_both_runtimes_draw_the_same_map(backends: dict[str, Backend], made: NDArray[np.float32]) -> None:
    one, other = (maps_of(backends[name], made) for name in RUNTIMES)
    assert np.abs(one - other).max() <= 1e-4


def test_both_runtimes_draw_the_same_map_of_real_films(backends: dict[str, Backend], real: NDArray[np.float32]) -> None:
    one, other = (maps_of(backends[name], real) for name in RUNTIMES)
    assert np.abs(one - other).max() <= 1e-4


@pytest.mark.parametrize("name", RUNTIMES)
def test_maps_come_only_of_the_films_that_are_asked_for(
    backends: dict[str, Backend], made: NDArray[np.float32], name: str
) -> None:
    scores = backends[name].scores(made)
    every = scores.maps(range(len(made)))
    assert np.abs(scores.maps([4, 1]) - every[[4, 1]]).max() <= 1e-5


def test_a_map_is_made_without_another_look_at_the_film(
    backends: dict[str, Backend], made: NDArray[np.float32]
) -> None:
    for backend in backends.values():
        inputs = made.copy()
        scores = backend.scores(inputs)
        inputs[:] = 0
        assert np.abs(scores.maps([0])[0] - maps_of(backend, made[:1])[0]).max() <= 1e-5


@pytest.fixture(scope="module")
def network(released: Bundle) -> ResNet:
    """Torchvision's own network with the released weights."""
    network = pneumonia_resnet18()
    network.load_state_dict(load_tensors(released.path / WEIGHTS))
    return network.eval()


def shares(network: ResNet, features: torch.Tensor) -> NDArray[np.float32]:
    """Return layer 4 as it was trained, and the output weights, on features of layer 3."""
    found: NDArray[np.float32] = torch.einsum("nchw,c->nhw", network.layer4(features), network.fc.weight[0]).numpy()
    return found


def test_the_map_is_the_trained_network_at_every_place(
    network: ResNet, backends: dict[str, Backend], made: NDArray[np.float32]
) -> None:
    seen: list[torch.Tensor] = []
    handle = network.layer3.register_forward_hook(lambda _, __, features: seen.append(features))
    with torch.inference_mode():
        logits = network(torch.from_numpy(made)[:, None])[:, 0].numpy()
        handle.remove()
        places = shares(network, seen[0])
        between = shares(network, pad(seen[0][:, :, 1:, 1:], (0, 1, 0, 1)))
    inner = slice(4, None)  # the four convolutions reach so far from the edge, which lies elsewhere in moved features
    for backend in backends.values():
        scores = backend.scores(made)
        maps = scores.maps(range(len(made)))
        assert np.abs(scores.logits - logits).max() <= 1e-5
        assert np.abs(maps[:, ::2, ::2] - places).max() <= 1e-4
        assert np.abs(maps[:, 1::2, 1::2] - between)[:, inner, inner].max() <= 1e-4


def test_the_released_graph_is_the_one_that_this_version_writes(released: Bundle, tmp_path: Path) -> None:
    shutil.copy(released.path / WEIGHTS, tmp_path)
    written = write_graph(tmp_path)
    assert written.read_bytes() == (released.path / GRAPH).read_bytes()


def rename_an_input(graph: onnx.GraphProto) -> None:
    graph.input[1].name = "rows"
    for node in graph.node:
        node.input[:] = ["rows" if name == "mapped" else name for name in node.input]


def remove_an_output(graph: onnx.GraphProto) -> None:
    graph.output.remove(next(output for output in graph.output if output.name == "features"))


@pytest.mark.parametrize("change", [rename_an_input, remove_an_output])
def test_a_graph_with_other_inputs_or_outputs_is_refused_when_it_is_opened(
    released: Bundle, tmp_path: Path, change: Callable[[onnx.GraphProto], None]
) -> None:
    shutil.copy(released.path / WEIGHTS, tmp_path)
    graph = onnx.load(released.path / GRAPH, load_external_data=False)
    change(graph.graph)
    (tmp_path / GRAPH).write_bytes(graph.SerializeToString())
    files = released.manifest["files"] | {GRAPH: file_sha256(tmp_path / GRAPH)}
    changed = replace(released, path=tmp_path, manifest={**released.manifest, "files": files})
    with pytest.raises(BackendError, match="rewrite-graph"):
        open_backend(changed, "onnxruntime", "cpu")
