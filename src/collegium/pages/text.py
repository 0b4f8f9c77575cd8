"""Numbers and names as the page writes them."""

import inspect
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from collegium import methods
from collegium.errors import UsageError
from collegium.results.analysis import Evidence


def percent(share: float) -> str:
    """``0.0267`` -> ``"2.67"``; the unit is said beside it."""
    return f"{100 * share:.2f}"


def count(number: float) -> str:
    """``83892`` -> ``"83.9 k"``, in three digits and k, M, G or T."""
    for unit in ("", " k", " M", " G"):
        if abs(number) < 999.5:
            return f"{number:#.3g}".rstrip(".") + unit if unit else f"{number:.0f}"
        number /= 1000
    return f"{number:#.3g}".rstrip(".") + " T"


def duration(seconds: float) -> str:
    """``4000`` -> ``"1 h 7 min"``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def networks(names: Sequence[str]) -> str:
    """``["resnet8", "resnet8", "wrn"]`` -> ``"2 × resnet8, wrn"``."""
    return ", ".join(name if n == 1 else f"{n} × {name}" for name, n in Counter(names).items())


def shared(share_until: str | None) -> str:
    """``"stage1,stage2"`` -> ``"all up to stage1, halves up to stage2"``."""
    if share_until is None:
        return "nothing"
    stages = [stage.strip() for stage in share_until.split(",")]
    whose = ["all", "halves", *["halves of those"] * len(stages)]
    return ", ".join(f"{who} up to {stage}" for who, stage in zip(whose, stages, strict=False))


def plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def entry(value: object) -> str:
    """A recipe's value as one line."""
    if isinstance(value, Mapping):
        options = ", ".join(f"{k} {entry(v)}" for k, v in value.items() if k != "name" and v is not None)
        if "name" not in value:
            return options or "–"
        return f"{value['name']}" + (f" ({options})" if options else "")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(map(entry, value))
    return "–" if value is None else str(value)


def last(evidence: Evidence, predictor: str) -> dict[str, Any]:
    """The scores of result.json in the last epoch."""
    scores = evidence.result["predictors"][predictor]["last"]
    assert isinstance(scores, dict)
    return scores


def verdict(evidence: Evidence) -> str:
    """What came out, in plain language, from this run's numbers alone."""
    result = evidence.result
    errors = [last(evidence, name)["top1_error"] for name in evidence.peers]
    cost, peer = result["cost"], result["cost"][evidence.peers[0]]
    images = result["test_images"]
    sentences = []
    after = f"After {plural(result['epochs'], 'epoch')} on {plural(result['training_images'], 'training image')}"
    if len(errors) == 1:
        sentences.append(f"{after}, the peer gets {percent(errors[0])} % of the {images:,} test images wrong.")
    else:
        span = f"from {percent(min(errors))} % to {percent(max(errors))} %"
        span = f"each {percent(errors[0])} %" if min(errors) == max(errors) else span
        sentences.append(
            f"{after}, one peer alone gets {percent(fmean(errors))} % of the {images:,} test images wrong "
            f"(mean of {len(errors)} peers, {span})."
        )
        joined = percent(last(evidence, "ensemble")["top1_error"])
        sentences.append(f"Averaging their logits (the ensemble) gives {joined} %.")
    own = [(name, percent(last(evidence, name)["top1_error"])) for name in evidence.own]
    if len(own) == 1:
        sentences.append(f"The method's own predictor, {own[0][0]}, gives {own[0][1]} %.")
    elif own:
        sentences.append("The method's own predictors give " + ", ".join(f"{e} % ({name})" for name, e in own) + ".")
    alike = len({(cost[p]["parameters"], cost[p]["flops"]) for p in evidence.peers}) == 1
    which = "One peer" if alike else f"{evidence.peers[0]} ({result['peers'][0]})"
    text = f"{which} takes {count(peer['parameters'])} parameters and {count(peer['flops'])} FLOPs an image"
    joint = evidence.joint
    if len(errors) > 1 or evidence.own:
        more, slower = (cost[joint][key] / peer[key] for key in ("parameters", "flops"))
        text += f"; {joint} takes {more:.1f} times as many parameters and {slower:.1f} times as many FLOPs"
    sentences.append(text + ".")
    return " ".join(sentences)


def doubt(evidence: Evidence) -> str:
    """How far the numbers can be trusted."""
    images = evidence.result["test_images"]
    share = fmean(last(evidence, name)["top1_error"] for name in evidence.peers)
    error = (share * (1 - share) / images) ** 0.5
    return (
        f"With {images:,} test images one such error rate has a standard error of about {100 * error:.2f} points, "
        "and one run does not show how much it changes from seed to seed."
    )


def method_title(name: str) -> str:
    """The method's name as its paper writes it."""
    try:
        return methods.get(name).__name__
    except UsageError:  # a method of the user's own
        return name


def about_method(name: str) -> tuple[str, list[str]]:
    """The first sentence of a method's docstring, and the links to paper and code in it."""
    try:
        text = inspect.getdoc(methods.get(name)) or ""
    except UsageError:  # a method of the user's own
        return "", []
    first = " ".join(text.partition("\n\n")[0].split()).replace("`", "")
    return first, list(dict.fromkeys(link.rstrip(".,;)") for link in re.findall(r"https://[^\s<>\"']+", text)))
