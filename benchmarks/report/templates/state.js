// What is chosen stands in the address, so that a link leads to the same view.
const SWITCHES = {cost: "axis", rate: "rate", show: "value", over: "spent", range: "range", seeds: "seeds", filter: "filter"};
const defaults = Object.fromEntries(Object.entries(SWITCHES).map(([name, id]) => [name, byId(id).value]));
let openRun = null;

function writeState(push = false) {
  const chart = charts[current], state = new URLSearchParams();
  if (!chart) return;
  const first = charts.findIndex(({set}) => set === chart.set);
  if (chart.set) state.set("data", chart.data);
  if (current !== first) state.set("recipe", chart.title);
  for (const [name, id] of Object.entries(SWITCHES)) {
    if (byId(id).value !== defaults[name]) state.set(name, byId(id).value);
  }
  if (Number(chosen("machine"))) state.set("machine", chart.machines[chosen("machine")].label);
  if (!byId("papers").checked) state.set("papers", "hidden");
  if (hiddenFamilies.size) state.set("hidden", [...hiddenFamilies].join(","));
  for (const run of marked) state.append("marked", runs[run].path);
  if (openRun !== null) state.set("run", runs[openRun].path);
  const text = String(state).replaceAll("%2F", "/").replaceAll("%2C", ",");
  if (location.hash.slice(1) !== text) history[push ? "pushState" : "replaceState"](null, "", text ? `#${text}` : location.pathname + location.search);
}

// Whether an address leads to a part of this page, and says nothing of what is chosen.
const isPart = hash => byId(hash.slice(1)) !== null;

// Sets the controls as the address says; returns whether it says anything.
function readState() {
  const state = new URLSearchParams(location.hash.slice(1));
  const data = state.get("data"), recipe = state.get("recipe");
  const set = charts.find(one => one.data === data)?.set ?? 0;
  chooseSet(set);
  current = Math.max(0, charts.findIndex(one => one.set === set && (recipe === null || one.title === recipe)));
  if (byId("comparison")) byId("comparison").value = current;
  for (const [name, id] of Object.entries(SWITCHES)) {
    byId(id).value = state.get(name) ?? defaults[name];
    if (byId(id).selectedIndex === -1) byId(id).value = defaults[name];
  }
  listMachines();
  const machine = charts[current]?.machines.findIndex(({label}) => label === state.get("machine")) ?? -1;
  if (machine > 0) byId("machine").value = machine;
  byId("papers").checked = state.get("papers") !== "hidden";
  hiddenFamilies.clear();
  for (const family of (state.get("hidden") ?? "").split(",")) if (state.has("hidden")) hiddenFamilies.add(family);
  for (const button of document.querySelectorAll(".legend button")) button.setAttribute("aria-pressed", !hiddenFamilies.has(button.dataset.family));
  const indexOf = path => runs.findIndex(run => run.path === path);
  marked.clear();
  for (const path of state.getAll("marked")) if (indexOf(path) >= 0) marked.add(indexOf(path));
  openRun = state.has("run") && indexOf(state.get("run")) >= 0 ? indexOf(state.get("run")) : null;
}
