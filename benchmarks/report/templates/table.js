// The table stands below this script, so that the charts need not wait for it.
const rowOf = new Map();

// Sorting: by number where all values of a column are numbers; what is missing comes last either way.
function sortable(table, after = () => {}) {
  for (const head of table.tHead.rows[0].cells) {
    head.querySelector("button").addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of head.parentElement.cells) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const collator = new Intl.Collator("en", {numeric: true});
      const sorted = [...table.tBodies[0].rows].map(row => [row, row.cells[head.cellIndex].dataset.value]);
      const numeric = sorted.every(([, value]) => !isNaN(value));
      const order = (a, b) => numeric ? a - b : collator.compare(a, b);
      sorted.sort(([, left], [, right]) => {
        if (left === "" || right === "") return (left === "") - (right === "");
        return up ? order(left, right) : order(right, left);
      });
      table.tBodies[0].append(...sorted.map(([row]) => row));
      after();
    });
  }
}

addEventListener("DOMContentLoaded", () => {
  const table = byId("runs");
  if (!table) return;
  const rows = [...table.tBodies[0].rows];
  rows.forEach((row, run) => rowOf.set(run, row));
  // Model, data set, status and the whole recipe; a seed is a word of its own.
  const words = rows.map(({cells}) => [...[0, 1, 10].map(cell => cells[cell].textContent), cells[2].dataset.value].join(" ").toLowerCase()
    + ` seed=${cells[3].textContent} `);

  function filterRows() {
    const terms = byId("filter").value.toLowerCase().replace(/\bseed[\s=]*(\d+)/g, "seed=$1\u00a0").split(/[ \t]+/).filter(Boolean)
      .map(word => word.replace("\u00a0", " "));
    shown = words.map(text => terms.every(word => text.includes(word)));
    const here = new Set(charts[current]?.runs);
    rows.forEach((row, run) => { row.hidden = !(isShown(run) && here.has(run)); });
    for (const part of document.querySelectorAll("[data-data]")) part.hidden = part.dataset.data !== charts[current]?.name;
    const left = rows.filter(row => !row.hidden).length, of = left < rows.length ? ` of ${rows.length.toLocaleString("en")}` : "";
    byId("shown").textContent = `${left.toLocaleString("en")}${of} run${rows.length > 1 ? "s" : ""} shown`;
  }
  function update() {
    filterRows();
    drawCharts();
  }
  byId("filter").addEventListener("input", later(120, update));
  byId("dataset")?.addEventListener("change", event => {
    chooseSet(Number(event.target.value));
    update();
  });
  byId("comparison").addEventListener("change", event => {
    current = Number(event.target.value);
    update();
  });
  for (const button of document.querySelectorAll(".legend button")) {
    button.addEventListener("click", () => {
      const {family} = button.dataset, shows = hiddenFamilies.delete(family);
      if (!shows) hiddenFamilies.add(family);
      button.setAttribute("aria-pressed", shows);
      update();
    });
  }
  const check = () => rows.forEach((row, run) => { row.querySelector("input").checked = marked.has(run); });
  check();
  filterRows();
  if (byId("filter").value) drawCharts();

  const rowAt = event => event.target.closest("tr"), runAt = event => rows.indexOf(rowAt(event));
  const networkAt = event => charts[current].networks.find(({id}) => id === Number(rowAt(event)?.dataset.key))?.runs ?? [];
  for (const [body, members] of [[table.tBodies[0], event => [runAt(event)]], [board?.tBodies[0], networkAt]]) {
    for (const event of ["mouseover", "focusin"]) body?.addEventListener(event, change => point(members(change)));
    for (const event of ["mouseleave", "focusout"]) body?.addEventListener(event, () => point([]));
  }
  table.tBodies[0].addEventListener("change", event => {
    marked[event.target.checked ? "add" : "delete"](runAt(event));
    drawOthers();
  });
  sortable(table);
  if (board) sortable(board, () => drawLeaderboard(charts[current]));
  addEventListener("hashchange", event => {
    const {hash} = new URL(event.newURL);
    if (/^#run-\d+$/.test(hash)) return;
    if (isPart(hash)) {
      writeState();  // which the link has taken out of the address
      return;
    }
    readState();
    check();
    update();
  });
});
