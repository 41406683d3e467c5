// How numbers are printed, and the ranges and ticks of axes.

// Three significant digits with an SI prefix, as in the tables.
function si(value) {
  let third = value >= 1 ? Math.floor(log10(value) / 3 + 1e-9) : 0;
  if (Number((value / 1000 ** third).toPrecision(3)) >= 1000) third++;
  third = Math.min(third, 7);
  const scaled = value / 1000 ** third;
  const digits = third === 0 && Number.isInteger(value) ? String(value) : scaled.toPrecision(3);
  return `${digits} ${["", "k", "M", "G", "T", "P", "E", "Z"][third]}`.trimEnd();
}

function duration(seconds) {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds), minutes = Math.round(seconds / 60), hours = Math.round(seconds / 3600);
  const two = value => String(value).padStart(2, "0");
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  if (minutes < 1440) return `${Math.floor(minutes / 60)} h ${two(minutes % 60)} min`;
  return `${Math.floor(hours / 24)} d ${two(hours % 24)} h`;
}

const withUnit = (value, unit) =>
  unit === "s" ? duration(value) : unit === "ms" ? `${Number(value.toPrecision(3))} ms` : unit ? `${si(value)}${/[a-zA-Z]$/.test(si(value)) ? "" : " "}${unit}` : si(value);
const digits = label => label.includes("%") ? 2 : 3;

function plotSize(chart) {
  return {width: chart.clientWidth - MARGIN.l - chart.room, height: chart.clientHeight - MARGIN.t - MARGIN.b};
}

// A logarithmic x range that ends where the data ends; what labels need right of it becomes the chart's `room`.
function xRange(chart, values, anchors) {
  const logs = values.map(log10), low = least(logs), high = most(logs);
  const span = Math.max(high - low, 0.1), middle = (low + high) / 2;
  const range = [middle - 0.54 * span, middle + 0.54 * span];
  chart.room = MARGIN.r;
  if (chart.clientWidth >= 700) {
    const wide = chart.clientWidth - MARGIN.l, part = x => (log10(x) - range[0]) / (range[1] - range[0]);
    const needed = anchors.filter(({along}) => !along).map(({x, label}) => (measure(short(label)) + 20 - wide * (1 - part(x))) / part(x));
    chart.room = Math.round(Math.min(ROOM, Math.max(MARGIN.r, most(needed))));
  }
  return range;
}

// Of several sets of steps (value, text) the densest whose labels do not meet; `size` is how long one is along the axis.
function ticksOf([low, high], pixels, sets, size) {
  const inside = set => set.filter(([value]) => log10(value) >= low && log10(value) <= high);
  const fits = set => set.every(([value, text], i) => !i ||
    (log10(value) - log10(set[i - 1][0])) * pixels / (high - low) > (size(text) + size(set[i - 1][1])) / 2 + 10);
  const ticks = sets.map(inside).find(set => set.length > 1 && fits(set));
  return ticks && {tickmode: "array", tickvals: ticks.map(([value]) => value), ticktext: ticks.map(([, text]) => text)};
}

function timeTicks(range, pixels) {
  const sixty = [1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 50];
  const steps = [[1, "s", [0.1, 0.2, 0.5, ...sixty]], [60, "min", sixty], [3600, "h", [1, 2, 3, 4, 6, 8, 12, 16, 20]], [86400, "d", [1, 2, 3, 4, 7, 14, 30, 60, 120]]];
  const all = steps.flatMap(([seconds, unit, every]) => every.map(step => [step * seconds, `${step} ${unit}`]));
  const tickvals = [], ticktext = [];
  for (const [value, text] of all) {
    const at = log10(value);
    if (at < range[0] || at > range[1] || tickvals.length && (at - log10(tickvals.at(-1))) * pixels / (range[1] - range[0]) < 56) continue;
    tickvals.push(value);
    ticktext.push(text);
  }
  return {tickmode: "array", tickvals, ticktext};
}

// Ticks of a logarithmic axis at the densest of several mantissas; of a small part of a decade as plotly chooses.
const trimmed = text => text.replace(/\.0+(?=\D|$)/, "").replace(/(\.\d*[1-9])0+(?=\D|$)/, "$1");
function logTicks(range, pixels, text, size) {
  const decades = Array.from({length: Math.floor(range[1]) - Math.floor(range[0]) + 1}, (_, i) => Math.floor(range[0]) + i);
  const of = (mantissas, every = 1) => decades.filter(decade => decade % every === 0).flatMap(decade => mantissas.map(m => {
    const value = Number((m * 10 ** decade).toPrecision(2));
    return [value, text(value)];
  }));
  const fine = Array.from({length: 18}, (_, i) => 1 + i / 2);
  const sets = [of(fine), of([1, 2, 3, 4, 5, 6, 7, 8, 9]), of([1, 2, 3, 5, 7]), of([1, 2, 5]), of([1, 3]), of([1]), of([1], 2), of([1], 3), of([1], 6)];
  return ticksOf(range, pixels, sets, size) ?? {tickmode: "auto"};
}
const xTicks = (chart, range, unit = "") => {
  const {width} = plotSize(chart);
  if (unit === "s") return timeTicks(range, width);
  return {tickformat: "~s", ticksuffix: unit === "ms" ? " ms" : unit, ...logTicks(range, width, value => trimmed(withUnit(value, unit)), measure)};
};
const logX = (chart, range, unit) => ({type: "log", range, ...xTicks(chart, range, unit)});
const logY = (chart, range) => ({type: "log", range, tickformat: "~g", ...logTicks(range, plotSize(chart).height, String, () => FONT)});
