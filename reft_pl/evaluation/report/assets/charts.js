"use strict";
// Draws every chart of the page's data with Plotly, in the colours of the page.

// Characters that steer (control characters, those that turn the direction of text) or have no width, and lone surrogates.
const STEERING = /(?![\n\t])[\p{Cc}\p{Cf}\p{Cs}]/gu;

/** Text in which such characters stand as the escapes that Python writes for them. */
function printable(text) {
  return text.replace(STEERING, (character) => {
    const code = character.codePointAt(0).toString(16);
    if (code.length <= 2) return `\\x${code.padStart(2, "0")}`;
    return code.length <= 4 ? `\\u${code.padStart(4, "0")}` : `\\U${code.padStart(8, "0")}`;
  });
}

const DATA = JSON.parse(document.getElementById("data").textContent, (key, value) =>
  typeof value === "string" ? printable(value) : value,
);

function reveal(id) {
  document.getElementById(id).hidden = false;
  document.querySelector(`nav a[href="#${id}"]`).hidden = false;
}

/** The colours of the page as plotly's settings, by dotted path, so that a change of theme is a relayout. */
function theme() {
  const style = getComputedStyle(document.documentElement);
  const [text, muted, line, surface] = ["--text", "--muted", "--line", "--surface"].map((name) => style.getPropertyValue(name));
  const settings = {
    "font.color": muted,
    "modebar.color": muted,
    "modebar.activecolor": text,
    "hoverlabel.bgcolor": surface,
    "hoverlabel.bordercolor": line,
    "hoverlabel.font.color": text,
  };
  for (const axis of ["xaxis", "yaxis"]) {
    for (const name of ["gridcolor", "zerolinecolor", "linecolor", "tickcolor"]) settings[`${axis}.${name}`] = line;
  }
  return settings;
}

function frame(section, chart) {
  const figure = section.appendChild(document.createElement("figure"));
  figure.appendChild(document.createElement("figcaption")).textContent = chart.title;
  const plot = figure.appendChild(document.createElement("div"));
  plot.className = "plot";
  return plot;
}

function draw(plot, { data, layout: { xaxis, yaxis } }) {
  const fixedrange = matchMedia("(pointer: coarse)").matches; // on touch screens a drag scrolls the page, it does not zoom
  const layout = {
    xaxis: { ...xaxis, showline: true, zeroline: false, showgrid: false, automargin: true, fixedrange },
    yaxis: { ...yaxis, zeroline: false, automargin: true, fixedrange },
    margin: { l: 8, r: 12, t: 12, b: 8 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12 },
    hovermode: "x unified",
    showlegend: true,
    legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom" },
    modebar: { bgcolor: "rgba(0,0,0,0)" },
  };
  const settings = { displaylogo: false, responsive: true, modeBarButtons: [["toImage", "resetScale2d"]] };
  Plotly.newPlot(plot, data, layout, settings);
  Plotly.relayout(plot, theme());
}

const plots = [];
for (const [id, charts] of Object.entries(DATA.charts)) {
  if (!charts.length) continue;
  reveal(id);
  const section = document.querySelector(`#${id} .charts`);
  const framed = charts.map((chart) => [frame(section, chart), chart]); // all of them first: they share out the width
  for (const [plot, chart] of framed) draw(plot, chart);
  plots.push(...framed.map(([plot]) => plot));
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const plot of plots) Plotly.relayout(plot, theme());
});
