"use strict";
// What the charts of the page and of the views share.
const FONT = 13;
const byId = id => document.getElementById(id);
const token = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// An element with these properties (`textContent`, `id`, …) and children.
function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// Colours are named by the style sheet's tokens, so that light, dark and print each have their own.
function themed(value) {
  if (typeof value === "string") return value.startsWith("--") ? token(value) : value;
  if (Array.isArray(value)) return value.map(themed);
  if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, themed(part)]));
  return value;
}

// A layout with the size, font and colours that every chart has; `axis` holds what all its axes have beside them.
function framed(chart, layout, axis = {}) {
  const font = {family: token("--sans"), size: FONT, color: token("--ink")};
  const common = {color: token("--ink"), gridcolor: token("--grid"), linecolor: token("--rule"), tickcolor: token("--rule"), zeroline: false,
                  showline: true, ticks: "outside", ticklen: 4, automargin: false, ...axis};
  const axes = Object.entries(layout).filter(([key]) => /^[xy]axis\d*$/.test(key))
    .map(([key, own]) => [key, {...common, ...own, title: {font, standoff: 8, ...own.title}}]);
  return {
    width: chart.clientWidth, height: chart.clientHeight, paper_bgcolor: token("--paper"), plot_bgcolor: token("--paper"), font,
    hoverlabel: {bgcolor: token("--paper"), bordercolor: token("--soft"), align: "left", font}, hovermode: "closest",
    ...layout, ...Object.fromEntries(axes),
  };
}

const later = (delay, action) => {
  let waiting;
  return () => {
    clearTimeout(waiting);
    waiting = setTimeout(action, delay);
  };
};

// Draws again when the window, the colour scheme or the medium changes.
function redrawWith(draw) {
  addEventListener("resize", later(120, draw));
  for (const query of ["(prefers-color-scheme: dark)", "print"]) matchMedia(query).addEventListener("change", draw);
}
