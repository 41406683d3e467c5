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

// A path with a point at least every 6 pixels.
function walk(path) {
  return path.flatMap((point, i) => {
    const next = path[i + 1] ?? point;
    const steps = Math.max(1, Math.min(4000, Math.ceil(Math.hypot(next.px - point.px, next.py - point.py) / 6)));
    return Array.from({length: steps}, (_, k) => ({px: point.px + (next.px - point.px) * k / steps,
                                                   py: point.py + (next.py - point.py) * k / steps}));
  });
}

// Labels beside their points, moved as little as it takes so that none covers another, a point or a curve; one that finds no
// place is left to the hover text. `along` is the label of a line across the plot, which it stands upon.
function placeLabels(chart, {xaxis, yaxis}, anchors, obstacles) {
  const {width, height} = plotSize(chart), pixel = projection(chart, {xaxis, yaxis});
  const inside = ({px, py}) => px >= -1 && px <= width + 1 && py >= -1 && py <= height + 1;
  const points = obstacles.flatMap(path => walk(path.map(pixel))).filter(inside);
  const taken = [], annotations = [], tall = FONT + 3, edge = width + chart.room - 2;
  const meets = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  const covers = (box, {px, py}) => px > box.left - 5 && px < box.right + 5 && py > box.top - 5 && py < box.bottom + 5;  // a mark's radius
  const free = box => box.left >= 0 && box.right <= edge && box.top >= -4 && box.bottom <= height &&
    !taken.some(other => meets(box, other)) && !points.some(spot => covers(box, spot));
  const add = (anchor, text, box, changes) => {
    taken.push(box);
    annotations.push({
      x: xaxis.type === "log" ? log10(anchor.x) : anchor.x, y: yaxis.type === "log" ? log10(anchor.y) : anchor.y,
      text: plain(text), font: {size: FONT, color: token(anchor.soft ? "--soft" : "--ink")}, borderpad: 0, showarrow: true,
      arrowhead: 0, arrowwidth: 0.01, arrowcolor: "rgba(0,0,0,0)", standoff: 5, yanchor: "middle", ...changes,
    });
  };
  const sized = anchors.map(anchor => ({...anchor, ...pixel(anchor), text: short(anchor.label)})).filter(anchor => anchor.along || inside(anchor));
  for (const anchor of sized.filter(({along, py}) => along && py > 0 && py < height)) {
    const wide = measure(anchor.text) + 4;
    for (let left = 6; left + wide < width; left += 24) {
      const box = side => ({left, right: left + wide, top: anchor.py + side * 10 - tall / 2, bottom: anchor.py + side * 10 + tall / 2});
      const clear = side => box(side).top > 0 && box(side).bottom < height && !taken.some(other => meets(box(side), other)) &&
        !points.some(spot => Math.abs(spot.py - anchor.py) > 1 && covers(box(side), spot));
      const side = [-1, 1].find(clear);
      if (!side) continue;
      add({...anchor, x: xaxis.type === "log" ? 10 ** (xaxis.range[0] + (xaxis.range[1] - xaxis.range[0]) * left / width)
        : xaxis.range[0] + (xaxis.range[1] - xaxis.range[0]) * left / width}, anchor.text, box(side), {ax: 0, ay: side * 10, xanchor: "left", standoff: 0});
      break;
    }
  }
  const queue = sized.filter(({along}) => !along).sort((a, b) => (a.soft ?? false) - (b.soft ?? false) || a.py - b.py);
  for (const anchor of queue) {
    const wide = measure(anchor.text) + 4;
    let best = null;
    for (let step = 0; step <= 9; step++) {
      for (const dy of step ? [step * 7, -step * 7] : [0]) {
        for (const side of [1, -1, 0]) {
          if (side === 0 && Math.abs(dy) < 14) continue;
          const dx = side * (10 + (step > 1 ? 10 : 0)), left = anchor.px + dx - (side === 1 ? 0 : side === -1 ? wide : wide / 2);
          const box = {left, right: left + wide, top: anchor.py + dy - tall / 2, bottom: anchor.py + dy + tall / 2};
          const price = Math.abs(dy) + (side === 1 ? 0 : side === -1 ? 20 : 8);
          if (best && price >= best.price || !free(box)) continue;
          if (walk([anchor, {px: anchor.px + dx, py: anchor.py + dy}]).some(spot => taken.some(other => covers(other, spot)))) continue;
          best = {price, box, dx, dy, side};
        }
      }
    }
    if (!best) continue;
    const moved = Math.abs(best.dy) > 18 || best.side !== 0 && Math.abs(best.dy) > 8;
    add(anchor, anchor.text, best.box, {
      ...(moved ? {arrowwidth: 1, arrowcolor: anchor.colour} : {}), ax: best.dx, ay: best.dy,
      xanchor: best.side === 1 ? "left" : best.side === -1 ? "right" : "center",
    });
  }
  return annotations;
}
