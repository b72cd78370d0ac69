// The facts that a manifest may state, as runtime/alm/facts.py declares them; a test compares both.

import { BadArtifacts, shown } from "./errors.js";

const MOST_ENTRIES = 4096; // of a list

/** A whole number from `least` to `most`; one whose default is null may be null. */
const whole = (value, least, most) => ({ kind: "whole", value, least, most });
const flag = () => ({ kind: "flag", value: false });
/** A text; with `words` one of those, or "" where that is the default. */
const text = (value = "", words = []) => ({ kind: "text", value, words });
const texts = () => ({ kind: "texts", value: [] });
const ids = (least, most) => ({ kind: "ids", value: [], least, most });
const names = () => ({ kind: "names", value: {} });
const needed = (fact) => ({ ...fact, needed: true });

/** Section -> fact -> its declaration. */
export const FACTS = {
  dimensions: {
    hidden: needed(whole(0, 1, 2 ** 18)),
    vocab: needed(whole(0, 1, 2 ** 24)),
    table: whole(null, 1, 2 ** 24),
    layers: whole(0, 0, 10_000),
    heads: whole(0, 0, 100_000),
    kv_heads: whole(0, 0, 100_000),
    head_dim: whole(0, 0, 100_000),
    experts: whole(null, 1, 100_000),
    active_experts: whole(null, 1, 100_000),
    context: needed(whole(0, 1, 2 ** 24)),
    audio_tokens: whole(null, 0, 2 ** 24),
    rope_grows_past: whole(null, 0, 2 ** 24),
    rope_switches_past: whole(null, 0, 2 ** 24),
    rope_doubles_past: whole(null, 1, 2 ** 24),
  },
  audio: {
    rate: needed(whole(0, 1, 768_000)),
    channel: needed(text("first", ["first", "mean"])),
    least_samples: needed(whole(0, 1, 2 ** 26)),
    window_samples: needed(whole(0, 1, 2 ** 26)),
    long: text("", ["each", "joined"]),
  },
  prompt: {
    start: text(),
    system: text(),
    system_trimmed: flag(),
    turn: needed(text()),
    turns: names(),
    clip: needed(text()),
    placeholder: needed(text()),
    clip_last: text(),
    end: text(),
    single: flag(),
    one_clip: flag(),
    one_turn: flag(),
    clip_first: flag(),
    trim: text("", ["words", "parts", "content"]),
    literal: flag(),
    apart: flag(),
    retold: flag(),
    tasks: needed(names()),
    joined: texts(),
    heading: text(),
    languages: names(),
    thought: text(),
    fleeting: text(),
    left_out: text("", ["rest", "lines", "spaces", "words"]),
    time_mark: text(),
    speaker_mark: text(),
    marker_seconds: whole(0, 0, 86_400),
    marker_rows: whole(0, 0, 2 ** 24),
    marker_rate: whole(0, 0, 10 ** 6),
  },
  tokens: {
    bos: whole(null, 0, 2 ** 24),
    eos: needed(ids(0, 2 ** 24 - 1)),
    stop_strings: texts(),
    penalize_prompt: flag(),
    audio: whole(null, 0, 2 ** 24 - 1),
  },
  units: {
    count: whole(0, 0, 2 ** 24),
    first: whole(0, 0, 2 ** 24),
    merged: flag(),
    unsaid: flag(),
  },
  align: {
    mark: text(),
    step_ms: whole(0, 0, 60_000),
  },
  live: {
    step_samples: whole(0, 0, 2 ** 26),
    ahead_samples: whole(0, 0, 2 ** 16),
    left: whole(0, 0, 10_000),
    right: whole(0, 0, 10_000),
    delay: whole(0, 0, 10_000),
    pad: text(),
    window: whole(0, 0, 2 ** 24),
  },
};

/** What a value of each kind must be; else the words for what it is not. */
const CHECKS = {
  whole(fact, value) {
    if (value === null && fact.value === null) return "";
    if (!Number.isInteger(value)) return "no whole number";
    return fact.least <= value && value <= fact.most ? "" : `not ${fact.least} to ${fact.most}`;
  },
  flag: (_, value) => (typeof value === "boolean" ? "" : "neither true nor false"),
  text(fact, value) {
    if (typeof value !== "string") return "no text";
    const words = fact.words.includes(fact.value) ? fact.words : ["", ...fact.words];
    return !fact.words.length || words.includes(value) ? "" : `not one of ${fact.words.join(", ")}`;
  },
  texts: (_, value) => listed(value, (entry) => typeof entry === "string"),
  ids: (fact, value) =>
    listed(value, (id) => Number.isInteger(id) && fact.least <= id && id <= fact.most),
  names(_, value) {
    const right = isObject(value) && Object.values(value).every((v) => typeof v === "string");
    return right ? "" : "no object of texts";
  },
};

function listed(value, right) {
  if (!Array.isArray(value) || !value.every(right)) return "no such list";
  return value.length > MOST_ENTRIES ? `a list of more than ${MOST_ENTRIES}` : "";
}

/** Whether a value of JSON is an object. */
export const isObject = (value) =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/**
 * A section of a manifest, complete with what holds where it states nothing; objects become Maps.
 * @param {Record<string, unknown>} plain the manifest's JSON
 * @param {keyof typeof FACTS} name
 */
export function section(plain, name) {
  const known = FACTS[name];
  const lacks = Object.keys(known).filter((fact) => known[fact].needed);
  const stated = Object.hasOwn(plain, name) || lacks.length ? plain[name] : {};
  if (!isObject(stated)) throw new BadArtifacts(`the manifest has no section '${name}'`);
  for (const fact of Object.keys(stated)) {
    if (!Object.hasOwn(known, fact)) {
      const what = shown(fact);
      throw new BadArtifacts(`'${name}' states ${what}, which this version does not know; upgrade it`);
    }
  }
  const read = {};
  for (const [fact, declared] of Object.entries(known)) {
    if (!Object.hasOwn(stated, fact) && declared.needed) {
      throw new BadArtifacts(`the manifest lacks '${fact}' of '${name}'`);
    }
    const value = Object.hasOwn(stated, fact) ? stated[fact] : declared.value;
    const wrong = CHECKS[declared.kind](declared, value);
    if (wrong) throw new BadArtifacts(`'${fact}' of '${name}' is ${shown(value)}, ${wrong}`);
    read[fact] = declared.kind === "names" ? new Map(Object.entries(value)) : value;
  }
  return read;
}
