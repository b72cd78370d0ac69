// In a thread of its own: a model that `openInWorker` asks, so that the page never waits for it.

import { BadOption, plainOf } from "./errors.js";
import { Model } from "./model.js";

let model = null;
const running = new Map(); // id of a request -> what yields its pieces

const work = {
  async open(id, address, options) {
    const onProgress = (...progress) => postMessage({ id, progress });
    model = await Model.open(address, { ...options, onProgress });
    const { rate, channel, tasks, languages, family, provider, threads, loadMs } = model;
    return { rate, channel, tasks, languages, family, provider, threads, loadMs };
  },

  async ask(id, clips, prompt, options) {
    if (!model) throw new BadOption("no model is open");
    const pieces = model.stream(clips, prompt, options);
    running.set(id, pieces);
    try {
      for (;;) {
        const { done, value } = await pieces.next();
        if (done) return value ?? null; // null: it was stopped
        postMessage({ id, piece: value });
      }
    } finally {
      running.delete(id);
    }
  },

  async stop(_, asked) {
    await running.get(asked)?.return();
  },
};

addEventListener("message", async ({ data: { id, what, given } }) => {
  try {
    postMessage({ id, done: await work[what](id, ...given) });
  } catch (error) {
    postMessage({ id, failed: plainOf(error) });
  }
});
