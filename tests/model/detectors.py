"""Bundles with a detector that has learnt nothing, but answers as its bundle says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pneumonia_model.bundle import MANIFEST, file_sha256, load_bundle, rendered, seal
from pneumonia_model.detector import DETECTOR_ARCHITECTURE, OpacityDetector, TorchDetector
from pneumonia_model.golden import golden_regions
from pneumonia_model.regions import DETECTOR_WEIGHTS
from safetensors.torch import save

from tests.node import BUNDLE


def untrained_detector() -> OpacityDetector:
    """Return a detector that finds something different in every film."""
    torch.manual_seed(7)
    network = OpacityDetector(96).eval()
    head = network.fcos.head
    for layer in (head.classification_head.cls_logits, head.regression_head.bbox_reg):
        torch.nn.init.normal_(layer.weight, std=0.05)  # as made they give every place nearly the same
        torch.nn.init.constant_(layer.bias, 1.0)
    return network


def with_detector(folder: Path, network: OpacityDetector, **changes: Any) -> Path:
    """Write the shipped bundle with this detector; `changes` go over its section."""
    shipped = load_bundle(BUNDLE)
    folder.mkdir()
    for name in shipped.manifest["files"]:
        (folder / name).write_bytes((BUNDLE / name).read_bytes())
    (folder / DETECTOR_WEIGHTS).write_bytes(save(network.state_dict()))
    golden = golden_regions(TorchDetector(network), shipped.golden_inputs()).tolist()
    section = {"architecture": DETECTOR_ARCHITECTURE, "side": network.side, "threshold": 0.3, "golden": golden}
    files = {**shipped.manifest["files"], DETECTOR_WEIGHTS: file_sha256(folder / DETECTOR_WEIGHTS)}
    manifest = dict(shipped.manifest) | {"files": files, "detector": section | changes}
    (folder / MANIFEST).write_bytes(rendered(seal(manifest)))
    return folder
