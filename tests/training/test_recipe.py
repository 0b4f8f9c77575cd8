from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from collegium.errors import UsageError
from collegium.training.recipe import Recipe, told


def test_a_recipe_survives_yaml() -> None:
    recipe = Recipe.from_dict({"method": {"name": "dml", "temperature": 3.0}, "peers": "resnet8,wrn_10_1", "seed": 4})
    assert Recipe.from_dict(yaml.safe_load(yaml.safe_dump(recipe.to_dict()))) == recipe


def test_a_name_alone_is_short_for_a_method_or_data_set() -> None:
    recipe = Recipe.from_dict({"method": "one", "data": "cifar10"})
    assert (recipe.method, recipe.data) == ({"name": "one"}, {"name": "cifar10"})


def test_paths_and_numpy_numbers_become_what_yaml_can_hold() -> None:
    recipe = Recipe.from_dict(
        {"teacher": Path("runs/big"), "seed": np.int64(3), "data": {"name": "x", "root": Path("a")}}
    )
    assert (recipe.teacher, recipe.seed, recipe.data["root"]) == ("runs/big", 3, "a")
    assert Recipe.from_dict(yaml.safe_load(yaml.safe_dump(recipe.to_dict()))) == recipe


def test_cuda_graphs_replay_compiled_kernels() -> None:
    assert Recipe(compile=True, cuda_graphs=True).cuda_graphs
    with pytest.raises(UsageError, match="give --compile true with --cuda-graphs true"):
        Recipe(cuda_graphs=True)


def test_a_recipe_that_comes_with_the_library_has_a_name() -> None:
    assert Recipe.read("digits").data_name == "digits"
    with pytest.raises(UsageError, match="there is no recipe digit; did you mean 'digits'"):
        Recipe.read("digit")


@pytest.mark.parametrize(("text", "value"), [("1e-4", 1e-4), ("5E-4", 5e-4), ("1.5e+0", 1.5), ("0.01", 0.01), ("3", 3)])
def test_numbers_are_read_as_people_write_them(text: str, value: float, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"weight_decay: {text}\n")
    assert Recipe.read(tmp_path / "mine.yaml").weight_decay == value


def test_provenance_of_an_earlier_run_is_not_part_of_its_recipe() -> None:
    assert Recipe.from_dict({"provenance": {"torch": "1"}}) == Recipe()


@pytest.mark.parametrize(
    ("entry", "value", "sentence"),
    [
        ("epoch", 3, "unknown entry 'epoch'; did you mean 'epochs'"),
        ("epochs", 0, "epochs must be 1 or more, got 0"),
        ("learning_rate", 0.0, "learning_rate must be more than 0"),
        ("warmup", 1.0, "warmup must be from 0 up to"),
        ("milestones", (0.5, 1.5), "milestones must be shares between 0 and 1"),
        ("milestones", (0.5,) * 101, r"at most 100 of them, got .{80}\.\.\.$"),
        ("gradient_clip", -1.0, "gradient_clip must be more than 0"),
        ("weight_seed", -1, "weight_seed must be 0 or more"),
        ("seed", 10**23, "seed must be a whole number, and smaller"),
        ("seed", -1, "seed must be 0 or more, and below 2"),
        ("method", {}, "the recipe's method has no name"),
        ("epochs", "many", "epochs must be a whole number, not 'many'"),
        ("epochs", True, "epochs must be a whole number"),
        ("min_learning_rate", 0.01, "min_learning_rate is of the cosine schedule: leave it out with step"),
        ("min_learning_rate", 0.2, "min_learning_rate must be 0 or more, and below learning_rate, got 0.2"),
        ("micro_batches", 0, "micro_batches must be 1 or more"),
        ("ema", 1.0, "ema must be between 0 and 1"),
        ("patience", 0, "patience must be 1 or more"),
        ("optimizer", 3, "optimizer must be a text"),
        ("optimizer_options", "betas", "optimizer_options must be a mapping of names to values"),
        ("schedule", "linear", "schedule must be one of step, cosine"),
        ("precision", "fp8", "precision must be one of fp32, bf16, fp16"),
        ("peers", ["resnet8", "resnet8"], "peers must be a text"),
        ("milestones", ("half",), "milestones must be a list of numbers"),
    ],
)
def test_a_wrong_entry_is_named(entry: str, value: Any, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        Recipe.from_dict({entry: value})


@pytest.mark.parametrize("content", ["- a list", "epochs: [", "just words"])
def test_a_file_that_is_no_recipe_is_named(content: str, tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(content)
    with pytest.raises(UsageError, match="broken.yaml"):
        Recipe.read(file)


def test_differences_say_both_values() -> None:
    assert Recipe(seed=1).differences(Recipe(epochs=7)) == ["epochs: 30 here, 7 there", "seed: 1 here, 0 there"]
    mine, theirs = Recipe(method={"name": "dml", "temperature": 2.0}), Recipe(method={"name": "dml"})
    assert mine.differences(theirs) == ["method.temperature: 2.0 here, absent there"]


def test_of_many_differences_the_first_are_told() -> None:
    assert told(["a", "b", "c"]) == "a; b; c"
    assert told(["a", "b", "c", "d", "e"]) == "a; b; c; and 2 more"


def test_an_option_that_is_not_used_may_be_absent_from_a_run_of_before_there_was_one() -> None:
    now, before = (Recipe(data={"name": "digits", **options}) for options in ({"transform": None}, {}))
    assert now.differences(before) == before.differences(now) == []
    used = Recipe(data={"name": "digits", "transform": "module:a.b"})
    assert used.differences(before) == ["data.transform: module:a.b here, absent there"]
