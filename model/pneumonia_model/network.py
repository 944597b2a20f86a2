"""The network: torchvision's ResNet-18 with one grayscale channel in and one logit out."""

from typing import Final

import torch
from torch import Tensor, nn
from torchvision.models import ResNet, resnet18

ARCHITECTURE: Final = "torchvision.resnet18, 1 input channel, 1 output"


def pneumonia_resnet18() -> ResNet:
    """Return the untrained network; inputs have shape (n, 1, height, width), outputs (n, 1)."""
    network = resnet18(weights=None)
    network.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    network.fc = nn.Linear(network.fc.in_features, 1)
    return network


class LogitAndMap(nn.Module):
    """The network with its class activation map.

    Average pooling and a linear layer exchange: the output weights applied at every place of the last features give a
    map whose mean plus the bias is the logit. The map is therefore an exact share-out of the score, at no cost.
    """

    def __init__(self, network: ResNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits, shape (n,), and maps in logit units, shape (n, 7, 7), of inputs of shape (n, 224, 224)."""
        net = self.network
        features = net.maxpool(net.relu(net.bn1(net.conv1(inputs[:, None]))))
        features = net.layer4(net.layer3(net.layer2(net.layer1(features))))
        maps = torch.einsum("nchw,c->nhw", features, net.fc.weight[0])
        return maps.mean(dim=(1, 2)) + net.fc.bias[0], maps
