// What the page holds, what is chosen of it, and how each of its charts is drawn.
const read = id => JSON.parse(document.getElementById(id).textContent);
const {axes, charts, looks, shown_first: FEWEST_NETWORKS} = read("data"), {curves, runs} = read("each-run");
const training = byId("training"), cost = byId("cost"), share = byId("share");
const MARGIN = {l: 68, r: 14, t: 10, b: 52};
const MOST_CURVES = 8, MOST_LABELS = 12;
const FEWEST_FOR_SHARE = 20;
const WORTH_LISTING = 0.05;
const LOG_FROM = 8;  // errors so many times apart are drawn on a logarithmic axis
const ROOM = 200;    // pixels right of the plot for labels, at most
const SUFFIX = {ok: "", running: " (running)", killed: " (killed)", failed: " (failed)", interrupted: " (interrupted)", preempted: " (preempted)"};
const SPENT = {train_flops: {title: "training FLOPs", unit: ""}, wall_s: {title: "wall time", unit: "s", physical: true}};
const UNIT_OF = {"val/loss": "validation loss", "train/loss": "training loss", lr: "learning rate"};

let current = 0;                       // the chart of the data set and recipe that are chosen
let shown = runs.map(() => true);      // by the filter
const hiddenFamilies = new Set(), marked = new Set();
let pointed = [];                      // runs of the row or point under the pointer
let lines = [], points = [];           // what the charts show, also of what is not drawn but when it is marked
const csvOf = {};                      // the rows that a chart draws, its heads first

// Plotly reads a subset of HTML in every text: names are text.
const plain = text => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const short = text => text.length > 44 ? `${text.slice(0, 22)}…${text.slice(-21)}` : text;  // what differs is often at the end
const log10 = value => Math.log(value) / Math.LN10;
const chosen = name => byId(name).value;
const isShown = run => shown[run] && !hiddenFamilies.has(runs[run].family);
const families = () => Object.keys(looks);
const plural = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
const least = values => values.reduce((a, b) => Math.min(a, b), Infinity);
const most = values => values.reduce((a, b) => Math.max(a, b), -Infinity);

// An error as it is shown: of 100 − Dice it is the Dice.
const asShown = (chart, error) => chart.flipped ? 100 - error : error;
const rangeAsShown = (chart, range) => chart.flipped ? [100 - range[1], 100 - range[0]] : range;

// What depends on the machine is drawn of the runs of one.
const costAxis = () => axes.find(({key}) => key === chosen("axis")) ?? axes[0];
const machineOf = (chart, run) => chart.machine_of[run] ?? 0;
const onMachine = (chart, physical, run) => !physical || machineOf(chart, run) === Number(chosen("machine") || 0);
const placedOn = (chart, axis) => axis.physical ? chart.machines[Number(chosen("machine") || 0)] : chart;

const layout = (chart, xTitle, yTitle, xaxis, yaxis) => framed(chart, {
  margin: {...MARGIN, r: chart.room, autoexpand: false}, showlegend: false, dragmode: "zoom",
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
  chart.on("plotly_click", event => reveal(runsAt(event)));
}

// A chart in focus is read by the arrow keys, point by point; Enter leads to the point's row.
for (const chart of [cost, training, share]) {
  let at = -1;
  const spots = () => {  // each once: a curve's line and its dots have the same points
    const seen = new Set();
    return (chart.data ?? []).flatMap(({x, text, hoverinfo}, curveNumber) => hoverinfo !== "text" ? [] :
      x.flatMap((value, pointNumber) => {
        const key = `${value} ${text?.[pointNumber]}`;
        if (value === null || !text?.[pointNumber] || seen.has(key)) return [];
        seen.add(key);
        return [{curveNumber, pointNumber, value}];
      })).sort((a, b) => a.value - b.value);
  };
  chart.addEventListener("keydown", event => {
    const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key], all = spots();
    if (step && all.length) {
      event.preventDefault();
      at = (Math.max(at, step > 0 ? -1 : 0) + step + all.length) % all.length;
      Plotly.Fx.hover(chart, [all[at]]);
      const {text} = chart.data[all[at].curveNumber];
      byId("pointed").textContent = new DOMParser().parseFromString(text[all[at].pointNumber].replaceAll("<br>", ", "), "text/html").body.textContent;
    } else if (event.key === "Enter" && all[at]) {
      reveal(chart.data[all[at].curveNumber].runs?.[all[at].pointNumber] ?? []);
    }
  });
  chart.addEventListener("blur", () => {
    at = -1;
    if (chart.layout) Plotly.Fx.unhover(chart);
  });
}
