/** The page of a caption: the picture, darkened where the model does not look, for every word. */
const { words, things, picture } = record, side = picture.side, looks = record.layers.length > 0;
let at = 0, layer = record.chosen;

const weightsOf = (word) => word.layers[layer];
const place = (region) => `row ${Math.floor(region / side) + 1}, column ${region % side + 1}`;
const spoken = (word) => (word.thing == null ? null : things[word.thing]);
const share = (weights, thing) => thing.touched.reduce((sum, region) => sum + weights[region], 0);
/** The regions with the most attention, in words. */
const most = (weights, count) => weights.map((_, region) => region).sort((a, b) => weights[b] - weights[a]).slice(0, count);

/** What a picture shows, for those who do not see it. */
function alt(word) {
  if (!looks) return `The picture ${record.sentence}`;
  const weights = weightsOf(word), thing = spoken(word);
  const inside = thing ? `; ${percent(share(weights, thing))} of it where ${quoted(thing.text)} is` : "";
  return `The picture ${record.sentence}; attention of ${quoted(word.text)} mostly on ${most(weights, 3).map(place).join("; ")}${inside}`;
}

/** The picture under a veil, which is clear where the attention is largest. */
function drawn(word, hidden) {
  const size = picture.size, step = size / side, thing = spoken(word), weights = looks ? weightsOf(word) : [], top = Math.max(...weights, 1e-9);
  const veil = weights.map((weight, region) => svg("rect", {
    class: "veil", x: (region % side) * step, y: Math.floor(region / side) * step, width: step, height: step, "fill-opacity": (0.78 * (1 - weight / top)).toFixed(3) }));
  return svg("svg", { class: "shown", viewBox: `0 0 ${size} ${size}`, "shape-rendering": "crispEdges", ...(hidden ? { "aria-hidden": "true" } : { role: "img", "aria-label": alt(word) }) },
    svg("image", { href: picture.image, width: size, height: size }), ...veil, thing ? svg("path", { class: "outline", d: thing.outline }) : null);
}

function narration(word) {
  const first = word.likely[0].p > word.p ? "" : " It is the likeliest word here.";
  const said = at === words.length - 1 ? "The caption ends" : `The model writes ${quoted(word.text)}`;
  if (!looks) return `${said}, with probability ${two(word.p)}. It has no attention: all that it knows of the picture is one vector.`;
  const weights = weightsOf(word), best = most(weights, 1)[0], thing = spoken(word);
  const inside = thing ? ` The outline is where ${quoted(thing.text)} is: ${percent(share(weights, thing))} of the attention is on regions that touch it; ${percent(thing.touched.length / (side * side))} of all regions do.` : "";
  return `${said}, with probability ${two(word.p)}.${first} It looks most at ${place(best)} (${two(weights[best])}).${inside}`;
}

function regionsTable(word) {
  if (!looks) return el("p", {}, "This model has no attention over regions.");
  const weights = weightsOf(word), thing = spoken(word);
  const rows = most(weights, 8).map((region) => el("tr", { class: thing?.touched.includes(region) ? "now" : "" },
    el("th", { scope: "row" }, place(region)), el("td", {}, bar(Math.min(1, weights[region])), two(weights[region]))));
  return el("table", { class: "words" }, el("caption", { class: "vh" }, "Regions with the most attention"),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "region"), el("th", { scope: "col" }, "weight"))), el("tbody", {}, ...rows));
}

function draw() {
  const word = words[at], last = words.length - 1;
  $("slider").max = last;
  $("slider").value = at;
  $("slider").setAttribute("aria-valuetext", `word ${at + 1} of ${words.length}, ${word.text}`);
  $("where").textContent = `Word ${at + 1} of ${words.length}${looks && record.layers.length > 1 ? ` · ${record.layers[layer]}` : ""}`;
  $("narration").replaceChildren(...narration(word).split(/(“[^”]*”)/).map((part) => (part.startsWith("“") ? el("b", { dir: "auto" }, part) : part)));
  for (const id of ["first", "back"]) $(id).setAttribute("aria-disabled", String(at === 0));
  for (const id of ["last", "next"]) $(id).setAttribute("aria-disabled", String(at === last));
  $("so-far").replaceChildren(el("span", { class: "begin" }, "‹begin›"),
    ...words.slice(0, at + 1).map((each, i) => el("span", { class: i === at ? "new" : "", dir: "auto" }, each.text)));
  $("picture").replaceChildren(drawn(word, false));
  $("regions").replaceChildren(regionsTable(word));
  const items = word.likely.map((each) => el("li", {}, el("span", { dir: "auto" }, each.piece), bar(each.p), el("span", {}, percent(each.p))));
  $("likely").replaceChildren(el("ol", { class: "likely" }, ...items));
  for (const [i, button] of [...$("minis").children].entries()) button.setAttribute("aria-pressed", String(i === at));
}

function drawAll() {
  $("minis").replaceChildren(...words.map((word, i) => el("button", { type: "button", class: "mini", "aria-pressed": "false", onclick: () => go(i) },
    drawn(word, true), el("span", { dir: "auto" }, word.text),
    spoken(word) && looks ? el("span", { class: "small" }, `${percent(share(weightsOf(word), spoken(word)))} inside`) : null)));
}

function go(to) {
  at = Math.max(0, Math.min(words.length - 1, to));
  draw();
}

const moves = { first: () => 0, back: () => at - 1, next: () => at + 1, last: () => words.length - 1 };
for (const [id, move] of Object.entries(moves)) $(id).onclick = () => go(move());
$("slider").oninput = () => go(Number($("slider").value));
document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || event.target.closest("input, select, .scroll")) return;
  const inside = event.target.closest("#player");
  const keys = { ArrowLeft: moves.back, ArrowRight: moves.next, ...(inside && { Home: moves.first, End: moves.last }) };
  if (!keys[event.key]) return;
  event.preventDefault();
  go(keys[event.key]());
});
$("layer-choice").hidden = record.layers.length < 2;
$("layer").append(...record.layers.map((name, i) => el("option", { value: i, selected: i === layer }, name)));
$("layer").onchange = () => { layer = Number($("layer").value); drawAll(); draw(); };
$("about").textContent = `${record.model.name} · run ${record.run}, ${record.checkpoint} · score ${two(record.score)}`
  + (record.truth ? ` · true caption: ${record.truth === record.translation ? "the same" : record.truth}` : "");
$("player-lead").textContent = looks
  ? `The picture is ${side} × ${side} regions. For each word the model weighs them: where it looks most, the picture is clear, and elsewhere dark.`
  : "The picture is one vector for this model, whichever word it writes.";
$("all-lead").textContent = `Choose one to see it above.${things.length ? " Outlined: where the thing is of which the word speaks." : ""}`;
$("footer").textContent = "Made by jaxnmt visualize. Everything on this page is inside this one file; it asks nothing of the network. Every number was computed by the model for this picture.";
drawAll();
draw();
