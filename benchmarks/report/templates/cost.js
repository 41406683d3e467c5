// The second chart: test error over a cost, and the list of its Pareto front.

function drawCost(chart) {
  const axis = axes.find(({key}) => key === byId("axis").value);
  const has = network => axis.key in network.x;
  points = chart.networks.filter(network => has(network) && network.runs.some(isShown));
  cost.closest("figure").hidden = byId("front-region").hidden = !chart.networks.some(network => network.runs.some(isShown));
  byId("cost-over").textContent = axis.title;
  const switchable = chart.references.length > 0 && ["macs", "params"].includes(axis.key);
  byId("papers").disabled = !switchable;
  byId("papers-label").textContent = switchable ? "the papers’ figures"
    : chart.references.length ? `the papers’ figures (not known over ${axis.title})` : `the papers’ figures (none for ${chart.data})`;
  const papers = switchable && byId("papers").checked ? chart.references.filter(({family}) => !hiddenFamilies.has(family)) : [];
  const places = digits(chart.test_label), at = value => withUnit(value, axis.unit);
  if (cost.closest("figure").hidden) return;
  const crowded = points.length > MOST_LABELS;
  const anchors = points.filter(network => !crowded || network.front.includes(axis.key))
    .map(network => ({x: network.x[axis.key], y: network.error, label: network.label, colour: looks[network.family].colour}));
  const percent = probability => probability === undefined ? "too few seeds: not known"
    : probability > 0.995 ? "over 99 %" : probability < 0.005 ? "under 1 %" : `${Math.round(100 * probability)} %`;
  const front = chart.fronts[axis.key], traces = front ? [themed(front)] : [];
  for (const family of families()) {
    const look = looks[family];
    for (const best of [false, true]) {
      const own = points.filter(network => network.family === family && network.front.includes(axis.key) === best);
      if (!own.length) continue;
      traces.push({
        ...look.points, name: `${best ? "front" : "dominated"} ${family}`,
        x: own.map(network => network.x[axis.key]), y: own.map(({error}) => error), opacity: best ? 1 : Number(token("--faded")),
        marker: {...look.points.marker, size: crowded && !best ? 7 : 10, line: {color: token("--paper"), width: 1}},
        error_y: {type: "data", symmetric: false, array: own.map(({error, high}) => high - error),
                  arrayminus: own.map(({error, low}) => error - low), color: look.colour, thickness: 1.2, width: 3,
                  visible: (best || !crowded) && own.some(network => network.runs.length > 1)},
        runs: own.map(network => network.runs),
        text: own.map(network => `<b>${plain(network.label)}</b><br>${plain(chart.test_label)}: ${network.error.toFixed(places)}` +
          (network.runs.length > 1 ? ` (${network.low.toFixed(places)} to ${network.high.toFixed(places)} over ${network.runs.length} seeds)` : "") +
          `<br>${axis.title}: ${at(network.x[axis.key])}<br>${best ? "on the front" : "dominated"}; ` +
          `probability to be on it: ${percent(network.probability[axis.key])}`),
      });
    }
    const published = papers.filter(paper => paper.family === family);
    if (published.length) {
      traces.push({
        ...look.papers, name: `papers ${family}`, x: published.map(({x}) => x[axis.key]), y: published.map(({error}) => error),
        text: published.map(({label, error, source, x}) => `<b>${plain(label)}, published</b><br>${plain(chart.test_label)}: ${error.toFixed(2)}` +
          `<br>${axis.title}: ${at(x[axis.key])} (our count)<br>${plain(source)}`),
      });
    }
  }
  const ours = new Set(anchors.map(({label}) => label));
  for (const {label, family, x, error} of papers.filter(({label}) => !ours.has(label))) {
    anchors.push({x: x[axis.key], y: error, label, colour: looks[family].colour, soft: true});
  }
  const xs = [...points.map(network => network.x[axis.key]), ...papers.map(({x}) => x[axis.key])];
  if (!xs.length) xs.push(1, 10);
  const xaxis = logX(cost, xRange(cost, xs, anchors.map(({label}) => short(label))), axis.unit);
  const heights = [...points.flatMap(({low, high}) => [low, high]), ...papers.map(({error}) => error), ...chart.baselines.map(({y}) => y)];
  const low = heights.reduce((a, b) => Math.min(a, b), Infinity), high = heights.reduce((a, b) => Math.max(a, b), 0);
  const middle = (low + high) / 2, span = 1.3 * Math.max(high - low, 0.4 * high, 0.01);
  const apart = low > 0 && high > LOG_FROM * low;
  const yaxis = apart ? logY([log10(low) - 0.08, log10(high) + 0.08])
    : {type: "linear", range: heights.length ? [middle - span / 2, middle + span / 2] : [0, 1]};
  const drawing = layout(cost, axis.title, chart.test_label, xaxis, yaxis);
  drawing.shapes = chart.baselines.map(({y}) => ({type: "line", xref: "paper", x0: 0, x1: 1, y0: y, y1: y, layer: "below",
                                                 line: {color: token("--soft"), width: 1, dash: "dash"}}));
  for (const {label, y} of chart.baselines) {
    traces.push({type: "scatter", mode: "text", name: "baseline", x: [10 ** xaxis.range[0]], y: [y], hoverinfo: "skip",
                 text: [` ${plain(label)} (baseline) ${y.toFixed(places)}`], textposition: "top right",
                 textfont: {color: token("--soft")}});
  }
  const marks = [...points, ...papers].map(({x, error}) => Array(4).fill({x: x[axis.key], y: error}));  // worth going round
  const bars = points.map(({x, low, high}) => [{x: x[axis.key], y: low}, {x: x[axis.key], y: high}]);
  const steps = front ? [front.x.map((x, i) => ({x, y: front.y[i]}))] : [];
  draw(cost, traces, drawing, anchors, [...marks, ...bars, ...steps], axis.unit);
  const without = chart.networks.filter(network => !has(network)).length;
  byId("cost-caption").textContent = [
    chart.data, chart.test_label, chart.protocol,
    points.some(network => network.runs.length > 1 && (!crowded || network.front.includes(axis.key))) ? "bars from the lowest to the highest seed" : "",
    points.some(network => !network.front.includes(axis.key)) ? "faded: dominated" : "", papers.length ? "hollow: published" : "",
  ].filter(Boolean).join(", ") + (without ? `; ${without} network${without > 1 ? "s have" : " has"} no ${axis.title} and ${without > 1 ? "are" : "is"} left out` : "") +
    (without && axis.measured_by ? `; ${axis.measured_by} measures it` : "");
  listFront(chart, axis, percent, places, at);
}

// What the second chart says of the front, in words.
function listFront(chart, axis, percent, places, at) {
  const there = chart.networks.filter(network => axis.key in network.x);
  const listed = there.filter(network => network.front.includes(axis.key) || network.probability[axis.key] >= WORTH_LISTING)
    .sort((a, b) => a.x[axis.key] - b.x[axis.key]);
  byId("front-region").hidden = there.length < 2;
  const several = there.some(network => network.runs.length > 1);
  byId("front-title").textContent = `Pareto front of ${there.length.toLocaleString("en")} networks over ${axis.title}: ` +
    (axis.more_is_better ? "no other is faster and errs less. " : "no other costs less and errs less. ") +
    (several ? "Probability under other trainings and, where outcomes are stored, other test images." : "No network has two seeds, so how sure the front is cannot be told.");
  const isNumber = [false, true, true, true, false, true];
  const cells = (tag, texts) => texts.map((textContent, i) => element(tag, {textContent, className: isNumber[i] ? "number" : ""}));
  const heads = cells("th", ["network", axis.title, chart.test_label, "seeds", "front", "probability"]);
  byId("front").replaceChildren(element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...listed.map(network =>
    element("tr", {}, ...cells("td", [
      network.label, at(network.x[axis.key]), network.error.toFixed(places), network.runs.length,
      network.front.includes(axis.key) ? "on it" : "near it", percent(network.probability[axis.key]),
    ])))));
}
