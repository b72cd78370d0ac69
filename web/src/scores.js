// Logits to a token: what changes scores before the highest is chosen, as transformers does it.

import { BadArtifacts, BadOption } from "./errors.js";
import { least } from "./options.js";

/**
 * The next token.
 * @param {Float32Array} logits [vocab]; changed in place
 * @param {object} options of `choose`
 * @param {number[]} eos tokens that end an answer
 * @param {{length: number, ids: number[]}} prompt its positions, and its ids where penalties see them
 * @param {number[]} said the new tokens so far
 */
export function next(logits, options, eos, prompt, said) {
  let highest = -Infinity;
  for (const score of logits) {
    if (Number.isNaN(score) || score === Infinity) highest = NaN;
    else if (score > highest) highest = score;
  }
  if (!Number.isFinite(highest)) {
    throw new BadArtifacts(
      "the decoder gave logits that are not finite numbers: its weights are damaged, or it " +
        "overflows in this precision; export it again, or in a wider precision",
    );
  }
  const ids = [...prompt.ids, ...said];
  const penalty = options.repetition_penalty;
  if (penalty !== 1) penalize(logits, repeated(options.repetition_window, ids, said), penalty);
  const size = options.no_repeat_ngram_size;
  if (size) forbid(logits, after(ids, size));
  if (said.length < least(options, prompt.length)) forbid(logits, eos);
  forbid(logits, options.suppress_tokens);
  if (!said.length) forbid(logits, options.begin_suppress_tokens);
  return likeliest(logits);
}

/** The tokens that the penalty sees; with a window the last new ones, once there are more. */
function repeated(window, ids, said) {
  if (!window) return new Set(ids);
  return new Set(said.length > window ? said.slice(-window) : []);
}

function penalize(logits, tokens, penalty) {
  const factor = Math.fround(penalty);
  for (const token of tokens) {
    if (token >= logits.length) continue;
    logits[token] = logits[token] < 0 ? logits[token] * factor : logits[token] / factor;
  }
}

/** The tokens that would make the last of `ids` an n-gram that was said before. */
function after(ids, size) {
  const found = [];
  if (ids.length < size) return found;
  const last = ids.slice(ids.length + 1 - size);
  for (let at = 0; at + size <= ids.length; at++) {
    if (last.every((id, i) => ids[at + i] === id)) found.push(ids[at + size - 1]);
  }
  return found;
}

function forbid(logits, tokens) {
  for (const token of tokens) if (token < logits.length) logits[token] = -Infinity;
}

function likeliest(logits) {
  let token = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i] > logits[token]) token = i;
  if (logits[token] === -Infinity) {
    throw new BadOption("the options forbid every token; loosen suppress_tokens or no_repeat_ngram_size");
  }
  return token;
}
