/** The search as a tree from left to right: every hypothesis that was in the beam at some step. */
function drawBeam(section) {
  const { size, nodes, finished, length_penalty: alpha, length_normalization: kind } = record.beam;
  const formula = { gnmt: `divided by ((5 + length) / 6) to the power of ${alpha}`, average: `divided by length to the power of ${alpha}`, reward: `plus ${alpha} for each token` }[kind];
  section.append(el("p", { class: "lead" }, size > 1
    ? `The decoder kept the ${size} likeliest beginnings at each step (a beam of ${size}). Under a word stands its log-probability with all before it; grey ones were given up.`
    : "The decoder took the likeliest word at each step (greedy search). Under a word stands its log-probability with all before it."));
  section.append(scrolling("The beam as a tree; a table follows", treePicture(nodes, finished)));
  const rows = finished.map((found, rank) => el("tr", {}, el("td", { class: "num" }, String(rank + 1)), el("th", { scope: "row", dir: "auto" }, found.text || "(nothing)"),
    el("td", { class: "num" }, two(found.log_prob)), el("td", { class: "num" }, found.score.toFixed(3).replace("-", "−"))));
  section.append(scrolling("Translations found", el("table", { class: "finished" }, el("caption", { class: "vh" }, "Translations found, best first"),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Rank"), el("th", { scope: "col" }, "Translation"), el("th", { scope: "col", class: "num" }, "log-probability"), el("th", { scope: "col", class: "num" }, "score"))),
    el("tbody", {}, ...rows))));
  section.append(el("p", { class: "note" }, `The score is the log-probability ${formula}, so that longer translations are not at a disadvantage.`));
  section.append(stepsInWords(nodes));
}

function treePicture(nodes, finished) {
  const children = nodes.map(() => []), roots = [];
  nodes.forEach((node, i) => (node.parent < 0 ? roots : children[node.parent]).push(i));
  const best = new Set(), found = new Set();
  finished.forEach(({ node }, rank) => { for (let i = node; i >= 0; i = nodes[i].parent) { found.add(i); if (rank === 0) best.add(i); } });
  const worth = (i) => (best.has(i) ? 2 : found.has(i) ? 1 : 0);
  const better = (a, b) => worth(b) - worth(a) || nodes[b].log_prob - nodes[a].log_prob;
  // A node's best child is in the same row. Every other child starts a branch in the nearest row below that is free from there on; late
  // branches first, so that lines do not cross.
  const row = [], taken = [];
  const chainOf = (i) => { const chain = [i]; for (let next; (next = children[chain.at(-1)].sort(better)[0]) !== undefined;) chain.push(next); return chain; };
  const place = (i, above) => {
    const chain = chainOf(i), from = nodes[i].step - 1, to = nodes[chain.at(-1)].step;
    let here = above + 1;
    while ((taken[here] ??= []).some(([a, b]) => a <= to && from <= b)) here++;
    taken[here].push([from, to]);
    for (const node of chain) row[node] = here;
    for (const node of [...chain].reverse()) children[node].slice(1).forEach((child) => place(child, here));
  };
  roots.sort(better).forEach((root, rank) => place(root, rank ? 0 : -1));
  const rows = taken.length;
  const depth = Math.max(0, ...nodes.map((node) => node.step)) + 1;
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = `700 13px ${getComputedStyle(document.body).fontFamily}`;
  const wideOf = (piece) => Math.max(46, Math.ceil(pen.measureText(piece).width) + 16);
  const left = [], high = 38, start = wideOf("‹begin›"), gap = 26;
  let width = start + 4;
  for (let step = 0; step < depth; step++) {
    left[step] = width + gap;
    width = left[step] + Math.max(...nodes.filter((node) => node.step === step).map((node) => wideOf(node.piece)));
  }
  const height = rows * high + 8;
  const drawn = nodes.map((node, i) => {
    const x = left[node.step], y = row[i] * high + 6, wide = wideOf(node.piece), parent = nodes[node.parent];
    const from = parent ? [left[parent.step] + wideOf(parent.piece), row[node.parent] * high + 21] : [start + 4, 21];
    const middle = x - 13;
    return svg("g", { class: best.has(i) ? "best" : found.has(i) ? "found" : "lost" },
      svg("path", { class: "edge", d: `M${from[0]} ${from[1]}H${middle - 8}C${middle} ${from[1]} ${middle} ${y + 15} ${x} ${y + 15}` }),
      svg("rect", { class: "box", x, y, width: wide, height: 31, rx: 6 }),
      svg("text", { x: x + 7, y: y + 14 }, node.piece), svg("text", { class: "p", x: x + 7, y: y + 26 }, two(node.log_prob)));
  });
  drawn.sort((a, b) => a.classList.contains("best") - b.classList.contains("best"));
  return svg("svg", { width: width + 4, height, viewBox: `0 0 ${width + 4} ${height}`, role: "img", "aria-label": `A tree of ${nodes.length} hypotheses over ${depth} steps; the best reads ${record.translation}` },
    svg("g", { class: "best" }, svg("rect", { class: "box", x: 4, y: 6, width: start, height: 31, rx: 6 }), svg("text", { x: 12, y: 26 }, "‹begin›")), ...drawn);
}

function stepsInWords(nodes) {
  const depth = Math.max(0, ...nodes.map((node) => node.step)) + 1;
  const prefix = (i) => (i < 0 ? "" : `${prefix(nodes[i].parent)} ${nodes[i].piece}`);
  const lists = Array.from({ length: depth }, (_, step) => {
    const here = nodes.map((node, i) => [node, i]).filter(([node]) => node.step === step).sort((a, b) => b[0].log_prob - a[0].log_prob);
    return el("li", {}, `After step ${step + 1}`, el("ul", {}, ...here.map(([node, i]) => el("li", { dir: "auto" }, `${prefix(i).trim()} (${two(node.log_prob)})`))));
  });
  return el("details", {}, el("summary", {}, "The same tree in words"), el("ol", {}, ...lists));
}
