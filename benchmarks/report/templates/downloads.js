// A figure as SVG and PNG, and what it draws as CSV.
for (const bar of document.querySelectorAll(".downloads")) {
  const id = bar.dataset.chart;
  bar.addEventListener("click", event => {
    const {kind} = event.target.dataset;
    if (!kind) return;
    const filename = `${charts[current].data}-${id}`.replace(/[^\w.-]+/g, "_");
    if (kind !== "csv") {
      const {width, height} = byId(id).layout;
      Plotly.downloadImage(byId(id), {format: kind, filename, width, height, scale: kind === "png" ? 2 : 1});
      return;
    }
    const quoted = cell => /[",\n]/.test(cell) ? `"${String(cell).replaceAll('"', '""')}"` : cell;
    const text = csvOf[id].map(row => row.map(quoted).join(",") + "\n").join("");
    const link = element("a", {href: URL.createObjectURL(new Blob([text], {type: "text/csv"})), download: `${filename}.csv`});
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
}
