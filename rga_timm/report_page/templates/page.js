"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const by = (id) => document.getElementById(id);
let stage = 0; // whose attention is shown; 0 is none
let shown = []; // the lists that the filter lets through
let current = 0; // the one that is open, of those

const percent = (share) => share === null ? "–" : (100 * share).toFixed(1);

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

// matplotlib's viridis at nine places; between them the colours are mixed.
const viridis = [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141],
  [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37]];
function colour(value) {
  const place = value / 255 * (viridis.length - 1), low = Math.min(Math.floor(place), viridis.length - 2);
  return viridis[low].map((c, i) => c + (viridis[low + 1][i] - c) * (place - low));
}

function drawMap(map) {
  const canvas = make("canvas", {width: map.width, height: map.height, "data-stage": "",
    title: `weights from ${map.low} to ${map.high}`});
  const context = canvas.getContext("2d"), pixels = context.createImageData(map.width, map.height);
  const values = atob(map.values);
  for (let i = 0; i < values.length; i++) {
    const [r, g, b] = colour(values.charCodeAt(i));
    pixels.data.set([r, g, b, 255], 4 * i);
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

function picture(name, text, side = 0, level = stage) {
  const image = data.images[name];
  if (!image) return make("span", {class: "picture"}, make("span", {class: "blank", role: "img", "aria-label": text}, "no image"));
  const map = level && image.maps[side][level - 1];
  return make("span", {class: "picture"}, make("img", {src: image.src, alt: text}), map ? drawMap(map) : null);
}

const whose = (one) => `person ${one.pid}` + (data.cameras ? `, camera ${one.camera}` : "");

const stagesOf = (name, side) => data.images[name]?.maps[side].length ?? 0;
const groups = {worst: "worst", best: "best", random: "drawn", first: "A alone", second: "B alone"};

function openPair(list, result, rank, side) {
  const query = data.queries[list.query], name = `q${list.query}`;
  const stages = stagesOf(name, side);
  const row = (image, one, title) => make("section", {}, make("h3", {}, title), make("p", {}, `${whose(one)} · ${one.path}`),
    make("div", {class: "row"}, ...Array.from({length: stages + 1}, (_, level) => make("figure", {},
      make("figcaption", {}, level ? `stage ${level}` : "image"), picture(image, `${title}, ${level ? "attention of stage " + level : "image"}`, side, level)))));
  const dialog = by("pair");
  dialog.replaceChildren(make("form", {method: "dialog"}, make("button", {}, "Close")),
    row(name, query, "Query"),
    row(result.image, result, `Rank ${rank}, distance ${result.distance.toFixed(3)}: ${result.right ? "the same person" : "another person"}`));
  dialog.showModal();
}

function openList(position) {
  if (!shown.length) { by("list").replaceChildren(make("p", {}, "No query that is shown fits the filter. The table below has all.")); return; }
  current = Math.max(0, Math.min(position, shown.length - 1));
  const list = shown[current], query = data.queries[list.query], name = `q${list.query}`;
  const stages = Math.max(...data.models.map((_, side) => stagesOf(name, side)));
  const buttons = stages ? make("div", {class: "stages", role: "group", "aria-label": "Attention"}, "Attention of stage",
    ...Array.from({length: stages + 1}, (_, level) => make("button", {type: "button", "aria-pressed": String(level === stage),
      onclick: () => setStage(level)}, level ? String(level) : "none"))) : null;
  by("list").replaceChildren(
    make("h2", {}, `Query of ${whose(query)}`),
    make("p", {}, query.path),
    buttons,
    ...list.results.flatMap((results, side) => [
      make("p", {}, data.models.length > 1 ? make("strong", {}, data.models[side]) : null, data.models.length > 1 ? " · " : null,
        `AP ${percent(query.precision[side])} %, first match at rank ${query.first[side] ?? "–"}`),
      make("div", {class: "results"},
        make("div", {class: "card query"}, picture(name, `query, ${whose(query)}`, side), make("b", {}, "query"), whose(query)),
        ...results.map((result, i) => make("button", {type: "button", class: `card ${result.right ? "right" : "wrong"}`,
          onclick: () => openPair(list, result, i + 1, side)},
          picture(result.image, `rank ${i + 1}, ${whose(result)}`, side),
          make("b", {}, `${i + 1} ${result.right ? "✓ right" : "✗ wrong"}`), whose(result), make("br"), result.distance.toFixed(3))))]));
  document.querySelectorAll("#queries button").forEach((button, i) => {
    button.setAttribute("aria-current", String(i === current));
    if (i === current) button.scrollIntoView({block: "nearest", inline: "nearest"});
  });
}

function setStage(level) { stage = level; openList(current); }

function filter() {
  const group = by("group").value, person = by("person").value.trim(), camera = by("camera")?.value ?? "";
  const fits = (one) => (!person || String(one.pid) === person) && (!camera || String(one.camera) === camera);
  shown = data.lists.filter((list) => (!group || list.group === group) && fits(data.queries[list.query]));
  by("count").textContent = `${shown.length} of ${data.lists.length} shown`;
  by("queries").replaceChildren(...shown.map((list, i) => {
    const query = data.queries[list.query], image = data.images[`q${list.query}`];
    return make("li", {}, make("button", {type: "button", onclick: () => openList(i)},
      image ? make("img", {src: image.src, alt: ""}) : null,
      make("span", {}, whose(query), make("br"), `${groups[list.group]} · AP ${query.precision.map(percent).join(" and ")} %`)));
  }));
  openList(0);
  fillTable(fits);
}

let rows = [], filled = 0;
function fillTable(fits) {
  rows = data.queries.map((query, i) => [query, i]).filter(([query]) => fits(query))
    .sort(([a], [b]) => (a.precision[0] ?? 2) - (b.precision[0] ?? 2));
  filled = 0;
  by("table").replaceChildren();
  moreRows();
}
function moreRows() {
  const pictured = new Map(data.lists.map((list) => [list.query, list]));
  by("table").append(...rows.slice(filled, filled + 100).map(([query, i]) => make("tr", {},
    make("td", {}, pictured.has(i) ? make("button", {type: "button", onclick: () => jump(pictured.get(i))}, query.path) : query.path),
    make("td", {}, String(query.pid)), make("td", {}, data.cameras ? String(query.camera) : "–"),
    ...query.precision.flatMap((precision, side) => [make("td", {}, percent(precision)), make("td", {}, String(query.first[side] ?? "–"))]))));
  filled += 100;
  by("more").hidden = filled >= rows.length;
}
function jump(list) {
  by("group").value = "";
  filter();
  openList(Math.max(0, shown.indexOf(list)));
  by("list").scrollIntoView();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || by("pair").open) return;
  if (event.target.matches("input, select")) { if (event.key === "Escape") event.target.blur(); return; }
  if (event.key === "j") openList(current + 1);
  else if (event.key === "k") openList(current - 1);
  else if (event.key === "/") { event.preventDefault(); by("person").focus(); }
  else if (/^[0-9]$/.test(event.key)) setStage(Number(event.key));
});
by("person").addEventListener("input", filter);
for (const select of by("filter").querySelectorAll("select")) select.addEventListener("change", filter);
by("filter").addEventListener("submit", (event) => event.preventDefault());
by("more").addEventListener("click", moreRows);
if (by("camera")) {
  const cameras = [...new Set(data.lists.map((list) => data.queries[list.query].camera))].sort((a, b) => a - b);
  by("camera").append(...cameras.map((camera) => make("option", {value: camera}, String(camera))));
}
filter();
