(() => {
// A click on a table's heading, or Enter, sorts by it.
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

// A chart shows the values under the pointer; arrow keys move on. The entries of its key turn lines off and on.
function node(tag, className, ...children) {
  const made = document.createElement(tag);
  made.className = className;
  made.append(...children);
  return made;
}
function interactive(svg) {
  const data = JSON.parse(svg.dataset.chart);
  const [left, top, right, bottom] = data.plot, {width, height} = svg.viewBox.baseVal;
  const entries = new Map([...svg.closest("figure").querySelectorAll(".key [data-style]")]
    .map(entry => [+entry.dataset.style, entry]));
  const hidden = new Set(), box = node("div", "values"), frame = node("div", "chart");
  const line = document.createElementNS(svg.namespaceURI, "path");
  line.setAttribute("class", "cursor");
  svg.replaceWith(frame);
  svg.append(line);
  frame.append(svg, box);
  const written = value => (data.digits == null ? String(value) : value.toFixed(data.digits)).replace(/-/g, "\u2212");
  const row = (style, text) => {
    const entry = entries.get(style), chip = entry?.querySelector(".chip").cloneNode();
    return node("li", "", ...(entry ? [chip, node("span", "", entry.textContent)] : []), node("b", "", text));
  };
  const total = data.cells?.reduce((sums, [i, , n]) => (sums[i] = (sums[i] ?? 0) + n, sums), []);
  const middle = (from, to, k) => from + (k + 0.5) / data.names.length * (to - from);
  // What can be shown, from left to right: its place, and a function that makes its title and rows.
  const stops = data.cells
    ? data.cells.map(([i, j, n]) => ({
        x: middle(left, right, j), y: middle(top, bottom, i), title: data.names[i],
        rows: () => [i === j ? "right" : "answer " + data.names[j], `${n} of ${total[i]} images`]
          .map(said => node("li", "", said)),
      }))
    : data.points
    ? data.points.map(([x, y, style, title, ...text]) => (
        {x, y, style, title, rows: () => text.map(said => node("li", "", said))}))
    : data.x.map((value, k) => ({
        x: left + (value - data.span[0]) / (data.span[1] - data.span[0]) * (right - left),
        title: "epoch " + value,
        rows: () => Object.entries(data.y).map(([style, values]) => [+style, values[k]])
          .filter(([style, value]) => value != null && !hidden.has(style))
          .sort((a, b) => b[1] - a[1]).map(([style, value]) => row(style, written(value))),
      }));
  stops.sort((a, b) => a.x - b.x);
  let shown = null;
  const open = () => stops.filter(stop => !hidden.has(stop.style));
  function show(stop) {
    shown = stop ?? null;
    frame.classList.toggle("open", shown !== null);
    if (shown === null) return;
    const {x, y, title} = stop, rows = node("ul", "", ...stop.rows());
    box.replaceChildren(node("div", "title", title), rows);
    const side = x > width / 2 ? "right" : "left";
    box.style.cssText = `${side}: calc(${100 * (side === "left" ? x : width - x) / width}% + 10px); `
      + `top: ${100 * (y === undefined ? top : Math.max(0, y - 20)) / height}%`;
    line.setAttribute("d",
      y === undefined ? `M${x} ${top}V${bottom}` : `M${x - 6} ${y}a6 6 0 1 0 12 0a6 6 0 1 0 -12 0`);
    svg.setAttribute("aria-valuenow", open().indexOf(stop));
    svg.setAttribute("aria-valuetext", [title, ...[...rows.children].map(item => [...item.childNodes]
      .map(child => child.textContent).join(" ").trim())].join(", "));
  }
  function follow(event) {
    const area = svg.getBoundingClientRect(), scale = width / area.width;
    const x = (event.clientX - area.left) * scale, y = (event.clientY - area.top) * scale;
    const distance = stop => Math.hypot(stop.x - x, stop.y === undefined ? 0 : stop.y - y);
    show(open().reduce((best, stop) => !best || distance(stop) < distance(best) ? stop : best, null));
  }
  svg.addEventListener("pointermove", follow);
  svg.addEventListener("pointerdown", follow);
  svg.addEventListener("pointerleave", event => event.pointerType === "mouse" && show(null));
  svg.addEventListener("focus", () => shown ?? show(open().at(-1)));
  svg.addEventListener("blur", () => show(null));
  svg.addEventListener("keydown", event => {
    const known = open(), at = known.indexOf(shown);
    if (event.key === "Escape") show(null);
    const goal = {ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: known.length - 1}[event.key];
    if (goal === undefined) return;
    event.preventDefault();
    show(known[Math.min(Math.max(goal, 0), known.length - 1)]);
  });
  svg.tabIndex = 0;
  svg.setAttribute("role", "slider");
  svg.setAttribute("aria-valuemin", 0);
  svg.setAttribute("aria-valuemax", stops.length - 1);
  svg.setAttribute("aria-valuenow", stops.length - 1);
  for (const [style, entry] of entries) {
    if (entries.size < 2) break;
    const button = node("button", "", ...entry.childNodes);
    button.type = "button";
    button.ariaPressed = "true";
    button.addEventListener("click", () => {
      const off = !hidden.delete(style);
      if (off) hidden.add(style);
      button.ariaPressed = String(!off);
      for (const drawn of svg.querySelectorAll(`[data-style="${style}"]`)) drawn.classList.toggle("off", off);
      show(null);
    });
    entry.append(button);
  }
}
for (const svg of document.querySelectorAll("svg[data-chart]")) interactive(svg);
})();
