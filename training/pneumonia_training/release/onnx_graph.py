"""The network as an ONNX graph without weights: it points at those in the safetensors file.

It is written by hand and not traced: twenty convolutions are easier to read here than in an exporter's output, and the
graph cannot change with the exporter's version.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import onnx
from onnx import TensorProto, helper
from pneumonia_model.bundle import GRAPH, WEIGHTS
from pneumonia_model.network import FEATURE_STEP, FEATURE_WINDOW
from pneumonia_model.prediction import MAP_SIDE, STAGE_FEATURES, THIRD_STAGE
from pneumonia_model.preprocessing import INPUT_SIDE

OPSET: Final = 17
IR_VERSION: Final = 8  # of ONNX 1.12, which any runtime of recent years can read


@dataclass(slots=True)
class _Graph:
    """Nodes and weights, in order of evaluation."""

    header: dict[str, Any]
    first_byte: int
    nodes: list[Any] = field(default_factory=list)
    weights: dict[str, Any] = field(default_factory=dict)

    def add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def weight(self, name: str, shape: list[int] | None = None) -> str:
        """Declare a tensor of the weights file, under another shape if one is given."""
        entry = self.header[name]
        start, end = entry["data_offsets"]
        tensor = TensorProto(
            name=name,
            data_type=TensorProto.FLOAT,
            dims=shape or entry["shape"],
            data_location=TensorProto.EXTERNAL,
        )
        for key, value in (("location", WEIGHTS), ("offset", self.first_byte + start), ("length", end - start)):
            tensor.external_data.add(key=key, value=str(value))
        self.weights[name] = tensor
        return name

    def convolution(
        self, source: str, name: str, norm: str, *, kernel: int, stride: int = 1, dilation: int = 1, role: str = "out"
    ) -> str:
        """Add a convolution and its batch normalisation; `role` separates outputs of the same weights."""
        convolved = self.add(
            "Conv",
            [source, self.weight(f"{name}.weight")],
            f"{name}.{role}",
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            dilations=[dilation, dilation],
            pads=[dilation * (kernel // 2)] * 4,
        )
        parts = [self.weight(f"{norm}.{part}") for part in ("weight", "bias", "running_mean", "running_var")]
        return self.add("BatchNormalization", [convolved, *parts], f"{norm}.{role}", epsilon=1e-5)

    def block(
        self, source: str, name: str, *, stride: int = 1, dilations: tuple[int, int] = (1, 1), role: str = "out"
    ) -> str:
        """Add a residual block of two convolutions (He et al. 2015, Fig. 2)."""
        names = f"{name}.conv1", f"{name}.bn1"
        first = self.convolution(source, *names, kernel=3, stride=stride, dilation=dilations[0], role=role)
        first = self.add("Relu", [first], f"{name}.relu1.{role}")
        names = f"{name}.conv2", f"{name}.bn2"
        second = self.convolution(first, *names, kernel=3, dilation=dilations[1], role=role)
        if f"{name}.downsample.0.weight" in self.header:
            names = f"{name}.downsample.0", f"{name}.downsample.1"
            source = self.convolution(source, *names, kernel=1, stride=stride, role=role)
        return self.add("Relu", [self.add("Add", [second, source], f"{name}.sum.{role}")], f"{name}.{role}")

    def shares(self, features: str, output: str) -> str:
        """Add the output weights, applied at every place of the features."""
        weights = self.weight("fc.weight", [1, self.header["fc.weight"]["shape"][1], 1, 1])
        shares = self.add("Conv", [features, weights], f"{output}.channel", kernel_shape=[1, 1])
        return self.add("Squeeze", [shares, "axis_1"], output)


def write_graph(folder: Path) -> Path:
    """Write the graph of the weights in `folder` into the same folder.

    It makes `logits` (n,), `features` (n, 1152) and `layer3.1.out` (n, 256, 14, 14) from `inputs` (n, 224, 224). Rows
    of the last go in again as `mapped` (m, 256, 14, 14) and give `maps` (m, 14, 14). A runtime evaluates a whole graph
    whichever outputs are requested; without films the convolutions have nothing to do
    (`docs/decisions/0005-maps-on-request.md`).
    """
    header, first_byte = _safetensors_header(folder / WEIGHTS)
    graph = _Graph(header=header, first_byte=first_byte)
    image = graph.add("Unsqueeze", ["inputs", "axis_1"], "image")
    stage = graph.convolution(image, "conv1", "bn1", kernel=7, stride=2)
    stage = graph.add("Relu", [stage], "relu.out")
    stage = graph.add("MaxPool", [stage], "maxpool.out", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for layer in (1, 2, 3):
        stage = graph.block(stage, f"layer{layer}.0", stride=2 if layer > 1 else 1)
        stage = graph.block(stage, f"layer{layer}.1")
        if layer == 2:
            _add_description(graph, stage)
    _add_logits(graph, stage)
    _add_maps(graph)
    path = folder / GRAPH
    path.write_bytes(_model(graph, third=stage).SerializeToString(deterministic=True))
    onnx.checker.check_model(path)
    return path


def _add_description(graph: _Graph, features: str) -> None:
    """Add the features that a gate looks at, as in `pneumonia_model.network.LogitAndMap`."""
    window = {"kernel_shape": [FEATURE_WINDOW] * 2, "strides": [FEATURE_STEP] * 2}
    graph.add("Flatten", [graph.add("AveragePool", [features], "places", **window)], "features", axis=1)


def _add_logits(graph: _Graph, features: str) -> None:
    features = graph.block(features, "layer4.0", stride=2)
    shares = graph.shares(graph.block(features, "layer4.1"), "shares")
    mean = graph.add("ReduceMean", [shares], "mean", axes=[1, 2], keepdims=0)
    graph.add("Add", [mean, graph.weight("fc.bias")], "logits")


def _add_maps(graph: _Graph) -> None:
    """Add layer 4 at every place of its input, as in `pneumonia_model.network.LogitAndMap`."""
    features = graph.block("mapped", "layer4.0", dilations=(1, 2), role="map")
    graph.shares(graph.block(features, "layer4.1", dilations=(2, 2), role="map"), "maps")


def _model(graph: _Graph, *, third: str) -> Any:
    return helper.make_model(
        helper.make_graph(
            graph.nodes,
            "pneumonia_resnet18",
            [
                helper.make_tensor_value_info("inputs", TensorProto.FLOAT, ["n", INPUT_SIDE, INPUT_SIDE]),
                helper.make_tensor_value_info("mapped", TensorProto.FLOAT, ["m", *THIRD_STAGE]),
            ],
            [
                helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n"]),
                helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", STAGE_FEATURES]),
                helper.make_tensor_value_info(third, TensorProto.FLOAT, ["n", *THIRD_STAGE]),
                helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["m", MAP_SIDE, MAP_SIDE]),
            ],
            [helper.make_tensor("axis_1", TensorProto.INT64, [1], [1]), *graph.weights.values()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="pneumonia_training",
    )


def _safetensors_header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the entries of a safetensors file and the offset of its data."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(length)), 8 + length
