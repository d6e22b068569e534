const record = JSON.parse(document.getElementById("record").textContent);
const S = record.source.pieces, T = record.target.pieces, steps = record.steps;
const settings = record.model.settings;
const $ = (id) => document.getElementById(id);

/** An element with attributes (`class`, `style`, `onclick`, …), then children: nodes or text, never markup. */
function el(name, attributes = {}, ...children) {
  const made = name === "svg" || el.svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") made[key] = value;
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}
function svg(name, attributes, ...children) {
  el.svg = true;
  const made = el(name, attributes, ...children);
  el.svg = false;
  return made;
}

const quoted = (word) => `“${word}”`;
const two = (x) => x.toFixed(2).replace("-", "−");
const percent = (x) => (x > 0 && x < 0.005 ? "<1 %" : `${Math.round(100 * x)} %`);
const mean = (rows) => rows[0].map((_, i) => rows.reduce((sum, row) => sum + row[i], 0) / rows.length);
const argmax = (row) => row.reduce((best, x, i) => (x > row[best] ? i : best), 0);
const of = (part) => record.attention.filter((found) => found.part === part);
/** Whether attention is causal: in one module, in the whole decoder. */
const masked = (found) => found.heads.every((head) => head.every((row, i) => row.every((weight, j) => j <= i || weight === 0)));
const causal = () => of("decoder").every(masked);
/** A layer's attention from one position, averaged over heads. */
const averaged = (found, position) => mean(found.heads.map((head) => head[position]));

/** The strongest of a row of weights, in words: “ladder” 0.83, “a” 0.06. */
function strongest(weights, words, most = 2) {
  const order = weights.map((_, i) => i).sort((a, b) => weights[b] - weights[a]).slice(0, most);
  return order.filter((i, rank) => rank === 0 || weights[i] >= 0.01).map((i) => `${quoted(words[i])} ${two(weights[i])}`).join(", ");
}

/** A part of the page that scrolls horizontally, also by keyboard. */
const scrolling = (label, child) => el("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": label }, child);

/** A vector's first numbers as colours, blue above zero and orange below, scaled by `most`; with a text for screen readers. */
function strip(vector, most, name) {
  const cells = vector.values.map((x) =>
    el("i", { class: x < 0 ? "down" : "up", style: `--w:${Math.min(1, Math.abs(x) / (most || 1)).toFixed(3)}` }));
  const label = `${name}: ${vector.size} numbers, length ${two(vector.norm)}`;
  return el("span", { class: "strip", role: "img", "aria-label": label, title: label }, ...cells);
}
const largest = (vectors) => Math.max(1e-9, ...vectors.flatMap((vector) => vector.values.map(Math.abs)));
const bar = (share) => el("span", { class: "bar", "aria-hidden": "true" }, el("i", { style: `--w:${share}` }));
