"""The section of the page that shows which test images the deployed network gets right, and the same alone wrong."""

from collections.abc import Sequence

from collegium.formatting import number, plural
from collegium.pages import run_pictures as pictures
from collegium.pages.html import Html, breakable, element, section
from collegium.results.analysis import RunAnalysis
from collegium.results.examples import Example

SIDE = 64  # pixels of the longer side of an image


def changes(analysis: RunAnalysis) -> Html:
    """The images that changed, with counts; nothing where the network was not trained alone beside the run."""
    found = analysis.changes
    if found is None:
        return Html("")
    (both_wrong, gained), (lost, both_right) = found.counts.tolist()
    name, images = analysis.deployed, int(found.counts.sum())
    counts = {
        f"only {name} right": gained,
        "only the network alone right": lost,
        "both right": both_right,
        "both wrong": both_wrong,
    }
    cards = [
        element("div", element("span", what), element("b", f"{count:,}"), class_="card")
        for what, count in counts.items()
    ]
    told = (
        f"Of the {images:,} test images {name} gets {both_right + gained:,} right, and the same network trained alone "
        f"{both_right + lost:,}: {number(100 * (gained - lost) / images, sign=True)} points."
    )
    caution = (
        "Two trainings of one network from different seeds also disagree on many images. So these images show how the "
        "two networks differ, not what the method causes."
    )
    return section(
        "Together and alone",
        element("p", told),
        element("div", cards, class_="cards"),
        *_strip(f"Only {name} is right", found.gained, gained, analysis.data.class_names),
        *_strip("Only the network alone is right", found.lost, lost, analysis.data.class_names),
        element("p", caution, class_="soft"),
        id="changes",
    )


def _strip(title: str, examples: tuple[Example, ...], count: int, classes: Sequence[str]) -> list[Html]:
    if not examples:
        return []
    shown = len(examples)
    chosen = plural(count, "image") if shown == count else f"{shown} of {count:,} images, at even steps"
    frames = [_frame(example, classes) for example in examples]
    return [element("h3", title, ": ", chosen), element("div", frames, class_="film", tabindex="0")]


def _frame(example: Example, classes: Sequence[str]) -> Html:
    true = classes[example.target]
    answers = [
        element(
            "div",
            element("span", name, ": ", class_="soft"),
            "✓ right" if answer.label == example.target else f"✗ {classes[answer.label]}",
            element("span", f", {100 * answer.confidence:.0f}\N{NO-BREAK SPACE}%", class_="soft"),
        )
        for name, answer in example.answers.items()
    ]
    return element(
        "article",
        pictures.plain(example.image, f"{example.name}, true class {true}", SIDE),
        element("div", element("b", true), answers, element("span", breakable(example.name), class_="soft")),
        class_="example",
    )
