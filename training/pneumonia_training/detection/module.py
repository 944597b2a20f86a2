"""The detector as a LightningModule."""

from typing import Any, Final

import pytorch_lightning as pl
import torch
from pneumonia_model.detector import OpacityDetector
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pneumonia_training.detection.films import BoxedBatch, vary
from pneumonia_training.detection.recipe import DetectorSettings

RELEASED: Final = "average.module."
"""What stands before the names of the weights to release in a checkpoint: the running average's."""


class DetectorModule(pl.LightningModule):
    """FCOS with its losses (focal, GIoU, centredness); the running average of its weights is released."""

    def __init__(self, settings: DetectorSettings) -> None:
        super().__init__()
        self.settings = settings
        self.network = OpacityDetector(settings.side)
        self.average = AveragedModel(
            self.network,
            multi_avg_fn=get_ema_multi_avg_fn(settings.averaging),  # type: ignore[no-untyped-call]
            use_buffers=True,
        )

    def start_from_classifier(self, weights: dict[str, Tensor]) -> None:
        """Take over a classifier's filters."""
        self.network.start_from_classifier(weights)
        self.average.module.load_state_dict(self.network.state_dict())

    def training_step(self, batch: BoxedBatch, _: int) -> Tensor:
        varied = vary(batch, self.settings.variation)
        losses = self.network.losses(varied.inputs, varied.boxes)
        for name, loss in losses.items():
            self.log(f"train_{name}", loss, on_step=False, on_epoch=True, batch_size=len(batch.inputs), sync_dist=True)
        return torch.stack(list(losses.values())).sum()

    def on_train_batch_end(self, *_: Any) -> None:
        self.average.update_parameters(self.network)

    def configure_optimizers(self) -> Any:
        settings = self.settings
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=settings.learning_rate,
            total_steps=int(self.trainer.estimated_stepping_batches),
            pct_start=0.2,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
