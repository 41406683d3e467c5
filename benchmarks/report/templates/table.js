// The table stands below this script, so that the charts need not wait for it.
const rowOf = new Map();
addEventListener("DOMContentLoaded", () => {
  const table = byId("runs");
  if (!table) return;
  const rows = [...table.tBodies[0].rows];
  rows.forEach((row, run) => rowOf.set(run, row));
  // Model, data set, recipe and status; a seed is a word of its own.
  const words = rows.map(({cells}) => [0, 1, 2, 10].map(cell => cells[cell].textContent).join(" ").toLowerCase() + ` seed=${cells[3].textContent} `);

  function count() {
    const left = rows.filter(row => !row.hidden).length, of = left < rows.length ? ` of ${rows.length.toLocaleString("en")}` : "";
    byId("shown").textContent = `${left.toLocaleString("en")}${of} run${rows.length > 1 ? "s" : ""} shown`;
  }
  function filter() {
    const terms = byId("filter").value.toLowerCase().replace(/\bseed[\s=]*(\d+)/g, "seed=$1\u00a0").split(/[ \t]+/).filter(Boolean)
      .map(word => word.replace("\u00a0", " "));
    shown = words.map(text => terms.every(word => text.includes(word)));
    rows.forEach((row, run) => { row.hidden = !(isShown(run) && runs[run].chart === current); });
    count();
    drawCharts();
  }
  byId("filter").addEventListener("input", later(120, filter));
  byId("dataset")?.addEventListener("change", event => {
    current = Number(event.target.value);
    filter();
  });
  for (const button of document.querySelectorAll(".legend button")) {
    button.addEventListener("click", () => {
      const {family} = button.dataset, shows = hiddenFamilies.delete(family);
      if (!shows) hiddenFamilies.add(family);
      button.setAttribute("aria-pressed", shows);
      filter();
    });
  }
  rows.forEach((row, run) => { row.hidden = runs[run].chart !== current; });
  count();

  const runAt = event => event.target.closest("tr") && rows.indexOf(event.target.closest("tr"));
  for (const event of ["mouseover", "focusin"]) table.tBodies[0].addEventListener(event, change => point([runAt(change)]));
  for (const event of ["mouseleave", "focusout"]) table.tBodies[0].addEventListener(event, () => point([]));
  table.tBodies[0].addEventListener("change", event => {
    marked[event.target.checked ? "add" : "delete"](runAt(event));
    drawMarks();
  });

  // Sorting: by number where a column holds numbers; what is missing comes last either way.
  for (const head of table.tHead.rows[0].cells) {
    head.querySelector("button").addEventListener("click", () => {
      const numeric = head.classList.contains("number"), up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of head.parentElement.cells) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const collator = new Intl.Collator("en", {numeric: true});
      const order = (a, b) => numeric ? a - b : collator.compare(a, b);
      const sorted = [...table.tBodies[0].rows].map(row => [row, row.cells[head.cellIndex].dataset.value]);
      sorted.sort(([, left], [, right]) => {
        if (left === "" || right === "") return (left === "") - (right === "");
        return up ? order(left, right) : order(right, left);
      });
      table.tBodies[0].append(...sorted.map(([row]) => row));
    });
  }

  // The details of a run are written when they are opened.
  let pool;
  function openDetails(run) {
    pool ??= JSON.parse(byId("details-data").textContent);
    let details = byId(`run-${run}`);
    if (!details && pool.runs[run]) {
      const [title, parts] = pool.runs[run], sections = parts.map(part => pool.sections[part]);
      const section = (name, content) => element("section", {}, element("h3", {textContent: name}), content);
      const isText = ([, content]) => typeof content === "string";
      const panel = sections.filter(part => !isText(part)).map(([name, entries]) => section(name, element("dl", {},
        ...entries.flatMap(([key, value]) => [element("dt", {textContent: key}), element("dd", {textContent: value})]))));
      const configuration = sections.filter(isText).map(([, text]) => text).join("");
      if (configuration) panel.push(section("Configuration", element("pre", {tabIndex: 0, textContent: configuration})));
      const [family, status] = [".mark", ".status"].map(part => rows[run].querySelector(part)?.cloneNode(true) ?? "");
      details = element("details", {id: `run-${run}`}, element("summary", {}, family, `${title} `, status),
                        element("div", {className: "details"}, ...panel));
      byId("details").append(details);
      byId("none-open").hidden = true;
    }
    if (details) details.open = true;
    return details;
  }
  function goTo(target) {
    const summary = /^#run-\d+$/.test(target) && openDetails(Number(target.slice(5)))?.querySelector("summary");
    if (summary) {
      summary.scrollIntoView();
      summary.focus({preventScroll: true});
    }
    return summary;
  }
  document.addEventListener("click", event => {
    const link = event.target.closest?.("a[href^='#run-']");
    if (link && goTo(link.hash)) {
      event.preventDefault();  // following the link would take the focus away again
      history.pushState(null, "", link.hash);
    }
  });
  addEventListener("hashchange", () => goTo(location.hash));
  goTo(location.hash);
});
