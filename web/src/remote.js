// A model in a thread of its own, with the methods of `Model`.

import { BadArtifacts, errorOf } from "./errors.js";

/**
 * As `Model.open`, in a Web Worker: the page stays awake while the model works.
 * @param {string | URL} address
 * @param {import("./model.js").OpenOptions} [options]
 */
export async function openInWorker(address, { onProgress = () => {}, ...options } = {}) {
  const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  const line = new Line(worker);
  const base = options.base ?? globalThis.location?.href;
  try {
    const hear = ({ progress }) => progress && onProgress(...progress);
    const facts = await line.ask("open", [`${address}`, { ...options, base }], hear).done;
    return new RemoteModel(line, facts);
  } catch (error) {
    worker.terminate();
    throw error;
  }
}

/** Requests to a worker, each with its number. */
class Line {
  constructor(worker) {
    this.worker = worker;
    this.last = 0;
    this.waiting = new Map();
    worker.onmessage = ({ data }) => this._hear(data);
    worker.onerror = (event) => {
      event.preventDefault();
      const error = new BadArtifacts(`the model's thread could not start: ${event.message ?? ""}`);
      for (const { fail } of this.waiting.values()) fail(error);
    };
  }

  /** Ask for work; `hear` is told what comes before its end. */
  ask(what, given, hear = () => {}) {
    const id = ++this.last;
    const done = new Promise((end, fail) => this.waiting.set(id, { hear, end, fail }));
    this.worker.postMessage({ id, what, given });
    return { id, done };
  }

  _hear(data) {
    const asked = this.waiting.get(data.id);
    if (!asked) return;
    if ("done" in data) asked.end(data.done);
    else if (data.failed) asked.fail(errorOf(data.failed));
    else asked.hear(data);
    if ("done" in data || data.failed) this.waiting.delete(data.id);
  }
}

/** A model that a worker holds; made by `openInWorker`. */
class RemoteModel {
  constructor(line, facts) {
    this._line = line;
    Object.assign(this, facts); // those of Model: rate, channel, tasks, languages, provider, ...
  }

  /** See `Model.stream`. */
  async *stream(clips, prompt, options = {}) {
    const pieces = [];
    let wake = () => {};
    const hear = ({ piece }) => {
      pieces.push(piece);
      wake();
    };
    const { id, done } = this._line.ask("ask", [clips, prompt, options], hear);
    let ended = false;
    const over = done.then(
      (answer) => ({ answer }),
      (error) => ({ error }),
    );
    const last = over.then(() => {
      ended = true;
      wake();
    });
    try {
      while (!ended || pieces.length) {
        if (pieces.length) yield pieces.shift();
        else await new Promise((go) => (wake = go));
      }
    } finally {
      if (!ended) await this._line.ask("stop", [id]).done;
      await last;
    }
    const { answer, error } = await over;
    if (error) throw error;
    return answer;
  }

  /** See `Model.generate`. */
  async generate(clips, prompt, { onText = () => {}, ...options } = {}) {
    const pieces = this.stream(clips, prompt, options);
    for (;;) {
      const { done, value } = await pieces.next();
      if (done) return value;
      onText(value);
    }
  }

  /** End the thread, whatever it does. */
  async close() {
    this._line.worker.terminate();
  }
}
