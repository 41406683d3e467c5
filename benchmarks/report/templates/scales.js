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

// 1-2-5 ticks, denser or sparser as the range asks, in the same SI prefixes as the tables.
function logTicks([low, high], pixels, unit = "") {
  if (unit === "s") return timeTicks([low, high], pixels);
  const decade = pixels / (high - low);
  const steps = decade > 1000 ? [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8] : decade > 150 ? [1, 2, 5] : [1];
  const every = decade > 60 ? 1 : 3;
  const tickvals = [], ticktext = [];
  for (let exponent = Math.floor(low); exponent <= high; exponent++) {
    if (exponent % every) continue;
    for (const step of steps) {
      const value = Number(`${step}e${exponent}`);
      tickvals.push(value);
      const text = value < 1 || unit === "ms" ? String(Number(value.toPrecision(3)))
        : `${Number((step * 10 ** (exponent % 3)).toPrecision(3))} ${"kMGTPEZ"[Math.floor(exponent / 3) - 1] ?? ""}`.trimEnd();
      ticktext.push(unit ? `${text}${/[a-zA-Z]$/.test(text) ? "" : " "}${unit}` : text);
    }
  }
  return {tickvals, ticktext};
}

function timeTicks([low, high], pixels) {
  const sixty = [1, 1.5, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 35, 40, 45, 50];
  const fine = [[0.1, 0.2, 0.3, 0.5, 0.7, ...sixty], sixty, [1, 1.5, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20], [1, 1.5, 2, 3, 4, 5, 7, 10, 14, 21, 30]];
  const sparse = [[0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30], [1, 2, 5, 10, 20, 30], [1, 2, 4, 8, 12], [1, 2, 4, 7, 14, 30, 60, 120]];
  for (const steps of [sparse, fine]) {
    const tickvals = [], ticktext = [];
    TIMES.forEach(([seconds, name], at) => steps[at].forEach(step => {
      const where = log10(step * seconds), last = tickvals.at(-1);
      if (where < low || where > high || last && (where - log10(last)) * pixels / (high - low) < 56) return;
      tickvals.push(step * seconds);
      ticktext.push(`${step} ${name}`);
    }));
    if (tickvals.length > 3 || steps === fine) return {tickvals, ticktext};
  }
}

const logX = (chart, range, unit) => ({type: "log", range, ...logTicks(range, plotSize(chart).width, unit)});
// Upright, ticks may stand closer.
const logY = (chart, range) => ({type: "log", range, ...logTicks(range, 2 * plotSize(chart).height)});
