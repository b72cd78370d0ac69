// A task by its name, and what a model takes in a turn.

import { BadPrompt, UnknownName, shown } from "./errors.js";
import { either, near, strip } from "./words.js";

export const MARK = "<audio>"; // in a user's words: here stands the next clip

/**
 * The task that `query` names, white space around the name aside; null for free text.
 * @param {string} query
 * @param {Map<string, string>} tasks
 */
export function task(query, tasks) {
  const name = strip(query);
  if (tasks.has(name)) return name;
  if (!/^[\p{L}\p{N}]+$/u.test(name.replace(/[_-]/g, ""))) return null; // `music?` is a question
  const begun = [...tasks.keys()].filter((other) => other.startsWith(`${name.toLowerCase()}_`)).sort();
  const meant = begun.length ? begun : [near(name, tasks.keys())].filter(Boolean);
  if (meant.length) {
    throw new UnknownName(
      `there is no task ${shown(name)}; did you mean ${either(meant)}? ` +
        "To ask just that word, add verbatim: true",
    );
  }
  return null;
}

/**
 * What asks for an answer in a language: the words, and the language's name in the heading.
 * @param {string} query
 * @param {string} language its code
 * @param {Record<string, any>} facts the manifest's `prompt`
 * @returns {[string, string]}
 */
export function inLanguage(query, language, facts) {
  const [name, code] = [strip(query), strip(language).toLowerCase()];
  if (facts.languages.size) {
    const spelled = new Map([...facts.languages.values()].map((n) => [n.toLowerCase(), n]));
    for (const [known, named] of facts.languages) spelled.set(known, named);
    if (spelled.has(code)) return [query, spelled.get(code)];
    const there = [...facts.languages.keys()].sort().join(", ");
    throw new UnknownName(`this model knows no language ${shown(language)}; there is: ${there}`);
  }
  if (facts.tasks.has(`${name}_${code}`)) return [`${name}_${code}`, ""];
  const kin = [...facts.tasks.keys()].filter((other) => other.startsWith(`${name}_`));
  if (name && kin.length) {
    const there = kin.map((other) => other.slice(name.length + 1)).sort().join(", ");
    throw new UnknownName(`${name} knows no language ${shown(language)}; there is: ${there}`);
  }
  throw new UnknownName(
    `language is for a task that there is in several languages, and ${shown(name)} is none here`,
  );
}

/** Refuse what is no text, or what a model that takes one clip does not take. */
export function checkTurn(facts, words, clips) {
  if (typeof words !== "string") throw new BadPrompt("the prompt is wanted as text");
  if (!words.isWellFormed()) throw new BadPrompt("the prompt holds half a surrogate pair");
  if ((clips > 1 && (facts.single || facts.one_clip)) || (!clips && facts.single)) {
    throw new BadPrompt(`this model hears one clip at a time, and ${clips} are given; ask of each`);
  }
  if (facts.clip_first && !clips) {
    throw new BadPrompt("this model's weights are those for sound; give a clip with the question");
  }
  if (words.includes(MARK) && (facts.single || facts.one_clip)) {
    throw new BadPrompt(`this model has its own place for the clip; leave out the ${MARK}`);
  }
}

/** The words' texts with null where a mark stands between them. */
export function interleaved(words) {
  const [first, ...rest] = words.split(MARK);
  return [first, ...rest.flatMap((text) => [null, text])];
}
