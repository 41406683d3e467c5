// The details of a run are written when they are opened; an address may name the run.
addEventListener("DOMContentLoaded", () => {
  let pool;
  const matrix = ({classes, counts}) => {
    const top = most(counts.flatMap((row, i) => row.filter((_, k) => k !== i)));  // the hits would hide the errors
    const cells = counts.map((row, i) => element("tr", {}, element("th", {scope: "row", textContent: classes[i]}), ...row.map((value, k) => {
      const cell = element("td", {textContent: value || "", className: i === k ? "hit" : "", title: `${classes[i]} taken for ${classes[k]}: ${value}`});
      if (value && i !== k) cell.style.setProperty("--part", value / top);
      return cell;
    })));
    const heads = element("tr", {}, element("td", {textContent: "true \\ predicted"}), ...classes.map(textContent => element("th", {scope: "col", textContent})));
    return element("div", {className: "scroll"}, element("table", {className: "matrix"}, element("thead", {}, heads), element("tbody", {}, ...cells)));
  };
  function openDetails(run) {
    pool ??= read("details-data");
    let details = byId(`run-${run}`);
    if (!details && pool.runs[run]) {
      const [title, seed, parts] = pool.runs[run], sections = parts.map(part => pool.sections[part]);
      const section = (name, content) => element("section", {}, element("h3", {textContent: name}), content);
      const isText = ([, content]) => typeof content === "string";
      const panel = sections.filter(part => !isText(part)).map(([name, entries]) => section(name, !Array.isArray(entries) ? matrix(entries)
        : element("dl", {}, ...entries.flatMap(([key, value]) => [element("dt", {textContent: key}), element("dd", {textContent: value})]))));
      const configuration = sections.filter(isText).map(([, text]) => text).join("").replaceAll(pool.seed, seed);
      if (configuration) panel.push(section("Configuration", element("pre", {tabIndex: 0, textContent: configuration})));
      const [family, status] = [".mark", ".status"].map(part => rowOf.get(run).querySelector(part)?.cloneNode(true) ?? "");
      details = element("details", {id: `run-${run}`}, element("summary", {}, family, `${title} `, status),
                        element("div", {className: "details"}, ...panel));
      byId("details").append(details);
      byId("none-open").hidden = true;
    }
    if (details) details.open = true;
    return details;
  }
  function goTo(run) {
    const summary = openDetails(run)?.querySelector("summary");
    if (!summary) return;
    summary.scrollIntoView();
    summary.focus({preventScroll: true});
    openRun = run;
  }
  const named = hash => /^#run-\d+$/.test(hash) ? Number(hash.slice(5)) : null;
  document.addEventListener("click", event => {
    const link = event.target.closest?.("a[href^='#run-']");
    if (!link) return;
    event.preventDefault();  // following the link would take the focus away again
    goTo(named(link.hash));
    writeState(true);
  });
  const follow = event => {
    const {hash} = event ? new URL(event.newURL) : location;
    const run = named(hash) ?? (isPart(hash) ? null : openRun);
    if (run !== null && runs[run]) goTo(run);
  };
  addEventListener("hashchange", follow);
  follow();
});
