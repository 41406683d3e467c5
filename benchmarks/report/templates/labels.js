// Where labels stand beside their points.

const measure = (() => {
  const context = document.createElement("canvas").getContext("2d");
  return text => {
    context.font = `${FONT}px ${token("--sans")}`;
    return context.measureText(text).width;
  };
})();

// Where a point of a chart of that layout is, in pixels of its plot.
function projection(chart, {xaxis, yaxis}) {
  const {width, height} = plotSize(chart);
  const along = (axis, value, size) => {
    const at = axis.type === "log" ? log10(value) : value;
    return size * (at - axis.range[0]) / (axis.range[1] - axis.range[0]);
  };
  return ({x, y}) => ({px: along(xaxis, x, width), py: height - along(yaxis, y, height)});
}

// A path with a point at least every 8 pixels.
function walk(path) {
  return path.flatMap((point, i) => {
    const next = path[i + 1] ?? point;
    const steps = Math.max(1, Math.min(200, Math.ceil(Math.hypot(next.px - point.px, next.py - point.py) / 8)));
    return Array.from({length: steps}, (_, k) => ({px: point.px + (next.px - point.px) * k / steps,
                                                   py: point.py + (next.py - point.py) * k / steps}));
  });
}

// Labels beside their points, moved as little as it takes so that none covers another or a point; one that finds no
// place is left to the hover text.
function placeLabels(chart, {xaxis, yaxis}, anchors, obstacles) {
  if (anchors.length > MOST_LABELS) return [];
  const {width, height} = plotSize(chart), pixel = projection(chart, {xaxis, yaxis});
  const inside = ({px, py}) => px >= -1 && px <= width + 1 && py >= -1 && py <= height + 1;
  const points = obstacles.flatMap(path => walk(path.map(pixel))).filter(inside);
  const taken = [];
  const shared = (a, b) => Math.max(0, Math.min(a.right, b.right) - Math.max(a.left, b.left))
                         * Math.max(0, Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top));
  const annotations = [];
  const queue = anchors.map(anchor => ({...anchor, ...pixel(anchor)})).filter(inside).sort((a, b) => a.py - b.py);
  for (const anchor of queue) {
    const text = short(anchor.label), wide = measure(text) + 4, tall = FONT + 3;
    let best = null;
    for (let step = 0; step <= 20; step++) {
      for (const dy of step ? [step * 8, -step * 8] : [0]) {
        for (const side of [1, -1, 0]) {
          if (side === 0 && Math.abs(dy) < 16) continue;
          const dx = side * (10 + (step > 1 ? 12 : 0));
          const left = anchor.px + dx - (side === 1 ? 0 : side === -1 ? wide : wide / 2);
          const box = {left, right: left + wide, top: anchor.py + dy - tall / 2, bottom: anchor.py + dy + tall / 2};
          if (box.left < 0 || box.right > width || box.top < 0 || box.bottom > height) continue;
          if (taken.some(other => shared(box, other) > 0)) continue;
          const covered = points.filter(({px, py}) =>
            px > box.left - 5 && px < box.right + 5 && py > box.top - 4 && py < box.bottom + 4).length;
          const cost = Math.abs(dy) + (side === 1 ? 0 : side === -1 ? 24 : 12) + 5 * covered;
          if (!best || cost < best.cost) best = {cost, box, dx, dy, side};
        }
      }
    }
    if (!best) continue;
    taken.push(best.box);
    const moved = Math.abs(best.dy) > 8;
    annotations.push({
      x: xaxis.type === "log" ? log10(anchor.x) : anchor.x, y: yaxis.type === "log" ? log10(anchor.y) : anchor.y,
      text: plain(text), font: {size: FONT, color: token(anchor.soft ? "--soft" : "--ink")}, borderpad: 0,
      showarrow: true, arrowhead: 0, arrowwidth: moved ? 1 : 0.01, arrowcolor: moved ? anchor.colour : "rgba(0,0,0,0)",
      standoff: 5, ax: best.dx, ay: best.dy,
      xanchor: best.side === 1 ? "left" : best.side === -1 ? "right" : "center", yanchor: "middle",
    });
  }
  return annotations;
}
