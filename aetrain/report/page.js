"use strict";
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// --- Tables: sorting inside of each body ---------------------------------------------------------------------------

for (const table of all("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstChild.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    for (const body of table.tBodies) {
      const rows = [...body.rows].filter((row) => !row.classList.contains("title"));
      body.append(...rows.sort((a, b) => compareCells(a.cells[column], b.cells[column], down)));
    }
  }));
}

function compareCells(a, b, down) {
  const [x, y] = [a, b].map((cell) => cell.dataset.v ?? cell.textContent.trim());
  if (x === "" || y === "") return (x === "") - (y === "");  // missing values stay last
  const [m, n] = [Number(x), Number(y)];
  const order = Number.isNaN(m) || Number.isNaN(n) ? x.localeCompare(y, "en", { numeric: true }) : m - n;
  return down ? -order : order;
}

// --- Choices: groups, data sets, models, the grouping of the table. The address keeps them ---------------------------

const glance = document.querySelector("#glance table");
const firstBodies = [...glance.tBodies];
const rowsOfGroups = all("tr[data-group]", glance);
const choice = { dataset: "", model: "", group: "" };
const hiddenGroups = new Set();
const togglesOfGroup = new Map();
for (const button of all("[data-toggle]")) {
  const name = button.dataset.toggle;
  togglesOfGroup.set(name, [...(togglesOfGroup.get(name) ?? []), button]);
}

function showChosen() {
  const isShown = {};
  for (const row of rowsOfGroups) {
    const matches = ["dataset", "model"].every((name) => !choice[name] || choice[name] === row.dataset[name]);
    isShown[row.dataset.group] = matches && !hiddenGroups.has(row.dataset.group);
    for (const button of togglesOfGroup.get(row.dataset.group) ?? []) button.hidden = !matches;
  }
  for (const part of all("[data-group]")) part.classList.toggle("off", !isShown[part.dataset.group]);
  for (const block of all("[data-block]")) {
    const isEmpty = !block.querySelector("[data-group]:not(.off), [data-toggle]:not([hidden])");
    block.classList.toggle("off", isEmpty);
  }
  const count = Object.values(isShown).filter(Boolean).length;
  for (const part of all(".count")) part.textContent = `${count} of ${rowsOfGroups.length} settings`;
}

function groupTable() {
  for (const body of [...glance.tBodies]) body.remove();
  if (!choice.group) {
    for (const row of rowsOfGroups) row.home.append(row);
    glance.append(...firstBodies);
    return;
  }
  const bodies = new Map();
  for (const row of rowsOfGroups) {
    const name = row.dataset[choice.group] ?? "";
    if (!bodies.has(name)) bodies.set(name, titledBody(name));
    bodies.get(name).append(row);
  }
  glance.append(...[...bodies.keys()].sort().map((name) => bodies.get(name)));
}

function titledBody(name) {
  const body = document.createElement("tbody");
  if (name) {
    const row = body.insertRow();
    const head = document.createElement("th");
    const text = document.createElement("span");
    row.className = "title";
    head.colSpan = glance.tHead.rows[0].cells.length;
    text.textContent = name;
    head.append(text);
    row.append(head);
    body.dataset.block = "";
  }
  return body;
}

function choose(name, value) {
  choice[name] = value;
  if (name === "group") groupTable();
  showChosen();
}

function keepInAddress() {
  const chosen = Object.entries(choice).filter(([, value]) => value);
  const hash = new URLSearchParams(chosen).toString();
  history.replaceState(null, "", `#${hash}`);
}

for (const row of rowsOfGroups) row.home = row.parentNode;
const menus = new Map(all("[data-filter]").map((menu) => [menu.dataset.filter, menu]));
for (const menu of all("[data-grouping]")) menus.set("group", menu);
for (const [name, menu] of menus) {
  menu.addEventListener("change", () => { choose(name, menu.value); keepInAddress(); });
}
for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
  const menu = menus.get(name);
  if (menu && [...menu.options].some((option) => option.value === value)) {
    menu.value = value;
    choose(name, value);
  }
}
for (const button of all("[data-toggle]")) {
  button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", on);
    hiddenGroups[on ? "delete" : "add"](button.dataset.toggle);
    showChosen();
  });
}
showChosen();

// --- Pictures and columns that are hidden at first -------------------------------------------------------------------

for (const button of all("[data-show]")) {
  button.addEventListener("click", () => {
    for (const other of all("[data-show]")) other.setAttribute("aria-pressed", other === button);
    for (const sheet of all("[data-kind]")) sheet.hidden = sheet.dataset.kind !== button.dataset.show;
  });
}
for (const box of all("[data-more]")) {
  box.addEventListener("change", () => box.closest("section").classList.toggle(box.dataset.more, box.checked));
}

// --- Charts: the value of the nearest point, by pointer or by arrow keys ---------------------------------------------

const tip = document.getElementById("tip");
const MAX_DISTANCE = 60;  // in units of the SVG

for (const svg of all("svg[data-axes]")) {
  const axes = JSON.parse(svg.dataset.axes);
  const [xName, yName] = JSON.parse(svg.dataset.names);
  let curves = null;  // read when they are first needed
  const ring = document.createElementNS("http://www.w3.org/2000/svg", "circle");
  ring.setAttribute("class", "ring off");
  ring.setAttribute("r", 5);
  svg.append(ring);
  all("title", svg).forEach((title) => title.remove());  // the browser would show them as well
  let at = null;

  const scaled = (y) => (axes.log ? Math.log10(y) : y);
  const share = (value, [low, high]) => Math.min(1, Math.max(0, (value - low) / (high - low || 1)));
  const position = ([x, y]) => [
    axes.left + share(x, axes.x) * axes.width,
    axes.top + (1 - share(scaled(y), axes.y.map(scaled))) * axes.height,
  ];
  function shown() {
    curves ??= all("g[data-points]", svg).map((g) => ({ g, points: JSON.parse(g.dataset.points) }));
    return curves.filter(({ g }) => !g.classList.contains("off"));
  }
  const text = (value) => String(Number(value.toPrecision(5)));

  function hide() {
    at = null;
    tip.hidden = true;
    ring.classList.add("off");
  }

  function show(curve, index) {
    at = { curve, index };
    const point = curve.points[index];
    const [x, y] = position(point);
    const box = svg.getBoundingClientRect();
    const scale = box.width / svg.viewBox.baseVal.width;
    ring.setAttribute("class", `ring ${curve.g.getAttribute("class").split(" ")[0]}`);
    ring.setAttribute("cx", x);
    ring.setAttribute("cy", y);
    const x_text = point[2] ?? text(point[0]);  // on a logarithmic axis, the place is not the value
    tip.textContent = `${curve.g.dataset.name}: ${xName} ${x_text}, ${yName} ${text(point[1])}`;
    tip.hidden = false;
    const left = Math.min(box.left + x * scale + 12, document.documentElement.clientWidth - tip.offsetWidth - 8);
    tip.style.left = `${Math.max(8, left) + scrollX}px`;
    tip.style.top = `${box.top + y * scale + 14 + scrollY}px`;
  }

  function showNearest(event) {
    const box = svg.getBoundingClientRect();
    const scale = svg.viewBox.baseVal.width / box.width;
    const [x, y] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    let [best, distance] = [null, MAX_DISTANCE];
    for (const curve of shown()) {
      curve.points.forEach((point, index) => {
        const [px, py] = position(point);
        const here = Math.hypot(px - x, py - y);
        if (here < distance) [best, distance] = [[curve, index], here];
      });
    }
    if (best) show(...best);
    else hide();
  }

  function step(event) {
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (event.key === "Escape") hide();
    if (!steps || !shown().length) return;
    event.preventDefault();
    const list = shown();
    const number = at ? Math.max(0, list.indexOf(at.curve)) : 0;
    const curve = list[(number + (at ? steps[0] : 0) + list.length) % list.length];
    const index = at ? at.index + steps[1] : curve.points.length - 1;
    show(curve, Math.min(Math.max(index, 0), curve.points.length - 1));
  }

  svg.addEventListener("pointermove", showNearest);
  svg.addEventListener("pointerdown", showNearest);
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("keydown", step);
  svg.addEventListener("blur", hide);
}

addEventListener("beforeprint", () => all("details").forEach((part) => { part.open = true; }));
