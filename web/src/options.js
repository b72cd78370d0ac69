// Decoding options: the model's own with what is asked for in their place. Greedy is what is done
// here; an option that asks for anything else is refused by its name, and never ignored.

import { BadOption, BadPrompt, shown } from "./errors.js";
import { isObject } from "./facts.js";
import { near } from "./words.js";

const MOST_TOKENS = 2 ** 31 - 1;
const MOST_STOPS = 16;
const LONGEST_STOP = 256; // characters

const whole = (least, most = MOST_TOKENS) => (value) =>
  Number.isInteger(value) && least <= value && value <= most ? "" : `a whole number of ${least} or more`;
const flag = (value) => (typeof value === "boolean" ? "" : "true or false");
const text = (value) => (typeof value === "string" ? "" : "a text");
const ids = (value) =>
  Array.isArray(value) && value.every((id) => Number.isInteger(id) && id >= 0) ? "" : "a list of tokens";
const factor = (value) =>
  Number.isFinite(value) && 1e-6 <= value && value <= 1e6 ? "" : "a number from 1e-6 to 1e6";
const seconds = (value) =>
  Number.isFinite(value) && 0 < value && value <= 86_400 ? "" : "above 0 and at most 86400, a day";
const texts = (value) =>
  Array.isArray(value) &&
  value.length <= MOST_STOPS &&
  value.every((s) => typeof s === "string" && s.length && s.length <= LONGEST_STOP)
    ? ""
    : `up to ${MOST_STOPS} texts of 1 to ${LONGEST_STOP} characters`;

/** Options of how tokens are chosen, with their defaults, under transformers' names. */
const DECODING = {
  max_new_tokens: [200, whole(1)],
  max_length: [null, whole(1)], // counts the prompt; replaces max_new_tokens where it is set
  min_new_tokens: [null, whole(0)], // replaces min_length where it is set
  min_length: [0, whole(0)], // counts the prompt
  repetition_penalty: [1, factor],
  repetition_window: [0, whole(0)], // new tokens that the penalty sees; 0: all, and the prompt's
  no_repeat_ngram_size: [0, whole(0)],
  suppress_tokens: [[], ids],
  begin_suppress_tokens: [[], ids],
};

/** Options of how clips and prompts are taken. */
const INPUTS = {
  truncate: [false, flag], // only the first window of a longer clip
  max_audio_seconds: [3600, seconds],
  verbatim: [false, flag], // a prompt is text, even where it is a task's name
  language: ["", text], // code of the one to answer in
  show_thinking: [false, flag], // stream what a model thinks before its answer too
  stop: [[], texts], // texts of which the first ends the answer
  system: ["", text], // a message before the conversation
};

/** What is not done here, by its name, and the values that ask for nothing. */
const REFUSED = {
  num_beams: [1],
  do_sample: [false],
  temperature: [0], // any other value asks for sampling, as in Python
  top_k: [],
  top_p: [],
  min_p: [],
  top_h: [],
  typical_p: [],
  epsilon_cutoff: [],
  eta_cutoff: [],
  seed: [],
  sequence_bias: [],
  encoder_repetition_penalty: [1],
  encoder_no_repeat_ngram_size: [0],
  bad_words_ids: [],
  forced_bos_token_id: [],
  forced_eos_token_id: [],
  remove_invalid_values: [false],
  exponential_decay_length_penalty: [],
  watermarking_config: [],
  renormalize_logits: [false],
  delay: [],
  merge_audio: [100],
  gate: [false],
  joins: ["exact"],
  hypothesis: [""],
  adapter: [""],
  schema: [],
  grammar: [],
  regex: [],
};

// Of the model's own options: heeded by sampling alone, or by beams alone.
const SAMPLING = [
  ...["temperature", "top_k", "top_p", "min_p"],
  ...["top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"],
];
const BEAMS = { length_penalty: [1], early_stopping: [false] };

const NOT_HERE = { ...REFUSED, ...BEAMS };

const asksNothing = (value, neutral) =>
  value === null || value === undefined || neutral.includes(value) || value?.length === 0;

/**
 * How a call decodes and takes its inputs.
 * @param {Record<string, unknown>} defaults the manifest's `generation`
 * @param {Record<string, unknown>} given what is asked for; null and undefined are not given
 */
export function choose(defaults, given) {
  if (!isObject(given)) throw new BadOption(`options are an object, not ${shown(given)}`);
  const asked = Object.fromEntries(Object.entries(given).filter(([, value]) => value != null));
  refuseGiven(asked);
  refuseDefaults(defaults, asked);
  const chosen = {};
  for (const [name, [value, check]] of Object.entries({ ...DECODING, ...INPUTS })) {
    const own = Object.hasOwn(DECODING, name) ? (defaults[name] ?? value) : value;
    const taken = Object.hasOwn(asked, name) ? asked[name] : own;
    const wanted = taken === null ? "" : check(taken);
    if (wanted) throw new BadOption(`${name} must be ${wanted}, not ${shown(taken)}`);
    chosen[name] = taken;
  }
  if ("max_new_tokens" in asked) {
    chosen.max_length = null;
    if (!("min_new_tokens" in asked) && chosen.min_new_tokens !== null) {
      chosen.min_new_tokens = Math.min(chosen.min_new_tokens, chosen.max_new_tokens);
    }
  }
  if ("min_length" in asked && !("min_new_tokens" in asked)) chosen.min_new_tokens = null;
  if (chosen.max_length === null && (chosen.min_new_tokens ?? 0) > chosen.max_new_tokens) {
    throw new BadOption(
      `min_new_tokens ${chosen.min_new_tokens} is more than max_new_tokens ${chosen.max_new_tokens}`,
    );
  }
  return chosen;
}

function refuseGiven(asked) {
  for (const [name, value] of Object.entries(asked)) {
    if (Object.hasOwn(NOT_HERE, name)) {
      if (asksNothing(value, NOT_HERE[name])) continue;
      throw new BadOption(`${name} is not done in a browser, where decoding is greedy; leave it out`);
    }
    if (Object.hasOwn(DECODING, name) || Object.hasOwn(INPUTS, name)) continue;
    const known = [...Object.keys(DECODING), ...Object.keys(INPUTS), ...Object.keys(REFUSED)];
    const meant = near(name, known);
    const hint = meant ? `did you mean ${meant}?` : `there is: ${known.slice(0, 16).join(", ")}`;
    throw new BadOption(`unknown option ${shown(name)}; ${hint}`);
  }
}

/** Refuse defaults of the model that are not done here, unless greedy is asked for in their place. */
function refuseDefaults(defaults, asked) {
  for (const [name, value] of Object.entries(defaults)) {
    if (SAMPLING.includes(name) || Object.hasOwn(BEAMS, name) || Object.hasOwn(DECODING, name)) continue;
    const neutral = Object.hasOwn(REFUSED, name) ? REFUSED[name] : null;
    if (!neutral) throw new BadOption(`the model's own option ${shown(name)} is not known here`);
    const instead = Object.hasOwn(asked, name) || (name === "do_sample" && asked.temperature === 0);
    if (instead || asksNothing(value, neutral)) continue;
    const greedy = { num_beams: "num_beams: 1", do_sample: "do_sample: false" }[name];
    throw new BadOption(
      `this model's own ${name} is ${shown(value)}, which is not done in a browser` +
        (greedy ? `; for a greedy answer ask with ${greedy}` : ""),
    );
  }
}

/**
 * New tokens of an answer, at most, for a prompt of so many positions.
 * @param {ReturnType<typeof choose>} options
 */
export function most(options, prompt) {
  if (options.max_length === null) return options.max_new_tokens;
  if (options.max_length <= prompt) {
    throw new BadPrompt(
      `the prompt is ${prompt} tokens long with its audio, and max_length ${options.max_length} ` +
        "counts it too; ask for max_new_tokens instead",
    );
  }
  return options.max_length - prompt;
}

/** New tokens before which no EOS token may come. */
export const least = (options, prompt) =>
  options.min_new_tokens ?? Math.max(0, options.min_length - prompt);

/** The same options for at most `room` new tokens. */
export function within(options, room, prompt) {
  const fits = Math.min(room, most(options, prompt));
  const least = options.min_new_tokens === null ? null : Math.min(options.min_new_tokens, fits);
  return { ...options, max_new_tokens: fits, max_length: null, min_new_tokens: least };
}
