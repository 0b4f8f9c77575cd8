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
