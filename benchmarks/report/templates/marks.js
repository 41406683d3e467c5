// Runs that are marked or pointed at, drawn over their curves and points; nothing else is drawn again.
function drawMarks() {
  const highlighted = new Set([...marked, ...pointed]);
  const svg = (tag, attributes, ...children) => {
    const made = document.createElementNS(document.querySelector(".legend svg").namespaceURI, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  };
  const make = (chart, paths) => {
    chart.querySelector(".marks")?.remove();
    if (!paths.length || chart.hidden || chart.closest("figure").hidden) return;
    const drawn = paths.flatMap(d => [svg("path", {d, class: "halo"}), svg("path", {d})]);
    const clipped = svg("svg", {x: MARGIN.l, y: MARGIN.t, ...plotSize(chart)}, ...drawn);
    chart.append(svg("svg", {class: "marks", width: chart.clientWidth, height: chart.clientHeight}, clipped));
  };
  const highlightedOf = drawn => drawn.filter(({runs: members}) => members.some(run => highlighted.has(run)));
  const along = training.layout && projection(training, training.layout), around = cost.layout && projection(cost, cost.layout);
  const value = y => chosen("value") === "error" ? asShown(charts[current], y) : y;
  make(training, along ? highlightedOf(lines).map(line => "M" + line.points.map(({x, y}) => along({x, y: value(y)}))
    .map(({px, py}) => `${px.toFixed(1)} ${py.toFixed(1)}`).join("L")) : []);
  make(cost, around ? highlightedOf(points).map(network => {
    const {px, py} = around({x: network.at, y: asShown(charts[current], network.error)});
    return `M${px - 9} ${py}a9 9 0 1 0 18 0a9 9 0 1 0 -18 0`;
  }) : []);
}

function point(members) {
  pointed = members;
  for (const row of document.querySelectorAll("tr.pointed")) row.classList.remove("pointed");
  for (const run of members) rowOf.get(run)?.classList.add("pointed");
  for (const network of charts[current].networks) {
    if (network.runs.some(run => members.includes(run))) rowOfNetwork.get(network.id)?.classList.add("pointed");
  }
  drawMarks();
}

// The row of the first of some runs that the filter leaves.
function reveal(members) {
  const row = rowOf.get(members.find(isShown));
  if (!row) return;
  row.scrollIntoView({block: "center"});
  row.querySelector("a").focus({preventScroll: true});
}
