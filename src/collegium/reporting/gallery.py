"""The sections of the page that show test images."""

from collegium.reporting import pictures
from collegium.reporting.evidence import Evidence
from collegium.reporting.examples import Example
from collegium.reporting.markup import Html, element, html, section, table
from collegium.reporting.sections import Styles, chip, column_head

ATTENTION_ROWS = 6


def examples(evidence: Evidence, styles: Styles) -> Html:
    """What every predictor says of a few images."""
    cards = [_card(evidence, example, styles) for example in evidence.examples]
    return section(
        "Test images and answers",
        element(
            "p",
            "Chosen by rule, not by hand: the surest or the least sure image of each kind of outcome. "
            "They show what happens, not how often.",
            class_="soft",
        ),
        element("div", cards, class_="examples"),
        id="examples",
    )


def _card(evidence: Evidence, example: Example, styles: Styles) -> Html:
    classes = evidence.data.class_names
    true = classes[example.target]
    rows = [
        [
            html([chip(styles[name]), name]),
            element("td", "✓ " if answer.label == example.target else "✗ ", classes[answer.label], class_="text"),
            f"{100 * answer.confidence:.0f} %",
        ]
        for name, answer in example.answers.items()
    ]
    facts = [element("b", true), element("br"), element("span", example.story, class_="soft")]
    return element(
        "article",
        element(
            "div",
            pictures.plain(example.image, f"Test image {example.index}, true class {true}"),
            element("div", facts, element("br"), element("span", f"test image {example.index}", class_="soft")),
            class_="top",
        ),
        table([], rows),
        class_="example",
    )


def attention(evidence: Evidence, styles: Styles) -> Html:
    """Where the peers, and the method's own map, look."""
    shown = [*evidence.examples[: ATTENTION_ROWS - 1], *evidence.examples[ATTENTION_ROWS - 1 :][-1:]]
    names = list(shown[0].maps)
    rows = []
    for example in shown:
        true = evidence.data.class_names[example.target]
        cells = [pictures.plain(example.image, f"Test image {example.index}, true class {true}")]
        cells += [
            pictures.overlaid(example.image, example.maps[name], f"Attention of {name} on test image {example.index}")
            for name in names
        ]
        label = element(
            "th", element("b", true), element("br"), element("span", example.story, class_="soft"), scope="row"
        )
        rows.append([*(element("td", cell) for cell in cells), label])
    sizes = {name: "×".join(map(str, shown[0].maps[name].shape)) for name in names}
    fused = [name for name in names if name not in evidence.peers]
    also = f" Beside them stands the method's own map: {', '.join(fused)}." if fused else ""
    head = [
        column_head("image"),
        *(element("th", [chip(styles[name])] if name in styles else [], name, scope="col") for name in names),
        column_head("true class"),
    ]
    return section(
        "Attention",
        element(
            "p",
            "Where each peer's last feature map is active: the mean square over its channels, scaled to run from dark "
            f"(least) to bright (most) within each picture.{also} Maps have "
            + ", ".join(dict.fromkeys(sizes.values()))
            + " cells and are drawn smoothly over the image; "
            "brightness does not compare from one picture to the next.",
            class_="soft",
        ),
        table(head, rows, class_="attention"),
        id="attention",
    )
