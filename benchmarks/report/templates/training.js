// The second chart: validation error, loss or learning rate over what was spent so far.

// The curves that are shown: of networks whose seeds all are, their mean with its range, else each run by itself.
function curvesOf(chart) {
  const spent = chosen("spent"), what = chosen("value"), together = chosen("seeds") === "mean";
  const known = run => curves[run]?.[what] && isShown(run) && onMachine(chart, SPENT[spent].physical, run);
  const mean = values => values.reduce((sum, value) => sum + value, 0) / values.length;
  const curve = (network, family, label, members) => {
    const own = members.map(run => curves[run]);
    return {
      network, family, label, runs: members, status: members.length > 1 ? "ok" : runs[members[0]].status,
      points: own[0].epoch.flatMap((epoch, i) => {
        const [xs, ys] = [own.map(one => one[spent][i]), own.map(one => one[what][i])];
        if (![...xs, ...ys].every(Number.isFinite) || mean(xs) <= 0) return [];
        return [{epoch, x: mean(xs), y: mean(ys), low: least(ys), high: most(ys)}];
      }),
    };
  };
  return chart.series.flatMap(({family, label, runs: members}, network) => {
    const here = members.filter(run => onMachine(chart, SPENT[spent].physical, run));
    if (together && here.length > 1 && here.every(known)) return [curve(network, family, label, here)];
    return members.filter(known).map(run => curve(network, family, members.length > 1 || chart.series.some(other => other.label === label && other.runs !== members)
      ? runs[run].label : label, [run]));
  }).filter(({points}) => points.length);
}

// Those of many curves that are drawn: of the networks that are best at what they spent, and of marked runs.
function drawnCurves(chart) {
  const networks = some => new Set(some.map(({network}) => network));
  if (networks(lines).size <= MOST_CURVES) return lines;
  const best = new Set(chart.networks.filter(({front}) => front.includes("train_flops")).flatMap(({runs: members}) => members));
  const of = set => lines.filter(({runs: members}) => members.some(run => set.has(run)));
  const end = line => line.points.at(-1).y, first = of(best).length ? of(best) : lines;
  const lowest = new Set([...networks([...first].sort((a, b) => end(a) - end(b)))].slice(0, MOST_CURVES));
  return [...new Set([...first.filter(({network}) => lowest.has(network)), ...of(marked)])];
}

// Lists with a gap between the parts, so that many curves are one trace.
const joined = (parts, value, gap = null) => parts.flatMap((part, i) => i ? [gap, ...value(part)] : value(part));

function drawTraining(chart) {
  const spent = SPENT[chosen("spent")], what = chosen("value"), isError = what === "error";
  lines = curvesOf(chart);
  const drawn = drawnCurves(chart), label = isError ? chart.val_label : UNIT_OF[what];
  training.closest("figure").hidden = !chart.series.some(({runs: members}) => members.some(isShown));
  byId("seeds").closest("label").hidden = !chart.series.some(series => series.runs.length > 1);
  byId("training-name").textContent = `${label.replace(/ \(%\)$/, "").replace(/^./, letter => letter.toUpperCase())} over`;
  byId("training-over").textContent = spent.title;
  byId("value").options[0].textContent = chart.val_label.replace(/ \(%\)$/, "");
  training.hidden = !lines.length;
  if (!lines.length) {
    byId("training-caption").textContent = `No run that is shown records ${label} over ${spent.title}.`;
    return;
  }
  const value = y => isError ? asShown(chart, y) : y, end = line => line.points.at(-1);
  const all = drawn.flatMap(line => line.points), tops = most(all.map(({high}) => high)), lowest = least(all.map(({low}) => low).filter(low => low > 0));
  const top = Math.max(tops, 1e-9), settled = drawn.some(line => line.status === "ok") ? drawn.filter(line => line.status === "ok") : drawn;
  // Curves that all end at 0 have a frame, too: a fiftieth of the highest value.
  const close = Math.max(2.5 * most(settled.map(line => end(line).high)), top / 50), range = chosen("range");
  const focus = range === "end" && what !== "lr" && close < 0.7 * top ? close : top;
  const logarithmic = range === "log" && lowest < Infinity && !(isError && chart.flipped);
  const under = Math.min(0, least(all.map(({low}) => low)));
  const inFrame = all.filter(({y}) => y <= focus).map(({x}) => x);
  const anchors = drawn.length > MOST_LABELS ? [] : drawn.map(line => ({x: end(line).x, y: value(end(line).y), label: line.label + SUFFIX[line.status], colour: looks[line.family].colour}));
  const xs = xRange(training, inFrame.length ? inFrame : all.map(({x}) => x), anchors);
  const yaxis = logarithmic ? logY(training, [log10(lowest) - 0.08, log10(top) + 0.05])
    : {type: "linear", range: (isError ? rangeAsShown : (_, same) => same)(chart, [under - 0.04 * focus, 1.05 * focus])};
  const places = digits(chart.val_label), crowded = drawn.length > MOST_LABELS;
  // A learning rate of 1e-5 has no fixed number of places.
  const printed = y => isError ? y.toFixed(places) : String(Number(y.toPrecision(4)));
  const described = (line, {x, y, low, high, epoch}) => {
    const ends = [low, high].map(value).sort((a, b) => a - b).map(printed).join(" to ");
    return `<b>${plain(line.label + SUFFIX[line.status])}</b><br>${plain(label)}: ${printed(value(y))}` +
      (line.runs.length > 1 ? ` (${ends} over ${line.runs.length} seeds)` : "") +
      `<br>${spent.title}: ${withUnit(x, spent.unit)}` + (epoch === null ? "" : `<br>epoch ${epoch}`);
  };
  const traces = [];
  for (const family of families()) {
    const own = drawn.filter(line => line.family === family), look = looks[family];
    const bands = own.filter(line => line.runs.length > 1);
    if (bands.length) {
      const around = line => [...line.points.map(p => ({x: p.x, y: p.high})), ...line.points.map(p => ({x: p.x, y: p.low})).reverse()];
      traces.push({...look.band, name: `band ${family}`, x: joined(bands, line => around(line).map(({x}) => x)),
                   y: joined(bands, line => around(line).map(({y}) => value(y)))});
    }
    if (!own.length) continue;
    traces.push({  // of many lines the dashes are noise; the ends keep their shapes
      ...look.line, name: `line ${family}`, x: joined(own, line => line.points.map(({x}) => x)),
      y: joined(own, line => line.points.map(({y}) => value(y))), connectgaps: false, opacity: crowded ? 0.5 : 1,
      line: {...look.line.line, ...(crowded ? {dash: "solid", width: 1} : {})}, runs: joined(own, line => line.points.map(() => line.runs), []),
      text: joined(own, line => line.points.map(p => described(line, p)), ""),
    });
    const dots = own.flatMap(line => {
      const last = line.points.length - 1, every = Math.max(1, Math.ceil(last / 10));
      return line.points.flatMap((p, i) => i === last || (!crowded && i % every === 0) ? [{line, p, last: i === last}] : []);
    });
    const symbol = ({line, last}) => !last ? look.symbol : {ok: look.symbol, running: look.symbol + "-open"}[line.status] ?? "x";
    traces.push({
      ...look.points, name: `ends ${family}`, x: dots.map(({p}) => p.x), y: dots.map(({p}) => value(p.y)),
      marker: {...look.points.marker, opacity: 1, symbol: dots.map(symbol), size: dots.map(({last}) => last ? (crowded ? 6 : 9) : 5),
               line: {width: dots.map(({line, last}) => last && line.status === "running" ? 2 : 0)}},
      runs: dots.map(({line}) => line.runs), text: dots.map(({line, p}) => described(line, p)),
    });
  }
  const paths = drawn.map(line => line.points.map(({x, y}) => ({x, y: value(y)})));
  draw(training, traces, layout(training, spent.title, label, logX(training, xs, spent.unit), yaxis), anchors, paths, spent.unit);
  const means = drawn.filter(line => line.runs.length > 1), sizes = [...new Set(means.map(line => line.runs.length))].sort((a, b) => a - b);
  byId("training-caption").textContent = [
    chart.data, chart.title, spent.physical ? `on ${placedOn(chart, spent).label}` : "",
    means.length === drawn.length ? `mean of ${sizes.join(" or ")} seeds, band from the lowest to the highest`
      : means.length ? "of several seeds their mean, with a band from the lowest to the highest" : "one line per run",
    drawn.length < lines.length ? `${drawn.length} of ${plural(lines.length, "curve")}, of what is best at its training FLOPs; what is marked in the table of runs is drawn too` : "",
    focus < top ? `the first epochs, with ${isError && chart.flipped ? "scores down" : "values up"} to ${value(top).toPrecision(2)}, are outside the frame` : "",
  ].filter(Boolean).join("; ") + ".";
  csvOf.training = [["curve", "status", "seeds", "epoch", spent.title, label, "lowest seed", "highest seed"],
    ...lines.flatMap(line => line.points.map(({epoch, x, y, low, high}) =>
      [line.label, line.status, line.runs.length, epoch ?? "", x, value(y), ...[low, high].map(value).sort((a, b) => a - b)]))];
}
