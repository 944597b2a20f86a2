"""The network as a LightningModule: loss, optimiser, and what is logged."""

from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pneumonia_model.network import pneumonia_resnet18
from torch import Tensor
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC

from pneumonia_training.data import Augmentation, resize, vary

Batch = tuple[Tensor, Tensor]


class PneumoniaModule(pl.LightningModule):
    """ResNet-18 trained by BCEWithLogitsLoss.

    Args:
        side: side that films are trained and validated at; the network takes any.
        optimizer: "adam" at a constant rate, or "adamw" with a one-cycle schedule.
        averaging: decay of the running average of weights that is validated and released; 0 for none.
        augmentation: none trains on the films as they are.
    """

    def __init__(
        self,
        *,
        side: int,
        learning_rate: float,
        optimizer: Literal["adam", "adamw"],
        weight_decay: float,
        averaging: float,
        augmentation: Augmentation | None,
    ) -> None:
        super().__init__()
        self.side = side
        self.learning_rate = learning_rate
        self.optimizer = optimizer
        self.weight_decay = weight_decay
        self.augmentation = augmentation
        self.network = pneumonia_resnet18().to(memory_format=torch.channels_last)
        self.average = (
            AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(averaging), use_buffers=True)  # type: ignore[no-untyped-call]
            if averaging
            else None
        )
        self.accuracy = BinaryAccuracy()
        self.auroc = BinaryAUROC()

    def released_network(self) -> torch.nn.Module:
        """Return the network that is validated and released: the running average where there is one."""
        return self.network if self.average is None else self.average.module

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits, shape (n,), of inputs of shape (n, side, side)."""
        return _logits(self.released_network(), inputs)

    def training_step(self, batch: Batch, _: int) -> Tensor:
        inputs, labels = batch
        if self.augmentation is None:
            varied = resize(inputs, self.side)
        else:
            varied = vary(inputs, side=self.side, augmentation=self.augmentation)
        loss = functional.binary_cross_entropy_with_logits(_logits(self.network, varied), labels)
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        if self.average is not None:
            self.average.update_parameters(self.network)

    def validation_step(self, batch: Batch, _: int) -> None:
        inputs, labels = batch
        logits = self(resize(inputs, self.side))
        self.accuracy(logits.sigmoid(), labels.int())
        self.auroc(logits, labels.int())
        self.log("val_loss", functional.binary_cross_entropy_with_logits(logits, labels), prog_bar=True)
        self.log("val_acc", self.accuracy, on_epoch=True, prog_bar=True)
        self.log("val_auroc", self.auroc, on_epoch=True, prog_bar=True)

    def configure_optimizers(self) -> Any:
        if self.optimizer == "adam":
            return torch.optim.Adam(self.network.parameters(), lr=self.learning_rate)
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=self.learning_rate, total_steps=steps, pct_start=0.2
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _logits(network: torch.nn.Module, inputs: Tensor) -> Tensor:
    images = inputs[:, None].contiguous(memory_format=torch.channels_last)
    logits: Tensor = network(images)
    return logits[:, 0].float()
