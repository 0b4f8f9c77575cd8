"""The page of a ranking: one HTML file that filters, sorts and searches, and needs nothing else and no network."""

from collections import Counter
from collections.abc import Iterable, Sequence

from collegium.pages.document import document
from collegium.pages.html import Html, element, html
from collegium.pages.rank_table import CAPTION, Ranking, numbers, rank_text, value_text
from collegium.pages.study_table import MISSING
from collegium.pages.text import plural
from collegium.results.published import CERTAINTY
from collegium.results.ranking import METRICS, TRIAL, Standing

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

RANK_CSS = """
main { max-width: 84rem; }
.filters { position: sticky; top: 0; z-index: 2; display: grid; gap: .625rem .75rem; padding: .75rem 0;
  grid-template-columns: repeat(auto-fit, minmax(9.75rem, 1fr)); background: var(--page);
  border-bottom: 1px solid var(--line); }
.filters label { display: block; min-width: 0; font-size: .8125rem; color: var(--soft); }
.filters select, .filters input { display: block; width: 100%; min-width: 0; height: 2.25rem; margin-top: .15rem;
  padding: 0 .5rem; font: inherit; font-size: .9375rem; color: var(--ink); background: var(--box);
  border: 1px solid var(--line); border-radius: 6px; }
.filters :focus-visible, .ranking th:focus-visible { outline: 2px solid var(--accent); outline-offset: 1px; }
.told { display: flex; flex-wrap: wrap; gap: .25rem 1rem; align-items: baseline; margin: .75rem 0 0; }
.told button { font: inherit; color: var(--accent); background: none; border: 0; padding: 0; cursor: pointer;
  text-decoration: underline; }
.ranking { width: 100%; }
.ranking th, .ranking td { text-align: left; padding: .4rem .75rem .4rem 0; vertical-align: top; }
.ranking .number { text-align: right; }
.ranking thead th { cursor: pointer; user-select: none; border-bottom-width: 2px; }
.ranking thead th[aria-sort]::after { content: " ↓"; color: var(--accent); }
.ranking thead th[aria-sort="ascending"]::after { content: " ↑"; }
.ranking thead th:empty { cursor: default; }
.ranking .group th { padding-top: 1.75rem; border-bottom-color: var(--ink); white-space: normal; font-weight: 400; }
.ranking .group b { font-size: 1.0625rem; font-weight: 600; margin-right: .5rem; }
.ranking .place { width: 3rem; }
.ranking tr > :first-child { padding-left: .5rem; }
.ranking .method, .ranking .peers { white-space: normal; overflow-wrap: anywhere; }
.ranking .method { min-width: 11rem; }
.ranking .peers, .ranking .scored, .ranking .runs, .ranking .epochs, .ranking .images { color: var(--soft); }
.ranking .ours .method b { color: var(--accent); }
.ranking .ours > * { background: color-mix(in srgb, var(--accent) 8%, transparent); }
.ranking .first .place { font-weight: 600; }
.ranking details { margin: 0; font-size: .875rem; color: var(--soft); }
.ranking details p { margin: .25rem 0; }
.ranking summary { color: inherit; list-style: none; font-size: .9375rem; color: var(--ink); cursor: pointer; }
.ranking summary::-webkit-details-marker { display: none; }
.ranking summary::after { content: "›"; display: inline-block; color: var(--soft); margin-left: .4rem; }
.ranking details[open] summary::after { transform: rotate(90deg); }
.track { display: block; position: relative; width: 9rem; height: 1.5rem; }
.track::before { content: ""; position: absolute; left: 0; right: 0; top: 50%; border-top: 1px solid var(--line); }
.track i { position: absolute; top: 50%; left: calc(var(--low) * 1%); width: calc(var(--wide) * 1%);
  border-top: 3px solid var(--soft); opacity: .45; transform: translateY(-1px); border-radius: 2px; }
.track b { position: absolute; top: 50%; left: calc(var(--at) * 1%); width: .625rem; height: .625rem;
  margin: -.3125rem 0 0 -.3125rem; border: 2px solid var(--soft); border-radius: 50%; background: var(--soft); }
.track .hollow { background: var(--page); }
.ours .track i, .ours .track b { border-color: var(--accent); }
.ours .track b { background: var(--accent); }
.tag { display: inline-block; padding: 0 .4rem; border: 1px solid var(--line); border-radius: 4px; font-size: .8125rem;
  color: var(--soft); white-space: nowrap; }
.ours .tag { border-color: var(--accent); color: var(--accent); }
.none { padding: 2rem 0; }
[hidden] { display: none !important; }
@media (max-width: 80rem) {
  .track { width: 5rem; }
  .ranking .images, .ranking thead th:nth-child(9) { display: none; }
}
@media (max-width: 64rem) {
  .filters { position: static; grid-template-columns: 1fr 1fr; }
  .filters label:last-child { grid-column: 1 / -1; }
  .ranking, .ranking tbody { display: block; }
  .ranking .group b { display: block; }
  .ranking thead tr { display: flex; flex-wrap: wrap; gap: 0 1rem; }
  .ranking thead { display: block; }
  .ranking thead th { border: 0; padding: .25rem 0; }
  .ranking thead th:empty { display: none; }
  .ranking thead tr::before { content: "Sort by"; color: var(--soft); font-size: .875rem; padding: .25rem 0; }
  .ranking .group, .ranking .group th { display: block; }
  .ranking tr.row { display: grid; grid-template-columns: 2.25rem minmax(0, 1fr) auto; padding: .625rem 0;
    column-gap: 0; row-gap: .125rem; border-bottom: 1px solid var(--line);
    grid-template-areas: "place method value" "place peers whose" "place scored epochs" "place spot runs"; }
  .ranking tr.ours { background: color-mix(in srgb, var(--accent) 8%, transparent); }
  .ranking .row > * { border: 0; padding: 0; background: none; min-width: 0; }
  .ranking .place { grid-area: place; } .ranking .method { grid-area: method; min-width: 0; }
  .ranking .peers { grid-area: peers; } .ranking .scored { grid-area: scored; } .ranking .spot { grid-area: spot; }
  .ranking .value { grid-area: value; font-weight: 600; } .ranking .whose { grid-area: whose; text-align: right; }
  .ranking .runs { grid-area: runs; align-self: center; } .ranking .epochs { grid-area: epochs; }
  .ranking .epochs:not(.unknown)::after { content: " epochs"; }
  .ranking .runs:not(.unknown)::after { content: " runs"; }
  .ranking .runs.single:not(.unknown)::after { content: " run"; }
  .ranking .peers, .ranking .scored, .ranking .runs, .ranking .epochs { font-size: .875rem; padding-right: .75rem; }
  .ranking .row .runs, .ranking .row .epochs, .ranking .row .value, .ranking .row .whose { padding-right: .5rem; }
  .ranking .unknown { display: none; }
  .track { width: auto; margin-right: 1rem; }
}
"""

RANK_SCRIPT = """(() => {
const filters = [...document.querySelectorAll(".filters select")];
const search = document.querySelector(".filters input");
const rows = [...document.querySelectorAll("tr.row")];
const groups = [...document.querySelectorAll("tbody.standings")];
const shown = document.querySelector("#shown"), none = document.querySelector(".none");
const usual = Object.fromEntries(filters.map(filter => [filter.name, filter.value]));
const words = new Map(rows.map(row => [row, row.textContent.toLowerCase()]));

const fits = (row, besides) => filters.every(filter =>
  filter === besides || !filter.value || row.dataset[filter.name] === filter.value);
const found = row => search.value.toLowerCase().split(/\\s+/).every(word => words.get(row).includes(word));

function show(changed) {
  // A choice that no value has with the newest one gives way.
  for (const filter of filters) if (filter !== changed && filter.value && changed?.value &&
    !rows.some(row => row.dataset[filter.name] === filter.value && row.dataset[changed.name] === changed.value))
    filter.value = "";
  if (changed && !rows.some(row => fits(row)))
    for (const filter of filters) if (filter !== changed) filter.value = "";
  for (const filter of filters) {
    const counts = {};
    for (const row of rows) if (fits(row, filter)) {
      const value = row.dataset[filter.name];
      counts[value] = (counts[value] ?? 0) + 1;
    }
    for (const option of filter.options) if (option.value) {
      option.disabled = !counts[option.value];
      option.textContent = option.dataset.name + (counts[option.value] ? ` (${counts[option.value]})` : "");
    }
  }
  let total = 0;
  for (const group of groups) {
    let some = 0;
    for (const row of group.querySelectorAll("tr.row")) {
      row.hidden = !(fits(row) && found(row));
      some += !row.hidden;
    }
    group.hidden = !some;
    total += some;
  }
  shown.textContent = `${total} of ${rows.length} values`;
  none.hidden = total > 0;
  const state = new URLSearchParams();
  for (const filter of filters) if (filter.value !== usual[filter.name]) state.set(filter.name, filter.value);
  if (search.value) state.set("search", search.value);
  history.replaceState(null, "", state.size ? "#" + state : location.pathname + location.search);
}

function read() {
  const state = new URLSearchParams(location.hash.slice(1));
  for (const filter of filters) {
    const value = state.get(filter.name) ?? usual[filter.name];
    filter.value = [...filter.options].some(option => option.value === value) ? value : usual[filter.name];
  }
  search.value = state.get("search") ?? "";
  show();
}

const heads = [...document.querySelectorAll(".ranking thead th")];
function sort(head) {
  const k = head.cellIndex, up = head.getAttribute("aria-sort") !== "ascending";
  const key = row => row.cells[k].dataset.value ?? row.cells[k].textContent.trim();
  const order = (a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === "" || y === "") return (x === "") - (y === "");  // what is not known stays below
    const numbers = !Number.isNaN(+x) && !Number.isNaN(+y);
    return (up ? 1 : -1) * (numbers ? x - y : x.localeCompare(y, "en", {numeric: true}));
  };
  for (const group of groups) group.append(...[...group.querySelectorAll("tr.row")].sort(order));
  for (const other of heads) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
}
for (const head of heads) if (head.textContent) {
  head.addEventListener("click", () => sort(head));
  head.addEventListener("keydown", event => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(head); }
  });
}
for (const filter of filters) filter.addEventListener("change", () => show(filter));
search.addEventListener("input", () => show());
document.querySelector("#everything").addEventListener("click", () => {
  for (const filter of filters) filter.value = "";
  search.value = "";
  show();
});
document.querySelector("#again").addEventListener("click", () => { history.replaceState(null, "", "#"); read(); });
addEventListener("hashchange", read);
document.querySelector("#live").hidden = false;
read();
})();
"""


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
    script = element("script", Html(RANK_SCRIPT))
    return document(f"{TITLE} – Collegium", html([body, script]), css=RANK_CSS)


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
    return element("form", choices, words, class_="filters", onsubmit="return false")


def _usual(everything: Sequence[Standing]) -> dict[str, str]:
    """What the page shows first: the data set of most runs found here, and there the network of most values."""
    chosen = {"metric": "top-1 error", "deployed": "one network"}
    known = [s for s in everything if s.rank and (s.metric, s.deployed) == tuple(chosen.values())]
    found = [s for s in known if s.origin == "ours"] or known
    if found:
        chosen["data"] = Counter(s.data for s in found).most_common(1)[0][0]
        chosen["network"] = Counter(s.network for s in known if s.data == chosen["data"]).most_common(1)[0][0]
    return chosen


def _values(key: str, everything: Iterable[Standing]) -> list[str]:
    counts = Counter(getattr(standing, key) for standing in everything)
    if key == "metric":
        return [metric for metric in METRICS if counts[metric]]
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
    better = METRICS[first.metric]
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
    why = element("p", s.remark[0].upper() + s.remark[1:], ", so it has no rank.") if s.remark else ""
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
            "td", rank_text(s), class_="place", data_value="" if s.rank is None else s.rank, title=s.remark or None
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
