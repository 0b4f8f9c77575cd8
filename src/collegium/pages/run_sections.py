"""What was trained, and what came out, in words and tables."""

import shlex
from statistics import fmean
from typing import Any

from collegium.data.hyperspectral.patches import PatchData
from collegium.formatting import count, duration, number, percent, plural
from collegium.pages.colours import Style
from collegium.pages.html import Html, breakable, element, html, section, table
from collegium.pages.sheet import Cell, Column, Sheet
from collegium.pages.text import doubt, verdict
from collegium.results import wording
from collegium.results.analysis import RunAnalysis
from collegium.results.scores import METRICS, Metric, accuracies, last, one_answer, wrong_labels
from collegium.training.result import trained_epochs

Styles = dict[str, Style]


def chip(style: Style) -> Html:
    line = "solid" if style.dash == "solid" else "dotted" if style.dash == "dotted" else "dashed"
    return element("span", class_="chip", style=f"border-top: 3px {line} {style.css}", aria_hidden="true")


def key(styles: Styles, names: list[str]) -> Html:
    """Which line is whose; page.js lets a chart's lines go and come by it."""
    entries = [element("li", chip(styles[name]), name, data_style=list(styles).index(name)) for name in names]
    return element("ul", entries, class_="key")


def heading(analysis: RunAnalysis) -> Html:
    result, recipe = analysis.result, analysis.recipe
    facts = [
        f"peers share {wording.shared(recipe.share_until)}",
        f"{result['training_images']:,} training and {result['test_images']:,} test images{wrong_labels(result)}",
        f"seed {result['seed']}",
        plural(trained_epochs(result), "epoch"),
    ]
    if len(analysis.peers) == 1:
        del facts[0]
    return html([element("h1", breakable(title(analysis))), element("p", " · ".join(facts), class_="soft")])


def title(analysis: RunAnalysis) -> str:
    result = analysis.result
    return f"{wording.method_title(result['method'])} on {result['data']}, {wording.networks(result['peers'])}"


def notices(analysis: RunAnalysis) -> list[Html]:
    """What a reader must know before believing a number."""
    result, found = analysis.result, list(analysis.result.get("notes", []))
    if result.get("stopped"):
        found.append(result["stopped"]["reason"])
    if warning := one_answer(result):
        found.append(warning)
    if result.get("reconstructed"):
        found.append(
            f"Reconstructed: {result['reconstructed']}. No text or code of the authors states this part of "
            f"{result['method']}, so the numbers are those of our reading of it."
        )
    changed = [
        f"{name} {percent(analysis.accuracy[name])} % instead of {number(last(result, name, 'top1_accuracy'))} %"
        for name, scores in result["predictors"].items()
        if name in analysis.accuracy and abs(1 - analysis.accuracy[name] - scores["last"]["top1_error"]) > 1e-5
    ]
    if changed:
        found.append(
            "Predicted again for this page, on this machine and its test images, accuracies come out as "
            + ", ".join(changed)
            + ". Tables of scores hold the run's own numbers, pictures the new predictions."
        )
    return [element("p", text, class_="notice", role="note") for text in found]


def summary(analysis: RunAnalysis) -> Html:
    result = analysis.result
    cost, peers = result["cost"], len(analysis.peers)
    if analysis.alike:
        mean = last(result, "mean_peer", "top1_accuracy")
        cards = [("one peer" + (f", mean of {peers}" if peers > 1 else ""), mean, cost["peer0"])]
    else:
        cards = [
            (f"{name}, {network}", last(result, name, "top1_accuracy"), cost[name])
            for name, network in zip(analysis.peers, result["peers"], strict=True)
        ]
    cards += [("ensemble", last(result, "ensemble", "top1_accuracy"), cost["ensemble"])] if peers > 1 else []
    cards += [(name, last(result, name, "top1_accuracy"), cost[name]) for name in analysis.own]
    boxes = [
        element(
            "div",
            element("span", name),
            element("b", number(accuracy), " %"),
            element("span", count(c["parameters"]), " parameters"),
            element("span", count(c["flops"]), " FLOPs"),
            class_="card",
        )
        for name, accuracy, c in cards
    ]
    note = "Test accuracy after the last epoch. FLOPs are for one image, a multiply-add counts as two. "
    return html(
        [
            element("p", verdict(analysis), class_="lead"),
            element("p", _beside(analysis)) if analysis.baseline else "",
            element("div", boxes, class_="cards"),
            element("p", note, doubt(analysis), class_="soft"),
        ]
    )


def _beside(analysis: RunAnalysis) -> str:
    """The deployed network and the same one alone."""
    assert analysis.baseline is not None
    name = analysis.deployed
    told = f"{name}, which is deployed: {number(last(analysis.result, name, 'top1_accuracy'))} %. "
    return told + analysis.baseline.compared(analysis.result["predictors"][name]["last"]["top1_error"])


def scores(analysis: RunAnalysis, styles: Styles) -> Html:
    result = analysis.result
    chosen = result["best_chosen_on"]
    metrics = [METRICS[key] for key in (*accuracies(len(result["test_images_per_class"])), "nll", "ece")]
    best = f"The highest accuracy of any epoch, chosen on the {chosen} images"
    columns = [
        Column("predictor", left=True),
        *(Column(metric.name, metric.name, metric.unit, metric.meaning) for metric in metrics),
        Column("parameters", meaning="Numbers learned in training that the predictor needs"),
        Column("FLOPs", meaning="For one image; a multiplication and an addition count as two"),
        Column("best epoch", unit="top-1 accuracy, %", meaning=best),
    ]
    rows = [_score_row(analysis, name, s, metrics, styles) for name, s in result["predictors"].items()]
    if len(analysis.peers) > 1:
        rows.insert(len(analysis.peers), _score_row(analysis, "mean_peer", result["mean_peer"], metrics, styles))
    flatters = (
        "chosen on the test images themselves, which flatters; it is here only for comparison with papers that do so"
        if chosen == "test"
        else "chosen on the validation images"
    )
    return section(
        "Final scores",
        Sheet(columns, rows).html(class_="sortable"),
        element(
            "p",
            "All scores are on the test images, after the last epoch: that is the headline. "
            f"The best epoch beside it was {flatters}. Higher is better for accuracies, lower for NLL and ECE. "
            "A click on a heading sorts by it.",
            class_="soft",
        ),
        element(
            "ul",
            [
                element("li", element("b", metric.name), ": ", metric.meaning[0].lower() + metric.meaning[1:], ".")
                for metric in metrics
            ],
            class_="soft",
        ),
        id="scores",
    )


def _score_row(
    analysis: RunAnalysis, name: str, scores: dict[str, Any], metrics: list[Metric], styles: Styles
) -> list[Cell]:
    numbers = [number(m.value(scores["last"]), m.digits) for m in metrics]
    costs = analysis.result["cost"]
    if name == "mean_peer":
        cost = {k: fmean(costs[peer][k] for peer in analysis.peers) for k in ("parameters", "flops")}
    else:
        cost = costs.get(name)
    best = scores["best"]
    label = element("i", "mean peer") if name == "mean_peer" else html([chip(styles[name]), name])
    return [
        Cell(label, name),
        *(Cell(text, strong=k == 0) for k, text in enumerate(numbers)),
        *(Cell(count(cost[key]), cost[key]) if cost else Cell() for key in ("parameters", "flops")),
        Cell(f"{percent(1 - best['top1_error'])} (epoch {best['epoch']})", 1 - best["top1_error"], style="aside"),
    ]


def trained(analysis: RunAnalysis) -> Html:
    result, recipe = analysis.result, analysis.recipe
    first, links = wording.about_method(recipe.method_name)
    about = [element("p", first)] if first else []
    if links:
        anchors = [
            html([" " if k == 0 else ", ", element("a", link.removeprefix("https://"), href=link, rel="noreferrer")])
            for k, link in enumerate(links)
        ]
        about.append(element("p", "Source:", anchors, class_="soft"))
    speed = f"{duration(result['seconds'])} in all, {duration(result['training_seconds'])} of it training, "
    rows = [
        ("method", wording.entry(recipe.method)),
        ("peers", wording.networks(result["peers"])),
        ("shared", wording.shared(recipe.share_until)),
        ("data", wording.entry(recipe.data)),
        (
            "training",
            f"{plural(recipe.epochs, 'epoch')} of batches of {recipe.batch_size}, {recipe.optimizer}, "
            f"learning rate {recipe.learning_rate:g}, {recipe.schedule} schedule",
        ),
        ("time", f"{speed}{result['images_per_second']:,.0f} images/s"),
        ("device", analysis.provenance.get("device", "unknown")),
        ("commit", analysis.provenance.get("commit") or "unknown"),
    ]
    entries = [(k, wording.entry(v)) for k, v in recipe.to_dict().items()]
    versions = list(analysis.provenance.items())
    return section(
        "What was trained",
        *about,
        table([], rows, class_="left"),
        element("details", element("summary", "The whole recipe"), table([], entries, class_="left")),
        element("details", element("summary", "Versions and machine"), table([], versions, class_="left"))
        if versions
        else "",
        id="trained",
    )


def use(analysis: RunAnalysis) -> Html:
    place = (analysis.run / "peers" / analysis.deployed).as_posix()
    code = "\n".join(
        [
            "import collegium",
            "",
            f"student = collegium.load_peer({place!r})  # a torch module in evaluation mode",
            "logits = student(images)  # (B, C), from normalised images (B, channels, height, width)",
        ]
    )
    run = analysis.run.as_posix()
    export = f"collegium export {shlex.quote(run)} --format onnx"
    predict = f"collegium predict {shlex.quote(run)} photographs/ --out labels.csv"
    if "python:" in analysis.recipe.peers:  # which the command line cannot have
        export = f"collegium.export({run!r}, network=...)  # the untrained network"
        predict = f"collegium.predict({run!r}, 'photographs', network=...).labels"
    scene = isinstance(analysis.data, PatchData)
    rest = [name for name in analysis.peers if name != analysis.deployed]
    others = f" Beside it lie{'s' * (len(rest) == 1)} {', '.join(rest)}." if rest else ""
    return section(
        "Use a trained peer",
        element("p", f"Each peer is a network of its own and needs none of the training code.{others}"),
        element("pre", element("code", code)),
        element(
            "p",
            "Its config.json holds the class names, and "
            + (
                "what is done to a scene before patches are cut: bands, principal components if any, and the mean and "
                "standard deviation of each channel."
                if scene
                else "the mean and standard deviation by which pixels scaled to [0, 1] are normalised."
            ),
            class_="soft",
        ),
        *([] if scene else [element("p", "The classes of image files:"), element("pre", element("code", predict))]),
        element("p", "As one file that runs without Collegium, by torch alone or ONNX Runtime:"),
        element("pre", element("code", export)),
        id="use",
    )
