"""The page of a ranking: one HTML file that filters, sorts and searches, and needs nothing else and no network."""

from collections import Counter
from collections.abc import Iterable, Sequence

from collegium.formatting import MISSING, plural
from collegium.pages.document import document
from collegium.pages.html import Html, element
from collegium.pages.rank_table import CAPTION, Ranking, numbers, rank_text, value_text
from collegium.results.published import CERTAINTY
from collegium.results.ranking import RANKED, TRIAL, Standing

TITLE = "What works best"

FILTERS = {
    "data": "Data set",
    "network": "Network",
    "metric": "Metric",
    "deployed": "Deployed",
    "origin": "Whose",
    "certainty": "How sure",
}
"""What values are filtered by, in order -> its name."""

COLUMNS = ("rank", "method", "peers", "scored", "value", "", "runs", "epochs", "images", "whose")
NUMBERS = ("value", "runs", "epochs", "images")


def page(ranking: Ranking) -> str:
    """The whole page. The same ranking gives the same page."""
    everything = [standing for group in ranking.groups.values() for standing in group]
    body = element(
        "main",
        element("header", element("h1", TITLE), element("p", _lead(everything), class_="lead")),
        element("div", _filters(everything), _told(), id="live", hidden=""),
        _ranking(ranking),
        element("p", "No value is like that.", class_="none", hidden=""),
        _explained(ranking),
        element("footer", element("p", "Written by ", element("code", "collegium rank"), ".", class_="soft")),
    )
    return document(f"{TITLE} – Collegium", body, style="rank.css", script="rank.js")


def _lead(everything: Sequence[Standing]) -> str:
    origins = Counter(standing.origin for standing in everything)
    ours = f"{plural(origins['ours'], 'value')} of runs found here" if origins["ours"] else "no finished run found here"
    return (
        f"Online distillation by data set and network: {ours}, and {plural(origins['published'], 'published value')}. "
        "Each comes with how it was measured, and where to read it."
    )


def _filters(everything: Sequence[Standing]) -> Html:
    usual = _usual(everything)
    choices = [
        element(
            "label",
            label,
            element(
                "select",
                element("option", "all", value=""),
                [
                    element(
                        "option",
                        _name(key, value),
                        value=value,
                        data_name=_name(key, value),
                        selected="" if usual.get(key) == value else None,
                    )
                    for value in _values(key, everything)
                ],
                name=key,
            ),
        )
        for key, label in FILTERS.items()
    ]
    words = element("label", "Words", element("input", type="search", placeholder="method, paper …", name="search"))
    return element("form", choices, words, class_="filters")


def _usual(everything: Sequence[Standing]) -> dict[str, str]:
    """What the page shows first: the data set of most runs found here, and there the network of most values."""
    chosen = {"metric": "top-1 error", "deployed": "one network"}
    known = [s for s in everything if not s.remark and (s.metric, s.deployed) == tuple(chosen.values())]
    found = [s for s in known if s.origin == "ours"] or known
    if found:
        chosen["data"] = Counter(s.data for s in found).most_common(1)[0][0]
        chosen["network"] = Counter(s.network for s in known if s.data == chosen["data"]).most_common(1)[0][0]
    return chosen


def _values(key: str, everything: Iterable[Standing]) -> list[str]:
    counts = Counter(getattr(standing, key) for standing in everything)
    if key == "metric":
        return [metric for metric in RANKED if counts[metric]]
    if key == "certainty":
        return [tag for tag in CERTAINTY if counts[tag]]
    return [value for value, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if value]


def _name(key: str, value: str) -> str:
    if key == "certainty":
        return CERTAINTY[value].partition(":")[0]  # type: ignore[index]
    return value.removeprefix("torchvision/") + " (ImageNet)" if value.startswith("torchvision/") else value


def _told() -> Html:
    buttons = [
        element("button", text, type="button", id=name)
        for name, text in (("everything", "show all"), ("again", "start again"))
    ]
    return element("p", element("span", id="shown", aria_live="polite"), buttons, class_="told soft")


def _ranking(ranking: Ranking) -> Html:
    heads = element(
        "tr",
        [
            element(
                "th",
                name,
                scope="col",
                tabindex=0 if name else None,
                class_="number" if name in NUMBERS else None,
            )
            for name in COLUMNS
        ],
    )
    bodies = [_group(group) for group in ranking.groups.values()]
    return element("table", element("thead", heads), bodies, class_="ranking")


def _group(group: Sequence[Standing]) -> Html:
    first = group[0]
    images = f", {first.images:,} training images" if first.images else ""
    better = RANKED[first.metric].better
    title = element(
        "tr",
        element(
            "th",
            element("b", _name("network", first.network), " on ", first.data),
            element("span", f"{first.metric} of {first.deployed}, %{images}; {better} is better", class_="soft"),
            colspan=len(COLUMNS),
            scope="rowgroup",
        ),
        class_="group",
    )
    low = min(s.value - (s.std or 0) for s in group)
    high = max(s.value + (s.std or 0) for s in group)
    return element("tbody", title, [_row(s, low, high) for s in group], class_="standings")


def _row(s: Standing, low: float, high: float) -> Html:
    classes = ["row", *(["ours"] if s.origin == "ours" else []), *(["first"] if s.rank == 1 else [])]
    runs, epochs = numbers(s)
    images = f"{s.images:,}" if s.images else MISSING
    why = element("p", "It has no rank: ", s.unranked, ".") if s.unranked else ""
    link = element("p", element("a", s.link.removeprefix("https://"), href=s.link, rel="noreferrer")) if s.link else ""
    trial = [" ", element("span", "trial", class_="tag")] if s.remark == TRIAL else ""
    method = element(
        "details", element("summary", element("b", s.method), trial), element("p", s.source, "."), link, why
    )
    whose = "ours" if s.origin == "ours" else f"published · {s.certainty}"
    explained = "a run found here" if s.origin == "ours" else CERTAINTY[s.certainty]  # type: ignore[index]
    return element(
        "tr",
        element(
            "td", rank_text(s), class_="place", data_value="" if s.rank is None else s.rank, title=s.unranked or None
        ),
        element("td", method, class_="method", data_value=s.method),
        element("td", s.peers, class_="peers"),
        element("td", s.predictor.replace("_", " "), class_="scored"),
        element("td", value_text(s), class_="value number", data_value=f"{s.value:.4f}"),
        element("td", _track(s, low, high), class_="spot"),
        element("td", runs, class_=_number("runs", runs) + (" single" if s.n == 1 else ""), data_value=s.n or ""),
        element("td", epochs, class_=_number("epochs", epochs), data_value=s.epochs or ""),
        element("td", images, class_=_number("images", images), data_value=s.images or ""),
        element("td", element("span", whose, class_="tag", title=explained), class_="whose"),
        class_=" ".join(classes),
        **{f"data_{key}": getattr(s, key) for key in FILTERS},
    )


def _number(name: str, text: str) -> str:
    return f"{name} number" + (" unknown" if text == MISSING else "")


def _track(s: Standing, low: float, high: float) -> Html:
    """Where the value lies within its group, with its standard deviation."""
    width = (high - low) or 1.0
    at, std = 100 * (s.value - low) / width, 100 * (s.std or 0) / width
    hollow = "hollow" if s.origin == "published" and s.certainty != "P" else None
    band = element("i", style=f"--low:{at - std:.1f};--wide:{2 * std:.1f}") if s.std else ""
    return element(
        "span", band, element("b", style=f"--at:{at:.1f}", class_=hollow), class_="track", aria_hidden="true"
    )


def _explained(ranking: Ranking) -> Html:
    tags = [element("li", element("b", tag), ": ", text, ".") for tag, text in CERTAINTY.items()]
    left = [element("li", element("code", folder), ": ", why) for folder, why in ranking.left_out.items()]
    return element(
        "section",
        element("h2", "How to read it"),
        element("ul", [element("li", sentence) for sentence in CAPTION]),
        element("p", "A click on a method tells where its value is from, and its recipe. Published values are:"),
        element("ul", tags),
        element(
            "p",
            "Dots show where a value lies between the best and the worst of its group, bars its standard deviation; "
            "hollow dots are published values that their authors' own text was not at hand for.",
        ),
        [element("h3", "Left out"), element("ul", left)] if left else "",
        id="reading",
        class_="soft",
    )
