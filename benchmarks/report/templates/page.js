const {axes, charts, runs, looks} = JSON.parse(document.getElementById("data").textContent);
const training = byId("training"), cost = byId("cost"), share = byId("share");
const MARGIN = {l: 58, r: 14, t: 10, b: 52};
const MOST_LABELS = 40;
const FEWEST_FOR_SHARE = 5;
const WORTH_LISTING = 0.05;
const LOG_FROM = 8;  // errors so many times apart are drawn on a logarithmic axis
const SUFFIX = {ok: "", running: " (running)", failed: " (failed)", interrupted: " (interrupted)", preempted: " (preempted)"};
const SPENT = {train_flops: {title: "training FLOPs", unit: ""}, wall_s: {title: "wall time", unit: "s"}};

let current = 0;
let shown = runs.map(() => true);      // by the filter
const hiddenFamilies = new Set(), marked = new Set();
let pointed = [];                      // runs of the row or point under the pointer
let lines = [], points = [];           // what the first two charts have drawn

// Plotly reads a subset of HTML in every text: names are text.
const plain = text => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const short = text => text.length > 44 ? `${text.slice(0, 22)}…${text.slice(-21)}` : text;  // what differs is often at the end
const log10 = value => Math.log(value) / Math.LN10;
const checked = name => document.querySelector(`input[name=${name}]:checked`).value;
const isShown = run => shown[run] && !hiddenFamilies.has(runs[run].family);
const families = () => Object.keys(looks);

const layout = (chart, xTitle, yTitle, xaxis, yaxis) => framed(chart, {
  margin: {...MARGIN, autoexpand: false}, showlegend: false, dragmode: "zoom",
  xaxis: {title: {text: plain(xTitle)}, tickangle: 0, ...xaxis}, yaxis: {title: {text: plain(yTitle)}, ...yaxis},
});

const CONFIG = {displaylogo: false, displayModeBar: false, responsive: false, doubleClick: "reset"};

// Draws, and labels again after a zoom. A trace's `runs` are those that each of its points stands for.
function draw(chart, traces, drawing, anchors, obstacles, unit) {
  Plotly.react(chart, traces, {...drawing, annotations: placeLabels(chart, drawing, anchors, obstacles)}, CONFIG);
  const relabel = () => {
    const {xaxis} = chart.layout, moved = xaxis.type === "log" ? xTicks(chart, xaxis.range, unit) : {};
    return Plotly.relayout(chart, {
      annotations: placeLabels(chart, chart.layout, anchors, obstacles),
      ...Object.fromEntries(Object.entries(moved).map(([key, value]) => [`xaxis.${key}`, value])),
    });
  };
  for (const event of ["relayout", "hover", "unhover", "click"]) chart.removeAllListeners(`plotly_${event}`);
  chart.on("plotly_relayout", change => {
    if (!("annotations" in change)) relabel().then(drawMarks);
  });
  const runsAt = event => event.points[0].data.runs?.[event.points[0].pointNumber] ?? [];
  chart.on("plotly_hover", event => point(runsAt(event)));
  chart.on("plotly_unhover", () => point([]));
  chart.on("plotly_click", event => reveal(runsAt(event)[0]));
}

// The curves of the first chart: of networks whose seeds are all shown their mean with its range, else each run by itself.
function curvesOf(chart) {
  const key = checked("spent"), together = checked("seeds") === "mean";
  return chart.series.flatMap(series => {
    const curve = (label, status, runs, {x, y, low = y, high = y}) => ({
      family: series.family, label, status, runs,
      points: series.epoch.map((epoch, i) => ({epoch, x: x[key][i], y: y[i], low: low[i], high: high[i]})).filter(({x}) => x > 0),
    });
    if (together && series.mean && series.runs.every(isShown)) return [curve(series.label, "ok", series.runs, series.mean)];
    return series.runs.flatMap((run, at) => isShown(run) ? [curve(runs[run].label, runs[run].status, [run], series.each[at])] : []);
  }).filter(({points}) => points.length);
}

// Lists with a gap between the parts, so that many curves are one trace.
const joined = (parts, value, gap = null) => parts.flatMap((part, i) => i ? [gap, ...value(part)] : value(part));

function drawTraining(chart) {
  const spent = SPENT[checked("spent")];
  lines = curvesOf(chart);
  training.closest("figure").hidden = !lines.length;
  byId("seeds").hidden = !chart.series.some(series => series.runs.length > 1);
  byId("training-over").textContent = spent.title;
  if (!lines.length) return;
  const end = line => line.points.at(-1);
  const anchors = lines.map(line => ({...end(line), label: line.label + SUFFIX[line.status], colour: looks[line.family].colour}));
  const all = lines.flatMap(line => line.points);
  const top = all.reduce((most, {high}) => Math.max(most, high), 1e-3);
  const settled = lines.some(line => line.status === "ok") ? lines.filter(line => line.status === "ok") : lines;
  const close = Math.max(2.5 * settled.reduce((most, line) => Math.max(most, end(line).high), 0), 1e-3);
  const range = checked("range");
  const focus = range === "end" && close < 0.7 * top ? close : top;
  const lowest = all.reduce((least, {low}) => low > 0 ? Math.min(least, low) : least, Infinity);
  const yaxis = range === "log" && lowest < Infinity
    ? logY([log10(lowest) - 0.08, log10(top) + 0.05])
    : {type: "linear", range: [-0.03 * focus, 1.05 * focus]};
  const crowded = lines.length > MOST_LABELS, places = digits(chart.val_label);
  const described = (line, {x, y, low, high, epoch}) =>
    `<b>${plain(line.label + SUFFIX[line.status])}</b><br>${plain(chart.val_label)}: ${y.toFixed(places)}` +
    (line.runs.length > 1 ? ` (${low.toFixed(places)} to ${high.toFixed(places)} over ${line.runs.length} seeds)` : "") +
    `<br>${spent.title}: ${withUnit(x, spent.unit)}` + (epoch === null ? "" : `<br>epoch ${epoch}`);
  const traces = [];
  for (const family of families()) {
    const own = lines.filter(line => line.family === family), look = looks[family];
    const bands = own.filter(line => line.runs.length > 1);
    if (bands.length) {
      const around = line => [...line.points.map(p => ({x: p.x, y: p.high})), ...line.points.map(p => ({x: p.x, y: p.low})).reverse()];
      traces.push({...look.band, name: `band ${family}`, x: joined(bands, line => around(line).map(({x}) => x)),
                   y: joined(bands, line => around(line).map(({y}) => y))});
    }
    if (!own.length) continue;
    const linesRuns = joined(own, line => line.points.map(() => line.runs), []);
    traces.push({  // of many lines the dashes are noise; the ends keep their shapes
      ...look.line, name: `line ${family}`, x: joined(own, line => line.points.map(({x}) => x)),
      y: joined(own, line => line.points.map(({y}) => y)), connectgaps: false, opacity: crowded ? 0.4 : 1,
      line: {...look.line.line, ...(crowded ? {dash: "solid", width: 1} : {})}, runs: linesRuns, text: joined(own, line => line.points.map(p => described(line, p)), ""),
    });
    const dots = own.flatMap(line => {
      const last = line.points.length - 1, every = Math.max(1, Math.ceil(last / 10));
      return line.points.flatMap((p, i) => i === last || (!crowded && i % every === 0) ? [{line, p, last: i === last}] : []);
    });
    const symbol = ({line, last}) => !last ? look.symbol : {ok: look.symbol, running: look.symbol + "-open"}[line.status] ?? "x";
    traces.push({
      ...look.points, name: `ends ${family}`, x: dots.map(({p}) => p.x), y: dots.map(({p}) => p.y),
      marker: {...look.points.marker, opacity: 1, symbol: dots.map(symbol), size: dots.map(({last}) => last ? (crowded ? 6 : 9) : 5),
               line: {width: dots.map(({line, last}) => last && line.status === "running" ? 2 : 0)}},
      runs: dots.map(({line}) => line.runs), text: dots.map(({line, p}) => described(line, p)),
    });
  }
  const inFrame = all.filter(({y}) => y <= focus).map(({x}) => x);
  const xaxis = logX(training, xRange(training, inFrame.length ? inFrame : all.map(({x}) => x), anchors.map(({label}) => short(label))), spent.unit);
  draw(training, traces, layout(training, spent.title, chart.val_label, xaxis, yaxis), anchors, lines.map(line => line.points), spent.unit);
  const means = lines.filter(line => line.runs.length > 1);
  const sizes = [...new Set(means.map(line => line.runs.length))].sort((a, b) => a - b);
  byId("training-caption").textContent = `${chart.data}, ` +
    (means.length === lines.length ? `mean of ${sizes.join(" or ")} seeds, band from the lowest to the highest`
     : means.length ? `one line per network: of several seeds their mean, with a band from the lowest to the highest` : "one line per run") +
    (crowded ? " (named when pointed at)" : "") +
    (focus < top ? `; the first epochs, with errors up to ${top.toFixed(0)}, are outside the frame` : "");
}

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
  const percent = probability => probability === undefined ? "one seed: not known"
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
    (several ? "Probability by the bootstrap over seeds; few seeds make it too sure of itself." : "No network has two seeds, so how sure the front is cannot be told.");
  const isNumber = [false, true, true, true, false, true];
  const cells = (tag, texts) => texts.map((textContent, i) => element(tag, {textContent, className: isNumber[i] ? "number" : ""}));
  const heads = cells("th", ["network", axis.title, chart.test_label, "seeds", "front", "probability"]);
  byId("front").replaceChildren(element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...listed.map(network =>
    element("tr", {}, ...cells("td", [
      network.label, at(network.x[axis.key]), network.error.toFixed(places), network.runs.length,
      network.front.includes(axis.key) ? "on it" : "near it", percent(network.probability[axis.key]),
    ])))));
}

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

// Runs that are marked or pointed at, drawn over their curves and points; nothing else is drawn again.
function drawMarks() {
  const highlighted = new Set([...marked, ...pointed]);
  const svg = (tag, attributes, ...children) => {
    const made = document.createElementNS(document.querySelector(".legend svg").namespaceURI, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  };
  const make = (chart, paths) => {
    chart.querySelector(".marks")?.remove();
    if (!paths.length || chart.closest("figure").hidden) return;
    const drawn = paths.flatMap(d => [svg("path", {d, class: "halo"}), svg("path", {d})]);
    const clipped = svg("svg", {x: MARGIN.l, y: MARGIN.t, ...plotSize(chart)}, ...drawn);
    chart.append(svg("svg", {class: "marks", width: chart.clientWidth, height: chart.clientHeight}, clipped));
  };
  const highlightedOf = drawn => drawn.filter(({runs: members}) => members.some(run => highlighted.has(run)));
  const along = training.layout && projection(training, training.layout), around = cost.layout && projection(cost, cost.layout), key = byId("axis").value;
  make(training, along ? highlightedOf(lines).map(line => "M" + line.points.map(along).map(({px, py}) => `${px.toFixed(1)} ${py.toFixed(1)}`).join("L")) : []);
  make(cost, around ? highlightedOf(points).map(network => {
    const {px, py} = around({x: network.x[key], y: network.error});
    return `M${px - 9} ${py}a9 9 0 1 0 18 0a9 9 0 1 0 -18 0`;
  }) : []);
}

function point(members) {
  pointed = members;
  for (const row of document.querySelectorAll("#runs tr.pointed")) row.classList.remove("pointed");
  for (const run of members) rowOf.get(run)?.classList.add("pointed");
  drawMarks();
}

function reveal(run) {
  const row = rowOf.get(run);
  if (!row) return;
  row.scrollIntoView({block: "center"});
  row.querySelector("a").focus({preventScroll: true});
}

function drawCharts() {
  drawFirst();
  drawOthers();
}

function drawFirst() {
  for (const button of document.querySelectorAll(".legend button")) {
    button.parentElement.hidden = !runs.some(({chart, family}) => chart === current && family === button.dataset.family);
  }
  if (window.Plotly) drawTraining(charts[current]);
}

function drawOthers() {
  const chart = charts[current];
  if (!window.Plotly) return;
  for (const axis of axes) {
    const option = byId("axis").querySelector(`[value=${axis.key}]`);
    option.disabled = !chart.networks.some(network => axis.key in network.x);
    option.textContent = axis.title + (option.disabled ? " (in no record)" : "");
  }
  if (byId("axis").selectedOptions[0]?.disabled) byId("axis").value = axes.find(({key}) => chart.networks.some(({x}) => key in x))?.key ?? "macs";
  drawCost(chart);
  drawShare(chart);
  byId("nothing").hidden = ![training, cost].every(drawn => drawn.closest("figure").hidden);
  drawMarks();
}

for (const command of new Set(axes.map(({measured_by}) => measured_by))) {
  const group = Object.assign(document.createElement("optgroup"), {label: `measured by ${command}`});
  group.append(...axes.filter(axis => axis.measured_by === command).map(({key, title}) => new Option(title, key)));
  byId("axis").append(...(command ? [group] : group.children));
}
for (const [ids, again] of [[["spent", "range", "seeds"], drawTraining], [["axis", "papers"], drawCost]]) {
  for (const id of ids) {
    byId(id).addEventListener("change", () => {
      again(charts[current]);
      drawMarks();
    });
  }
}
redrawWith(drawCharts);
if (charts.length) drawFirst();
byId("js-plotly-tester")?.setAttribute("aria-hidden", "true");  // where plotly measures text
requestAnimationFrame(() => {
  performance.mark("first plot");
  if (charts.length) setTimeout(drawOthers);
});
