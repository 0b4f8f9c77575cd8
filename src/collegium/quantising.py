"""ONNX in 8 bits after training: scales from training images, and the accuracy before and after on the test images."""

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from collegium import data as datasets
from collegium.data import ClassificationData, OwnData, as_data
from collegium.data.decoding.passes import counted
from collegium.errors import UsageError
from collegium.logs import no_logging

CALIBRATION_IMAGES = 256
_BATCH = 64
_FEW = 20  # batches, for which no bar is shown


class Quantised(NamedTuple):
    """What is known of a network in 8 bits, as the file's description has it."""

    calibration_images: int
    test_images: int
    accuracy_before: float  # top-1, in [0, 1], of the same file in fp32
    accuracy_after: float


class RunImages:
    """The images of a run as its exported networks take them, without augmentation.

    Args:
        run: a finished run.
        config: a peer's config.json, with the mean and std of the channels.
        normalised: whether the networks take images that are normalised already.
        batch_size: how many at once.
        data: the data, where the run was given data from Python.

    Raises:
        UsageError: there is no run, or its data must be given.
        DataError: the data cannot be read.
    """

    def __init__(
        self,
        run: str | Path,
        config: dict[str, Any],
        *,
        normalised: bool,
        batch_size: int | None,
        data: OwnData | None,
    ) -> None:
        from collegium.training.run_folder import RunFolder

        folder = RunFolder(run)
        if not folder.recipe_file.is_file():
            raise UsageError(f"int8 needs training images, by which its scales are chosen: give the run, not {run}")
        recipe = folder.recipe()
        if data is None and recipe.data_name.startswith("python:"):
            raise UsageError(f"this run was given its data from Python ({recipe.data_name}): pass data= in the call")
        loaded: ClassificationData[Any] = (
            datasets.load(recipe.data_name, **recipe.data_options) if data is None else as_data(data)
        )
        if folder.fingerprint() not in (None, loaded.fingerprint()):
            warnings.warn(f"the data are not those on which {run} was trained: they have changed", stacklevel=4)
        mean, std = tuple(config["mean"]), tuple(config["std"])
        self.data = loaded.normalised_like(mean, std)
        self.batch_size, self._any_number = batch_size or _BATCH, batch_size is None
        self._mean, self._std = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std))
        self._normalised = normalised

    @property
    def calibration_images(self) -> int:
        """How many training images choose the scales."""
        return min(CALIBRATION_IMAGES, len(self.data.train))

    def calibration(self) -> Iterator[Tensor]:
        """Batches of training images, drawn at random with a fixed seed."""
        train = self.data.train
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
        for images, _ in self._batches(train.subset(order[: self.calibration_images].sort().values)):
            yield images

    @torch.no_grad()
    def accuracy(self, answer: Callable[[Tensor], Tensor], title: str) -> float:
        """The share of the test images that are classified correctly."""
        batches = self._batches(self.data.test)
        total = -(-len(self.data.test) // self.batch_size)
        shown = counted(batches, title, total) if total > _FEW else batches
        right = sum(int((answer(i)[: len(t)].argmax(1) == t).sum()) for i, t in shown)
        return right / len(self.data.test)

    def _batches(self, split: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and labels; where the network takes one number of images, the last ones are repeated up to that."""
        source = self.data.scoring_batches(
            split, batch_size=self.batch_size, device=torch.device("cpu"), channels_last=False
        )
        for images, target in source.epoch(0):
            images = images if self._normalised else images * self._std + self._mean
            if not self._any_number and len(images) < self.batch_size:
                images = images[torch.arange(self.batch_size) % len(images)]
            yield images.contiguous(), target


def quantise(content: bytes, images: Iterator[Tensor]) -> bytes:
    """A program in ONNX with weights and activations in 8 bits (QDQ), its scales the range that these images span.

    Source: onnxruntime.quantization.quantize_static, weights by output channel, activations by tensor.

    Args:
        content: the program, which takes "images".
        images: batches as it takes them.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def get_next(self) -> dict[str, Any] | None:
            batch = next(images, None)
            return None if batch is None else {"images": batch.numpy()}

    # The messages are advice to do what is done here.
    with tempfile.TemporaryDirectory() as place, no_logging(logging.WARNING), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given, prepared, made = (Path(place) / f"{name}.onnx" for name in ("given", "prepared", "made"))
        given.write_bytes(content)
        quant_pre_process(given, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            made,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
        )
        return made.read_bytes()
