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
  return {width: chart.clientWidth - MARGIN.l - MARGIN.r, height: chart.clientHeight - MARGIN.t - MARGIN.b};
}

// A logarithmic x range with room for the labels on the right.
function xRange(chart, values, labels) {
  const logs = values.map(log10);
  const low = logs.reduce((a, b) => Math.min(a, b)), high = logs.reduce((a, b) => Math.max(a, b));
  const span = Math.max(high - low, 0.3);
  const wide = labels.length > MOST_LABELS ? 0 : labels.reduce((most, label) => Math.max(most, measure(label)), 0);
  const room = Math.min(0.45, (wide + 24) / plotSize(chart).width);
  const left = (low + high - span) / 2 - 0.04 * span;
  return [left, left + 1.06 * span / (1 - room)];
}

// Ticks of seconds, minutes, hours and days, no nearer to each other than their labels are wide.
function timeTicks([low, high], pixels) {
  const sixty = [1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 50];
  const steps = [[1, "s", [0.1, 0.2, 0.5, ...sixty]], [60, "min", sixty], [3600, "h", [1, 2, 3, 4, 6, 8, 12, 16, 20]], [86400, "d", [1, 2, 3, 4, 7, 14, 30, 60, 120]]];
  const tickvals = [], ticktext = [];
  for (const [seconds, unit, step] of steps.flatMap(([seconds, unit, every]) => every.map(step => [seconds, unit, step]))) {
    const at = log10(step * seconds);
    if (at < low || at > high || tickvals.length && (at - log10(tickvals.at(-1))) * pixels / (high - low) < 56) continue;
    tickvals.push(step * seconds);
    ticktext.push(`${step} ${unit}`);
  }
  return {tickvals, ticktext};
}

// Ticks at 1, 2 and 5 of every decade; of many decades at 1 alone, of a part of one as plotly chooses.
function logTicks([low, high], unit = "") {
  return {dtick: high - low > 5.5 ? 1 : high - low > 0.7 ? "D2" : null, tickformat: "~s", ticksuffix: unit === "ms" ? " ms" : unit};
}
const xTicks = (chart, range, unit) => unit === "s" ? timeTicks(range, plotSize(chart).width) : logTicks(range, unit);
const logX = (chart, range, unit) => ({type: "log", range, ...xTicks(chart, range, unit)});
const logY = range => ({type: "log", range, ...logTicks(range), tickformat: "~g"});
