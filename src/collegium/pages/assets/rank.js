(() => {
const filters = [...document.querySelectorAll(".filters select")];
const search = document.querySelector(".filters input");
const rows = [...document.querySelectorAll("tr.row")];
const groups = [...document.querySelectorAll("tbody.standings")];
const shown = document.querySelector("#shown"), none = document.querySelector(".none");
const usual = Object.fromEntries(filters.map(filter => [filter.name, filter.value]));
const words = new Map(rows.map(row => [row, row.textContent.toLowerCase()]));

const fits = (row, besides) => filters.every(filter =>
  filter === besides || !filter.value || row.dataset[filter.name] === filter.value);
const found = row => search.value.toLowerCase().split(/\s+/).every(word => words.get(row).includes(word));

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
search.form.addEventListener("submit", event => event.preventDefault());
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
