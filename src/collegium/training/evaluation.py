"""Predictions and scores of a learner on whole splits."""

from typing import TypeVar

import torch
from torch import Tensor

from collegium.data import WHOLE, Samples, Share, TileSource
from collegium.tiles import Tile
from collegium.training.experiment import Experiment
from collegium.training.fabric import Fabric
from collegium.training.metrics import Scores, score, summary

EVALUATION_BATCH = 500

S = TypeVar("S", bound=Samples)


class Evaluator:
    """Predicts in evaluation mode and in the run's precision, and scores every predictor.

    Args:
        experiment: data and learner; the learner is on its device.
        fabric: device and precision.
        share: of the processes that share a batch; each one scores a part of every split.
    """

    def __init__(self, experiment: Experiment, fabric: Fabric, share: Share = WHOLE) -> None:
        self.experiment, self.recipe, self.learner = experiment, experiment.recipe, experiment.learner
        self.fabric, self.share = fabric, share
        data = experiment.data
        self.scored = {"test": self.evaluation_batches(self._own_part(data.test))}
        if data.validation is not None:
            self.scored["validation"] = self.evaluation_batches(self._own_part(data.validation))

    def _own_part(self, split: S) -> S:
        """The images that this process scores."""
        rank, count, _ = self.share
        if count == 1:
            return split
        return split.subset(torch.arange(len(split) * rank // count, len(split) * (rank + 1) // count))

    def evaluation_batches(self, split: Samples) -> TileSource:
        """All images of a split in their own order, without augmentation."""
        return self.experiment.data.tiles(
            split,
            batch_size=EVALUATION_BATCH,
            device=self.fabric.device,
            channels_last=self.experiment.channels_last,
        )

    @torch.inference_mode()
    def predict(self, images: Tensor | Tile) -> dict[str, Tensor]:
        """Logits (B, C) of every predictor."""
        self.learner.eval()
        with self.fabric.autocast():
            return self.learner.predict(images)

    def score(self, batches: TileSource) -> dict[str, Scores]:
        """Scores of every predictor."""
        return score(self.predict, batches.epoch(0), self.experiment.spec.num_classes)

    def evaluate(self, batches: TileSource) -> dict[str, dict[str, float]]:
        """Scores of every predictor as numbers: predictor -> metric -> value."""
        return summary(self.score(batches))
