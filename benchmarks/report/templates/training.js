// The first chart: validation error over what was spent so far.

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
