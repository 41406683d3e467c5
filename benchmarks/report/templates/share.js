// The third chart: the distribution of the runs over errors.

function drawShare(chart) {
  const errors = runs.flatMap(({chart: of, family, error}, run) => of === current && error !== null && isShown(run) ? [{family, error}] : []);
  share.closest("figure").hidden = errors.length < FEWEST_FOR_SHARE;
  if (errors.length < FEWEST_FOR_SHARE) return;
  const highest = errors.reduce((most, {error}) => Math.max(most, error), 0), lowest = errors.reduce((least, {error}) => Math.min(least, error), Infinity);
  const pad = 0.06 * Math.max(highest - lowest, 0.1 * highest, 0.01), range = [Math.max(0, lowest - pad) - 1e-9, highest + pad];
  const traces = [], anchors = [], places = digits(chart.test_label);
  for (const family of families()) {
    const own = errors.filter(entry => entry.family === family).map(({error}) => error).sort((a, b) => a - b), look = looks[family];
    if (!own.length) continue;
    const n = own.length, name = document.querySelector(`.legend [data-family="${family}"]`).textContent;
    traces.push({
      ...look.line, name: `share ${family}`, x: [own[0], ...own, range[1]], y: [0, ...own.map((_, i) => (i + 1) / n), 1],
      line: {...look.line.line, shape: "hv"},
      text: [own[0], ...own, range[1]].map((error, i) =>
        `<b>${plain(name)}</b><br>${Math.min(i, n)} of ${n} runs at or below ${error.toFixed(places)}`),
    });
    const middle = Math.floor((n - 1) / 2);
    anchors.push({x: own[middle], y: (middle + 1) / n, label: `${name} (${n} run${n > 1 ? "s" : ""})`, colour: look.colour});
  }
  const drawing = layout(share, chart.test_label, "share of runs", {type: "linear", range},
                        {range: [-0.03, 1.05], tickvals: [0, 0.25, 0.5, 0.75, 1], ticktext: ["0", "¼", "½", "¾", "1"]});
  const steps = traces.map(({x, y}) => x.flatMap((value, i) => i ? [{x: value, y: y[i - 1]}, {x: value, y: y[i]}] : [{x: value, y: y[i]}]));
  draw(share, traces, drawing, anchors, steps);
  byId("share-caption").textContent = `${chart.data}, empirical distribution over ${errors.length.toLocaleString("en")} finished runs, a line per family; further left is better`;
}
