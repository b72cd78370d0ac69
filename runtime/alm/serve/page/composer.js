// Where a person says what is asked: the clip, a task or a prompt.

import { Clip } from "./clip.js";
import { at, made } from "./dom.js";
import { level } from "./drawing.js";
import { Player } from "./player.js";
import { Recording } from "./recorder.js";
import { arranged } from "./tasks.js";

/** The form under the conversation. */
export class Composer {
  /** `ask(prompt, clip)` and `stop()` are called when somebody wants it. */
  constructor({ ask, stop }) {
    this.asks = ask;
    this.stops = stop;
    this.clip = this.last = null;
    this.running = false;
    this.going = false; // the last clip is in the conversation; else it is sent again
    this.rate = 16000;
    this.tasks = {};
    this.takes = 0;
    at("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this._ask(at("prompt").value.trim());
    });
    at("prompt").addEventListener("input", () => this._grow());
    at("prompt").addEventListener("keydown", (event) => this._key(event));
    at("stop").addEventListener("click", stop);
    at("record").addEventListener("click", () => this._record());
    at("recorded").addEventListener("click", () => this._recorded());
    at("discard").addEventListener("click", () => this._discard());
    addEventListener("keydown", ({ key }) => key === "Escape" && this._escape());
    new ResizeObserver(() => this.measure()).observe(at("composer"));
  }

  /** Tell the styles how much of the window it takes. */
  measure() {
    const tall = `${at("composer").offsetHeight}px`;
    document.documentElement.style.setProperty("--composer", tall);
  }

  /** What the served model can do. */
  open({ tasks, languages, rate }) {
    this.rate = rate;
    this.tasks = tasks;
    const { main, others } = arranged(tasks);
    const button = ([name, prompt], words) => {
      const inside = words ? made("span", { className: "soft", textContent: prompt }) : null;
      const element = made("button", { type: "button", className: "task", title: prompt }, name);
      if (inside) element.append(inside);
      element.addEventListener("click", () => this._ask(name));
      return element;
    };
    at("tasks").replaceChildren(...main.map((task) => button(task, false)));
    if (others.length) {
      const list = made("ul", {}, ...others.map((task) => made("li", {}, button(task, true))));
      const summary = made("summary", { textContent: `${others.length} more` });
      at("tasks").append(made("details", { id: "more", className: "more" }, summary, list));
    }
    if (Object.keys(languages).length) at("tasks").append(this._languages(languages));
  }

  /** The code of the language that was chosen, or "". */
  get language() {
    return at("language")?.value ?? "";
  }

  /** This clip is asked about next; null for none. */
  choose(clip) {
    this._discard();
    this.player?.close();
    if (this.player) this.player.element.remove();
    this.clip = clip;
    this.player = clip && new Player(clip);
    at("empty").hidden = Boolean(clip);
    at("chosen").hidden = !clip;
    at("chosen").replaceChildren();
    this.wrong("");
    if (!clip) return;
    const remove = made("button", { type: "button", className: "quiet", textContent: "Remove" });
    remove.setAttribute("aria-label", `Remove ${clip.name}`);
    remove.addEventListener("click", () => {
      this.choose(null);
      if (clip !== this.last) clip.release();
      at("record").focus();
    });
    this.player.caption.append(remove);
    at("chosen").append(this.player.element);
    this.focus();
  }

  /** Say what a question without a clip is about. */
  about(clip) {
    this.last = clip;
    at("about").hidden = !clip;
    at("about").replaceChildren(made("span", { className: "wide" }, "About "), clip?.name ?? "");
  }

  /** A sentence about what is wrong; "" takes it away. */
  wrong(sentence) {
    at("wrong").textContent = sentence;
    at("wrong").hidden = !sentence;
  }

  /** While an answer comes it can be stopped, and nothing else asked. */
  run(runs) {
    const here = document.activeElement;
    this.running = runs;
    at("composer").classList.toggle("busy", runs);
    for (const task of at("tasks").querySelectorAll("button")) {
      task.setAttribute("aria-disabled", String(runs));
    }
    at("send").hidden = runs;
    at("stop").hidden = !runs;
    if (runs && here === at("send")) at("stop").focus();
    else if (!runs && here === at("stop") && matchMedia("(pointer: fine)").matches) {
      at("prompt").focus();
    }
  }

  /** Where one goes on: the first task. */
  focus() {
    at("tasks").querySelector("button")?.focus({ preventScroll: true });
  }

  _languages(languages) {
    const choice = made("select", { id: "language" }, made("option", { value: "" }, "as heard"));
    for (const [code, name] of Object.entries(languages)) {
      choice.append(made("option", { value: code }, name));
    }
    return made("label", { className: "language" }, "language ", choice);
  }

  _ask(prompt) {
    if (this.running) return;
    const clip = this.clip ?? (this.going ? null : this.last);
    if (this.recording) {
      this.wrong("Stop the recording first.");
    } else if (!Object.keys(this.tasks).length) {
      this.wrong("The model is not known yet; reload the page.");
    } else if (!prompt) {
      this.wrong("Say what to do: choose a task, or write a prompt.");
      at("prompt").focus();
    } else if (prompt in this.tasks && !clip && !this.going) {
      this.wrong(`What shall be heard? Choose a clip or record one, then ${prompt}.`);
      at("record").focus();
    } else {
      at("prompt").value = "";
      this._grow();
      if (at("more")) at("more").open = false;
      this.choose(null);
      this.asks(prompt, clip);
    }
  }

  _key(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this._ask(at("prompt").value.trim());
  }

  _escape() {
    if (this.recording) this._discard();
    else if (at("more")?.open) at("more").open = false;
    else if (this.running) this.stops();
  }

  _grow() {
    const field = at("prompt");
    field.style.height = "auto";
    field.style.height = `${Math.min(field.scrollHeight + 2, 160)}px`;
  }

  async _record() {
    this.wrong("");
    at("record").disabled = true;
    const levels = [];
    let recording = null;
    try {
      recording = await Recording.start(this.rate, (block, seconds) => {
        levels.push(block.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0));
        at("seconds").textContent = `${seconds.toFixed(1)} s`;
        level(at("level"), levels);
      });
    } catch (error) {
      this.wrong(error.message);
      return;
    } finally {
      at("record").disabled = false;
    }
    if (this.clip) this.choose(null); // chosen while the browser asked for the microphone
    this.recording = recording;
    at("seconds").textContent = "0.0 s";
    this._shows("recording");
    at("recorded").focus();
  }

  async _recorded() {
    const { recording } = this;
    this.recording = null;
    const blob = await recording.stop();
    this._shows("empty");
    if (blob) this.choose(new Clip(blob, `recording ${++this.takes}.wav`));
    else this.wrong("Nothing came from the microphone.");
  }

  _discard() {
    if (!this.recording) return;
    this.recording.discard();
    this.recording = null;
    this._shows("empty");
    at("record").focus();
  }

  _shows(what) {
    for (const name of ["empty", "recording"]) at(name).hidden = name !== what;
  }
}
