// Numbers among a clip's embeddings: the seconds that are past, by which a model tells the time.

import { BadArtifacts } from "./errors.js";

/** After every `marker_rows` embeddings of a clip, the seconds so far: `5`, `10` and so on. */
export class Markers {
  /**
   * @param {Record<string, any>} facts the manifest's `prompt`
   * @param {import("./tokenizer.js").Words} tokenizer
   */
  constructor(facts, tokenizer) {
    this.seconds = facts.marker_seconds;
    this.rows = facts.marker_rows;
    this.rate = facts.marker_rate; // embeddings of 1,000 s
    this.tokenizer = tokenizer;
    const places = this.rows * 1000;
    if (this.seconds && !(0 < places && places <= this.seconds * this.rate)) {
      throw new BadArtifacts(
        `the manifest's prompt has marker_rows ${this.rows} for marker_seconds ${this.seconds}`,
      );
    }
  }

  /**
   * Where embeddings of a clip stand together, and the ids behind them; none behind the last.
   * @param {number} rows of the clip
   * @returns {[begin: number, end: number, ids: number[]][]}
   */
  stretches(rows) {
    const found = [];
    let done = 0;
    const count = this.seconds ? Math.floor((rows * 1000) / (this.seconds * this.rate)) : 0;
    for (let i = 1; i <= count; i++) {
      found.push([done, i * this.rows, this.tokenizer.ids(`${i * this.seconds}`)]);
      done = i * this.rows;
    }
    if (done < rows) found.push([done, rows, []]);
    return found;
  }

  /** The ids of a clip of so many embeddings, of which each is `held`. */
  ids(rows, held) {
    return this.stretches(rows).flatMap(([begin, end, number]) => [
      ...Array(end - begin).fill(held),
      ...number,
    ]);
  }
}
