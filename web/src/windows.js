// Clips as a model takes them: cut into its windows where they are longer, padded where shorter.

import { BadAudio } from "./errors.js";

// A window of its own makes a model say something, be there anything to hear or not. So none is
// made for less sound than can hold a word, or, where the answers read on, for less than any part
// of one; nor for silence, 60 dB below the clip's loudest sample.
const [SLIVER, SLIVER_READ_ON] = [0.3, 0.025]; // seconds
const SILENT = 1e-3;
const LEAST_LAST = 0.5; // seconds of the last window, where the others have room for the rest
const QUIET_SLACK = 2.0; // seconds before the latest cut in which the quietest place is sought
const QUIET = 320; // samples whose energy is compared

/**
 * Cut samples into the fewest windows of at most `most` samples each. Every cut lies in the middle
 * of the quietest 320 samples, looked for in the last `slack` samples before the latest cut that
 * is possible; the last window has at least `least` samples where there is room.
 * @param {Float32Array} pcm
 * @returns {[start: number, end: number][]}
 */
export function windows(pcm, most, slack, least = 0) {
  const samples = pcm.length;
  const count = Math.ceil(samples / most);
  const cuts = [0];
  for (let left = count - 1; left > 0; left--) {
    let latest = cuts.at(-1) + most;
    const earliest = Math.max(latest - slack, samples - left * most, cuts.at(-1) + 1);
    if (left === 1) latest = Math.max(earliest, Math.min(latest, samples - least));
    cuts.push(quietest(pcm, earliest, latest));
  }
  const ends = [...cuts.slice(1), samples];
  return cuts.map((cut, i) => [cut, ends[i]]).filter(([start, end]) => end > start);
}

function quietest(pcm, earliest, latest) {
  const start = Math.max(0, earliest - QUIET / 2);
  const near = pcm.subarray(start, latest + QUIET);
  const energy = new Float64Array(near.length + 1);
  for (let i = 0; i < near.length; i++) energy[i + 1] = energy[i] + near[i] * near[i];
  let best = earliest;
  let least = Infinity;
  for (let cut = earliest; cut <= latest; cut++) {
    const low = Math.max(cut - QUIET / 2, 0) - start;
    const high = Math.min(low + QUIET, near.length);
    const there = energy[high] - energy[low];
    if (there <= least) [best, least] = [cut, there]; // of equals the last: fuller windows
  }
  return best;
}

/**
 * @typedef {object} Piece what is heard at once
 * @property {Float32Array} pcm samples at the model's rate, padded with silence where too few
 * @property {number} start in the clip
 * @property {number} samples of the clip
 */

/** The manifest's `audio` facts, as rules for clips. */
export class Rules {
  constructor(audio) {
    this.rate = audio.rate;
    this.least = audio.least_samples;
    this.window = audio.window_samples;
    this.most = audio.long === "joined" ? 0 : this.window; // samples of a piece; 0: any number
  }

  /** Refuse what is no sound of at most so many seconds at the model's rate. */
  check(pcm, mostSeconds) {
    if (!(pcm instanceof Float32Array)) {
      throw new BadAudio(`a clip is wanted as a Float32Array of samples at ${this.rate} Hz`);
    }
    if (!pcm.length) throw new BadAudio("the clip holds no samples; wanted at least one");
    const seconds = pcm.length / this.rate;
    if (seconds > mostSeconds) {
      throw new BadAudio(
        `the clip lasts ${seconds.toFixed(1)} s, and at most ${mostSeconds} s was wanted; cut it, ` +
          "or allow more: max_audio_seconds",
      );
    }
    const bad = pcm.findIndex((sample) => !(Math.abs(sample) <= 2 ** 31));
    if (bad >= 0) throw new BadAudio(`the clip has a sample that is none of a recording: number ${bad}`);
  }

  /**
   * Pieces that the model takes, and what was left out, in words.
   * @param {Float32Array} clip
   * @param {boolean} truncate only the first window
   * @param {boolean} readsOn the answers to the pieces are one text
   * @returns {{pieces: Piece[], notes: string[]}}
   */
  windows(clip, truncate, readsOn = false) {
    const pcm = truncate ? clip.subarray(0, this.window) : clip;
    if (!this.most || pcm.length <= this.most) return { pieces: [this._piece(pcm, 0)], notes: [] };
    const silent = SILENT * peak(pcm);
    const { whole, notes } = this._shortened(pcm, silent, readsOn ? SLIVER_READ_ON : SLIVER);
    const [slack, least] = [QUIET_SLACK, LEAST_LAST].map((s) => Math.floor(s * this.rate));
    const pieces = windows(whole, this.most, slack, least).map(([start, end]) =>
      this._piece(whole.subarray(start, end), start),
    );
    const loud = pieces.filter(({ start, samples }) => peak(whole.subarray(start, start + samples)) > silent);
    const audible = loud.length ? loud : pieces.slice(0, 1);
    const lost = audible.reduce((left, { samples }) => left - samples, whole.length);
    if (lost) notes.push(`${this._seconds(lost)} s of silence within the clip got no answer`);
    return { pieces: audible, notes };
  }

  /** The one piece of a clip that stands in a prompt beside others. */
  one(clip, truncate) {
    const { pieces, notes } = this.windows(clip, truncate);
    if (pieces.length > 1) {
      throw new BadAudio(
        `a clip of ${(clip.length / this.rate).toFixed(1)} s is longer than the ` +
          `${this.most / this.rate} s that this model hears at a time, and only alone can it be ` +
          "answered in pieces; cut it, or ask with truncate",
      );
    }
    return { pcm: pieces[0].pcm, notes };
  }

  /** What was done to clips that are too short or too long. */
  notes(clips, truncated) {
    const notes = [];
    for (const { length } of clips) {
      if (length < this.least) {
        const [there, least] = [length, this.least].map((n) => this._seconds(n));
        notes.push(`${there} s of audio were padded with silence to ${least} s`);
      }
      if (truncated && length > this.window) {
        const [window, all] = [this.window, length].map((n) => this._seconds(n));
        notes.push(`only the first ${window} s of ${all} s were heard`);
      }
    }
    return notes;
  }

  /** The clip without an end that would only be another window of silence, or a sliver. */
  _shortened(pcm, silent, sliver) {
    const end = soundEnds(pcm, Math.fround(silent)); // as numpy compares with float32
    const notes = [];
    let whole = pcm;
    const fits = Math.ceil(end / this.most) * this.most; // windows that hold all that is not silent
    if (fits < pcm.length) {
      notes.push(`${this._seconds(pcm.length - fits)} s of silence at the end got no answer`);
      whole = pcm.subarray(0, fits);
    }
    const over = end - (fits - this.most); // samples of sound in the last of them
    if (fits > this.most && over <= sliver * this.rate) {
      notes.push(
        `the last ${this._seconds(over)} s are too short for an answer of their own, and were not heard`,
      );
      whole = pcm.subarray(0, fits - this.most);
    }
    return { whole, notes };
  }

  _piece(pcm, start) {
    const padded = new Float32Array(Math.max(this.least, pcm.length));
    padded.set(pcm);
    return { pcm: padded, start, samples: pcm.length };
  }

  _seconds(samples) {
    return Number((samples / this.rate).toPrecision(3));
  }
}

function peak(pcm) {
  let most = 0;
  for (const sample of pcm) most = Math.max(most, Math.abs(sample));
  return most;
}

/** How many samples there are up to the last that is louder than `silent`; at least one. */
function soundEnds(pcm, silent) {
  const last = pcm.findLastIndex((sample) => Math.abs(sample) > silent);
  return Math.max(last + 1, 1);
}
