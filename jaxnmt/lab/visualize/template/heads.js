/** Small pictures of every layer and head, and one large. */
const PARTS = {
  encoder: ["The encoder’s self-attention", "Every source word looks at every source word, itself included."],
  decoder: causal()
    ? ["The decoder’s masked self-attention", "Every word read so far looks at itself and those before it; the mask hides what comes later."]
    : ["The decoder’s self-attention, without a mask", "Every word looks at all others: when such a model is trained, it can see the answer."],
  cross: ["Attention over the source", "Every word to be written looks at the source: this is where the two languages meet."],
};

function drawHeads(section) {
  if (record.attention.length < 2 && (record.attention[0]?.heads.length ?? 0) < 2) return;
  section.hidden = false;
  section.append(el("p", { class: "lead" }, "A head is one way of looking: it has weights of its own, and each layer has several. Choose one to enlarge it; stronger colour is more."));
  for (const [part, [title, explained]] of Object.entries(PARTS)) {
    if (of(part).length) section.append(drawPart(part, title, explained));
  }
}

function drawPart(part, title, explained) {
  const large = el("div", { class: "large panel" }), minis = el("div", {}), buttons = [];
  const heading = `heads-${part}`;
  for (const found of of(part)) {
    const row = el("div", { class: "minis" });
    found.heads.forEach((head, h) => {
      const share = found.itself ? `itself ${percent(found.itself[h])}` : "";
      const canvas = el("canvas", { width: head[0].length, height: head.length, "aria-hidden": "true" });
      const button = el("button", { type: "button", class: "mini", "aria-pressed": "false", onclick: () => { enlarge(button, found, h); large.scrollIntoView({ block: "nearest" }); } },
        canvas, el("span", {}, el("span", { class: "vh" }, `Layer ${found.layer}, `), `head ${h + 1}`), share ? el("span", { class: "small" }, share) : null);
      button.paint = () => paint(canvas, head);
      button.paint();
      buttons.push(button);
      if (buttons.length === 1) enlarge(button, found, h);
      row.append(button);
    });
    minis.append(el("div", { class: "layer" }, el("h4", {}, `Layer ${found.layer}${layerShare(found)}`), row));
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => buttons.forEach((button) => button.paint()));

  function enlarge(button, found, h) {
    for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
    const rows = part === "encoder" ? S : part === "decoder" ? steps.map((step) => step.read) : T;
    const columns = part === "decoder" ? rows : S;
    const first = part === "decoder" && masked(found) ? "The first row, which can look nowhere but at itself, is not counted." : "The first row, which has none before it, is not counted for the latter.";
    const shares = found.itself ? ` On average ${percent(found.itself[h])} of the weight lies on the word itself and ${percent(found.previous[h])} on the one before it. ${first}` : "";
    const label = `${title}, layer ${found.layer}, head ${h + 1}`;
    const picture = el("div", {}, heatmap(found.heads[h], { label, rows, columns, tight: true, masked: part === "decoder" && causal() ? (i, j) => j > i : null }));
    large.replaceChildren(el("h4", {}, `Layer ${found.layer}, head ${h + 1}`), el("p", { class: "small" }, `Rows look, columns are looked at.${shares}`), numbersToggle(picture), picture);
  }
  return el("section", { class: "part", "aria-labelledby": heading }, el("h3", { id: heading }, title), el("p", {}, explained), el("div", { class: "with-large" }, minis, large));
}

const layerShare = (found) => (found.itself ? ` · on the word itself ${percent(found.itself.reduce((a, b) => a + b, 0) / found.itself.length)}` : "");

/** One pixel per weight. */
function paint(canvas, head) {
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--accent");
  head.forEach((row, i) => row.forEach((weight, j) => {
    pen.globalAlpha = Math.min(1, weight);
    pen.fillRect(j, i, 1, 1);
  }));
}
