"""The published numbers are whole, readable and named in the library's words."""

import math
from collections import Counter

import pytest

from collegium import data, networks
from collegium.errors import UsageError
from collegium.results.published import CERTAINTY, LACKING, Published, in_table, published, rows

PREDICTORS = {
    "mean_peer",
    "peer0",
    "peer1",
    "leader",
    "fused",
    "fused_classifier",
    "classifiers_mean",
    "one_e",
    "unknown",
}


def number(table: str, method: str, networks: str, predictor: str, peers: str) -> Published:
    (found,) = (
        n
        for n in in_table(table)
        if (n.method, ",".join(n.networks), n.predictor, n.peers) == (method, networks, predictor, peers)
        and n.data == "cifar100"
        and n.statistic == "mean"
    )
    return found


def test_no_row_is_lost() -> None:
    assert len(rows()) == 451
    assert len(published()) == 437
    assert Counter(row.certainty for row in rows()) == {"S": 227, "P": 193, "R": 24, "C": 7}


def test_every_row_says_what_it_is() -> None:
    for row in rows():
        assert 0 < row.value < 100, row
        assert math.isnan(row.std) or 0 < row.std < 2, row
        assert row.certainty in CERTAINTY and row.source and row.printed_networks, row
        assert row.predictor in PREDICTORS and row.network in row.networks, row
        assert set(row.data.split(">")) <= set(data.names()), row


def test_networks_can_be_built_or_it_is_said_why_not() -> None:
    used = {name for row in rows() for name in (*row.networks, row.teacher) if name}
    for name in used - set(LACKING):
        networks.check(name)
    assert set(LACKING) <= used
    for name in set(LACKING) - {"unknown"}:
        with pytest.raises(UsageError):
            networks.check(name)


def test_numbers_are_those_of_the_papers() -> None:
    fused = number("ffl/table1a", "FFL", "resnet32", "fused", "2")
    assert (fused.value, fused.std, fused.certainty, fused.metric) == (25.56, 0.32, "P", "top1_error")
    second = number("ffl/dml", "DML", "resnet32,wrn_16_2", "peer1", "2")
    assert (second.value, second.network) == (26.45, "wrn_16_2")
    student = number("shake/cifar100", "KD", "wrn_16_2", "peer0", "1")
    assert (student.value, student.teacher) == (74.92, "wrn_40_2")


def test_runs_that_are_printed_one_by_one_are_averaged() -> None:
    leader = number("ffsd/cifar100", "FFSD leader", "resnet32", "leader", "3")
    assert leader.value == pytest.approx((74.92 + 74.82 + 74.82) / 3)
    assert leader.std == pytest.approx(0.0577, abs=1e-4)
    assert "3 runs" in leader.source
