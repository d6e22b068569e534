/**
 * Weights as a table whose cells are darker the larger they are: rows are queries, columns are keys.
 * `options`: label, rows, columns; tight: smaller cells; masked(row, column): whether a cell is masked; says(row, column): the sentence for the line
 * below; invites: what stands there before.
 */
function heatmap(weights, options) {
  const { rows, columns } = options;
  const readout = el("p", { class: "readout" }, options.invites || "Point at a cell, or tap it, to read its weight.");
  const head = el("tr", {}, el("td"), ...columns.map((word) => el("th", { scope: "col" }, el("span", { dir: "auto" }, word))));
  const body = weights.map((row, i) => el("tr", {}, el("th", { scope: "row", dir: "auto" }, rows[i]), ...row.map((weight, j) => {
    const masked = options.masked && options.masked(i, j);
    const depth = masked ? "c masked" : weight > 0.78 ? "c deep" : weight > 0.53 ? "c mid" : "c";
    const shown = masked ? "not seen" : weight >= 0.995 ? "1" : two(weight).slice(1);
    return el("td", { class: depth, style: `--w:${Math.min(1, weight)}`, "data-row": i, "data-column": j },
      el("span", { class: masked || weight < 0.005 ? "vh always" : "vh" }, masked || weight < 0.005 ? (masked ? shown : "0") : shown));
  })));
  const table = el("table", { class: options.tight ? "heat tight" : "heat" },
    el("caption", { class: "vh" }, options.label), el("thead", {}, head), el("tbody", {}, ...body));
  const show = (event) => {
    const cell = event.target.closest("td.c");
    if (!cell) return;
    const [i, j] = [Number(cell.dataset.row), Number(cell.dataset.column)];
    readout.textContent = options.says ? options.says(i, j) : options.masked && options.masked(i, j)
      ? `${quoted(rows[i])} cannot see ${quoted(columns[j])}: it comes later, and the mask hides it.`
      : `${quoted(rows[i])} looks at ${quoted(columns[j])} with weight ${weights[i][j].toFixed(4)}.`;
  };
  table.addEventListener("pointerover", show);
  table.addEventListener("click", show);
  return el("div", {}, scrolling(options.label, table), readout);
}

/** A checkbox that shows the numbers in a heatmap's cells. */
function numbersToggle(holder) {
  const box = el("input", { type: "checkbox", onchange: () => holder.classList.toggle("numbers", box.checked) });
  return el("label", { class: "toggle" }, box, "Numbers in the cells");
}

function drawAlignment(section) {
  const found = record.alignment;
  if (!found) {
    section.append(el("p", { class: "lead" }, record.recurrent
      ? "This model has no attention. All that its decoder knows of the sentence is one vector, so no word can look at another: there is nothing to draw here, and that is its weakness on long sentences."
      : "This model records no attention over the source."));
    return;
  }
  section.append(el("p", { class: "lead" },
    "Each row is a word of the translation; the stronger a cell’s colour, the more the model looked at that source word when it wrote it."
    + (found.name ? ` This is ${found.name}.` : "")));
  const holder = el("div", { class: "panel" });
  const pieces = () => holder.replaceChildren(heatmap(found.weights, {
    label: "Attention of each target token over the source tokens", rows: T, columns: S }));
  const words = () => holder.replaceChildren(heatmap(found.words, {
    label: "Attention of each target word over the source words", rows: record.target.words, columns: record.source.words }));
  const divided = S.length - 1 > record.source.words.length || T.length - 1 > record.target.words.length;
  const whole = el("input", { type: "checkbox", onchange: () => (whole.checked ? words : pieces)() });
  section.append(numbersToggle(holder));
  pieces();
  section.append(el("label", { class: "toggle" }, whole, divided ? "Whole words instead of pieces" : "Without the end"), holder);
  const sums = found.weights.map((row) => row.reduce((sum, x) => sum + x, 0));
  section.append(el("p", { class: "note" }, sums.every((sum) => Math.abs(sum - 1) < 1e-3)
    ? "Each row sums to one over the source and its end."
    : "Rows sum to less than one: this attention is local, and its weights fade with the distance from the place that it predicts (Luong et al. 2015, equation 10)."));
  if (divided) section.append(el("p", { class: "note" }, "A dot begins a piece that continues a word, ␣ a sign that has a space before it. For whole words, weights are summed over a source word’s pieces and averaged over a target word’s."));
}
