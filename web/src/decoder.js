// The decoder with its KV cache, of one row.

import { BadArtifacts } from "./errors.js";
import { CAPACITY_STEP, FIRST, FROM_END, blank, givenAs, isCarried, shape } from "./ports.js";
import { Kept } from "./engine.js";
import { floats, grown, longs, wide, zeros } from "./tensors.js";

const MOST_FED = 1024; // positions fed at a time: attention's memory is that times all before

/** The outputs of a decoder that its next run takes. */
export const carriedOutputs = ({ inputs }) => [...inputs.keys()].filter(isCarried).map(givenAs);

/** The decoder graph and its cache; the table gives the embeddings of what it says. */
export class Decoder {
  /**
   * @param {import("./engine.js").Session} session
   * @param {import("./manifest.js").Part} part
   * @param {import("./table.js").Table} table
   * @param {boolean} copied whether a run copies the cache in and out, as on wasm: then it has no
   *   more room than is needed
   */
  constructor(session, part, table, copied) {
    this.session = session;
    this.table = table;
    this.copied = copied;
    this.inputs = part.inputs;
    this.ports = [...part.inputs].filter(([name]) => isCarried(name));
    this.keep = carriedOutputs(part);
    this.slots = Object.fromEntries(
      blank(part.inputs).map(([name, port, sizes]) => [name, zeros(port.dtype, shape(port, sizes))]),
    );
    this.length = 0; // valid positions in the cache
    this.cache = {};
  }

  /** An empty cache, for at most `most` positions. */
  start(most) {
    this.done();
    this.most = most;
    const capacity = room(this.copied ? 1 : most);
    for (const [name, port] of this.ports) {
      this.cache[name] = zeros(port.dtype, shape(port, { batch: 1, past: 0, capacity }));
    }
  }

  /** The answer has ended; the cache is wanted no more. */
  done() {
    for (const kept of Object.values(this.cache)) if (kept instanceof Kept) kept.release();
    this.cache = {};
    this.length = 0;
  }

  /**
   * Logits float32 [vocab] after a prompt, which is fed in chunks where it is long.
   * @param {Float32Array} embeds [seq * hidden]
   */
  async feed(embeds) {
    const { hidden } = this.table;
    const seq = embeds.length / hidden;
    let logits = new Float32Array(0);
    for (let at = 0; at < seq; at += MOST_FED) {
      const end = Math.min(seq, at + MOST_FED);
      logits = await this._run(embeds.subarray(at * hidden, end * hidden), end - at);
    }
    return logits;
  }

  /** Logits float32 [vocab] after one more token. */
  async step(id) {
    return this._run(await this.table.rows([id]), 1);
  }

  async _run(embeds, seq) {
    await this._grow(this.length + seq);
    const feeds = {
      inputs_embeds: floats(embeds, 1, seq, this.table.hidden),
      past_lengths: longs(this.length),
      seq_lengths: longs(seq),
      ...this.cache,
      ...this.slots,
    };
    if (this.inputs.has(FIRST)) feeds[FIRST] = floats(new Float32Array(1), 1);
    if (this.inputs.has(FROM_END)) feeds[FROM_END] = { ...longs(0), dims: [1, 1] };
    for (const name of Object.keys(feeds)) if (!this.inputs.has(name)) delete feeds[name];
    const made = await this.session.run(feeds, this.keep);
    for (const [name] of this.ports) {
      if (this.cache[name] instanceof Kept) this.cache[name].release();
      this.cache[name] = made[givenAs(name)];
    }
    this.length += seq;
    const { dims } = made.logits;
    const vocab = dims.at(-1);
    if (dims.length !== 3 || dims[0] !== 1 || !dims[1] || !vocab) {
      throw new BadArtifacts(`the decoder must give logits [1, 1, vocabulary], and gave [${dims}]`);
    }
    return wide(made.logits).subarray(0, vocab);
  }

  /** Where a cache of fixed capacity has too little room, make more. */
  async _grow(wanted) {
    for (const [name, port] of this.ports) {
      const axis = port.axes.indexOf("capacity");
      const kept = this.cache[name];
      const dims = kept instanceof Kept ? kept.tensor.dims : kept.dims;
      if (axis < 0 || dims[axis] >= wanted) continue;
      const plain = kept instanceof Kept ? await kept.fetch() : kept;
      this.cache[name] = grown(plain, axis, room(wanted));
      if (kept instanceof Kept) kept.release();
    }
  }
}

const room = (positions) => Math.ceil(positions / CAPACITY_STEP) * CAPACITY_STEP;
