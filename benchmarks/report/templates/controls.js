// What the controls and the window ask for is drawn.

// The recipes of a data set; the first is chosen.
function chooseSet(set) {
  const own = charts.flatMap((chart, index) => chart.set === set ? [[index, chart]] : []);
  byId("comparison").replaceChildren(...own.map(([index, chart]) => new Option(chart.title, index)));
  byId("comparison").closest("label").hidden = own.length < 2;
  if (byId("dataset")) byId("dataset").value = set;
  current = own[0]?.[0] ?? 0;
}

function listMachines() {
  const machines = charts[current]?.machines ?? [], before = byId("machine").selectedOptions[0]?.textContent;
  byId("machine").replaceChildren(...machines.map(({label}, index) => new Option(label, index)));
  byId("machine").value = Math.max(0, machines.findIndex(({label}) => label === before));
}

function drawCharts() {
  drawFirst();
  drawOthers();
}

// The leaderboard and the first chart, with the switches that depend on what is chosen.
function drawFirst() {
  const chart = charts[current], used = new Set(chart.runs.map(run => runs[run].family));
  for (const button of document.querySelectorAll(".legend button")) button.parentElement.hidden = !used.has(button.dataset.family);
  listMachines();
  const known = axis => (axis.physical ? chart.machines.flatMap(({networks}) => networks) : chart.networks).some(({x}) => axis.key in x);
  for (const axis of axes) {
    const option = byId("axis").querySelector(`[value=${axis.key}]`);
    option.disabled = !known(axis);
    option.textContent = axis.title + (option.disabled ? " (in no record)" : "");
  }
  if (byId("axis").selectedOptions[0]?.disabled) byId("axis").value = axes.find(known)?.key ?? axes[0].key;
  const axis = costAxis();
  byId("machine").closest("label").hidden = chart.machines.length < 2 || !(axis.physical || SPENT[chosen("spent")].physical);
  byId("rate").closest("label").hidden = !axis.rate;
  byId("rate-question").textContent = axis.rate?.question ?? "";
  drawLeaderboard(chart);
  if (window.Plotly) drawCost(chart);
}

function drawOthers() {
  const chart = charts[current];
  writeState();
  if (!window.Plotly) return;
  drawTraining(chart);
  drawShare(chart);
  byId("nothing").hidden = ![training, cost].every(drawn => drawn.closest("figure").hidden);
  drawMarks();
}

for (const command of new Set(axes.map(({measured_by}) => measured_by))) {
  const group = Object.assign(document.createElement("optgroup"), {label: `measured by ${command}`});
  group.append(...axes.filter(axis => axis.measured_by === command).map(({key, title}) => new Option(title, key)));
  byId("axis").append(...(command ? [group] : group.children));
}
defaults.cost = byId("axis").value;
for (const id of ["axis", "machine", "rate", "papers", "value", "spent", "range", "seeds"]) byId(id).addEventListener("change", drawCharts);
byId("axis").addEventListener("change", () => { byId("rate").value = ""; }, {capture: true});
redrawWith(drawCharts);
if (charts.length) {
  readState();
  drawFirst();
}
byId("js-plotly-tester")?.setAttribute("aria-hidden", "true");  // where plotly measures text
requestAnimationFrame(() => {
  performance.mark("first plot");
  if (charts.length) setTimeout(drawOthers);
});
