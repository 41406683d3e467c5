// The first chart: the test result over a cost, with the front.

const percent = probability => probability > 0.995 ? "over 99 %" : probability < 0.005 ? "under 1 %" : `${Math.round(100 * probability)} %`;

// The axis as its reader has it: multiplied by the price or factor that was given.
function ratedAxis(axis) {
  const rate = axis.rate && Number(chosen("rate"));
  return rate > 0 ? {...axis, title: `${axis.rate.title} at ${chosen("rate")} ${axis.rate.question.replace("price of a", "a")}`, unit: axis.rate.unit, factor: rate / axis.rate.per}
    : {...axis, factor: 1};
}

function drawCost(chart) {
  const axis = ratedAxis(costAxis()), {networks, fronts} = placedOn(chart, axis);
  const at = network => axis.factor * network.x[axis.key], has = network => axis.key in network.x;
  points = networks.filter(network => has(network) && network.runs.some(isShown)).map(network => ({...network, at: at(network)}));
  const there = chart.networks.some(network => network.runs.some(isShown));
  cost.closest("figure").hidden = !there;
  byId("cost-name").textContent = `${chart.test_label.replace(/ \(%\)$/, "").replace(/^t/, "T")} over`;
  byId("cost-over").textContent = axis.title;
  const switchable = chart.references.length > 0 && ["macs", "params"].includes(axis.key);
  byId("papers").disabled = !switchable;
  byId("papers").closest("label").hidden = !chart.references.length;
  byId("papers-label").textContent = switchable ? "the papers’ figures" : `the papers’ figures (not known over ${axis.title})`;
  if (!there) return;
  const papers = switchable && byId("papers").checked ? chart.references.filter(({family}) => !hiddenFamilies.has(family)) : [];
  const places = digits(chart.test_label), value = error => asShown(chart, error);
  const isBest = network => network.front.includes(axis.key), crowded = points.length > MOST_LABELS;
  const anchors = points.filter(network => isBest(network) || points.length <= MOST_CURVES)
    .map(network => ({x: network.at, y: value(network.error), label: network.label, colour: looks[network.family].colour, soft: !isBest(network)}));
  const line = fronts[axis.key], front = line && {...line, x: line.x.map(x => axis.factor * x), y: line.y.map(value)};
  const traces = front ? [themed(front)] : [];
  const range = network => [network.low, network.high].map(value).sort((a, b) => a - b).map(end => end.toFixed(places)).join(" to ");
  for (const family of families()) {
    const look = looks[family];
    for (const best of [false, true]) {
      const own = points.filter(network => network.family === family && isBest(network) === best);
      if (!own.length) continue;
      const [over, under] = [own.map(({error, high}) => high - error), own.map(({error, low}) => error - low)];
      traces.push({
        ...look.points, name: `${best ? "front" : "dominated"} ${family}`,
        x: own.map(network => network.at), y: own.map(({error}) => value(error)), opacity: best ? 1 : Number(token("--faded")),
        marker: {...look.points.marker, size: crowded && !best ? 6 : 10, line: {color: token("--paper"), width: 1}},
        error_y: {type: "data", symmetric: false, array: chart.flipped ? under : over, arrayminus: chart.flipped ? over : under,
                  color: look.colour, thickness: 1.2, width: 3,
                  visible: (best || !crowded) && own.some(network => network.runs.length > 1)},
        runs: own.map(network => network.runs),
        text: own.map(network => `<b>${plain(network.label)}</b><br>${plain(chart.test_label)}: ${value(network.error).toFixed(places)}` +
          (network.runs.length > 1 ? ` (${range(network)} over ${network.runs.length} seeds)` : "") +
          `<br>${plain(axis.title)}: ${withUnit(network.at, axis.unit)}<br>${best ? "on the front" : "dominated"}` +
          (axis.key in network.probability ? `; probability to be on it: ${percent(network.probability[axis.key])}` : "")),
      });
    }
    const published = papers.filter(paper => paper.family === family);
    if (published.length) {
      traces.push({
        ...look.papers, name: `papers ${family}`, x: published.map(({x}) => x[axis.key]), y: published.map(({error}) => value(error)),
        text: published.map(({label, error, source, x}) => `<b>${plain(label)}, published</b><br>${plain(chart.test_label)}: ${value(error).toFixed(2)}` +
          `<br>${axis.title}: ${withUnit(x[axis.key], axis.unit)} (our count)<br>${plain(source)}`),
      });
    }
  }
  const xs = [...points.map(network => network.at), ...papers.map(({x}) => x[axis.key])];
  const range10 = xRange(cost, xs.length ? xs : [1, 10], anchors), xaxis = logX(cost, range10, axis.unit);
  const heights = [...points.flatMap(({low, high}) => [low, high]), ...papers.map(({error}) => error), ...chart.baselines.map(({y}) => y)];
  const low = least(heights), high = most(heights);
  const apart = !chart.flipped && low > 0 && high > LOG_FROM * low;
  const pad = 0.1 * Math.max(high - low, 0.1 * high, 0.01);
  const yaxis = apart ? logY(cost, [log10(low) - 0.08, log10(high) + 0.08])
    : {type: "linear", range: rangeAsShown(chart, heights.length ? [Math.max(low - pad, Math.min(-0.3 * pad, low - 0.3 * pad)), high + pad] : [0, 1])};
  const drawing = layout(cost, axis.title, chart.test_label, xaxis, yaxis);
  drawing.shapes = chart.baselines.map(({y}) => ({type: "line", xref: "paper", x0: 0, x1: 1, y0: value(y), y1: value(y), layer: "below",
                                                 line: {color: token("--soft"), width: 1, dash: "dash"}}));
  for (const {label, y} of chart.baselines) anchors.push({x: 1, y: value(y), label: `${label} (baseline) ${value(y).toFixed(places)}`, soft: true, along: true});
  const marks = [...points.map(({at, error}) => ({x: at, y: error})), ...papers.map(({x, error}) => ({x: x[axis.key], y: error}))]
    .map(({x, y}) => [{x, y: value(y)}]);
  const bars = points.filter(network => isBest(network) || !crowded).map(({at, low, high}) => [low, high].map(end => ({x: at, y: value(end)})));
  const steps = front ? [front.x.map((x, i) => ({x, y: front.y[i]}))] : [];
  const across = chart.baselines.map(({y}) => range10.map(end => ({x: 10 ** end, y: value(y)})));
  draw(cost, traces, drawing, anchors, [...marks, ...bars, ...steps, ...across], axis.unit);
  const without = networks.filter(network => !has(network)).length, machines = chart.machines.length;
  byId("cost-caption").textContent = [
    chart.data, chart.title, chart.protocol, axis.physical ? `on ${placedOn(chart, axis).label}${machines > 1 ? ` (one of ${machines} machines)` : ""}` : "",
    points.some(network => network.runs.length > 1 && (!crowded || isBest(network))) ? "bars from the lowest to the highest seed" : "",
    points.some(network => !isBest(network)) ? `faded: another network costs no more${axis.physical ? "" : " (within 1 %)"} and does better` : "",
    papers.length ? "hollow: published" : "",
  ].filter(Boolean).join("; ") + "." + (without ? ` ${plural(without, "network")} without ${axis.title} left out` +
    (axis.measured_by ? `; ${axis.measured_by} measures it.` : ".") : "");
  csvOf.cost = [["network", "seeds", axis.title, chart.test_label, "lowest seed", "highest seed", "on the front", "probability"],
    ...points.map(network => [network.label, network.runs.length, network.at, value(network.error), ...[network.low, network.high].map(value).sort((a, b) => a - b),
                              isBest(network), network.probability[axis.key] ?? ""]),
    ...papers.map(({label, source, x, error}) => [`${label} (${source})`, "", x[axis.key], value(error), "", "", "", ""]),
    ...chart.baselines.map(({label, y}) => [`${label} (baseline)`, "", "", value(y), "", "", "", ""])];
}
