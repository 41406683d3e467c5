// The leaderboard: the networks of the data set and recipe that are chosen, and which are best at the cost that is.
const board = byId("networks"), rowOfNetwork = new Map();
for (const row of board?.tBodies[0].rows ?? []) rowOfNetwork.set(Number(row.dataset.key), row);
let allNetworks = false;

const columnOf = (table, name) => [...table.tHead.rows[0].cells].findIndex(({dataset}) => dataset.column.startsWith(name));

function drawLeaderboard(chart) {
  if (!board) return;
  const axis = costAxis(), placed = new Map(placedOn(chart, axis).networks.map(network => [network.id, network]));
  const members = new Map(chart.networks.map(network => [network.id, network]));
  const rows = [...board.tBodies[0].rows], best = columnOf(board, "best"), heads = board.tHead.rows[0].cells;
  const showColumn = (name, shows) => {
    const at = columnOf(board, name);
    if (at >= 0) for (const row of [heads, ...rows.map(({cells}) => cells)]) row[at].hidden = !shows;
  };
  showColumn("data set", false);
  showColumn("recipe", chart.mixed);
  if (best >= 0) heads[best].querySelector("button").textContent = `best at its ${axis.title.replace(/ of one image$/, "")}`;
  const result = columnOf(board, "test");
  heads[result].querySelector("button").textContent = chart.test_label.replace(/ \(%\)$/, "");
  let listed = 0, there = 0;
  for (const row of rows) {
    const key = Number(row.dataset.key), network = members.get(key), point = placed.get(key);
    const onFront = Boolean(point?.front.includes(axis.key)), probability = point?.probability[axis.key];
    const visible = Boolean(network?.runs.some(isShown));
    there += visible;
    row.hidden = !visible || !allNetworks && !onFront && listed >= FEWEST_NETWORKS;
    listed += !row.hidden;
    row.classList.toggle("best", onFront);
    if (best < 0) continue;
    const sure = probability === undefined || !onFront && probability < WORTH_LISTING ? "" : percent(probability);
    const text = onFront ? `✓ ${sure}`.trim() : sure;
    row.cells[best].textContent = text;
    row.cells[best].dataset.value = onFront ? 1 + (probability ?? 0) : probability ?? "";
  }
  const scored = columnOf(board, "IoU");
  if (scored >= 0) showColumn("IoU", rows.some(row => !row.hidden && row.cells[scored].dataset.value !== ""));
  board.classList.add("drawn");
  byId("leaderboard").hidden = !there;
  byId("more-networks").hidden = there <= FEWEST_NETWORKS || there === listed && !allNetworks;
  byId("more-networks").firstElementChild.textContent = allNetworks ? "Show the first and the best at their cost only" : `Show all ${there.toLocaleString("en")} networks`;
}

byId("more-networks")?.firstElementChild.addEventListener("click", () => {
  allNetworks = !allNetworks;
  drawLeaderboard(charts[current]);
});
