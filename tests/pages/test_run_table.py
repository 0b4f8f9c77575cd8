import io
from typing import Any

import pytest
from rich.console import Console

from collegium.pages.run_table import result_table


def result(errors: dict[str, float], peers: list[str] | None = None) -> dict[str, Any]:
    by_class = {"average_accuracy": 0.625, "kappa": 0.4375}

    def entry(error: float) -> dict[str, Any]:
        return {"last": {"top1_error": error, "top5_error": error / 2, "nll": 1.0, "ece": 0.02, **by_class}}

    peer_errors = [error for name, error in errors.items() if name.startswith("peer")]
    return {
        "method": "ffl",
        "data": "digits",
        "epochs": 3,
        "peers": peers or ["resnet8", "resnet8"],
        "deployed_peer": "peer0",
        "predictors": {name: entry(error) for name, error in errors.items()},
        "mean_peer": entry(sum(peer_errors) / len(peer_errors)),
        "test_images_per_class": [10, 14, 10, 10, 10, 10],
        "class_names": [f"class {k}" for k in range(6)],
        "class_accuracy": {name: [1 - error] * 6 for name, error in errors.items()},
        "cost": {name: {"parameters": 1234, "flops": 5_600_000} for name in errors},
    }


def printed(table: Any, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_result_is_shown_in_percent_with_its_cost() -> None:
    text = printed(result_table(result({"peer0": 0.1, "peer1": 0.2, "ensemble": 0.125, "classifiers_mean": 0.05})))
    for word in ("90.00", "80.00", "85.00", "87.50", "classifiers_mean", "1,234", "5.6"):
        assert word in text


def test_where_classes_are_uneven_the_average_over_them_and_kappa_are_shown() -> None:
    uneven = result({"peer0": 0.1, "ensemble": 0.125}) | {"test_images_per_class": [10, 16]}
    text = printed(result_table(uneven))
    for word in ("90.00", "87.50", "62.50", "43.75", "kappa"):
        assert word in text
    assert "top-5" not in text


@pytest.mark.parametrize(("classes", "shown"), [(2, False), (5, False), (6, True)])
def test_of_five_classes_or_fewer_there_is_no_top_5_accuracy(classes: int, shown: bool) -> None:
    found = result({"peer0": 0.1, "ensemble": 0.125}) | {"test_images_per_class": [10] * classes}
    text = printed(result_table(found))
    assert "top-1" in text and ("top-5" in text) is shown


def test_numbers_of_any_length_are_whole() -> None:
    found = result({"peer0": 0.1, "peer1": 0.2, "ensemble": 0.125}) | {"test_images_per_class": [10, 16]}
    found["predictors"]["peer0"]["last"]["nll"] = 26073.806
    found["cost"]["peer0"]["parameters"] = 571_299
    text = printed(result_table(found))
    assert "26073.806" in text and "571,299" in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_deployed_network_is_the_headline() -> None:
    found = result({"peer0": 0.1, "peer1": 0.2, "ensemble": 0.125}, ["resnet8", "wrn"]) | {"deployed_peer": "peer1"}
    assert printed(result_table(found)).splitlines()[0] == "The deployed network, peer1 (wrn): 80.00 % test accuracy"


def test_a_network_that_has_learned_one_answer_is_told_with_what_helps() -> None:
    found = result({"peer0": 0.5, "peer1": 0.2, "ensemble": 0.125})
    assert "one answer" not in printed(result_table(found))
    found["class_accuracy"]["peer0"] = [0.0, 1.0, 0.0, None, 0.0, 0.0]
    text = " ".join(printed(result_table(found)).split())
    assert "peer0 is right on every test image of class class 1 and on none of the others" in text
    assert "lower the learning rate" in text and "lower the learning rate" in result_table(found)._repr_html_()


def test_a_notebook_gets_a_table_whose_text_is_escaped() -> None:
    found = result({"peer0": 0.1, "ensemble": 0.125}, ["<b>net</b>"]) | {"data": "<script>"}
    text = result_table(found)._repr_html_()
    assert "<table>" in text and "90.00 % test accuracy" in text and ">87.50<" in text
    assert "&lt;b&gt;net&lt;/b&gt;" in text and "&lt;script&gt;" in text and "<script>" not in text


def test_a_narrow_terminal_has_fewer_columns_and_whole_numbers() -> None:
    found = result_table(result({"peer0": 0.1, "peer1": 0.2, "ensemble": 0.125}))
    narrow, wide = printed(found, 60), printed(found, 80)
    assert "1,234" in wide and "MFLOPs" in wide and "MFLOPs" not in narrow
    assert max(map(len, narrow.splitlines())) <= 60
    for row in ("90.00", "95.00", "1.000"):
        assert row in narrow and row in wide


def test_a_run_that_stopped_early_says_after_how_many_epochs() -> None:
    found = result({"peer0": 0.1, "peer1": 0.2, "ensemble": 0.125})
    assert "last of 3 epochs" in printed(result_table(found), 200)
    found["stopped"] = {"epoch": 1, "reason": "..."}
    assert "last of 1 epoch (stopped early)" in printed(result_table(found), 200)
