// A model in a page: an artifact folder opened, clips and a prompt in, text out.

import { BadArtifacts, BadPrompt } from "./errors.js";
import { Decoder, carriedOutputs } from "./decoder.js";
import { Engine } from "./engine.js";
import { Folder } from "./folder.js";
import { front, withRole } from "./manifest.js";
import { Markers } from "./markers.js";
import { Memory } from "./memory.js";
import { choose } from "./options.js";
import { Prompter } from "./prompt.js";
import { Table } from "./table.js";
import { MOST_BYTES, Words } from "./tokenizer.js";
import { Turn } from "./turn.js";
import { Rules } from "./windows.js";

/**
 * @typedef {object} Answer
 * @property {string} text
 * @property {number[]} tokenIds of all windows, the EOS too
 * @property {string} stopReason eos, stop_string, length or context
 * @property {number} audioSeconds
 * @property {number} audioTokens embeddings of clips
 * @property {number} promptTokens with those
 * @property {number} windows that the clip was cut into
 * @property {string} language that the model heard or was told, where its answers name one
 * @property {string | null} thinking before the answer; null of models that mark no thoughts
 * @property {string[]} notes what was done to the clip, and why an answer is not whole
 * @property {string} provider wasm or webgpu
 * @property {Record<string, number>} timings milliseconds by stage
 *
 * @typedef {object} Opened
 * @property {import("./manifest.js").Manifest} manifest
 * @property {Words} words
 * @property {Prompter} prompter
 * @property {Markers} markers
 * @property {Rules} rules
 * @property {Table} table
 * @property {Decoder} decoder
 * @property {{part: any, session: any}[]} front
 * @property {Memory} memory
 * @property {string} provider
 * @property {number} loadMs
 *
 * @typedef {object} OpenOptions
 * @property {string} [provider] "wasm", "webgpu", or "auto" (the default): WebGPU where the
 *   browser has it and it runs the folder's graphs
 * @property {number} [threads] of wasm; 0: the browser's cores, 4 at most
 * @property {import("./folder.js").OnProgress} [onProgress]
 * @property {string} [base] of a relative address
 */

/** An artifact folder opened for use; made by `Model.open`. */
export class Model {
  /**
   * Load a folder: every file is compared with the manifest's sha256 before it is used.
   * @param {string | URL} address of the folder
   * @param {OpenOptions} [options]
   */
  static async open(address, { provider, threads, onProgress, base } = {}) {
    const since = performance.now();
    const folder = new Folder(address, { base, onProgress });
    const manifest = await folder.manifest();
    choose(manifest.generation, { do_sample: false, num_beams: 1 }); // what cannot be done at all
    const words = new Words(await folder.bytes(manifest.tokenizer, MOST_BYTES));
    const { prompt, tokens, audio } = manifest.facts;
    const opened = {
      manifest,
      words,
      prompter: new Prompter(words, prompt, tokens),
      markers: new Markers(prompt, words),
      rules: new Rules(audio),
      memory: new Memory(),
    };
    const [part] = withRole(manifest, "decoder");
    const halves = manifest.parts.some((one) => one.role !== "table" && one.halves);
    const engine = await Engine.load(provider, threads, { dialect: part.dialect, halves });
    const table = await tableOf(folder, manifest);
    const graphs = [];
    for (const before of front(manifest)) {
      graphs.push({ part: before, session: await open(engine, folder, before) });
    }
    const session = await open(engine, folder, part, carriedOutputs(part));
    const decoder = new Decoder(session, part, table, engine.provider === "wasm");
    const loadMs = performance.now() - since;
    const { provider: chosen } = engine;
    const all = { ...opened, table, decoder, front: graphs, provider: chosen, loadMs };
    return new Model(all, engine.threads);
  }

  /** @param {Opened} opened */
  constructor(opened, threads) {
    this._opened = opened;
    this._last = Promise.resolve(); // the answer that is being made
    const { audio, prompt } = opened.manifest.facts;
    /** Samples a second that clips have. */
    this.rate = audio.rate;
    /** What is heard of stereo: "first" or "mean". */
    this.channel = audio.channel;
    /** Task names that stand for a prompt. */
    this.tasks = Object.fromEntries(prompt.tasks);
    /** Codes of languages that an answer may be asked for in -> their names. */
    this.languages = Object.fromEntries(prompt.languages);
    this.family = opened.manifest.family;
    this.provider = opened.provider;
    this.threads = threads;
    this.loadMs = opened.loadMs;
  }

  /**
   * Answer a prompt about clips, in pieces of text as they become certain; joined they are the
   * answer's text. The generator's return value is the answer. Whoever closes it ends the answer.
   * Answers are made one after another: a second one waits for the first.
   * @param {Float32Array | Float32Array[]} clips samples at the model's rate, full scale 1.0
   * @param {string} prompt a task's name or free text; `<audio>` in it is the place of a clip
   * @param {Record<string, unknown>} [options] docs/web.md lists them
   * @returns {AsyncGenerator<string, Answer>}
   */
  async *stream(clips, prompt, options = {}) {
    const chosen = choose(this._opened.manifest.generation, options);
    if (clips === null || clips === undefined) throw new BadPrompt("clips are wanted: [] for none");
    const before = this._last;
    let done;
    this._last = new Promise((end) => (done = end));
    try {
      await before;
      const turn = new Turn(this._opened, chosen);
      return yield* turn.answer(Array.isArray(clips) ? clips : [clips], prompt);
    } finally {
      done();
    }
  }

  /**
   * As `stream`, whole.
   * @param {Float32Array | Float32Array[]} clips
   * @param {string} prompt
   * @param {{onText?: (piece: string) => void} & Record<string, unknown>} [options]
   * @returns {Promise<Answer>}
   */
  async generate(clips, prompt, { onText = () => {}, ...options } = {}) {
    const pieces = this.stream(clips, prompt, options);
    for (;;) {
      const { done, value } = await pieces.next();
      if (done) return value;
      onText(value);
    }
  }

  /** Let go of all graphs; the model answers no more. */
  async close() {
    await this._last;
    const { front: graphs, decoder } = this._opened;
    for (const { session } of graphs) await session.release();
    await decoder.session.release();
  }
}

/** A part's graph from its verified files. */
async function open(engine, folder, part, kept) {
  const files = [];
  for (const file of part.files) files.push(await folder.bytes(file));
  return engine.open(part, files, kept);
}

async function tableOf(folder, manifest) {
  const [{ files }] = withRole(manifest, "table");
  const bytes = await folder.bytes(files[0]);
  const scales = files.length > 1 ? await folder.bytes(files[1]) : null;
  const table = new Table(bytes, scales, files[0].name);
  const { vocab, table: rows, hidden } = manifest.facts.dimensions;
  if (table.vocab !== (rows ?? vocab) || table.hidden !== hidden) {
    throw new BadArtifacts(
      `the embedding table is [${table.vocab}, ${table.hidden}], not [${rows ?? vocab}, ${hidden}]`,
    );
  }
  return table;
}
