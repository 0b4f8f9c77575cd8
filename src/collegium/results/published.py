"""Numbers that papers have printed, as data: published.csv beside this file.

A number keeps what its source says of it, and says how sure it is. Networks, data sets and predictors have this
library's names; networks that it lacks keep the papers' names.
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import fmean, stdev
from typing import Literal, cast

Metric = Literal["top1_error", "top1_accuracy", "top5_error", "overall_accuracy", "average_accuracy", "class_accuracy"]
Certainty = Literal["P", "C", "R", "S"]

FILE = Path(__file__).with_name("published.csv")

CERTAINTY: dict[Certainty, str] = {
    "P": "printed by the authors",
    "C": "read in the authors' code or logs",
    "R": "of a re-implementation by others",
    "S": "second hand: in a summary, a survey or another paper's table",
}

LACKING = {
    "DenseNet": "the source does not say which DenseNet it is",
    "GoogLeNet": "the library has no GoogLeNet for small images",
    "HCGNet-A1": "the library has no HCGNet",
    "HCGNet-A2": "the library has no HCGNet",
    "MobileNet": "the library has no MobileNet of the first version",
    "MobileNetV2": "the source does not say which form for 64 x 64 pixels it is",
    "NIN": "the library has no network in network",
    "ResNet-110": "which blocks its ResNet-110 has is not said",
    "ResNet34": "the library has no ResNet-34 for small images",
    "ResNet50": "the library has no ResNet-50 for small images",
    "ShuffleNetV1": "the library has no ShuffleNet of the first version",
    "WRN-20-8": "what the code calls so has bottleneck blocks of width 512 and is not in the library",
    "unknown": "the source does not name the network",
}
"""Networks of published numbers that cannot be built, and why."""


@dataclass(frozen=True)
class Published:
    """One published number.

    Args:
        table: the table that it stands in, by this library's name: "ffl/table1a".
        method: as it is printed.
        data: the data set; "a>b" is a transfer from a to b.
        printed_networks: the peers' networks as they are printed.
        networks: the same in this library's names, or in those of LACKING; one for peers of one kind.
        teacher: the frozen teacher's network, "" where there is none.
        peers: how many, "" where that is not known.
        trunk: whether the peers share their low stages.
        metric: what was measured.
        predictor: what was scored, in this library's words; "unknown" where the source does not say.
        statistic: "mean" over runs; the "best run" of several; "one run" alone.
        value: in percent, as it is printed.
        std: standard deviation over runs in percentage points, nan where none is printed.
        certainty: a key of CERTAINTY.
        source: where it was read.
    """

    table: str
    method: str
    data: str
    printed_networks: str
    networks: tuple[str, ...]
    teacher: str
    peers: str
    trunk: Literal["yes", "no", "unknown"]
    metric: Metric
    predictor: str
    statistic: Literal["mean", "best run", "one run"]
    value: float
    std: float
    certainty: Certainty
    source: str

    @property
    def network(self) -> str:
        """The network that the predictor is, or that it is made of."""
        index = int(self.predictor.removeprefix("peer")) if self.predictor in ("peer0", "peer1") else 0
        return self.networks[index if index < len(self.networks) else 0]

    @property
    def lacking(self) -> str:
        """Why its networks cannot be built, "" where they can."""
        return "; ".join(dict.fromkeys(LACKING[n] for n in (*self.networks, self.teacher) if n in LACKING))


@cache
def rows() -> tuple[Published, ...]:
    """Every row of published.csv."""
    with FILE.open(encoding="utf-8") as file:
        return tuple(_row(row) for row in csv.DictReader(file))


def _row(row: dict[str, str]) -> Published:
    numbers = {"value": float(row["value"]), "std": float(row["std"] or "nan")}
    return Published(**cast(dict[str, str], {**row, "networks": tuple(row["networks"].split(",")), **numbers}))  # type: ignore[arg-type]


@cache
def published() -> tuple[Published, ...]:
    """Every published number; where a source prints several runs one by one, their mean and standard deviation."""
    kinds: dict[Published, list[Published]] = {}
    for row in rows():
        kinds.setdefault(replace(row, value=0.0, std=0.0), []).append(row)
    return tuple(_mean(same) for same in kinds.values())


def _mean(same: Sequence[Published]) -> Published:
    if len(same) == 1:
        return same[0]
    values = [row.value for row in same]
    assert same[0].statistic == "one run" and all(math.isnan(row.std) for row in same)
    source = f"{same[0].source}; of {len(same)} runs printed one by one"
    return replace(same[0], statistic="mean", value=fmean(values), std=stdev(values), source=source)


def tables() -> list[str]:
    """The tables that the numbers stand in, in order."""
    return list(dict.fromkeys(number.table for number in published()))


def in_table(table: str) -> list[Published]:
    """The numbers of one table, in order."""
    return [number for number in published() if number.table == table]
