"""The network as an ONNX graph that holds no weights: it points at those in the safetensors file.

Written by hand rather than traced: twenty convolutions are easier to read here than in an exporter's output, and the
graph cannot change with the exporter's version.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import onnx
from onnx import TensorProto, helper
from pneumonia_model.bundle import GRAPH, WEIGHTS
from pneumonia_model.preprocessing import INPUT_SIDE

OPSET: Final = 17
IR_VERSION: Final = 8  # of ONNX 1.12: any runtime of the last years reads it


@dataclass(slots=True)
class _Graph:
    """Nodes and weights as they come, in order of evaluation."""

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

    def convolution(self, source: str, name: str, norm: str, *, kernel: int, stride: int) -> str:
        """Add a convolution and its batch normalisation."""
        convolved = self.add(
            "Conv",
            [source, self.weight(f"{name}.weight")],
            f"{name}.out",
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[kernel // 2] * 4,
        )
        parts = [self.weight(f"{norm}.{part}") for part in ("weight", "bias", "running_mean", "running_var")]
        return self.add("BatchNormalization", [convolved, *parts], f"{norm}.out", epsilon=1e-5)

    def block(self, source: str, name: str, *, stride: int) -> str:
        """Add a residual block of two convolutions (He et al. 2015, Fig. 2)."""
        first = self.convolution(source, f"{name}.conv1", f"{name}.bn1", kernel=3, stride=stride)
        first = self.add("Relu", [first], f"{name}.relu1.out")
        second = self.convolution(first, f"{name}.conv2", f"{name}.bn2", kernel=3, stride=1)
        if f"{name}.downsample.0.weight" in self.header:
            shortcut = f"{name}.downsample"
            source = self.convolution(source, f"{shortcut}.0", f"{shortcut}.1", kernel=1, stride=stride)
        return self.add("Relu", [self.add("Add", [second, source], f"{name}.sum")], f"{name}.out")


def write_graph(folder: Path) -> Path:
    """Write the graph of the weights in `folder` beside them: inputs (n, 224, 224) -> logits (n,), maps (n, 7, 7)."""
    header, first_byte = _safetensors_header(folder / WEIGHTS)
    graph = _Graph(header=header, first_byte=first_byte)
    image = graph.add("Unsqueeze", ["inputs", "axis_1"], "image")
    features = graph.convolution(image, "conv1", "bn1", kernel=7, stride=2)
    features = graph.add("Relu", [features], "relu.out")
    features = graph.add("MaxPool", [features], "maxpool.out", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for layer in (1, 2, 3, 4):
        for block in (0, 1):
            stride = 2 if layer > 1 and block == 0 else 1
            features = graph.block(features, f"layer{layer}.{block}", stride=stride)
    output_weights = graph.weight("fc.weight", [1, header["fc.weight"]["shape"][1], 1, 1])
    shares = graph.add("Conv", [features, output_weights], "shares", kernel_shape=[1, 1])
    graph.add("Squeeze", [shares, "axis_1"], "maps")
    mean = graph.add("ReduceMean", ["maps"], "mean", axes=[1, 2], keepdims=0)
    graph.add("Add", [mean, graph.weight("fc.bias")], "logits")
    path = folder / GRAPH
    path.write_bytes(_model(graph).SerializeToString(deterministic=True))
    onnx.checker.check_model(path)
    return path


def _model(graph: _Graph) -> Any:
    side = INPUT_SIDE // 32
    return helper.make_model(
        helper.make_graph(
            graph.nodes,
            "pneumonia_resnet18",
            [helper.make_tensor_value_info("inputs", TensorProto.FLOAT, ["n", INPUT_SIDE, INPUT_SIDE])],
            [
                helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n"]),
                helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["n", side, side]),
            ],
            [helper.make_tensor("axis_1", TensorProto.INT64, [1], [1]), *graph.weights.values()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="pneumonia_training",
    )


def _safetensors_header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the entries of a safetensors file and where its data begins."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(length)), 8 + length
