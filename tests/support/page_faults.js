// What is wrong with a page of runs at the width it has: labels on labels, points or curves, texts and tables that are cut off.
const faults = [];
const meets = (a, b) =>
  Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1;
const page = document.documentElement;
if (page.scrollWidth > page.clientWidth) faults.push(`the page is ${page.scrollWidth} wide`);
for (const chart of document.querySelectorAll(".chart")) {
  const frame = chart.getBoundingClientRect();
  if (!frame.width) continue;
  const boxes = selector => [...chart.querySelectorAll(selector)].map(node => [node.textContent, node.getBoundingClientRect()]);
  const labels = boxes(".annotation-text"), texts = [...labels, ...boxes(".xtick text, .ytick text, .xtitle, .ytitle")];
  for (const [text, box] of texts) {
    if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 4 || box.bottom > frame.bottom + 1) {
      faults.push(`${chart.id}: ${text} is cut off`);
    }
  }
  texts.forEach(([text, box], i) => texts.slice(i + 1).forEach(([other, its]) => {
    if (meets(box, its)) faults.push(`${chart.id}: ${text} on ${other}`);
  }));
  for (const point of chart.querySelectorAll(".points path")) {
    for (const [text, its] of labels) if (meets(point.getBoundingClientRect(), its)) faults.push(`${chart.id}: ${text} on a point`);
  }
  for (const line of chart.querySelectorAll(".lines .js-line")) {
    if (parseFloat(getComputedStyle(line).strokeWidth) === 0) continue;  // the edge of a band, which is not drawn
    const matrix = line.getScreenCTM(), length = line.getTotalLength();
    const step = Math.max(2, length / 4000);
    for (let at = 0; at < length; at += step) {
      const {x, y} = line.getPointAtLength(at).matrixTransform(matrix);
      for (const [text, {left, right, top, bottom}] of labels) {
        if (x > left && x < right && y > top + 2 && y < bottom - 2) faults.push(`${chart.id}: ${text} on a curve`);
      }
    }
  }
}
if (innerWidth >= 1280) {
  for (const region of document.querySelectorAll(".scroll")) {
    const {clientWidth, scrollWidth} = region;
    if (scrollWidth > clientWidth + 1) faults.push(`${region.getAttribute("aria-label")} is cut off, ${clientWidth} of ${scrollWidth}`);
  }
}
return [...new Set(faults)];
