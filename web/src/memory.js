// Embeddings of clips are remembered: a second question about a clip computes no encoder.

const MOST_BYTES = 64 * 2 ** 20;

/** The latest tensors by the sha256 of the samples that they were made of. */
export class Memory {
  constructor(most = MOST_BYTES) {
    this.most = most;
    this.bytes = 0;
    this.held = new Map();
  }

  /** The key of samples: their sha256, and how many there are. */
  async key(/** @type {Float32Array} */ pcm) {
    const sha256 = new Uint8Array(await crypto.subtle.digest("SHA-256", pcm));
    return `${pcm.length}:${sha256}`;
  }

  get(key) {
    const known = this.held.get(key);
    if (known) {
      this.held.delete(key); // the latest used goes last
      this.held.set(key, known);
    }
    return known;
  }

  put(key, tensor) {
    this.held.set(key, tensor);
    this.bytes += tensor.data.byteLength;
    for (const [oldest, { data }] of this.held) {
      if (this.bytes <= this.most) break;
      this.held.delete(oldest);
      this.bytes -= data.byteLength;
    }
  }
}
