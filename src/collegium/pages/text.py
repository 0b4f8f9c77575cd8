"""What came out of a run, in sentences."""

from statistics import fmean

from collegium.cohort import AVERAGED
from collegium.formatting import count, number, plural
from collegium.results.analysis import RunAnalysis
from collegium.results.scores import last, wrong_labels
from collegium.training.result import trained_epochs


def verdict(analysis: RunAnalysis) -> str:
    """What came out, in plain language, from this run's numbers alone."""
    result = analysis.result
    accuracy = [last(result, name, "top1_accuracy") for name in analysis.peers]
    network = dict(zip(analysis.peers, result["peers"], strict=True))
    cost, peer = result["cost"], result["cost"][analysis.deployed]
    images = result["test_images"]
    sentences = []
    trained = f"{plural(result['training_images'], 'training image')}{wrong_labels(result)}"
    after = f"After {plural(trained_epochs(result), 'epoch')} on {trained}"
    if len(accuracy) == 1:
        sentences.append(f"{after}, the peer gets {number(accuracy[0])} % of the {images:,} test images right.")
    elif not analysis.alike:
        used = analysis.deployed
        right = {name: f"{number(last(result, name, 'top1_accuracy'))} %" for name in analysis.peers}
        others = ", ".join(f"{name} ({network[name]}) {right[name]}" for name in analysis.peers if name != used)
        sentences.append(
            f"{after}, {used} ({network[used]}), which is deployed, gets {right[used]} of the {images:,} test images "
            f"right; {others}."
        )
    else:
        span = f"from {number(min(accuracy))} % to {number(max(accuracy))} %"
        span += (
            f"; {analysis.deployed}, which is deployed, {number(last(result, analysis.deployed, 'top1_accuracy'))} %"
        )
        span = f"each {number(accuracy[0])} %" if min(accuracy) == max(accuracy) else span
        sentences.append(
            f"{after}, one peer gets {number(fmean(accuracy))} % of the {images:,} test images right "
            f"(mean of {len(accuracy)} peers, {span})."
        )
    if len(accuracy) > 1:
        joined = number(last(result, "ensemble", "top1_accuracy"))
        sentences.append(f"Averaging their logits (the ensemble) gives {joined} %.")
    averaged = [name + AVERAGED for name in analysis.peers if name + AVERAGED in result["predictors"]]
    if averaged:
        mean = number(fmean(last(result, name, "top1_accuracy") for name in averaged))
        sentences.append(f"With averaged weights, one peer gets {mean} % right.")
    own = [(name, number(last(result, name, "top1_accuracy"))) for name in analysis.own]
    if len(own) == 1:
        sentences.append(f"The method's own predictor, {own[0][0]}, gives {own[0][1]} %.")
    elif own:
        sentences.append("The method's own predictors give " + ", ".join(f"{a} % ({name})" for name, a in own) + ".")
    alike = len({(cost[p]["parameters"], cost[p]["flops"]) for p in analysis.peers}) == 1
    which = "One peer" if alike else analysis.deployed
    text = f"{which} takes {count(peer['parameters'])} parameters and {count(peer['flops'])} FLOPs an image"
    joint = analysis.joint
    if len(accuracy) > 1 or analysis.own:
        more, slower = (cost[joint][key] / peer[key] for key in ("parameters", "flops"))
        text += f"; {joint} takes {more:.1f} times as many parameters and {slower:.1f} times as many FLOPs"
    sentences.append(text + ".")
    return " ".join(sentences)


def doubt(analysis: RunAnalysis) -> str:
    """How far the numbers can be trusted."""
    images = analysis.result["test_images"]
    percent = fmean(last(analysis.result, name, "top1_accuracy") for name in analysis.peers)
    error = (percent * (100 - percent) / images) ** 0.5
    return (
        f"With {images:,} test images one such accuracy has a standard error of about {error:.2f} points, "
        "and one run does not show how much it changes from seed to seed."
    )
