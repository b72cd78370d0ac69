// One question and its answer on the page: the text as it comes, then what each stage took.

import { duration, made } from "./dom.js";

const NUMBERS = { first_token: "first token", per_token: "per token", total: "total" };

/** An answer. */
export class Answer {
  /** @param {string} asked @param {string} clip its name */
  constructor(asked, clip) {
    this.words = made("p", { className: "words", dir: "auto" });
    this.under = made("div", { className: "under" });
    const about = made("p", { className: "soft" }, made("b", { textContent: asked }), ` · ${clip}`);
    this.element = made("li", { className: "runs" }, about, this.words, this.under);
  }

  /** A piece of the text. */
  add(piece) {
    this.words.append(piece);
  }

  /** The answer is whole. */
  done({ text, language, notes, timings, tokenIds, promptTokens }) {
    this.element.classList.remove("runs");
    this.words.textContent = text;
    const said = text ? [] : ["The answer is empty."];
    if (language) said.push(`Language: ${language}`);
    said.push(`${promptTokens} tokens of prompt and sound, ${tokenIds.length} of the answer`);
    for (const note of [...said, ...notes]) this._note(note);
    this._figures(timings);
  }

  /** It was stopped, or failed with this sentence. */
  ended(sentence, wrong) {
    this.element.classList.remove("runs");
    this._note(sentence, wrong ? "wrong" : "soft");
  }

  _note(textContent, className = "soft") {
    this.under.append(made("p", { className, textContent }));
  }

  _figures(timings) {
    const numbers = made("dl", { className: "numbers" });
    for (const [name, label] of Object.entries(NUMBERS)) {
      const value = made("dd", { textContent: duration(timings[name]) });
      numbers.append(made("div", {}, made("dt", { textContent: label }), value));
    }
    const stages = Object.entries(timings).filter(([name]) => !(name in NUMBERS) && name !== "load");
    const most = Math.max(...stages.map(([, ms]) => ms));
    const bars = made("dl", { className: "bars", "aria-label": "Milliseconds by stage" });
    for (const [name, ms] of stages) {
      const bar = made("meter", { max: most, value: ms, "aria-hidden": "true" });
      const value = made("dd", {}, bar, made("span", { textContent: duration(ms) }));
      bars.append(made("div", {}, made("dt", { textContent: name }), value));
    }
    this.under.append(numbers, bars);
  }
}
