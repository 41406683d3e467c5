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
