"use strict";
// Shows one frame at a time: its layers as pictures on top of each other, and its segments as a table.
// Text from the data only ever becomes textContent, never markup.

const byId = (id) => document.getElementById(id);
const run = JSON.parse(document.querySelector("script.run-data").textContent);
const frameBlocks = [...document.querySelectorAll("script.frame-data")];
const stage = byId("stage"), seek = byId("seek"), play = byId("play"), box = byId("box");

let first = 0; // place of the sequence's first frame among all frames
let sequence = run.sequences[0];
let current = 0; // frame of the sequence
let timer = null;
let frame = null; // the data of the frame that is shown

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function swatch(colour) {
  const made = element("span", undefined, "swatch");
  made.style.background = colour;
  return made;
}

// Layers: the frame, then maps, then what lies on them, in the order of the list

const layers = run.layers.map(([key, label], index) => {
  const image = element("img", undefined, index === 0 ? "frame" : "map");
  image.alt = "";
  stage.insertBefore(image, box);
  const tick = element("input");
  tick.type = "checkbox";
  tick.id = "layer-" + key;
  tick.checked = index < 2;
  tick.addEventListener("change", showLayers);
  const name = element("label");
  name.append(tick, label);
  byId("layers").append(name);
  return { key, image, tick };
});

function showLayers() {
  const opacity = byId("opacity").value / 100;
  layers.forEach(({ key, image, tick }, index) => {
    image.hidden = !tick.checked || !frame.images[key];
    image.style.opacity = index === 0 ? 1 : opacity;
  });
}

// Frames

function show(index) {
  current = Math.min(Math.max(index, 0), sequence.count - 1);
  frame = JSON.parse(frameBlocks[first + current].textContent);
  for (const { key, image } of layers) {
    if (frame.images[key]) image.src = frame.images[key];
  }
  const [height, width] = frame.size;
  stage.style.aspectRatio = width + " / " + height;
  stage.style.maxWidth = "calc(78vh * " + width / height + ")";
  stage.setAttribute("aria-label", "Frame " + frame.name + " of sequence " + sequence.id);
  seek.value = current;
  seek.setAttribute("aria-valuetext", "frame " + frame.name);
  byId("position").textContent = frame.name + " (" + (current + 1) + "/" + sequence.count + ")";
  showLayers();
  showSegments();
}

const share = (value) => (value === null ? "\u2013" : value.toFixed(3));

function showSegments() {
  box.hidden = true;
  const rows = frame.segments.map((segment) => {
    const [id, classId, pixels, confidence, agreement, ...rest] = segment;
    const [name, , isThing] = run.classes[classId];
    const row = element("tr");
    const head = element("th");
    head.scope = "row";
    const pick = element("button", name);
    pick.type = "button";
    pick.title = "Show its box";
    head.append(swatch(rest[4]), pick);
    row.append(head, element("td", isThing ? (id || "crowd") : "\u2013"), element("td", pixels.toLocaleString("en")));
    row.append(element("td", share(confidence)));
    if (run.agreement) row.append(element("td", share(agreement)));
    row.append(element("td", rest.slice(0, 4).join(", ")));
    const mark = () => markBox(rest);
    row.addEventListener("mouseenter", mark);
    row.addEventListener("focusin", mark);
    pick.addEventListener("click", mark);
    row.addEventListener("mouseleave", () => { box.hidden = true; });
    row.addEventListener("focusout", () => { box.hidden = true; });
    return row;
  });
  byId("segments").tBodies[0].replaceChildren(...rows);
}

function markBox([x, y, width, height]) {
  const [fullHeight, fullWidth] = frame.size;
  box.style.left = (100 * x) / fullWidth + "%";
  box.style.top = (100 * y) / fullHeight + "%";
  box.style.width = (100 * width) / fullWidth + "%";
  box.style.height = (100 * height) / fullHeight + "%";
  box.hidden = false;
}

function showSequence(index) {
  pause();
  first = run.sequences.slice(0, index).reduce((sum, other) => sum + other.count, 0);
  sequence = run.sequences[index];
  seek.max = sequence.count - 1;
  byId("sequence-note").textContent = sequence.note;
  show(0);
}

// Playing

function pause() {
  clearTimeout(timer);
  timer = null;
  play.textContent = "Play";
  play.setAttribute("aria-pressed", "false");
}

function tick() {
  show(current + 1 < sequence.count ? current + 1 : 0);
  timer = setTimeout(tick, 1000 / sequence.fps / byId("speed").value);
}

function toggle() {
  if (timer !== null) return pause();
  play.textContent = "Pause";
  play.setAttribute("aria-pressed", "true");
  timer = setTimeout(tick, 0);
}

function step(count) {
  pause();
  show(current + count);
}

play.addEventListener("click", toggle);
byId("previous").addEventListener("click", () => step(-1));
byId("next").addEventListener("click", () => step(1));
seek.addEventListener("input", () => { pause(); show(Number(seek.value)); });
byId("opacity").addEventListener("input", showLayers);
byId("sequence").addEventListener("change", (event) => showSequence(event.target.selectedIndex));

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const pressed = event.target.closest("button, input, select"); // they know what space does
  const moved = event.target.closest("input[type=range], select, .scroll"); // and these what arrows do
  const far = event.shiftKey ? 10 : 1;
  if (/^[1-9]$/.test(event.key) && layers[event.key - 1]) layers[event.key - 1].tick.click();
  else if (event.key === " " ? pressed : moved) return;
  else if (event.key === " " && run.stills) return;
  else if (event.key === " ") toggle();
  else if (event.key === "ArrowLeft") step(-far);
  else if (event.key === "ArrowRight") step(far);
  else if (event.key === "Home") step(-sequence.count);
  else if (event.key === "End") step(sequence.count);
  else return;
  event.preventDefault();
});

// What stays the same

if (run.stills) for (const part of document.querySelectorAll(".playing")) part.hidden = true; // no video to play
if (!run.agreement) document.querySelector("#segments .agreement").remove();
run.sequences.forEach(({ id }) => byId("sequence").append(element("option", id)));
byId("notes").textContent = run.notes.join(" ");
byId("legend").append(...Object.values(run.classes).map(([name, colour, isThing]) => {
  const entry = element("li");
  entry.append(swatch(colour), isThing ? name + " (objects)" : name);
  return entry;
}));
byId("settings").tBodies[0].append(...run.settings.map(([key, value]) => {
  const row = element("tr"), head = element("th", key);
  head.scope = "row";
  row.append(head, element("td", value));
  return row;
}));
if (run.tables.length) {
  const all = element("div", undefined, "tables");
  for (const { title, header, rows } of run.tables) {
    const frameOfTable = element("div", undefined, "scroll"), table = element("table");
    frameOfTable.tabIndex = 0;
    frameOfTable.setAttribute("role", "region");
    frameOfTable.setAttribute("aria-label", title);
    const head = element("tr");
    head.append(...header.map((text) => Object.assign(element("th", text), { scope: "col" })));
    table.createCaption().textContent = title;
    table.createTHead().append(head);
    table.createTBody().append(...rows.map((cells) => {
      const row = element("tr");
      row.append(...cells.map((text, k) => (k ? element("td", text) : Object.assign(element("th", text), { scope: "row" }))));
      return row;
    }));
    frameOfTable.append(table);
    all.append(frameOfTable);
  }
  byId("scores").append(all);
  byId("scores").hidden = false;
}
showSequence(0);
