// A model's text taken apart: what it thought, the language that it named, the answer's words.

import { BadArtifacts, shown } from "./errors.js";
import { count, lstrip, rstrip, strip } from "./words.js";

const PLACE = "{}"; // of a language, or of a thought, in the manifest's templates
const MOST = 48; // characters of a language's name; what is longer is no heading
const UNKNOWN = "None"; // written where nothing is spoken

/** A template such as `language {}<asr_text>`; an empty one is no heading at all. */
export class Heading {
  constructor(template) {
    if (template && count(template, PLACE) !== 1) {
      throw new BadArtifacts(`the manifest's prompt heading ${shown(template)} wants one ${PLACE}`);
    }
    [this.before, this.after] = template ? template.split(PLACE) : ["", ""];
  }

  /** The heading of an answer in this language. */
  filled(language) {
    return this.before + language + this.after;
  }

  /** The language, "" where it is not said, and the words behind the heading. */
  split(text) {
    if (!this.after) return ["", text];
    const stripped = lstrip(text);
    const at = stripped.indexOf(this.after, this.before.length);
    const near = at >= 0 && at <= this.before.length + MOST;
    if (!near || !stripped.startsWith(this.before)) return ["", text];
    const language = strip(stripped.slice(this.before.length, at));
    return [language === UNKNOWN ? "" : language, stripped.slice(at + this.after.length)];
  }

  /** Whether the heading that `text` begins with may not be whole yet. */
  mayFollow(text) {
    if (!this.after) return false;
    const stripped = lstrip(text);
    const begun = stripped.startsWith(this.before.slice(0, stripped.length));
    const short = stripped.length < this.before.length + MOST + this.after.length;
    return begun && short && !stripped.includes(this.after);
  }
}

/** A template such as `<think>{}</think>`; an empty one is of a model that marks no thoughts. */
export class Thoughts {
  constructor(template) {
    const [before, after = "", ...more] = template.split(PLACE);
    if (template && (!before || !after || more.length)) {
      throw new BadArtifacts(
        `the manifest's prompt thought ${shown(template)} wants one ${PLACE} between two texts`,
      );
    }
    this.template = template;
    this.before = before;
    this.after = after;
  }

  /** Whether the end of a turn has begun the thought, so that the model's text need not. */
  begunBy(turn) {
    return this.before !== "" && rstrip(turn).endsWith(this.before);
  }

  /** The thought and the answer of a text; null as the thought of a model that marks none. */
  split(text, begun) {
    if (!this.template) return [null, text];
    const stripped = lstrip(text);
    if (stripped.startsWith(this.before)) text = stripped.slice(this.before.length);
    else if (!begun) return ["", text];
    const at = text.indexOf(this.after);
    return at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + this.after.length)];
  }
}

/**
 * What a model's text, an answer to this prompt, consists of.
 * @param {string} text
 * @param {{heading: Heading, thoughts: Thoughts}} prompter
 * @param {{begun: boolean}} prompt
 */
export function read(text, { heading, thoughts }, { begun }) {
  const [thinking, answer] = thoughts.split(text, begun);
  const [language, words] = heading.split(answer);
  return { thinking, language, words };
}

/** Pieces of a model's text as they come, its thought and its answer apart. */
class ThoughtStream {
  constructor(thoughts, begun) {
    this.thoughts = thoughts;
    this.begun = begun;
    this.held = "";
    this.unsure = thoughts.template !== ""; // whether a thought may still begin
    this.inside = false;
  }

  /** What is certain of the thought, its marks in it, and of the answer. */
  push(piece) {
    const { before, after } = this.thoughts;
    if (!this.unsure && !this.inside) return ["", piece];
    this.held += piece;
    let begun = "";
    if (this.unsure) {
      const stripped = lstrip(this.held);
      if (before.startsWith(stripped)) return ["", ""];
      this.unsure = false;
      if (stripped.startsWith(before)) this.held = stripped.slice(before.length);
      else if (!this.begun) return ["", this._letGo()];
      this.inside = true;
      begun = before;
    }
    const at = this.held.indexOf(after);
    if (at >= 0) {
      const [thought, rest] = [this.held.slice(0, at), this.held.slice(at + after.length)];
      this.held = "";
      this.inside = false;
      return [begun + thought + after, rest];
    }
    const sure = this.held.length - mayBegin(this.held, after);
    const out = begun + this.held.slice(0, sure);
    this.held = this.held.slice(sure);
    return [out, ""];
  }

  /** What was held back to the end. */
  finish() {
    const { unsure, inside } = this;
    this.unsure = false;
    const held = this._letGo();
    if (!unsure) return inside ? [held, ""] : ["", held];
    if (lstrip(held) === this.thoughts.before) return [this.thoughts.before, ""];
    return this.begun ? [this.thoughts.before + held, ""] : ["", held];
  }

  _letGo() {
    const { held } = this;
    this.held = "";
    return held;
  }
}

/** How many characters at the end of a text may be the beginning of another. */
export function mayBegin(text, other) {
  for (let size = Math.min(other.length - 1, text.length); size > 0; size--) {
    if (text.endsWith(other.slice(0, size))) return size;
  }
  return 0;
}

/** Tokens as text that a reader wants: the answer's words, and with `thinking` the thought before. */
export class ReadingStream {
  constructor(text, { heading, thoughts }, prompt, thinking) {
    this.text = text;
    this.heading = heading;
    this.thinking = thinking;
    this.thoughts = new ThoughtStream(thoughts, prompt.begun);
    this.held = "";
    this.open = true; // whether a heading may still come
  }

  /** The text that this token makes certain. */
  push(token) {
    return this._read(this.thoughts.push(this.text.push(token)));
  }

  /** What was held back to the end. */
  finish() {
    const last = this._read(this.thoughts.push(this.text.finish()));
    return last + this._read(this.thoughts.finish()) + this._words("", true);
  }

  _read([thought, answer]) {
    return (this.thinking ? thought : "") + this._words(answer, false);
  }

  _words(piece, ended) {
    if (!this.open) return piece;
    this.held += piece;
    if (!ended && this.heading.mayFollow(this.held)) return "";
    this.open = false;
    return this.heading.split(this.held)[1];
  }
}
