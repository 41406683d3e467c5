const figures = JSON.parse(byId("data").textContent);

function draw() {
  const choice = Number(byId("choice").value);
  figures.forEach((choices, index) => {
    const chart = byId(`chart-${index}`), {traces, layout} = themed(choices[choice] ?? choices[0]);
    const config = {displayModeBar: false, displaylogo: false, responsive: false};
    Plotly.react(chart, traces, framed(chart, {dragmode: false, ...layout}, {fixedrange: true}), config);
  });
  byId("js-plotly-tester")?.setAttribute("aria-hidden", "true");  // where plotly measures text
}

draw();
redrawWith(draw);
byId("choice").addEventListener("change", draw);
