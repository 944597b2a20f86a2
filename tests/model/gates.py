"""Bundles with a gate that knows phantoms."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from pneumonia_model.bundle import GRAPH, MANIFEST, WEIGHTS, Bundle, file_sha256, load_bundle, rendered, seal
from pneumonia_model.gate import GATE_WEIGHTS, Gate, load_gate
from pneumonia_training.learning.checkpoint import NetworkBackend
from pneumonia_training.measuring.pixel_gate import fit_gate
from pneumonia_training.release.onnx_graph import write_graph
from safetensors.numpy import save
from safetensors.torch import load_file

from scp_node.demo.phantom import phantom_pixels
from tests.node import BUNDLE

FITTED: Final = 120


@cache
def phantoms(first: int, count: int) -> NDArray[np.float32]:
    """Return inputs of the network, shape (count, 224, 224), of phantoms from a number on."""
    pictures = [phantom_pixels(seed, opacity=seed % 2 == 0, size=224) for seed in range(first, first + count)]
    lighter = [cv2.blur(picture, (3, 3)) / 4095 * (1 - 0.02 * (seed % 5)) for seed, picture in enumerate(pictures)]
    return np.stack(lighter).astype(np.float32)


@cache
def gate_parts() -> tuple[Mapping[str, NDArray[np.float32]], float, tuple[float, ...]]:
    """Return the arrays of a gate that is fitted on phantoms, its limit, and its golden figures."""
    bundle = load_bundle(BUNDLE)
    backend = NetworkBackend(load_file(BUNDLE / WEIGHTS))
    gate = fit_gate(backend.scores(phantoms(0, FITTED)).features)
    limit = 1.5 * float(gate.unlikeness(backend.scores(phantoms(1000, 20)).features).max())
    golden = gate.unlikeness(backend.scores(bundle.golden_inputs()).features) / limit
    parts = {"mean": gate.mean, "scale": gate.scale, "axes": gate.axes, "deviations": gate.deviations}
    return {name: part.astype(np.float32) for name, part in parts.items()}, limit, tuple(golden.tolist())


def gate_of(bundle: Bundle) -> Gate:
    """Return the bundle's gate; it must have one."""
    gate = load_gate(bundle)
    assert gate is not None
    return gate


def with_gate(folder: Path, *, parts: Mapping[str, NDArray[np.float32]] | None = None, **changes: Any) -> Path:
    """Write the shipped network with a gate that knows phantoms; `parts` and `changes` go over the gate's own."""
    fitted, limit, golden = gate_parts()
    shipped = load_bundle(BUNDLE).manifest
    folder.mkdir(parents=True)
    for name in shipped["files"]:
        if name not in {GRAPH, GATE_WEIGHTS}:
            (folder / name).write_bytes((BUNDLE / name).read_bytes())  # onnx refuses weights behind a link
    write_graph(folder)
    (folder / GATE_WEIGHTS).write_bytes(save({**fitted, **(parts or {})}))
    names = {*shipped["files"], GATE_WEIGHTS}
    section = {"features": "layer2, means of 3 x 3 places", "films": FITTED, "limit": limit, "golden": list(golden)}
    files = {name: file_sha256(folder / name) for name in sorted(names)}
    manifest = {**shipped, "name": "gated", "version": "9.0.0", "files": files, "gate": section | changes}
    (folder / MANIFEST).write_bytes(rendered(seal(manifest)))
    return folder
