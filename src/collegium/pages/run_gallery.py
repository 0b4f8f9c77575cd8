"""The sections of the page that show images: test images, and the map of a scene."""

from collegium.data import SceneData
from collegium.formatting import percent
from collegium.pages import run_pictures as pictures
from collegium.pages import run_scene_maps as scene_maps
from collegium.pages.html import Html, breakable, element, figure, html, section, table
from collegium.pages.run_sections import Styles, chip
from collegium.results.analysis import RunAnalysis
from collegium.results.examples import Example

ATTENTION_ROWS = 6


def examples(analysis: RunAnalysis, styles: Styles) -> Html:
    """What every predictor says of a few images."""
    cards = [_card(analysis, example, styles) for example in analysis.examples]
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


def _card(analysis: RunAnalysis, example: Example, styles: Styles) -> Html:
    classes = analysis.data.class_names
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
            pictures.plain(example.image, f"{example.name}, true class {true}"),
            element("div", facts, element("br"), element("span", breakable(example.name), class_="soft")),
            class_="top",
        ),
        table([], rows),
        class_="example",
    )


def attention(analysis: RunAnalysis, styles: Styles) -> Html:
    """Where the peers, and the method's own map, look."""
    shown = [*analysis.examples[: ATTENTION_ROWS - 1], *analysis.examples[ATTENTION_ROWS - 1 :][-1:]]
    names = list(shown[0].maps)
    rows = []
    for example in shown:
        true = analysis.data.class_names[example.target]
        cells = [pictures.plain(example.image, f"{example.name}, true class {true}")]
        cells += [
            pictures.overlaid(example.image, example.maps[name], f"Attention of {name} on {example.name}")
            for name in names
        ]
        label = element(
            "th", element("b", true), element("br"), element("span", example.story, class_="soft"), scope="row"
        )
        rows.append([*(element("td", cell) for cell in cells), label])
    sizes = {name: "×".join(map(str, shown[0].maps[name].shape)) for name in names}
    columns = [name for name in names if shown[0].maps[name].shape[1] == 1 < shown[0].maps[name].shape[0]]
    along = " Maps of one column run along the bands, the first one at the top." if columns else ""
    fused = [name for name in names if name not in analysis.peers]
    also = f" Beside them stands the method's own map: {', '.join(fused)}." if fused else ""
    head = [
        "image",
        *(element("th", [chip(styles[name])] if name in styles else [], name, scope="col") for name in names),
        "true class",
    ]
    return section(
        "Attention",
        element(
            "p",
            "Where each peer's last feature map is active: the mean square over its channels, scaled to run from dark "
            f"(least) to bright (most) within each picture.{also} Maps have "
            + ", ".join(dict.fromkeys(sizes.values()))
            + " cells and are drawn smoothly over the image; "
            f"brightness does not compare from one picture to the next.{along}",
            class_="soft",
        ),
        table(head, rows, class_="attention"),
        id="attention",
    )


def classification_map(analysis: RunAnalysis, styles: Styles) -> Html:
    """Every predictor's answer to every pixel of a scene; nothing where the data are no scene."""
    data = analysis.data
    if not isinstance(data, SceneData):
        return Html("")
    key = [
        element("li", element("span", class_="swatch", style=f"background: {colour}", aria_hidden="true"), name)
        for colour, name in zip(scene_maps.class_colours(data.num_classes), data.class_names, strict=True)
    ]
    known = [_map(panel, panel.title) for panel in scene_maps.scene_panels(data)]
    answers, masked = (
        [
            _map(
                panel,
                [
                    chip(styles[panel.title]),
                    f"{panel.title}, accuracy {percent(analysis.accuracy[panel.title])}\N{NO-BREAK SPACE}%",
                ],
            )
            for panel in scene_maps.predictor_panels(data, analysis.maps, labelled=labelled)
        ]
        for labelled in (False, True)
    )
    height, width = data.ground_truth.shape
    grid = "maps wide" if width > scene_maps.LONG * height else "maps"
    return section(
        "Classification map",
        element(
            "p",
            f"What each predictor says of every pixel of the scene ({data.size}), with its accuracy on the test pixels."
            " Where a pixel has no label, the map can be looked at, not scored.",
            class_="soft",
        ),
        element("ul", key, class_="key"),
        element("div", known, answers, class_=grid),
        element("h3", "Labelled pixels only"),
        element("div", masked, class_=grid),
        id="map",
    )


def _map(panel: scene_maps.Panel, caption: object) -> Html:
    return figure(pictures.as_png(panel.pixels.float() / 255, f"Map of the scene: {panel.title}"), html(caption))
