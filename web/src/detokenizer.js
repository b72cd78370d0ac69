// Token ids into text as they come, up to where an answer ends.

import { mayBegin } from "./reading.js";
import { lstrip, rstrip } from "./words.js";

const REPLACEMENT = "\ufffd"; // what a tokenizer decodes half a character to

/**
 * Token ids of one row into text: never half a character, never past a stop string. A token costs
 * the decoding of the few before it, not of all.
 */
export class TextStream {
  /**
   * @param {import("./tokenizer.js").Words} tokenizer
   * @param {string[]} stops
   */
  constructor(tokenizer, stops) {
    this.tokenizer = tokenizer;
    this.stops = stops;
    this.ids = [];
    this.stopped = false;
    this.settled = ""; // the text of ids before `until`, which no further token changes
    this.from = this.until = 0; // ids between them are the window's known beginning,
    this.known = 0; // so many characters of what the window decodes to
    this.sent = 0; // characters
    this.byte = tokenizer.id("<0xFF>"); // byte fallback: never part of a character
  }

  /** The text that this token makes certain; "" while a character or stop string is open. */
  push(token) {
    this.ids.push(token);
    if (this.stopped) return "";
    const window = this.ids.slice(this.from);
    const fresh = this.tokenizer.text(window).slice(this.known);
    const text = this.settled + fresh;
    const longest = Math.max(1, ...this.stops.map((stop) => stop.length));
    const cut = first(text, this.stops, Math.max(0, this.settled.length - longest + 1));
    if (cut >= 0) {
      this.stopped = true;
      return this._send(text.slice(0, cut));
    }
    const whole = this._whole(window, fresh);
    if (fresh && whole === fresh.length) this._settle(text);
    const end = text.length - fresh.length + whole;
    const held = Math.max(0, ...this.stops.map((stop) => mayBegin(text.slice(0, end), stop)));
    return this._send(text.slice(0, end - held));
  }

  /** What was held back to the end. */
  finish() {
    const text = this.tokenizer.text(this.ids);
    const cut = first(text, this.stops);
    return this._send(cut < 0 ? text : text.slice(0, cut));
  }

  /** How many characters of `fresh`, the end of the window's text, are sure to stay. */
  _whole(window, fresh) {
    let end = fresh.length;
    while (end && fresh[end - 1] === REPLACEMENT) end--;
    if (this.byte === null || !end) return end;
    // With byte fallback a bad byte spoils the whole run of bytes that it ends.
    const spoiled = this.tokenizer.text([...window, this.byte]).slice(this.known);
    let same = 0;
    while (same < end && fresh[same] === spoiled[same]) same++;
    const half = same && same < end && fresh.charCodeAt(same - 1) >> 10 === 0x36; // of a pair
    return half ? same - 1 : same;
  }

  _settle(text) {
    const start = this.until;
    this.until = this.ids.length;
    this.settled = text;
    // A decoder strips the space that a text begins with: only after some text has it done so.
    const known = this.tokenizer.text(this.ids.slice(start));
    if (known) [this.from, this.known] = [start, known.length];
    else this.known = this.tokenizer.text(this.ids.slice(this.from)).length;
  }

  _send(text) {
    // What was sent stays: a decoder that rewrites it is only followed from there on.
    const fresh = text.slice(this.sent);
    this.sent += fresh.length;
    return fresh;
  }
}

/** Checks whether the last token of a growing row completes a stop string. */
export class Stops {
  constructor(tokenizer, strings) {
    this.tokenizer = tokenizer;
    this.strings = strings.filter(Boolean);
    this.ends = [...this.strings.map((stop) => stop.at(-1)), REPLACEMENT];
    this.mayEnd = new Map();
  }

  /**
   * Whether the text of `ids` holds a stop string; that of all but the last must not. Few tokens
   * hold the last character of a stop string, or a part of any: only after those it is decoded.
   */
  reached(ids) {
    if (!this.strings.length) return false;
    const token = ids.at(-1);
    if (!this.mayEnd.has(token)) {
      // Often, since what a token gives at the beginning may lack its spaces.
      const often = this.tokenizer.text(Array(8).fill(token));
      const byte = this.tokenizer.token(token).startsWith("<0x");
      this.mayEnd.set(token, byte || this.ends.some((end) => often.includes(end)));
    }
    return this.mayEnd.get(token) && first(this.tokenizer.text(ids), this.strings) >= 0;
  }

  /** The text of `ids` up to the first stop string. */
  cut(ids) {
    const text = this.tokenizer.text(ids);
    const at = first(text, this.strings);
    return at < 0 ? text : text.slice(0, at);
  }
}

/** Where the first stop string begins at or after `start`; -1 where there is none. */
function first(text, stops, start = 0) {
  const places = stops.map((stop) => text.indexOf(stop, start)).filter((at) => at >= 0);
  return places.length ? Math.min(...places) : -1;
}

/** Pieces of several texts as they come: what it gives, joined, are those texts stripped. */
export class Joiner {
  constructor(separator) {
    this.separator = separator;
    this.gap = ""; // goes out before what follows, if anything does
    this.begun = this.sent = false; // this text; any text
  }

  /** What may go out: no white space at a text's beginning, and at its end it waits. */
  push(piece) {
    const fresh = this.begun ? piece : lstrip(piece);
    const body = rstrip(fresh);
    const out = body ? this.gap + body : "";
    if (body) {
      this.gap = "";
      this.begun = this.sent = true;
    }
    this.gap += fresh.slice(body.length);
    return out;
  }

  /** What follows belongs to the next text. */
  end() {
    this.gap = this.sent ? this.separator : "";
    this.begun = false;
  }
}
