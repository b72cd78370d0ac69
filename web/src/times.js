// Where the time of a run goes.

/** Milliseconds by stage, from when it is made. */
export class Times {
  constructor() {
    this.began = performance.now();
    this.ms = {};
    this.first = 0; // from the beginning to the first token
    this.steps = []; // of each step of the decoder
  }

  /** Count the time since `since` (performance.now) to a stage. */
  add(stage, since) {
    this.addMs(stage, performance.now() - since);
  }

  /** Count so many milliseconds to a stage. */
  addMs(stage, ms) {
    this.ms[stage] = (this.ms[stage] ?? 0) + ms;
  }

  /** A token was chosen; `ms` of the decoder's step, null for the prompt's. */
  chose(ms) {
    this.first ||= performance.now() - this.began;
    if (ms !== null) this.steps.push(ms);
  }

  /** Milliseconds by stage since the beginning. */
  ofAnswer(load) {
    const sum = this.steps.reduce((all, ms) => all + ms, 0);
    return {
      load,
      ...this.ms,
      first_token: this.first,
      per_token: this.steps.length ? sum / this.steps.length : 0,
      total: performance.now() - this.began,
    };
  }
}
