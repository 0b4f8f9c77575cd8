"""What the files of runs and studies must hold to be used; they may come from anywhere.

A *shape* is a type (an int may stand for a float), None, ``[shape]`` for a list, ``{str: shape}`` for a mapping with
any names, a :class:`Record` for one with given names, a tuple of shapes for either of them, or ``object`` for anything.
"""

import csv
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod
from numbers import Real
from pathlib import Path
from typing import Any

from collegium.errors import DataError
from collegium.files import check_whole, read_bounded

MIB = 2**20
LARGEST_JSON = 64 * MIB
_MOST_VALUES = 10**8  # of an image: 400 MB
_WORDS: dict[object, str] = {
    Real: "a number",
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    str: "a text",
}
_WORDS |= {None: "nothing", dict: "a mapping", list: "a list"}


@dataclass(frozen=True)
class Record:
    """A mapping that has the entries ``required``, perhaps those of ``optional``, and perhaps others."""

    required: Mapping[str, Any]
    optional: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Between:
    """A number from ``low`` to ``high``; a whole one where these are."""

    low: float
    high: float


def fault(value: object, shape: Any, place: str = "") -> str | None:
    """What is wrong with a value: ``"peers must be a list, not 3"``; None where it has the shape."""
    if isinstance(shape, tuple):
        faults = [fault(value, kind, place) for kind in shape]
        return None if None in faults else faults[0]
    if isinstance(shape, Record):
        if not isinstance(value, Mapping):
            return _wrong(value, dict, place)
        lacking = [name for name in shape.required if name not in value]
        if lacking:
            return f"{_inner(place, lacking[0])} is missing"
        known = {**shape.optional, **shape.required}
        return _first((value[name], known[name], _inner(place, name)) for name in known if name in value)
    if isinstance(shape, dict):
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            return _wrong(value, dict, place)
        return _first((item, shape[str], _inner(place, name)) for name, item in value.items())
    if isinstance(shape, list):
        if not isinstance(value, list):
            return _wrong(value, list, place)
        return _first((item, shape[0], f"{place}[{index}]") for index, item in enumerate(value))
    if isinstance(shape, Between):
        kind = int if isinstance(shape.low, int) else float
        outside = fault(value, kind, place) or not shape.low <= value <= shape.high  # type: ignore[operator]
        return (
            f"{place} must be {_WORDS[kind]} from {shape.low} to {shape.high}, not {_shown(value)}" if outside else None
        )
    return None if _is(value, shape) else _wrong(value, shape, place)


def _first(parts: Any) -> str | None:
    return next((wrong for part in parts if (wrong := fault(*part)) is not None), None)


def _inner(place: str, name: object) -> str:
    return f"{place}.{str(name)[:40]}" if place else str(name)[:40]


def _is(value: object, shape: Any) -> bool:
    if shape is None:
        return value is None
    if shape is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300  # not NaN either
    if shape is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    if shape is Real:
        return isinstance(value, float) or _is(value, int)
    return isinstance(value, shape)


def _wrong(value: object, shape: Any, place: str) -> str:
    return f"{place or 'the whole'} must be {_WORDS[shape]}, not {_shown(value)}"


def _shown(value: object) -> str:
    return repr(value)[:40] if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"


_SHARE = Between(0.0, 1.0)
_MEASURED: dict[str, Any] = {
    "top1_error": _SHARE,
    "top5_error": _SHARE,
    "average_accuracy": _SHARE,
    "kappa": Between(-1.0, 1.0),
}
_MEASURED |= {"nll": Real, "ece": Real}  # of networks whose logits overflow they are not finite
_SCORES = Record({"last": Record(_MEASURED), "best": Record(_MEASURED | {"epoch": Between(1, 2**62)})})
_COUNT, _AMOUNT = Between(1, 2**62), Between(0, 2**62)
_COST = Record({"parameters": Between(0.0, 1e18), "flops": Between(0.0, 1e24)})
_SECONDS = Between(0.0, 1e12)

RESULT = Record(
    {
        "method": str,
        "reconstructed": str,
        "peers": [str],
        "data": str,
        "training_images": _COUNT,
        "test_images": _COUNT,
        "seed": _AMOUNT,
        "epochs": _COUNT,
        "predictors": {str: _SCORES},
        "mean_peer": _SCORES,
        "best_chosen_on": str,
        "class_names": [str],
        "test_images_per_class": [_AMOUNT],
        "class_accuracy": {str: [(_SHARE, None)]},
        "cost": {str: _COST},
        "seconds": _SECONDS,
        "training_seconds": _SECONDS,
        "images_per_second": Between(0.0, 1e15),
    },
    {
        "stopped": (Record({"epoch": _COUNT, "reason": str}), None),
        "notes": [str],
        "deployed_peer": str,
        "share_until": (str, None),
        "wrong_labels": (_SHARE, None),
    },
)

CONFIG = Record(
    {"network": str, "num_classes": Between(2, 10**6), "in_channels": Between(1, 10**4)},
    {
        "image_size": [Between(1, 10**5)],
        "mean": [float],
        "std": [Between(1e-30, 1e30)],
        "class_names": [str],
        "resize": (Between(1, 10**5), [Between(1, 10**5)]),
        "bit_depth": Between(9, 16),
    },
)
EXPORTED = Record(
    {
        "num_classes": Between(2, 10**6),
        "in_channels": Between(1, 10**4),
        "image_size": [Between(1, 10**5)],
        "predictor": str,
        "normalises": bool,
    },
    {**CONFIG.optional, "batch_size": (Between(1, 2**31), None)},
)

_CONTRAST = Record({"row": str, "against": str})
STUDY = Record(
    {
        "common": {str: object},
        "cells": [Record({"label": str}, {"taught_by": str, "key": str})],
        "reference": {str: str},
        "left_out": {str: str},
        "provenance": {str: object},
    },
    {
        "trunk_reference": {str: str},
        "plan": Record(
            {
                "hypothesis": str,
                "contrasts": [_CONTRAST],
                "deployed": str,
                "margin": Between(1e-9, 100.0),
                "rows": [str],
                "seeds": [_AMOUNT],
                "written": str,
                "commit": str,
            }
        ),
    },
)

CHECKPOINT = Record(
    {
        "learner": dict,
        "optimizers": dict,
        "precision": dict,
        "mean": [float],
        "std": [float],
        "random": object,
        "random_cuda": object,
        "epoch": _AMOUNT,
        "step": _AMOUNT,
        "tally": dict,
        "history": [{str: Real}],
        "seconds": Record({"training": _SECONDS, "evaluation": _SECONDS}),
    }
)


def read_json(path: Path, shape: Record, limit: int = LARGEST_JSON) -> dict[str, Any]:
    """A mapping of the given shape.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: it holds something else.
    """
    return _as_record(path, read_bounded(path, limit), shape)


def _as_record(path: Path, text: str | bytes, shape: Record) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are among them
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())[:120]
        raise DataError(f"{path} is unreadable: {reason}") from error
    wrong = fault(content, shape)
    if wrong is not None:
        raise DataError(f"{path} is not as it was written: {wrong}")
    return dict(content)


def read_result(path: Path) -> dict[str, Any]:
    """The content of a result.json, whose parts fit together.

    Raises:
        FileNotFoundError: there is none.
        DataError: it is damaged, or holds something else.
    """
    check_whole(path, LARGEST_JSON)
    result = read_json(path, RESULT)
    wrong = _contradiction(result)
    if wrong is not None:
        raise DataError(f"{path} is not as it was written: {wrong}")
    return result


def _contradiction(result: Mapping[str, Any]) -> str | None:
    predictors, peers = result["predictors"], [f"peer{k}" for k in range(len(result["peers"]))]
    if not peers or {name for name in predictors if re.fullmatch(r"peer\d+", name)} != set(peers):
        return f"it scores other peers than the {len(peers)} that it names"
    if len(peers) > 1 and "ensemble" not in predictors:
        return "predictors.ensemble is missing"
    if result.get("deployed_peer", "peer0") not in peers:
        return f"deployed_peer must be one of {len(peers)} peers, not {_shown(result['deployed_peer'])}"
    classes = len(result["class_names"])
    if len(result["test_images_per_class"]) != classes:
        return "test_images_per_class has another number of classes than class_names"
    for name in predictors:
        if name not in result["cost"]:
            return f"cost.{name[:40]} is missing"
        if len(result["class_accuracy"].get(name, ())) != classes:
            return f"class_accuracy.{name[:40]} has another number of classes than class_names"
    return None


def read_config(path: Path) -> dict[str, Any]:
    """The content of a peer's config.json, whose parts fit together.

    Raises:
        FileNotFoundError: there is none.
        DataError: it holds something else.
    """
    config = read_json(path, CONFIG)
    _check_lengths(path, config)
    return config


def read_exported(path: Path, text: str) -> dict[str, Any]:
    """What an exported file says of itself.

    Args:
        path: the file, for messages.
        text: JSON.

    Raises:
        DataError: it says something else, or nothing.
    """
    if not text:
        raise DataError(
            f"{path} does not say what its images and classes are: give a file that `collegium export` wrote"
        )
    config = _as_record(path, text, EXPORTED)
    _check_lengths(path, config)
    _check_values(path, config, config.get("batch_size") or 1)
    return config


def _check_lengths(path: Path, config: Mapping[str, Any]) -> None:
    lengths = {"image_size": 2, "mean": config["in_channels"], "std": config["in_channels"]}
    lengths["class_names"] = config["num_classes"]
    for name, length in lengths.items():
        if name in config and len(config[name]) != length:
            raise DataError(f"{path} is not as it was written: {name} must have {length} values")
    resize = config.get("resize")
    if isinstance(resize, list) and len(resize) != 2:
        raise DataError(f"{path} is not as it was written: resize must have 2 values")
    _check_values(path, config)


def _check_values(path: Path, config: Mapping[str, Any], images: int = 1) -> None:
    values = images * config["in_channels"] * prod(config.get("image_size", (1, 1)))
    if values > _MOST_VALUES:
        what = "images" if images == 1 else f"{images:,} images at once"
        raise DataError(f"{path} asks for {what} of {values:.2g} values, more than the {_MOST_VALUES:.0e} allowed")


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics.csv, one for each epoch, without the empty cells.

    Raises:
        FileNotFoundError: there is none.
        DataError: it holds something else, or a part alone.
    """
    try:
        text = read_bounded(path, 256 * MIB).decode()
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
        columns = rows.pop(0)
        if not text.endswith("\n"):
            raise ValueError("its last line is cut")
        wrong = next((k for k, row in enumerate(rows, start=2) if len(row) != len(columns)), None)
        if wrong is not None:
            raise ValueError(f"line {wrong} has not the {len(columns)} columns of the first line")
        found = [{key: float(value) for key, value in zip(columns, row, strict=True) if value} for row in rows]
        epochs = [row.get("epoch", 0.0) for row in found]
        if not all(before < after for before, after in pairwise([0.0, *epochs])):
            raise ValueError("its epochs are not one after another")
    except (ValueError, IndexError, csv.Error) as error:
        raise DataError(f"{path} is not as it was written: {' '.join(str(error).split())[:120]}") from error
    return found
