// The third chart: the distribution of the runs over their results.

function drawShare(chart) {
  const results = chart.runs.flatMap(run => runs[run].error !== null && isShown(run) ? [{family: runs[run].family, result: asShown(chart, runs[run].error)}] : []);
  share.closest("figure").hidden = results.length < FEWEST_FOR_SHARE;
  if (results.length < FEWEST_FOR_SHARE) return;
  const values = results.map(({result}) => result), pad = 0.04 * Math.max(most(values) - least(values), 0.1 * Math.abs(most(values)), 0.01);
  const range = [least(values) - pad, most(values) + pad], anchors = [], traces = [], places = digits(chart.test_label);
  share.room = MARGIN.r;
  const nameOf = family => [...document.querySelectorAll(".legend button")].find(({dataset}) => dataset.family === family).textContent.trim();
  for (const family of families()) {
    const own = results.filter(entry => entry.family === family).map(({result}) => result).sort((a, b) => a - b), look = looks[family];
    if (!own.length) continue;
    const n = own.length, upTo = own.map((_, i) => i + 1), name = nameOf(family);
    for (let i = n - 2; i >= 0; i--) if (own[i] === own[i + 1]) upTo[i] = upTo[i + 1];  // equal results are one step
    traces.push({
      ...look.line, name: `share ${family}`, x: [own[0], ...own, range[1]], y: [0, ...own.map((_, i) => (i + 1) / n), 1],
      line: {...look.line.line, shape: "hv"},
      text: [own[0], ...own, range[1]].map((result, i) =>
        `<b>${plain(name)}</b><br>${[upTo[0], ...upTo, n][i]} of ${n} runs at or below ${result.toFixed(places)}`),
    });
    const middle = Math.floor((n - 1) / 2);
    anchors.push({x: own[middle], y: (middle + 1) / n, label: `${name} (${plural(n, "run")})`, colour: look.colour});
  }
  const drawing = layout(share, chart.test_label, "share of runs", {type: "linear", range},
                        {range: [-0.03, 1.05], tickvals: [0, 0.25, 0.5, 0.75, 1], ticktext: ["0", "¼", "½", "¾", "1"]});
  const steps = traces.map(({x, y}) => x.flatMap((value, i) => i ? [{x: value, y: y[i - 1]}, {x: value, y: y[i]}] : [{x: value, y: y[i]}]));
  draw(share, traces, drawing, anchors, steps);
  byId("share-caption").textContent = `${chart.data}; ${chart.title}; empirical distribution over ${plural(results.length, "finished run")}, a line per family; further ${chart.flipped ? "right" : "left"} is better.`;
  csvOf.share = [["family", chart.test_label], ...results.map(({family, result}) => [nameOf(family), result])];
}
