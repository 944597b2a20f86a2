"""The network as a LightningModule: loss, optimiser, and logged figures."""

from typing import Any, Final, NamedTuple

import pytorch_lightning as pl
import torch
from pneumonia_model.network import pneumonia_resnet18
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC
from torchvision.models import ResNet

from pneumonia_training.films.sampling import FINDINGS, Batch, resize, vary
from pneumonia_training.learning.recipe import Stage

_HOLES: Final = 8
"""Sides of the grid of patches of which a quarter is blanked for denoising."""


class Features(NamedTuple):
    """Features at a sixteenth, shape (n, 256, h, w), and at a thirty-second of the film's side, (n, 512, h/2, w/2)."""

    fine: Tensor
    coarse: Tensor


class PneumoniaModule(pl.LightningModule):
    """ResNet-18 trained by BCEWithLogitsLoss on the label, and on the other tasks that its stage names.

    Only `released_network()` is validated and released, without the heads of the other tasks.
    """

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.stage = stage
        self.network = pneumonia_resnet18().to(memory_format=torch.channels_last)
        self.average = (
            AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(stage.averaging), use_buffers=True)  # type: ignore[no-untyped-call]
            if stage.averaging
            else None
        )
        if self.average is not None:
            # Several processes would wait for the gradient of every parameter that requires one.
            self.average.requires_grad_(requires_grad=False)
        heads: dict[str, nn.Module] = {}
        if stage.objective == "denoise":
            self.network.fc.requires_grad_(requires_grad=False)
            heads["restore"] = nn.Conv2d(256 + 512, 16 * 16, kernel_size=1)
        if stage.tasks.negatives:
            heads["negatives"] = nn.Linear(512, 1)
        if stage.tasks.findings:
            heads["findings"] = nn.Linear(512, len(FINDINGS))
        if stage.tasks.boxes:
            heads["boxes"] = nn.Conv2d(256 + 512, 1, kernel_size=1)
        self.heads = nn.ModuleDict(heads)
        self.accuracy = BinaryAccuracy()
        self.auroc = BinaryAUROC()

    def released_network(self) -> nn.Module:
        """Return the network that is validated and released: the running average, if there is one."""
        return self.network if self.average is None else self.average.module

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits, shape (n,), of inputs of shape (n, side, side)."""
        logits: Tensor = self.released_network()(_images(inputs))
        return logits[:, 0].float()

    def training_step(self, batch: Batch, _: int) -> Tensor:
        inputs, boxes = vary(batch.inputs, batch.boxes, side=self.stage.side, augmentation=self.stage.augmentation)
        loss = self._denoising_loss(inputs) if self.stage.objective == "denoise" else self._loss(inputs, boxes, batch)
        self.log("train_loss", loss, on_step=False, on_epoch=True, sync_dist=True)
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        if self.average is not None:
            self.average.update_parameters(self.network)

    def validation_step(self, batch: Batch, _: int) -> None:
        logits = self(resize(batch.inputs, self.stage.side))
        self.accuracy(logits.sigmoid(), batch.labels.int())
        self.auroc(logits, batch.labels.int())
        loss = functional.binary_cross_entropy_with_logits(logits, batch.labels)
        self.log("val_loss", loss, prog_bar=True, sync_dist=True)
        self.log("val_acc", self.accuracy, on_epoch=True, prog_bar=True)
        self.log("val_auroc", self.auroc, on_epoch=True, prog_bar=True)

    def configure_optimizers(self) -> Any:
        rate = self.stage.learning_rate
        body = [value for name, value in self.network.named_parameters() if not name.startswith("fc.")]
        heads = [*self.network.fc.parameters(), *self.heads.parameters()]
        rates = [self.stage.body_rate * rate, rate]
        groups = [{"params": values, "lr": each} for values, each in zip((body, heads), rates, strict=True)]
        if self.stage.optimizer == "adam":
            return torch.optim.Adam(groups)
        optimizer = torch.optim.AdamW(groups, weight_decay=self.stage.weight_decay)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rates, total_steps=steps, pct_start=0.2)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _loss(self, inputs: Tensor, boxes: Tensor, batch: Batch) -> Tensor:
        """Return the loss of the label plus the weighted losses of the other tasks."""
        features = _features(self.network, inputs)
        pooled = functional.dropout(features.coarse.mean(dim=(2, 3)), self.stage.dropout)
        targets = batch.labels
        if self.stage.teacher:
            known = torch.isfinite(batch.teacher)
            soft = torch.where(known, batch.teacher, targets)
            targets = (1 - self.stage.teacher) * targets + self.stage.teacher * soft
        loss = functional.binary_cross_entropy_with_logits(self.network.fc(pooled)[:, 0].float(), targets)
        tasks = self.stage.tasks
        if tasks.negatives:
            loss = loss + tasks.negatives * _known_loss(self.heads["negatives"](pooled)[:, 0], batch.ill)
        if tasks.findings:
            loss = loss + tasks.findings * _known_loss(self.heads["findings"](pooled), batch.findings)
        if tasks.boxes:
            loss = loss + tasks.boxes * place_loss(self.heads["boxes"](_joined(features)), boxes, batch.boxes_known)
        if tasks.map:
            head = self.network.fc
            places = functional.conv2d(features.coarse, head.weight[:, :, None, None], head.bias)
            loss = loss + tasks.map * place_loss(places, boxes, batch.boxes_known)
        return loss

    def _denoising_loss(self, inputs: Tensor) -> Tensor:
        """Return the mean squared error of films restored from noise and holes, each film to mean 0 and deviation 1."""
        centred = inputs - inputs.mean(dim=(1, 2), keepdim=True)
        films = centred / (centred.std(dim=(1, 2), keepdim=True) + 1e-3)
        kept = (torch.rand(len(inputs), 1, _HOLES, _HOLES, device=inputs.device) > 0.25).float()
        holes = functional.interpolate(kept, size=inputs.shape[1:])[:, 0]
        noisy = inputs * holes + 0.1 * torch.randn_like(inputs)
        blocks = self.heads["restore"](_joined(_features(self.network, noisy))).float()
        restored = functional.pixel_shuffle(blocks, 16)[:, 0]
        return functional.mse_loss(restored, films)


def _images(inputs: Tensor) -> Tensor:
    return inputs[:, None].contiguous(memory_format=torch.channels_last)


def _features(network: ResNet, inputs: Tensor) -> Features:
    x = network.maxpool(network.relu(network.bn1(network.conv1(_images(inputs)))))
    fine = network.layer3(network.layer2(network.layer1(x)))
    return Features(fine=fine, coarse=network.layer4(fine))


def _joined(features: Features) -> Tensor:
    """Return both levels together at the size of the finer one, shape (n, 768, h, w)."""
    coarse = functional.interpolate(features.coarse, size=features.fine.shape[2:], mode="nearest")
    return torch.cat([features.fine, coarse], dim=1)


def place_loss(places: Tensor, boxes: Tensor, known: Tensor) -> Tensor:
    """Return the loss between the logits of places, shape (n, 1, h, w), and the share of each place inside a box."""
    inside = functional.adaptive_avg_pool2d(boxes[:, None], (places.shape[2], places.shape[3]))
    return _known_loss(places, torch.where(known[:, None, None, None], inside, torch.nan))


def _known_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy over the targets that are numbers; 0 if all are NaN."""
    known = torch.isfinite(targets)
    losses = functional.binary_cross_entropy_with_logits(
        logits.float(), torch.where(known, targets, 0.0), weight=known.float(), reduction="sum"
    )
    return losses / known.sum().clamp(min=1)
