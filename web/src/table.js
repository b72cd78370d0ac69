// The embedding table: the rows that are asked for are read, and a large one stays out of memory.

import { BadArtifacts, BadPrompt } from "./errors.js";
import { header, widened } from "./npy.js";

const MOST_HELD = 64 * 2 ** 20; // bytes; a larger table is a Blob, which browsers keep on disk

/** Rows of the embedding table. */
export class Table {
  /**
   * @param {Uint8Array} bytes a verified .npy, floats [vocab, hidden], or int8 where there are scales
   * @param {Uint8Array | null} scales a verified .npy, float32 [vocab]
   * @param {string} name of the file
   */
  constructor(bytes, scales, name) {
    const { shape, dtype, start } = header(bytes, name);
    if (shape.length !== 2 || (dtype === "int8") !== (scales !== null)) {
      throw new BadArtifacts(
        `'${name}' is no table of ${scales ? "int8" : "floats"} [vocab, hidden] but ${dtype} [${shape}]`,
      );
    }
    [this.vocab, this.hidden] = shape;
    this._dtype = dtype;
    this._start = start;
    this._row = this.hidden * { float16: 2, float32: 4, int8: 1 }[dtype]; // bytes
    this._held = bytes.length <= MOST_HELD ? bytes : null;
    this._blob = this._held ? null : new Blob([bytes]);
    this._scales = scales && scalesOf(scales, this.vocab, name);
  }

  /**
   * Embeddings float32 [n * hidden] of ids [n].
   * @param {number[]} ids
   */
  async rows(ids) {
    const rows = new Float32Array(ids.length * this.hidden);
    for (const [i, id] of ids.entries()) {
      if (!Number.isInteger(id) || id < 0 || id >= this.vocab) {
        throw new BadPrompt(
          `token ${id} is none of the ${this.vocab} that the model knows; leave special tokens out`,
        );
      }
      rows.set(await this._read(id), i * this.hidden);
    }
    return rows;
  }

  async _read(id) {
    const at = this._start + id * this._row;
    // A copy, since a row of 16 or 32 bits may lie at an odd place.
    const bytes = this._held
      ? this._held.slice(at, at + this._row)
      : new Uint8Array(await this._blob.slice(at, at + this._row).arrayBuffer());
    if (this._dtype === "float32") return new Float32Array(bytes.buffer);
    if (this._dtype === "float16") return widened(new Uint16Array(bytes.buffer));
    const scale = this._scales[id];
    return Float32Array.from(new Int8Array(bytes.buffer), (code) => code * scale);
  }
}

function scalesOf(bytes, vocab, name) {
  const { shape, dtype, start } = header(bytes, `scales of ${name}`);
  if (dtype !== "float32" || shape.length !== 1 || shape[0] !== vocab) {
    throw new BadArtifacts(`'${name}' has no scales float32 [${vocab}] but ${dtype} [${shape}]`);
  }
  return new Float32Array(bytes.slice(start, start + 4 * vocab).buffer);
}
