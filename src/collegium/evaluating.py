"""Scores of a trained run or peer, on the test images of its own data or of others with the same classes."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from collegium import data as datasets
from collegium.data import ClassificationData, OwnData, as_data
from collegium.errors import UsageError
from collegium.hub import located
from collegium.options import checked
from collegium.predicting import Predictions, check_file
from collegium.student import CONFIG, deployed_peer, load_peer, read_config
from collegium.tiles import Tile
from collegium.user_code import consents

if TYPE_CHECKING:
    from collegium.pages.run_table import RunTable
    from collegium.training.run import RestoredRun


class Evaluation(dict[str, dict[str, float]]):
    """Scores on test images: predictor -> metric -> value. A notebook shows the table, a rich console prints it.

    Attributes:
        table: the scores as a table.
        about: what was scored: run, data, test_images, epochs, deployed.
    """

    def __init__(self, scores: Mapping[str, dict[str, float]], table: "RunTable", about: Mapping[str, Any]) -> None:
        super().__init__(scores)
        self.table, self.about = table, dict(about)

    def __rich__(self) -> "RunTable":
        return self.table

    def _repr_html_(self) -> str:
        return self.table._repr_html_()

    def json(self) -> str:
        """One document: what was scored, and under "predictors" the scores of each."""
        return json.dumps({**self.about, "predictors": self}, indent=2)


@checked
@consents("data")
def evaluate(
    run: str | Path,
    *,
    data: str | Mapping[str, Any] | OwnData | None = None,
    predictions: str | Path | None = None,
    predictor: str | None = None,
    peers: Sequence[nn.Module] | None = None,
    teacher: nn.Module | None = None,
    trust: bool = False,
) -> Evaluation:
    """Scores every predictor of a trained run again on test images, or a trained peer alone.

    Args:
        run: the run's folder, or that of a peer or hf://OWNER/NAME, which need ``data``.
        data: other data of the same classes, whose test images are scored: a name, a name with options, or your own;
            by default the run's, which must be given where the run was given data from Python. The images are
            normalised as the run's own were.
        predictions: a file for the true label, the predicted label and the probabilities of all classes of each test
            image: CSV where its name ends in .csv, an object a line where it ends in .jsonl.
        predictor: whose predictions are written; by default those of the peer that the method trains for use.
        peers: the untrained networks, where the run was given networks from Python; of a peer's folder that one.
        teacher: the same for the teacher.
        trust: import code of your own that the run names, module:package.function. See SECURITY.md.

    Raises:
        UsageError: there is no run, it has not been trained yet, or the data have other classes or images of
            another shape.
        DataError: the data cannot be read.
        StorageError: ``predictions`` cannot be written.
    """
    from collegium.pages.run_table import predictor_table
    from collegium.training.cost import costs
    from collegium.training.metrics import score, summary

    if predictor is not None and predictions is None:
        raise UsageError("predictor says whose predictions are written: give a file for them, --predictions FILE")
    if predictions is not None:
        check_file(predictions)
    trained, named = _restored(located(run), _loaded(data), peers=peers, teacher=teacher)
    learner, used = trained.learner, trained.experiment.data
    chosen = predictor or learner.deployed_peer
    probabilities: list[Tensor] = []

    def predict(images: Tensor | Tile) -> dict[str, Tensor]:
        logits = trained.predict(images)
        if chosen not in logits:
            raise UsageError(f"{run} has no predictor {chosen!r}; it has {', '.join(logits)}")
        if predictions is not None:
            probabilities.append(logits[chosen].float().softmax(1).cpu())
        return logits

    scores = summary(score(predict, trained.scored["test"].epoch(0), used.num_classes))
    if predictions is not None:
        _predictions(used, torch.cat(probabilities)).write(predictions)
    about = {
        "run": str(run),
        "data": used.name,
        "test_images": len(used.test),
        "epochs": trained.epoch,
        "deployed": learner.deployed_peer,
    }
    table = predictor_table(
        f"{named} on {used.name}, {len(used.test):,} test images",
        scores,
        costs(learner, used.image_shape),
        used.test.targets.bincount(minlength=used.num_classes).tolist(),
        deployed=learner.deployed_peer,
        network=learner.spec.names[int(learner.deployed_peer.removeprefix("peer"))],
    )
    return Evaluation(scores, table, about)


def _loaded(data: str | Mapping[str, Any] | OwnData | None) -> ClassificationData[Any] | None:
    if data is None:
        return None
    if isinstance(data, str):
        return datasets.load(data)
    if isinstance(data, Mapping):
        if "name" not in data:
            raise UsageError(f"the data have no name: {dict(data)}")
        return datasets.load(str(data["name"]), **{key: value for key, value in data.items() if key != "name"})
    return as_data(data)


def _restored(path: Path, data: ClassificationData[Any] | None, **given: Any) -> "tuple[RestoredRun, str]":
    """What is scored, and what it is called."""
    from collegium.training.run import restore, restore_peer
    from collegium.training.run_folder import RunFolder

    if (path / CONFIG).is_file():
        if data is None:
            raise UsageError(f"{path} is a peer, which does not say on what to score it: give data (--data)")
        config = read_config(path)
        _check_fits(path, config, data)
        own = list(given["peers"] or ())
        return restore_peer(load_peer(path, own[0] if own else None), config, data), str(path)
    folder = RunFolder(path)
    result = folder.result() if folder.recipe_file.is_file() else None
    if data is not None and result is not None:
        _check_fits(path, read_config(path / "peers" / deployed_peer(result)), data)
    trained = restore(path, data=data, **given)
    return trained, f"{path} after {trained.epoch} of {trained.recipe.epochs} epochs"


def _check_fits(path: Path, config: Mapping[str, Any], data: ClassificationData[Any]) -> None:
    """Raises UsageError where data have other classes or images of another shape than those of a trained peer."""
    for what, wanted, given in (
        ("classes", config["num_classes"], data.num_classes),
        ("channels", config["in_channels"], data.in_channels),
    ):
        if wanted != given:
            raise UsageError(
                f"{data.name} has {given} {what}, and {path} was trained with {wanted}: give data that fit"
            )
    size = tuple(config.get("image_size", data.image_size))
    if size != data.image_size:
        theirs, own = ("x".join(map(str, pixels)) for pixels in (data.image_size, size))
        raise UsageError(
            f"{data.name} has images of {theirs}, and {path} was trained on {own}: give images of that size "
            "(--data.image-size where the data set has it)"
        )
    known, found = list(config.get("class_names") or ()), list(data.class_names)
    numbered = [str(k) for k in range(data.num_classes)]
    if known and numbered not in (known, found) and known != found:
        k = next(k for k, (a, b) in enumerate(zip(known, found, strict=True)) if a != b)
        raise UsageError(
            f"class {k} is {found[k][:60]!r} in {data.name}, and {known[k][:60]!r} where {path} was trained: "
            "give data of the same classes, in the same order"
        )


def _predictions(data: ClassificationData[Any], probabilities: Tensor) -> Predictions:
    """What a predictor says of each test image."""
    names, split = data.class_names, data.test
    truth = tuple(names[k] for k in split.targets.tolist())
    files = split.files
    if files is not None:
        return Predictions(files, tuple(names), probabilities, truth=truth)
    return Predictions(tuple(map(str, range(len(truth)))), tuple(names), probabilities, truth=truth, named="index")
