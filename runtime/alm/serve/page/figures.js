// What an answer took: three numbers, the stages as bars, and counts of tokens.

import { duration, made } from "./dom.js";

const NUMBERS = ["first_token", "per_token", "total"];
const LABELS = { first_token: "first token", per_token: "per token", total: "total" };
const NO_STAGE = new Set([...NUMBERS, "load"]); // load: of the model, once for all answers

/**
 * The stages of an answer in their order: `[name, milliseconds]`. Last comes `decode`, the steps of
 * the decoder and the choice of tokens: what the other stages leave of the total.
 */
export function stages(timings) {
  const rows = Object.entries(timings).filter(([name]) => !NO_STAGE.has(name));
  const rest = rows.reduce((left, [, ms]) => left - ms, timings.total);
  return rest > 0 ? [...rows, ["decode", rest]] : rows;
}

/** The margin beside an answer; empty numbers stand there while it runs. */
export class Figures {
  constructor() {
    this.values = {};
    const numbers = made("dl", { className: "numbers" });
    for (const name of NUMBERS) {
      this.values[name] = made("dd", { className: "number", textContent: "–" });
      numbers.append(made("div", {}, made("dt", { textContent: LABELS[name] }), this.values[name]));
    }
    this.bars = made("dl", { className: "bars" });
    this.counts = made("dl", { className: "counts" });
    this.element = made(
      "aside",
      { className: "figures", "aria-label": "Timings" },
      numbers,
      this.bars,
      this.counts,
    );
    this.start = performance.now();
    this.clock = setInterval(() => this._tick(), 100);
  }

  _tick() {
    const ms = performance.now() - this.start;
    if (ms > 400) this.values.total.textContent = `${(ms / 1000).toFixed(1)} s`;
  }

  /** The answer ended, without figures of the server's. */
  halt() {
    clearInterval(this.clock);
  }

  /** The server's figures. */
  show(alm, usage) {
    this.halt();
    const timings = alm.timings_ms;
    for (const name of NUMBERS) {
      this.values[name].textContent = name in timings ? duration(timings[name]) : "–";
    }
    const rows = stages(timings);
    const most = Math.max(...rows.map(([, ms]) => ms));
    for (const [name, ms] of rows) {
      const fill = made("i", {});
      fill.style.width = `${Math.max(0.8, (100 * ms) / most)}%`;
      const bar = made("dd", { className: "bar", "aria-hidden": "true" }, fill);
      const value = made("dd", { className: "number", textContent: duration(ms) });
      this.bars.append(made("div", {}, made("dt", { textContent: name }), bar, value));
    }
    for (const [name, count] of counted(alm, usage)) {
      const row = made("div", {}, made("dt", { textContent: name }));
      row.append(made("dd", { className: "number", textContent: count }));
      this.counts.append(row);
    }
  }
}

function counted(alm, { prompt, answer, audio, cached }) {
  const seconds = alm.timings_ms.total / 1000;
  const tokens = (count) => `${count} token${count === 1 ? "" : "s"}`;
  return [
    ["prompt", tokens(prompt) + (audio ? `, ${audio} of audio` : "")],
    ["KV cache", cached ? `${tokens(cached)} of the prompt` : ""],
    ["encoders", alm.audio_cached ? "not run, the clip is cached" : ""],
    ["answer", tokens(answer)],
    ["windows", alm.windows > 1 ? `${alm.windows}` : ""],
    ["RTFx", alm.audio_seconds && seconds ? (alm.audio_seconds / seconds).toFixed(1) : ""],
  ].filter(([, count]) => count);
}
