// What the controls and the window ask for is drawn.

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
