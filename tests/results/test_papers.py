"""The papers' tables: every published number has its place, and every run can be built."""

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from collegium import networks
from collegium.data import ClassificationData, ImageData, Split
from collegium.data.batches import NO_AUGMENTATION
from collegium.errors import UsageError
from collegium.results import papers as tables
from collegium.results.published import in_table, published
from collegium.results.published import tables as published_tables
from collegium.study.cell import Cell
from collegium.training.experiment import build

CLASSES = {"cifar10": (10, 32), "cifar100": (100, 32), "imagenet": (1000, 64)}


def stand_in(name: str) -> ClassificationData[Any]:
    """Blank images in the shape of a data set that may not be here; ImageNet's are smaller, its networks take both."""
    classes, side = CLASSES[name]
    split = Split(torch.zeros(classes, 3, side, side, dtype=torch.uint8), torch.arange(classes))
    names, ones = tuple(map(str, range(classes))), (1.0,) * 3
    return ImageData(
        name=name, train=split, test=split, class_names=names, mean=ones, std=ones, augmentation=NO_AUGMENTATION
    )


def kinds() -> list[Cell]:
    """One cell of each kind: method with options, how many peers, trunk, teacher; with the smallest networks.

    On ImageNet, whose networks take seconds to build, one for each way to put networks together.
    """
    cells = [cell for name in tables.names() for cell in tables.get(name).cells()]
    found: dict[str, Cell] = {}
    for cell in sorted(cells, key=lambda cell: (len(cell.recipe.peers), cell.recipe.peers)):
        peers, imagenet = networks.parse_peers(cell.recipe.peers), cell.recipe.data_name == "imagenet"
        own = (len(peers) > 1) if imagenet else (cell.recipe.method, len(peers))
        kind = (imagenet, own, len(set(peers)), cell.recipe.share_until, cell.teacher is None)
        found.setdefault(repr(kind), cell)
    return list(found.values())


def test_every_published_number_stands_in_a_table_that_is_known() -> None:
    assert set(published_tables()) == set(tables.names())
    assert len(tables.names()) == 40
    for name in tables.names():
        table = tables.get(name)
        assert {target.number for target in table.targets()} == set(in_table(name))
        methods = {number.method for number in in_table(name)}
        assert {method for row in table.rows for method in row.published} == methods


def test_runs_are_counted() -> None:
    counts = {name: len(tables.get(name).cells()) for name in tables.names()}
    assert sum(counts.values()) == 234
    assert counts["ffl/table1a"] == 16 and counts["ffl/ablation"] == 5 and counts["pcl/cifar100"] == 28
    missing = [target for name in tables.names() for target in tables.get(name).targets() if target.missing]
    assert {entry.label for entry in missing} == {""}
    assert len(published()) - len({entry.number for entry in missing}) == 262


@pytest.mark.parametrize("cell", kinds(), ids=lambda cell: f"{cell.recipe.data_name}-{cell.label}")
def test_a_run_can_be_built(cell: Cell) -> None:
    data = stand_in(cell.recipe.data_name)
    teacher: nn.Module | None = None
    if cell.teacher is not None:
        teacher = networks.build(cell.teacher.rpartition(" · ")[2], num_classes=data.num_classes)
    experiment = build(cell.recipe, data=data, teacher=teacher)
    assert list(experiment.spec.names) == networks.parse_peers(cell.recipe.peers)


def test_rows_are_as_the_papers_have_them() -> None:
    cells = {cell.label: cell.recipe for cell in tables.get("ffl/table1a").cells()}
    assert cells["FFL · cifar100 · 2xresnet56"].share_until == "stage2"
    assert cells["DualNet · cifar10 · 2xwrn_16_2"].share_until is None
    assert cells["DualNet · cifar10 · 2xwrn_16_2"].data == {"name": "cifar10"}
    mixed = {cell.label: cell.recipe for cell in tables.get("ffl/dml").cells()}
    assert mixed["FFL · resnet32,wrn_16_2"].share_until is None
    large = {cell.label: cell.recipe for cell in tables.get("ffl/imagenet").cells()}
    assert large["FFL · 2xtorchvision/resnet34"].share_until == "stage3"
    assert large["FFL · 2xtorchvision/resnet34"].epochs == 100
    (ten, hundred) = tables.get("okdph/cifar").cells()
    assert ten.recipe.method == {"name": "okdph"}
    assert hundred.recipe.method == {"name": "okdph", "interval": 5}
    shared = {cell.label: cell.recipe.share_until for cell in tables.get("mcl/cifar100").cells()}
    assert shared["MCL · 2xresnet32"] is None and shared["MCL · 4xresnet32"] == "stage1"


def test_tables_of_the_same_runs_share_a_study() -> None:
    a, b = tables.get("ffl/table1a"), tables.get("ffl/table1b")
    assert a.study == b.study == "ffl/table1"
    assert {cell.key for cell in a.cells()} == {cell.key for cell in b.cells()}


def test_students_have_a_teacher_of_the_same_seed() -> None:
    cells = tables.get("shake/cifar100").cells((0, 1))
    students = [cell for cell in cells if cell.label == "KD · shufflenet_v2_x1_0"]
    assert [cell.seed for cell in students] == [0, 1]
    assert {cell.teacher for cell in students} == {"teacher · resnet32x4"}
    assert students[0].recipe.learning_rate == 0.01
    (teacher,) = (cell for cell in cells if (cell.label, cell.seed) == ("teacher · resnet32x4", 1))
    assert teacher.recipe.learning_rate == 0.05 and teacher.recipe.method == {"name": "independent"}


def test_a_trial_is_shorter_in_proportion_and_says_so() -> None:
    whole = tables.get("ffl/ablation").cells()[0]
    trial = tables.get("ffl/ablation").cells(scale=0.02)[0]
    assert trial.recipe.epochs == 6 and trial.recipe.data["per_class"] == 10 and trial.recipe.milestones == (0.5, 0.75)
    assert trial.label == "A (all) · 2 % trial · 2xresnet32"
    assert tables.is_trial(trial.label) and not tables.is_trial(whole.label)
    assert "per_class" not in whole.recipe.data
    tiny = tables.scaled(whole.recipe, 0.0001)
    assert tiny.epochs == 1 and tiny.data["per_class"] == 1
    steps = tables.scaled(tables.get("okdph/cifar").cells()[1].recipe, 0.4)
    assert steps.method["interval"] == 2


def test_every_table_has_a_trial() -> None:
    for name in tables.names():
        trials = tables.get(name).cells(scale=0.1)
        assert len(trials) == len(tables.get(name).cells())
        assert all(tables.is_trial(cell.label) and cell.recipe.data["per_class"] >= 50 for cell in trials)


@pytest.mark.parametrize("scale", [0, -0.1, 1.5])
def test_a_scale_is_a_share(scale: float) -> None:
    with pytest.raises(UsageError, match="share above 0 and at most 1"):
        tables.get("ffl/ablation").cells(scale=scale)


def test_imagenet_cannot_be_scaled_beyond_its_smallest_class() -> None:
    assert tables.get("one/imagenet").cells(scale=0.5)[0].recipe.data["per_class"] == 640
    with pytest.raises(UsageError, match="smallest has 732: take at most 0.57, or 1"):
        tables.get("one/imagenet").cells(scale=0.6)


def test_how_long_the_authors_trained_is_told_where_it_is_known() -> None:
    assert tables.get("ffl/table1a").epochs == 300
    assert tables.get("ffl/imagenet").epochs is None and tables.get("afd/cifar100").epochs is None


def test_the_docs_list_all_tables() -> None:
    docs = Path(__file__).parents[2] / "docs"
    script = runpy.run_path(str(docs / "reproduce_tables.py"))
    assert (docs / "reproduce.md").read_text().endswith(script["MARK"] + "\n\n" + script["listing"]())


def test_a_table_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="known are: ffl/table1a, ffl/table1b, ffl/ablation"):
        tables.get("ffl/table2")
    with pytest.raises(UsageError, match="no published table of mfef is known: only the abstract"):
        tables.get("mfef/table1")
    with pytest.raises(UsageError, match="did you mean 'pcl/cifar100'"):
        tables.get("pcll/cifar100")
