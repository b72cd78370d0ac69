// One question answered: every window of its clip from samples to text, every stage timed.

import { BadArtifacts, BadPrompt } from "./errors.js";
import { Joiner, Stops, TextStream } from "./detokenizer.js";
import { most, within } from "./options.js";
import { embeddings } from "./pipeline.js";
import { read, ReadingStream } from "./reading.js";
import { next } from "./scores.js";
import { Times } from "./times.js";
import { strip } from "./words.js";

/** Let what waits in this thread have its turn, such as a message that stops the answer. */
function breath() {
  return new Promise((done) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      done(undefined);
    };
    port2.postMessage(null);
  });
}

/** A question to a model, with options that were chosen. */
export class Turn {
  /**
   * @param {import("./model.js").Opened} opened
   * @param {ReturnType<typeof import("./options.js").choose>} options
   */
  constructor(opened, options) {
    this.opened = opened;
    this.options = options;
    this.times = new Times();
    const strings = [...opened.manifest.facts.tokens.stop_strings, ...options.stop];
    this.stops = new Stops(opened.words, strings);
  }

  /**
   * Yields pieces of text as they become certain; gives the answer.
   * @param {Float32Array[]} clips samples at the model's rate
   * @param {string} asked
   * @returns {AsyncGenerator<string, import("./model.js").Answer>}
   */
  async *answer(clips, asked) {
    const { rules, prompter, provider, loadMs } = this.opened;
    const { truncate } = this.options;
    const prompt = prompter.build(asked, clips.length, this.options);
    for (const clip of clips) rules.check(clip, this.options.max_audio_seconds);
    const { rows, notes } = this._rows(clips, prompt);
    const separator = prompt.joined ? " " : "\n";
    const joiner = new Joiner(separator);
    const windows = [];
    for (const pcms of rows) windows.push(yield* this._window(prompt, pcms, joiner));
    const words = windows.map(({ text }) => strip(text)).filter(Boolean);
    const thoughts = windows.flatMap(({ thinking }) => (thinking ? [strip(thinking)] : []));
    return {
      text: words.join(separator),
      tokenIds: windows.flatMap(({ ids }) => ids),
      stopReason: reasonOf(windows),
      audioSeconds: clips.reduce((sum, clip) => sum + clip.length, 0) / rules.rate,
      audioTokens: windows.reduce((sum, window) => sum + window.audioTokens, 0),
      promptTokens: windows.reduce((sum, window) => sum + window.promptTokens, 0),
      windows: windows.length,
      language: windows.find(({ language }) => language)?.language ?? "",
      thinking: prompter.thoughts.template ? thoughts.join(separator) : null,
      notes: [...rules.notes(clips, truncate), ...notes, ...cutNotes(windows)],
      provider,
      timings: this.times.ofAnswer(loadMs),
    };
  }

  /** What is answered at once: a window of the only clip, or all of several clips. */
  _rows(clips, prompt) {
    const { rules } = this.opened;
    if (clips.length === 1) {
      const { pieces, notes } = rules.windows(clips[0], this.options.truncate, prompt.joined);
      return { rows: pieces.map(({ pcm }) => [pcm]), notes };
    }
    const each = clips.map((clip) => rules.one(clip, this.options.truncate));
    return { rows: [each.map(({ pcm }) => pcm)], notes: each.flatMap(({ notes }) => notes) };
  }

  async *_window(prompt, pcms, joiner) {
    const { manifest, words, prompter, markers } = this.opened;
    const heard = [];
    for (const pcm of pcms) heard.push(await this._encode(pcm));
    await breath();
    const embeds = await this._woven(prompt.pieces, heard);
    const length = embeds.length / manifest.facts.dimensions.hidden;
    const { options, cut } = this._fitted(length);
    const rows = heard.map(({ dims }) => dims[0]);
    const penalized = manifest.facts.tokens.penalize_prompt;
    const seen = { length, ids: penalized ? prompter.ids(prompt, rows, markers) : [] };
    const text = new TextStream(words, this.stops.strings);
    const stream = new ReadingStream(text, prompter, prompt, options.show_thinking);
    const { ids, reason } = yield* this._decode(embeds, seen, options, stream, joiner);
    const last = joiner.push(stream.finish());
    if (last) yield last;
    joiner.end();
    const reading = read(this.stops.cut(ids), prompter, prompt);
    return {
      ids,
      text: reading.words,
      thinking: reading.thinking,
      language: reading.language || prompt.language,
      reason: cut && reason === "length" ? cut : reason,
      promptTokens: length,
      audioTokens: rows.reduce((sum, size) => sum + size, 0),
    };
  }

  /** Embeddings of a clip, computed or remembered. */
  async _encode(pcm) {
    const { memory, front, manifest } = this.opened;
    const key = await memory.key(pcm);
    const known = memory.get(key);
    if (known) return known;
    const made = await embeddings(front, pcm, this.times);
    const { hidden } = manifest.facts.dimensions;
    if (made.dims[1] !== hidden) {
      throw new BadArtifacts(`audio_embeds has ${made.dims[1]} columns, and the model ${hidden}`);
    }
    memory.put(key, made);
    return made;
  }

  /** Embeddings float32 [seq * hidden] of ids with those of clips between them. */
  async _woven(pieces, heard) {
    const { table, markers } = this.opened;
    const parts = [];
    for (const [i, ids] of pieces.entries()) {
      parts.push(await table.rows(ids));
      if (i === heard.length) break;
      const { dims, data } = heard[i];
      for (const [begin, end, number] of markers.stretches(dims[0])) {
        parts.push(data.subarray(begin * dims[1], end * dims[1]), await table.rows(number));
      }
    }
    const whole = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
    parts.reduce((at, part) => (whole.set(part, at), at + part.length), 0);
    return whole;
  }

  /** The options for a prompt of so many positions, and whether the context cut them. */
  _fitted(prompt) {
    const { context } = this.opened.manifest.facts.dimensions;
    const room = context - prompt;
    if (room < 1) {
      throw new BadPrompt(
        `the prompt is ${prompt} tokens long with its audio, and the model's context is ${context}`,
      );
    }
    if (most(this.options, prompt) <= room) return { options: this.options, cut: "" };
    return { options: within(this.options, room, prompt), cut: "context" };
  }

  /** Prefill and greedy steps: yields text, gives the tokens and why they end. */
  async *_decode(embeds, seen, options, stream, joiner) {
    const { decoder, manifest } = this.opened;
    const { eos } = manifest.facts.tokens;
    const limit = most(options, seen.length);
    const ids = [];
    let since = performance.now();
    try {
      decoder.start(seen.length + limit);
      let logits = await decoder.feed(embeds);
      this.times.add("prefill", since);
      for (let ms = null; ; ) {
        ids.push(next(logits, options, eos, seen, ids));
        this.times.chose(ms);
        const reason = this._end(ids, eos, limit);
        const piece = joiner.push(stream.push(ids.at(-1)));
        if (piece) yield piece;
        if (reason) return { ids, reason };
        await breath();
        since = performance.now();
        logits = await decoder.step(ids.at(-1));
        ms = performance.now() - since;
        this.times.addMs("decode", ms);
      }
    } finally {
      decoder.done();
    }
  }

  _end(ids, eos, limit) {
    if (eos.includes(ids.at(-1))) return "eos";
    if (this.stops.reached(ids)) return "stop_string";
    return ids.length >= limit ? "length" : "";
  }
}

// Reasons to stop that leave an answer unfinished.
const CUT = {
  length: "as many as were asked for; more: max_new_tokens",
  context: "where the model's context is full",
};

function reasonOf(windows) {
  const reasons = windows.map(({ reason }) => reason);
  return Object.keys(CUT).find((cut) => reasons.includes(cut)) ?? reasons.at(-1);
}

function cutNotes(windows) {
  return windows.flatMap(({ reason, ids }, i) => {
    if (!Object.hasOwn(CUT, reason)) return [];
    const which = windows.length > 1 ? ` to window ${i + 1} of ${windows.length}` : "";
    return [`the answer${which} was cut after ${ids.length} tokens, ${CUT[reason]}`];
  });
}
