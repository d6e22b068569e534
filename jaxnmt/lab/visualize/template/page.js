/** Builds the page. */
const NOTES = [
  ["attention", "“The scores are summed up”: no. Scores become weights by a softmax, and the weights multiply the states (in a Transformer, the value vectors); the sum of these is the context."],
  ["heads", "“The heads are averaged”: no. Each head’s result is a vector of its own; they are concatenated and projected by a matrix. Where this page averages heads, it is for the eye alone."],
  ["heads", "“The mask removes words”: it adds minus infinity to their scores before the softmax, so that their weights are exactly zero."],
  ["attention", "“Attention is an alignment”: it often resembles one, but it is trained to predict the next word; a weight may rest on the end token, or one word late."],
  ["all", "“Decoding starts from nothing”: it starts from a begin token, and ends when an end token is chosen."],
  ["all", "“The likeliest word is taken”: a beam search keeps several beginnings, and may choose a less likely word for the sake of the whole."],
];

function about() {
  const s = settings, kind = record.model.kind;
  const cell = { rnn: "plain recurrent", gru: "GRU", lstm: "LSTM", layernorm_lstm: "layer-normalised LSTM" }[s.cell];
  const context = { fixed: "one fixed vector, no attention", bahdanau: "Bahdanau’s attention", luong: `Luong’s attention (${s.score}${s.window ? ", local" : ""})` }[s.context];
  const layers = (n) => `${n} layer${n === 1 ? "" : "s"}`;
  const model = kind === "transformer" ? `Transformer, ${s.num_encoder_layers} + ${layers(s.num_decoder_layers)}, ${s.num_heads} heads, width ${s.emb_dim}`
    : kind === "recurrent" ? `${s.encoder === "bag" ? "bag-of-words encoder" : `${cell} encoder, ${layers(s.num_encoder_layers)}`}; ${cell} decoder, ${layers(s.num_decoder_layers)}; ${context}`
    : record.model.name;
  return `${model} · run ${record.run}, ${record.checkpoint} · ${S.length - 1} source and ${T.length - 1} target tokens · score ${two(record.score)}`;
}

$("about").textContent = about();
startPlayer();
drawAlignment($("alignment"));
drawHeads($("heads"));
drawBeam($("beam"));
const has = { all: true, attention: record.attention.length > 0, heads: record.attention.some((found) => found.heads.length > 1) };
$("plain-notes").append(...NOTES.filter(([about]) => has[about]).map(([, note]) => el("li", {}, note)));
$("footer").textContent = "Made by jaxnmt visualize. Everything on this page is inside this one file; it asks nothing of the network. Every number was computed by the model for this sentence.";
