/** The steps of the player and their sentences: a list of {word (-1: the source is being read), name, say, …} by kind of model. */
const bag = settings.encoder === "bag";
/** The source's places in the order in which the encoder reads them, one list for each of its readers; a state is complete once all have read its word. */
const readers = record.recurrent?.readers ?? [];

/** How the encoder goes through the source, for the sentence above the player. */
function reading() {
  if (bag) return "takes each source token by itself";
  if (readers.length > 1) return "reads the source token by token, in both directions";
  return `reads the source token by token${settings.reverse_source ? ", the last word first and the end token after all words" : ""}`;
}

/** What the encoder does after `time` steps: in each step, a reader reads the next word of its order. */
function read(time) {
  const rows = [...new Set(readers.map((order) => order[time]))], words = rows.map((i) => quoted(S[i]));
  const size = record.recurrent.states[0].size, deep = settings.num_encoder_layers > 1;
  if (bag) return `${words[0]} goes through one layer by itself; the encoder has no order and no memory.`;
  if (readers.length === 1) return settings.bidirectional === "none"
    ? `The encoder reads ${words[0]} and makes a state of ${size} numbers, which carries what it has read so far.`
    : `The encoder’s top layer reads ${words[0]} and makes a state of ${size} numbers, which carries what it has read so far and, as the bottom layer reads in both directions, what is still to come.`;
  const whole = S.filter((_, i) => readers.every((order) => order.indexOf(i) <= time)).length;
  return `${deep ? "In the encoder’s top layer, as in those below it, two" : "Two"} readers go through the source in opposite directions: ${rows.length > 1 ? `one reads ${words[0]}, the other ${words[1]}` : `both read ${words[0]}`}. Each makes half of a token’s state of ${size} numbers; ${whole} of ${S.length} states are whole.`;
}

function recurrentSteps() {
  const context = settings.context, vector = record.recurrent.vector, name = `reading the source${settings.reverse_source && readers.length === 1 && !bag ? ", last word first" : ""}`;
  const found = S.map((_, time) => ({ word: -1, time, rows: readers.map((order) => order[time]), name, say: read(time) }));
  if (context === "fixed") found.push({
    word: -1, time: S.length - 1, rows: bag ? [] : readers.map((order) => order.at(-1)), name: "the one vector", vector: true,
    say: `${bag ? "The mean of the words is" : readers.length > 1 ? "Both readers’ last states, joined, are" : "The encoder’s last state is"} one vector of ${vector.size} numbers: all that the decoder will ever know of the ${S.length - 1} source tokens. This model has no attention.`,
  });
  steps.forEach((step, t) => found.push(...(context === "fixed" ? fixedSteps : attentiveSteps)(step, t)));
  return found;
}

function fixedSteps(step, t) {
  const fed = settings.input_feeding ? ", the one vector" : "";
  return [
    { word: t, stage: 4, name: "new state", say: `The decoder reads ${quoted(step.read)}: its new state h is made of the last state${fed} and this word. It looks back at no source word.` },
    { word: t, stage: 5, name: "next word", say: choice(step, t) },
  ];
}

function attentiveSteps(step, t) {
  const before = settings.context === "bahdanau", asks = before ? "The last state hₜ₋₁" : "The new state hₜ";
  const best = argmax(step.scores);
  const moved = before ? `The word read is ${quoted(step.read)}.` : `The decoder reads ${quoted(step.read)} and moves to its new state hₜ.`;
  const joined = before
    ? `The new state hₜ is made of the last state, the word read and the context. State, word and context are joined, [hₜ; y; Cₜ], and go through one layer.`
    : `State and context are joined, [hₜ; Cₜ], and go through one layer with a tanh.${settings.input_feeding ? " The result is also fed to the next step." : ""}`;
  return [
    { word: t, stage: 1, name: "scores", say: `${moved} ${asks} is compared with every encoder state; the best score, ${two(step.scores[best])}, has ${quoted(S[best])}.` },
    { word: t, stage: 2, name: "softmax", say: settings.window
      ? `The softmax turns the scores within ${settings.window} words of a predicted place into weights, and a bell curve around that place shrinks them: ${strongest(step.weights, S)}.`
      : `The softmax turns scores into weights above zero that sum to one: ${strongest(step.weights, S)}.` },
    { word: t, stage: 3, name: "weighted sum", say: "Each encoder state is multiplied by its weight, and all are added up: the context vector Cₜ. The weights multiply the states, not the scores." },
    { word: t, stage: 4, name: "joined", say: joined },
    { word: t, stage: 5, name: "next word", say: choice(step, t) },
  ];
}

function parallelSteps() {
  const encoder = of("encoder"), decoder = of("decoder"), cross = of("cross"), hidden = causal();
  const inputs = record.vectors.filter((found) => found.side === "encoder");
  const found = [record.model.kind === "other" && !encoder.length ? {
    word: -1, layer: 0, name: "the source",
    say: `The encoder reads ${S.length} source tokens. This page shows only the attention that the model records.`,
  } : {
    word: -1, layer: 0, name: "words become vectors",
    say: `All ${S.length} source tokens enter at once. Each is a vector${settings.positions && settings.positions !== "none" ? `, and its position in the sentence is added (${settings.positions} positions)` : ""}.`,
  }];
  const layers = Math.max(encoder.length, inputs.filter((layer) => layer.name).length);
  for (let layer = 1; layer <= layers; layer++) {
    const weights = encoder[layer - 1];
    found.push({
      word: -1, layer, name: `encoder layer ${layer}`,
      say: weights
        ? `Encoder layer ${layer}: every word looks at every word, in ${weights.heads.length} heads at once. Of its attention a word keeps ${percent(mean(weights.itself.map((x) => [x]))[0])} for itself, on average over heads; what the heads gather is concatenated and projected, then goes through a feed-forward layer.`
        : `Encoder layer ${layer}: every word’s vector is made anew.`,
    });
  }
  steps.forEach((step, t) => {
    const last = decoder.at(-1);
    if (last) found.push({
      word: t, stage: 1, name: hidden ? "masked self-attention" : "self-attention",
      say: `The decoder reads ${quoted(step.read)} and looks at the ${t ? `${t + 1} tokens` : "one token"} it has so far${hidden ? "; the mask hides what comes later" : ""}. In its last layer it looks at ${strongest(averaged(last, t), steps.map((each) => each.read))}.`,
    });
    if (cross.length) found.push({
      word: t, stage: 3, name: "attention over the source",
      say: `Now it looks at the source, in ${cross.length > 1 ? `each of ${cross.length} layers` : "one layer"}. In layer ${record.alignment.layer}: ${strongest(record.alignment.weights[t], S)}. The weights multiply the words’ value vectors, which are summed, head by head.`,
    });
    found.push({ word: t, stage: 5, name: "next word", say: choice(step, t) });
  });
  return found;
}

/** The last step of each word: which word, its probability, and what happens to it. */
function choice(step, t) {
  const first = step.likely[0];
  const likeliest = first.id === record.target.ids[t]  // by id: two tokens may have the same text
    ? `${quoted(step.chosen)} is likeliest, with probability ${two(step.p)}.`
    : `${quoted(first.piece)} is likeliest here (${two(first.p)}), but the beam search keeps ${quoted(step.chosen)} (${two(step.p)}): the sentence as a whole scores better.`;
  if (t === steps.length - 1) return `${likeliest} It is the end: the translation is finished.`;
  return `${likeliest} It is written down, and fed back as the next word to read.`;
}
