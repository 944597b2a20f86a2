"""The detector: torchvision's FCOS (Tian et al. 2019) on the classifier's ResNet-18 with a feature pyramid."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.fcos import FCOSHead

from pneumonia_model.bundle import Bundle, BundleError
from pneumonia_model.errors import BackendError
from pneumonia_model.network import pneumonia_resnet18
from pneumonia_model.prediction import checked_inputs
from pneumonia_model.regions import DETECTOR_WEIGHTS, SECTION, Regions

DETECTOR_ARCHITECTURE: Final = "torchvision.FCOS, resnet18 of 1 input channel, pyramid of 128 channels, 1 class"
CHANNELS: Final = 128
MOST_REGIONS: Final = 8
"""Of one film; no film of the challenge has more than four boxes."""

_LEVELS: Final = {"layer2": "0", "layer3": "1", "layer4": "2"}  # and a fourth level, pooled from the last
_CHANNELS_OF_LEVELS: Final = (128, 256, 512)
_UNITS: Final = (4, 8, 16, 32)
"""What each level counts distances in, pixels. A level takes boxes that reach 4 to 8 units from a point inside them:
half an opacity's usual length is 20 to 35 pixels of 224."""
_MOST_COMMON_AREA: Final = 0.3  # of two regions that are both kept: the challenge's boxes hardly overlap


class OpacityDetector(nn.Module):
    """Finds boxes of opacities in films of shape (n, 224, 224), which it first resizes to `side`."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side
        backbone = BackboneWithFPN(pneumonia_resnet18(), _LEVELS, list(_CHANNELS_OF_LEVELS), CHANNELS)
        anchors = AnchorGenerator(sizes=tuple((unit,) for unit in _UNITS), aspect_ratios=((1.0,),) * len(_UNITS))
        self.fcos = FCOS(
            backbone,
            num_classes=1,
            min_size=side,
            max_size=side,
            image_mean=[0.0],
            image_std=[1.0],
            anchor_generator=anchors,
            head=FCOSHead(CHANNELS, num_anchors=1, num_classes=1, num_convs=2),
            score_thresh=0.0,
            nms_thresh=_MOST_COMMON_AREA,
            detections_per_img=MOST_REGIONS,
        )

    def start_from_classifier(self, weights: Mapping[str, Tensor]) -> None:
        """Take over a classifier's weights, under torchvision's names, without its output layer."""
        features = {name: value for name, value in weights.items() if not name.startswith("fc.")}
        self.fcos.backbone.body.load_state_dict(features)

    def losses(self, inputs: Tensor, boxes: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return the losses of films with known boxes, each of shape (k, 4) as in `Regions.boxes`."""
        targets = [
            {"boxes": of_film * self.side, "labels": torch.zeros(len(of_film), dtype=torch.int64, device=inputs.device)}
            for of_film in boxes
        ]
        losses: dict[str, Tensor] = self.fcos(list(self._at_side(inputs)), targets)
        return losses

    def forward(self, inputs: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return each film's boxes, shape (k, 4), as shares of the film, and scores, (k,), highest score first."""
        found = self.fcos(list(self._at_side(inputs)))
        return [(regions["boxes"] / self.side, regions["scores"]) for regions in found]

    def _at_side(self, inputs: Tensor) -> Tensor:
        """Return films of shape (n, 1, side, side)."""
        size = (self.side, self.side)
        if inputs.shape[1:] == size:
            return inputs[:, None]
        return functional.interpolate(inputs[:, None], size=size, mode="bilinear", antialias=True)


class TorchDetector:
    """A trained detector, in single precision."""

    def __init__(self, network: OpacityDetector, *, device: str = "cpu") -> None:
        self._device = device
        self._network = network.eval().to(device)

    @classmethod
    def of_bundle(cls, bundle: Bundle, *, device: Literal["auto", "cpu", "cuda"], threads: int | None = None) -> Self:
        """Load a bundle's detector.

        Raises:
            BundleError: it has another architecture.
            BackendError: the device is missing.
        """
        section: Mapping[str, Any] = bundle.manifest[SECTION]
        if section["architecture"] != DETECTOR_ARCHITECTURE:
            raise BundleError(f"{bundle.path}: detector is {section['architecture']!r}, not {DETECTOR_ARCHITECTURE!r}")
        cuda = torch.cuda.is_available()
        if device == "cuda" and not cuda:
            raise BackendError("torch finds no CUDA device")
        if threads is not None:
            torch.set_num_threads(threads)
        network = OpacityDetector(int(section["side"]))
        try:
            network.load_state_dict(load(bundle.content(DETECTOR_WEIGHTS)))
        except RuntimeError as error:
            raise BundleError(f"{bundle.path}: {DETECTOR_WEIGHTS} does not fit: {error}") from error
        return cls(network, device="cuda" if cuda and device != "cpu" else "cpu")

    def detect(self, inputs: NDArray[np.float32]) -> list[Regions]:
        """Return the regions of each input of shape (n, 224, 224), even those with a low score.

        Films go in one by one, so that the regions of one film do not depend on the other films.

        Raises:
            BackendError: the inputs have another shape, or an output is not finite.
        """
        films = torch.from_numpy(checked_inputs(inputs)).to(self._device)
        with torch.inference_mode():
            return [_regions(*self._network(film[None])[0]) for film in films]


def _regions(boxes: Tensor, scores: Tensor) -> Regions:
    # Every film has some region, even with a low score. Without any, no score was a number: torchvision drops those.
    if not len(scores) or not (torch.isfinite(boxes).all() and torch.isfinite(scores).all()):
        raise BackendError("the detector gave a number that is not finite")
    return Regions(boxes=boxes.clamp(0, 1).double().cpu().numpy(), scores=scores.double().cpu().numpy())
