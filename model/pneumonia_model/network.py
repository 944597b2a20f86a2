"""The network: torchvision's ResNet-18 with one grayscale channel in and one logit out."""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d
from torchvision.models import ResNet, resnet18
from torchvision.models.resnet import BasicBlock

FEATURE_WINDOW: Final = 10  # pixels of the 28 x 28 that the second stage leaves
FEATURE_STEP: Final = 9  # between two windows, so that three of them cover the 28
ARCHITECTURE: Final = "torchvision.resnet18, 1 input channel, 1 output"


def pneumonia_resnet18() -> ResNet:
    """Return the untrained network; inputs have shape (n, 1, height, width), outputs (n, 1)."""
    network = resnet18(weights=None)
    network.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    network.fc = nn.Linear(network.fc.in_features, 1)
    return network


class LogitAndMap(nn.Module):
    """The network with its class activation map.

    Average pooling and a linear layer can change places: the output weights, applied at every place of the last
    features, give a map of the score whose mean plus the bias is the logit. Layer 4 looks at every second place of its
    input. Here it looks at every place, and its later convolutions have gaps as wide as its stride was (Yu and Koltun
    2016). So the same weights also answer for the places in between, and every second place of the map gives the mean
    that makes the logit.
    """

    def __init__(self, network: ResNet) -> None:
        """Use `network`, whose convolutions may have 16 bits; all else, and what comes out, is in float32."""
        super().__init__()
        self.network = network

    def scores(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits, shape (n,), what a gate looks at, shape (n, 1152), and what `maps` is made from.

        The inputs have shape (n, 224, 224). See `prediction.Scores`.
        """
        second = self._up_to_layer_2(inputs)
        described = avg_pool2d(second.float(), FEATURE_WINDOW, FEATURE_STEP).flatten(1)
        third = self.network.layer3(second)
        return self._logits(third), described, third

    def maps(self, third: Tensor) -> Tensor:
        """Return maps in logit units, shape (n, 14, 14), from the features of layer 3, shape (n, 256, 14, 14)."""
        return self._shares(_at_every_place(self.network.layer4, third))

    def _up_to_layer_2(self, inputs: Tensor) -> Tensor:
        net = self.network
        features: Tensor = net.maxpool(net.relu(net.bn1(net.conv1(inputs[:, None].to(net.conv1.weight.dtype)))))
        for layer in (net.layer1, net.layer2):
            features = layer(features)
        return features

    def _logits(self, features: Tensor) -> Tensor:
        bias: Tensor = self.network.fc.bias
        return self._shares(self.network.layer4(features)).mean(dim=(1, 2)) + bias[0]

    def _shares(self, features: Tensor) -> Tensor:
        return torch.einsum("nchw,c->nhw", features.float(), self.network.fc.weight[0])


def _at_every_place(layer: nn.Sequential, features: Tensor) -> Tensor:
    """Return a layer's features without its stride of 2; every second row and column equals the layer's output."""
    first, second = layer
    features = _block(first, features, dilations=(1, 2))
    return _block(second, features, dilations=(2, 2))


def _block(block: BasicBlock, features: Tensor, *, dilations: tuple[int, int]) -> Tensor:
    def convolved(source: Tensor, convolution: nn.Conv2d, dilation: int) -> Tensor:
        margin = dilation * (convolution.kernel_size[0] // 2)
        return conv2d(source, convolution.weight, padding=margin, dilation=dilation)

    shortcut = features
    if block.downsample is not None:
        reduction, norm = block.downsample
        shortcut = norm(convolved(features, reduction, 1))
    inner = torch.relu(block.bn1(convolved(features, block.conv1, dilations[0])))
    return torch.relu(block.bn2(convolved(inner, block.conv2, dilations[1])) + shortcut)
