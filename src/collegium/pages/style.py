"""How the page looks, and the few lines that sort its table. No part comes from the network."""

CSS = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5b6470; --line: #d9dde2; --page: #fff; --box: #f5f6f8;
  --accent: #0072b2; --warn: #fff4d6; --warn-line: #e0b040; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --soft: #9aa4b0; --line: #363c44; --page: #15181c;
  --box: #1e2228; --accent: #5ab4e6; --warn: #332a10; --warn-line: #8a6a1c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); line-height: 1.5; font-size: 16px;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .25rem; letter-spacing: -.01em; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 3rem 0 .5rem; padding-top: .75rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.5rem 0 .25rem; }
p { margin: .5rem 0; max-width: 46rem; }
a { color: var(--accent); }
.soft, figcaption, caption { color: var(--soft); font-size: .875rem; }
.lead { font-size: 1.0625rem; margin-top: 1.25rem; }
.notice { background: var(--warn); border-left: 4px solid var(--warn-line); padding: .5rem .875rem; margin: 1rem 0; }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace;
  font-size: .875em; }
pre { background: var(--box); padding: .75rem 1rem; border-radius: 6px; overflow-x: auto; margin: .75rem 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .75rem; margin: 1.25rem 0; }
.card { max-width: 28rem; background: var(--box); border-radius: 8px; padding: .875rem 1rem; }
.card b { display: block; font-size: 1.75rem; line-height: 1.25; font-weight: 600;
  font-variant-numeric: tabular-nums; }
.card span { display: block; font-size: .875rem; color: var(--soft); }
.scroll { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9375rem; }
caption { text-align: left; padding-bottom: .5rem; }
th, td { padding: .35rem .75rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th { font-weight: 600; }
tbody th { font-weight: 400; }
thead th { color: var(--soft); font-size: .875rem; vertical-align: bottom; }
thead th[title] { text-decoration: underline dotted; text-underline-offset: 3px; }
table.left th, table.left td { text-align: left; }
table.left td { white-space: normal; overflow-wrap: anywhere; min-width: 10rem; }
table.sortable thead th { cursor: pointer; }
table.sortable thead th[aria-sort="ascending"]::after { content: " \\2191"; }
table.sortable thead th[aria-sort="descending"]::after { content: " \\2193"; }
tr.mean { font-style: italic; }
.aside { color: var(--soft); }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1.5rem 2rem;
  align-items: start; }
.small { grid-template-columns: repeat(auto-fill, minmax(min(46%, 12rem), 1fr)); gap: 1rem; }
.beside { display: flex; flex-wrap: wrap; gap: 1rem 2.5rem; align-items: flex-start; }
.beside > figure { flex: 1 1 18rem; max-width: 27rem; }
.beside > div { flex: 1 1 20rem; min-width: 0; }
th.text, td.text { text-align: left; }
figure { margin: .5rem 0; min-width: 0; }
figure svg { width: 100%; height: auto; display: block; }
figure svg image { image-rendering: pixelated; }
.small figcaption { font-size: .875rem; line-height: 1.4; }
figcaption { margin-top: .25rem; max-width: 34rem; }
.key { list-style: none; display: flex; flex-wrap: wrap; gap: .1rem 1rem; padding: 0; margin: .25rem 0;
  font-size: .875rem; }
.chip { display: inline-block; width: 1.5em; height: 0; border-top: 3px solid; vertical-align: middle;
  margin-right: .4em; }
.examples { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); gap: 1rem; }
.example { background: var(--box); border-radius: 8px; padding: .875rem; margin: 0; }
.top { display: flex; gap: .875rem; margin-bottom: .75rem; line-height: 1.35; }
.top > div { min-width: 0; overflow-wrap: anywhere; }
.top img { flex: none; width: 112px; height: auto; }
.example .scroll { margin: 0; }
.example table { width: 100%; font-size: .875rem; }
.example td, .example th { padding: .2rem .25rem; }
.example td.text { width: 99%; padding-left: .75rem; white-space: normal; overflow-wrap: anywhere; }
.example tr:last-child > * { border-bottom: 0; }
.swatch { display: inline-block; width: .9em; height: .9em; border-radius: 2px; vertical-align: -.1em;
  margin-right: .4em; }
.maps { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 12rem), 1fr)); gap: 1rem; }
.maps.wide { grid-template-columns: 1fr; }
.maps img { width: 100%; height: auto; }
img { image-rendering: pixelated; border-radius: 4px; max-width: none; }
.attention img { display: block; width: 96px; height: auto; }
.attention td, .attention th { border: 0; padding: .2rem .4rem .2rem 0; text-align: left; }
.attention tbody th { padding-left: .75rem; white-space: normal; min-width: 7rem; max-width: 12rem;
  font-size: .875rem; }
@media (max-width: 32rem) { main { padding: 1.25rem 1rem 3rem; } .attention img { width: 64px; }
  .attention .chip { display: none; } th, td { padding: .35rem .5rem; } }
details { margin: .75rem 0; }
summary { cursor: pointer; color: var(--accent); }
footer { margin-top: 3rem; }
"""

SCRIPT = """
function sort(head) {
  const body = head.closest("table").tBodies[0], k = head.cellIndex;
  const up = head.getAttribute("aria-sort") !== "ascending";
  const key = row => row.cells[k].dataset.value ?? row.cells[k].textContent;
  const order = (a, b) => key(a).localeCompare(key(b), "en", {numeric: true});
  const number = row => parseFloat(key(row));
  const rows = [...body.rows].sort((a, b) =>
    Number.isNaN(number(a)) || Number.isNaN(number(b)) ? order(a, b) : number(a) - number(b));
  body.append(...(up ? rows : rows.reverse()));
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
}
for (const head of document.querySelectorAll("table.sortable thead th")) {
  head.tabIndex = 0;
  head.addEventListener("click", () => sort(head));
  head.addEventListener("keydown", event => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    sort(head);
  });
}
"""
