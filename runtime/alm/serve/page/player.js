// A clip that is seen and heard: its waveform with an axis of times, segments and a position.

import { clock, made } from "./dom.js";
import { axis, bars, bands } from "./drawing.js";

let playing = null; // one clip at a time

const dark = matchMedia("(prefers-color-scheme: dark)");

/** The waveform of one clip. */
export class Player {
  constructor(clip) {
    this.clip = clip;
    this.audio = new Audio(clip.url);
    this.audio.preload = "auto";
    this.seconds = 0;
    this.segments = [];
    this.until = Infinity;
    this.onposition = () => {};
    this.button = made("button", { type: "button", className: "play" });
    this.canvas = made("canvas", { "aria-hidden": "true" });
    this.slider = made(
      "div",
      { className: "wave", tabIndex: 0, role: "slider", "aria-label": `Position in ${clip.name}` },
      this.canvas,
    );
    this.slider.setAttribute("aria-valuemin", "0");
    this.length = made("span", { className: "number soft" });
    const name = made("span", { className: "name", textContent: clip.name });
    this.caption = made("figcaption", {}, name, this.length);
    this.element = made("figure", { className: "player" }, this.button, this.slider, this.caption);
    this._listen();
    this._moved();
    this.ready = this._load();
  }

  /** Play from a second on, to the end of what was pointed at. */
  async play(from = this.audio.currentTime, until = Infinity) {
    if (playing && playing !== this) playing.pause();
    playing = this;
    this.until = until;
    this.audio.currentTime = from;
    try {
      await this.audio.play();
    } catch (error) {
      if (error.name === "NotSupportedError") {
        this.length.textContent = "this browser cannot play it";
      }
    }
  }

  pause() {
    this.audio.pause();
  }

  /** Pieces of the clip with `start` and `end`, drawn under it. */
  mark(segments) {
    this.segments = segments;
    this.draw();
  }

  /** Nobody sees it any more. */
  close() {
    this.pause();
    this.size.disconnect();
    dark.removeEventListener("change", this.redraw);
  }

  async _load() {
    this.picture = await this.clip.picture();
    if (this.picture) this.seconds = this.picture.seconds;
    else this.slider.classList.add("unseen");
    this._length();
    this.draw();
  }

  _length() {
    const known = this.seconds ? `${this.seconds.toFixed(1)} s` : "";
    const unseen = this.picture === null ? "no waveform: this browser cannot decode it" : "";
    this.length.textContent = [known, unseen].filter(Boolean).join(" · ");
    this.slider.setAttribute("aria-valuemax", this.seconds.toFixed(2));
    this._moved();
  }

  _listen() {
    const { audio, slider } = this;
    audio.addEventListener("loadedmetadata", () => {
      if (this.seconds || !Number.isFinite(audio.duration)) return;
      this.seconds = audio.duration;
      this._length();
    });
    for (const name of ["play", "pause", "ended", "seeked"]) {
      audio.addEventListener(name, () => this._follow());
    }
    this.button.addEventListener("click", () => this._toggle());
    slider.addEventListener("pointerdown", (event) => this._pointed(event));
    slider.addEventListener("keydown", (event) => this._key(event));
    this.redraw = () => this.draw();
    this.size = new ResizeObserver(this.redraw);
    this.size.observe(slider);
    dark.addEventListener("change", this.redraw);
  }

  _toggle() {
    if (!this.audio.paused) this.pause();
    else this.play(this.audio.ended ? 0 : this.audio.currentTime);
  }

  /** A click on a segment's band plays it; elsewhere it moves the position, and drags it. */
  _pointed(event) {
    const box = this.slider.getBoundingClientRect();
    const time = (x) => this.seconds * Math.max(0, Math.min(1, (x - box.left) / box.width));
    const place = time(event.clientX);
    const low = event.clientY > box.top + bands.top;
    const hit = low && this.segments.find((s) => s.start <= place && place < s.end);
    if (hit) {
      this.play(hit.start, hit.end);
      return;
    }
    const move = ({ clientX }) => this._seek(time(clientX));
    move(event);
    this.slider.setPointerCapture(event.pointerId);
    this.slider.addEventListener("pointermove", move);
    const end = () => this.slider.removeEventListener("pointermove", move);
    this.slider.addEventListener("lostpointercapture", end, { once: true });
  }

  _key(event) {
    const step = Math.max(0.1, this.seconds / 50);
    const now = this.audio.currentTime;
    const moves = {
      ArrowLeft: now - step,
      ArrowDown: now - step,
      ArrowRight: now + step,
      ArrowUp: now + step,
      PageDown: now - 5 * step,
      PageUp: now + 5 * step,
      Home: 0,
      End: this.seconds,
    };
    if (event.key in moves) this._seek(moves[event.key]);
    else if (event.key === " " || event.key === "Enter") this._toggle();
    else return;
    event.preventDefault();
  }

  _seek(seconds) {
    this.until = Infinity;
    this.audio.currentTime = Math.max(0, Math.min(this.seconds, seconds));
    this._moved();
  }

  /** Keep the position drawn while it moves. */
  _follow() {
    cancelAnimationFrame(this.frame);
    if (this.audio.currentTime >= this.until) {
      this.until = Infinity;
      this.pause();
    }
    this._moved();
    if (!this.audio.paused) this.frame = requestAnimationFrame(() => this._follow());
  }

  _moved() {
    const now = this.audio.currentTime;
    const runs = !this.audio.paused && !this.audio.ended;
    this.button.classList.toggle("runs", runs);
    this.button.setAttribute("aria-label", `${runs ? "Pause" : "Play"} ${this.clip.name}`);
    this.slider.setAttribute("aria-valuenow", now.toFixed(2));
    this.slider.setAttribute("aria-valuetext", `${clock(now)} of ${clock(this.seconds)}`);
    this.onposition(now, runs);
    this.draw();
  }

  draw() {
    const { width, height } = this.slider.getBoundingClientRect();
    if (!width) return;
    const scale = devicePixelRatio || 1;
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(height * scale);
    const pen = this.canvas.getContext("2d");
    pen.scale(scale, scale);
    const style = getComputedStyle(this.slider);
    const colour = (name) => style.getPropertyValue(name).trim();
    const now = this.audio.currentTime;
    if (this.picture) bars(pen, width, this.picture, now / this.seconds, colour);
    if (this.seconds) axis(pen, width, this.seconds, colour, style.fontFamily);
    bands(pen, width, this.seconds, this.segments, now, colour);
  }
}
