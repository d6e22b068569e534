/** The player: one row of controls, three panels, and a sentence that says what happens. */
const all = record.recurrent ? recurrentSteps() : parallelSteps();
let at = 0;

function draw() {
  const step = all[at];
  $("slider").max = all.length - 1;
  $("slider").value = at;
  $("slider").setAttribute("aria-valuetext", `step ${at + 1} of ${all.length}, ${step.name}`);
  $("where").textContent = `Step ${at + 1} of ${all.length} · ${step.word < 0 ? "encoder" : `token ${step.word + 1} of ${T.length}`} · ${step.name}`;
  $("narration").replaceChildren(...emphasised(step.say));
  // Not `disabled`: a disabled button loses the focus, and keys stop working.
  for (const id of ["first", "back", "word-back"]) $(id).setAttribute("aria-disabled", String(at === 0));
  for (const id of ["last", "next", "word-next"]) $(id).setAttribute("aria-disabled", String(at === all.length - 1));
  soFar(step);
  $("source").replaceChildren(scrolling("The source, token by token", sourceTable(step)));
  $("inside").replaceChildren(...(record.recurrent ? insideRecurrent(step) : insideParallel(step)));
  $("likely").replaceChildren(...likely(step));
}

/** Text whose “quoted” words are emphasised. */
function emphasised(text) {
  return text.split(/(“[^”]*”)/).map((part) => (part.startsWith("“") ? el("b", { dir: "auto" }, part) : part));
}

function soFar(step) {
  const written = step.word < 0 ? 0 : step.stage === 5 ? step.word + 1 : step.word;
  const chips = [el("span", { class: step.word === 0 && step.stage < 5 ? "begin read" : "begin" }, "‹begin›")];
  for (let t = 0; t < written; t++) {
    const fresh = step.stage === 5 && t === step.word;
    chips.push(el("span", { class: fresh ? "new" : t === written - 1 ? "read" : "", dir: "auto" }, T[t]));
  }
  $("so-far").replaceChildren(...chips);
}

/** Columns of the source's table by kind of model; what is not computed yet is left blank. */
function sourceTable(step) {
  const columns = [], now = steps[Math.max(0, step.word)];
  if (record.recurrent) {
    const states = record.recurrent.states, most = largest(states);
    const whole = (i) => readers.every((order) => order.indexOf(i) <= step.time);
    if (step.stage === 3) columns.push(["weight × state", (i) => strip(states[i], most / now.weights[i], `weight times state of ${S[i]}`), () => true]);
    else columns.push(["encoder state", (i) => strip(states[i], most, `state of ${S[i]}`), (i) => step.word >= 0 || whole(i)]);
    if (record.alignment) {
      columns.push(["score", (i) => two(now.scores[i]), () => step.stage >= 1, "num"]);
      columns.push(["weight", (i) => [bar(now.weights[i]), two(now.weights[i])], () => step.stage >= 2]);
    }
  } else {
    const layers = record.vectors.filter((found) => found.side === "encoder");
    const layer = layers[Math.min(layers.length - 1, step.word < 0 ? step.layer : layers.length - 1)];
    if (layer) {
      const most = largest(layer.strips);
      columns.push([step.word < 0 ? (step.layer ? `after layer ${step.layer}` : "with positions") : "encoder’s last", (i) => strip(layer.strips[i], most, `vector of ${S[i]}`), () => true]);
    }
    if (record.alignment) {
      const weights = record.alignment.weights[Math.max(0, step.word)];
      columns.push([`weight, layer ${record.alignment.layer}`, (i) => [bar(weights[i]), two(weights[i])], () => step.stage >= 3]);
    }
  }
  const focus = step.word < 0 ? step.rows ?? [] : step.stage >= 2 && record.alignment ? [argmax(record.alignment.weights[step.word])] : [];
  const head = el("tr", {}, el("th", { scope: "col" }, "token"), ...columns.map(([name, , , kind]) => el("th", { scope: "col", class: kind }, name)));
  const rows = S.map((word, i) => el("tr", { class: focus.includes(i) ? "now" : "" }, el("th", { scope: "row", dir: "auto" }, word),
    ...columns.map(([, make, ready, kind]) => el("td", { class: kind }, el("span", { class: ready(i) ? "" : "later" }, ...[make(i)].flat())))));
  if (step.stage === 3 && record.recurrent) rows.push(el("tr", { class: "sum" }, el("th", { scope: "row" }, "sum: Cₜ"),
    el("td", {}, strip(now.context, largest(record.recurrent.states), "context Cₜ")), el("td", { class: "num" }), el("td", {}, two(now.weights.reduce((sum, x) => sum + x, 0)))));
  return el("table", { class: "words" }, el("caption", { class: "vh" }, "Source tokens and what the model has made of each"), el("thead", {}, head), el("tbody", {}, ...rows));
}

function insideRecurrent(step) {
  const now = steps[Math.max(0, step.word)], model = record.recurrent, before = settings.context === "bahdanau";
  const previous = step.word > 0 ? steps[step.word - 1].state : model.initial;
  const vectors = [];
  if (settings.context === "fixed") vectors.push(["The one vector: all that is known of the source", model.vector, step.word < 0 ? (step.vector ? 1 : 9) : 0, step.vector]);
  vectors.push([step.word > 0 ? "The last state, hₜ₋₁" : "The decoder’s first state", previous, 0]);
  if (record.alignment && !before) vectors.push(["The new state, hₜ", now.state, 1]);
  if (record.alignment) vectors.push(["The context, Cₜ: weights times encoder states, summed", now.context, 3]);
  if (before || !record.alignment) vectors.push(["The new state, hₜ", now.state, 4]);
  if (record.alignment) vectors.push(["Joined, [hₜ; Cₜ]", [now.state, now.context], 4]);
  vectors.push([record.alignment ? "What the output layer reads, made of these" : "What the output layer reads", now.joined, 4]);
  const list = el("dl", { class: "vectors" });
  for (const [name, vector, stage, fresh] of vectors) {
    const ready = name.startsWith("The one") ? stage < 9 : step.word >= 0 && step.stage >= stage;
    const word = fresh || (ready && step.word >= 0 && stage === step.stage) ? "fresh" : "";
    list.append(el("div", { class: ready ? word : "waiting" },
      el("dt", {}, name), el("dd", {}, ...ready ? [vector].flat().map((part) => strip(part, largest([part]), name)) : [el("span", { class: "strip empty" }, "not yet")])));
  }
  const note = el("p", { class: "small" }, `Of each vector the first ${model.vector.values.length} numbers: blue above zero, orange below, by its own largest.`);
  if (record.alignment) return [list, note];
  return [list, el("p", {}, "This model has no attention: whatever the sentence’s length, the decoder has one vector of it."), note];
}

function insideParallel(step) {
  if (step.word < 0) {
    const weights = of("encoder")[step.layer - 1];
    if (!weights) return [el("p", {}, "Nothing has looked at anything yet: each row stands for its own word alone.")];
    return [el("p", { class: "small" }, `Who looks at whom in encoder layer ${step.layer}, mean of ${weights.heads.length} heads; each head is drawn further down.`),
      heatmap(S.map((_, i) => averaged(weights, i)), { label: `Encoder layer ${step.layer}, mean of heads`, rows: S, columns: S, tight: true })];
  }
  const parts = step.stage === 3 ? of("cross") : of("decoder");
  if (!parts.length) return [el("p", {}, "This model records nothing more of this step.")];
  const words = step.stage === 3 ? S : steps.slice(0, step.word + 1).map((each) => each.read);
  const rows = parts.map((found) => averaged(found, step.word).slice(0, words.length));
  const label = step.stage === 3 ? "over the source" : "over the words so far";
  return [el("p", { class: "small" }, `Where this step looks ${label}, layer by layer, mean of heads.`),
    heatmap(words.map((_, i) => rows.map((row) => row[i])), {
      label: `Attention ${label} by layer`, rows: words, columns: parts.map((found) => `layer ${found.layer}`), tight: true,
      invites: "Rows are tokens, columns layers; stronger colour is more.",
      says: (i, j) => `In layer ${parts[j].layer} this step looks at ${quoted(words[i])} with weight ${rows[j][i].toFixed(4)}.` })];
}

function likely(step) {
  const now = steps[Math.max(0, step.word)], chosen = record.target.ids[Math.max(0, step.word)], ready = step.stage === 5;
  const items = now.likely.map((each) => el("li", { class: each.id === chosen ? "chosen" : "" },
    el("span", { dir: "auto" }, each.piece, each.id === chosen ? el("span", { class: "vh" }, " (chosen)") : null), bar(each.p), el("span", {}, percent(each.p))));
  const fed = step.word === steps.length - 1 ? "The end token stops the search." : `Fed back: ${quoted(now.chosen)}.`;
  if (!ready) return [el("p", { class: "small" }, "Comes last: a softmax over the whole vocabulary.")];
  return [el("ol", { class: "likely" }, ...items), el("p", { class: "small" }, fed)];
}

function go(to) {
  at = Math.max(0, Math.min(all.length - 1, to));
  draw();
}
const nextWord = () => { const found = all.findIndex((step, i) => i > at && step.word !== all[at].word); return found < 0 ? all.length - 1 : found; };
const lastWord = () => { const here = all.findIndex((step) => step.word === all[at].word); return here < at ? here : all.findIndex((step) => step.word === all[Math.max(0, here - 1)].word); };

function startPlayer() {
  $("player-lead").textContent = record.recurrent
    ? `First the encoder ${reading()}; then the decoder writes the translation, each word fed back until the end token.`
    : record.model.kind === "other" ? "First the encoder reads the source; then the decoder writes the translation, each word fed back until the end token."
    : "First all source tokens go through the encoder at once, layer by layer; then the decoder writes the translation, each word fed back until the end token.";
  const moves = { first: () => 0, back: () => at - 1, next: () => at + 1, last: () => all.length - 1, "word-next": nextWord, "word-back": lastWord };
  for (const [id, move] of Object.entries(moves)) $(id).onclick = () => go(move());
  $("slider").oninput = () => go(Number($("slider").value));
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.target.closest("input, .scroll, summary")) return;
    const inside = event.target.closest("#player");
    const keys = { ArrowLeft: moves.back, ArrowRight: moves.next, ...(inside && { Home: moves.first, End: moves.last, PageUp: lastWord, PageDown: nextWord }) };
    if (!keys[event.key]) return;
    event.preventDefault();
    go(keys[event.key]());
  });
  draw();
}
