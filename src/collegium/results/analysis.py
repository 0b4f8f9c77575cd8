"""All that the page of a run is made from: what the run wrote, and what its trained state says again."""

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from collegium.baseline import Baseline, baseline_beside, folder_alone
from collegium.cohort import AVERAGED, is_peer
from collegium.data import ClassificationData, SceneData
from collegium.errors import CollegiumError, DataError, UsageError
from collegium.losses import attention_map
from collegium.results.diversity import agreement, double_fault, jensen_shannon, kappa
from collegium.results.examples import Answer, Changes, Choice, Example, choose, evenly, unit_range
from collegium.student import deployed_peer
from collegium.training.recipe import Recipe
from collegium.training.result import trained_epochs
from collegium.training.run_folder import RunFolder
from collegium.yaml_text import read_yaml

if TYPE_CHECKING:
    from collegium.training.run import RestoredRun

ALONE = "alone"  # names the answers of the network that was trained alone
SHOWN_CHANGES = 8  # images of each kind


@dataclass(frozen=True)
class Pair:
    """How two peers differ on the test images."""

    first: str
    second: str
    agreement: float  # share of images with the same answer
    kappa: float
    double_fault: float  # share of images that both get wrong
    jensen_shannon: float  # mean, nats

    @property
    def disagreement(self) -> float:
        return 1 - self.agreement


@dataclass(frozen=True)
class RunAnalysis:
    """One finished run. N test images, C classes."""

    run: Path
    recipe: Recipe
    provenance: dict[str, Any]
    result: dict[str, Any]
    history: list[dict[str, float]]
    data: ClassificationData[Any]
    logits: dict[str, Tensor]  # predictor -> (N, C), float32, from the last epoch's weights
    targets: Tensor  # (N,)
    own: tuple[str, ...]  # the method's own predictors
    examples: tuple[Example, ...]
    maps: dict[str, Tensor] = field(default_factory=dict)  # of a scene: predictor -> its answer to each pixel (H, W)
    baseline: Baseline | None = None  # the deployed network alone, where it was trained beside the run
    changes: Changes | None = None  # between the answers of that one and of the deployed network

    @property
    def predictors(self) -> list[str]:
        return list(self.logits)

    @property
    def peers(self) -> list[str]:
        return [name for name in self.logits if is_peer(name)]

    @property
    def deployed(self) -> str:
        """The peer that the method trains for use."""
        return deployed_peer(self.result)

    @property
    def alike(self) -> bool:
        """Whether all peers are of one kind, so that their mean is that of any of them."""
        return len(set(self.result["peers"])) == 1

    @property
    def joint(self) -> str:
        """The predictor that joins the peers: the method's first own, or the ensemble."""
        return self.own[0] if self.own else "ensemble"

    @cached_property
    def answers(self) -> dict[str, Tensor]:
        """Predictor -> its answer to each test image (N,)."""
        return {name: z.argmax(-1) for name, z in self.logits.items()}

    @cached_property
    def accuracy(self) -> dict[str, float]:
        """Predictor -> share of test images it gets right."""
        return {name: float((answer == self.targets).double().mean()) for name, answer in self.answers.items()}

    @cached_property
    def agreement(self) -> Tensor:
        """Share of test images with the same answer, between all predictors in their order."""
        return agreement(torch.stack(list(self.answers.values())))

    @cached_property
    def any_peer_right(self) -> float:
        """Share of test images that at least one peer gets right."""
        right = torch.stack([self.answers[name] == self.targets for name in self.peers])
        return float(right.any(0).double().mean())

    @cached_property
    def pairs(self) -> list[Pair]:
        """Every pair of peers."""
        answers = torch.stack([self.answers[name] for name in self.peers])
        tables = (
            agreement(answers),
            kappa(answers, self.data.num_classes),
            double_fault(answers, self.targets),
            jensen_shannon(torch.stack([self.logits[name] for name in self.peers])),
        )
        return [
            Pair(first, second, *(float(table[i, i + 1 + k]) for table in tables))
            for i, first in enumerate(self.peers)
            for k, second in enumerate(self.peers[i + 1 :])
        ]


def gather(
    run: str | Path,
    *,
    peers: Sequence[nn.Module] | None = None,
    data: ClassificationData[Any] | None = None,
    teacher: nn.Module | None = None,
) -> RunAnalysis:
    """Reads a finished run, and predicts its test images again from its newest checkpoint.

    Args:
        run: the run's folder.
        peers: the untrained networks, where the run was given networks from Python.
        data: the data, where the run was given data from Python.
        teacher: the teacher, where the run was given one from Python.

    Raises:
        UsageError: there is no run, it is not complete, or its checkpoints are gone.
        TrainingError: the checkpoint is damaged, or does not fit the recipe.
    """
    from collegium.training.run import restore

    folder = RunFolder(run)
    recipe = folder.recipe()
    result = folder.result()
    if result is None:
        raise UsageError(
            f"{run} is not complete: {_epochs_done(folder)} of {recipe.epochs} epochs are done; "
            "repeat the training command to go on, then ask for the report again"
        )
    history = folder.metrics()
    lacking = [name for name in result["predictors"] if not history or f"test/{name}/top1_error" not in history[-1]]
    last = trained_epochs(result)
    if lacking or history[-1]["epoch"] != last:
        raise DataError(f"{folder.metrics_file} lacks the scores of epoch {last}, the last: a part of it is gone")
    trained = restore(run, peers=peers, data=data, teacher=teacher)
    logits, targets = _predict(trained)
    deployed = deployed_peer(result)
    index = int(deployed.removeprefix("peer"))
    baseline, changes = baseline_beside(folder.path, recipe, index), None
    if baseline is not None:
        alone = _predict_alone(folder.path, trained, None if peers is None else peers[index])
        changes = None if alone is None else _changes(trained.experiment.data, alone, deployed, logits[deployed])
    own = tuple(n for n in logits if not (n == "ensemble" or is_peer(n) or n.endswith(AVERAGED)))
    return RunAnalysis(
        run=Path(run),
        recipe=recipe,
        provenance=read_yaml(folder.recipe_file).get("provenance") or {},
        result=result,
        history=history,
        data=trained.experiment.data,
        logits=logits,
        targets=targets,
        own=own,
        examples=_examples(trained, choose(logits, targets, own), logits),
        maps=_maps(trained),
        baseline=baseline,
        changes=changes,
    )


def _epochs_done(folder: RunFolder) -> int:
    if not folder.metrics_file.is_file():
        return 0
    rows = folder.metrics()
    return int(rows[-1]["epoch"]) if rows else 0


def _predict(trained: "RestoredRun") -> tuple[dict[str, Tensor], Tensor]:
    """Logits of every predictor on the whole test split, and the targets, on the CPU."""
    parts: dict[str, list[Tensor]] = {}
    for images, _ in trained.scored["test"].epoch(0):
        for name, logits in trained.predict(images).items():
            parts.setdefault(name, []).append(logits.float().cpu())
    targets = trained.experiment.data.test.targets.cpu()
    return {name: torch.cat(part).clone() for name, part in parts.items()}, targets


def _predict_alone(run: Path, trained: "RestoredRun", network: nn.Module | None) -> Tensor | None:
    """Logits (N, C) of the network that was trained alone beside a run, None where it cannot be opened any more.

    Args:
        run: the run's folder.
        trained: the run.
        network: the untrained network, where the run was given networks from Python.
    """
    from collegium.training.run import restore

    given = None if network is None else [copy.deepcopy(network)]
    try:
        alone = restore(folder_alone(run), peers=given, data=trained.experiment.data)
    except CollegiumError as error:
        warnings.warn(f"which test images changed beside the network alone is not shown: {error}", stacklevel=3)
        return None
    return _predict(alone)[0]["peer0"]


def _changes(data: ClassificationData[Any], alone: Tensor, deployed: str, together: Tensor) -> Changes:
    targets = data.test.targets.cpu()
    before, after = (z.argmax(-1) == targets for z in (alone, together))
    counts = torch.tensor([[(x & y).sum() for y in (~after, after)] for x in (~before, before)])
    logits = {ALONE: alone, deployed: together}
    gained, lost = (
        tuple(_answered(data, [Choice(k, "") for k in evenly(which.nonzero()[:, 0], SHOWN_CHANGES)], logits))
        for which in (~before & after, before & ~after)
    )
    return Changes(counts, gained, lost)


def _maps(trained: "RestoredRun") -> dict[str, Tensor]:
    """Every predictor's class for every pixel of a scene (H, W), on the CPU; nothing where the data are no scene."""
    data = trained.experiment.data
    if not isinstance(data, SceneData):
        return {}
    from collegium.training.evaluation import EVALUATION_BATCH

    batches = data.scene_tiles(
        batch_size=EVALUATION_BATCH, device=trained.fabric.device, channels_last=trained.experiment.channels_last
    )
    parts: dict[str, list[Tensor]] = {}
    for patches, _ in batches.epoch(0):
        for name, logits in trained.predict(patches).items():
            parts.setdefault(name, []).append(logits.argmax(-1).cpu())
    return {name: torch.cat(part).view(data.ground_truth.shape).clone() for name, part in parts.items()}


@torch.inference_mode()
def _examples(trained: "RestoredRun", choices: Sequence[Choice], logits: Mapping[str, Tensor]) -> tuple[Example, ...]:
    """The chosen test images with every predictor's answer and all attention maps."""
    data = trained.experiment.data
    split = data.test.subset(torch.tensor([choice.index for choice in choices]))
    ((images, _),) = trained.evaluation_batches(split).epoch(0)
    learner = trained.learner.eval()
    with trained.fabric.autocast():
        out = learner.cohort(images)
        maps = {f"peer{k}": feature for k, feature in enumerate(out.last_features)}
        maps |= learner.method.maps(out)
    attention = {name: unit_range(attention_map(feature)).cpu() for name, feature in maps.items()}
    return tuple(
        replace(example, maps={name: a[k] for name, a in attention.items()})
        for k, example in enumerate(_answered(data, choices, logits))
    )


def _answered(data: ClassificationData[Any], choices: Sequence[Choice], logits: Mapping[str, Tensor]) -> list[Example]:
    """The chosen test images with every predictor's answer."""
    if not choices:
        return []
    split = data.test.subset(torch.tensor([choice.index for choice in choices]))
    shown, files = data.pictures(split), split.files
    examples = []
    for k, choice in enumerate(choices):
        probabilities = {name: z[choice.index].softmax(-1) for name, z in logits.items()}
        answers = {name: Answer(int(p.argmax()), float(p.max())) for name, p in probabilities.items()}
        file = None if files is None else files[k]
        examples.append(Example(choice.index, file, choice.story, shown[k], int(split.targets[k]), answers))
    return examples
