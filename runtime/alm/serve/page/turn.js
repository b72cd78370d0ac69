// One question and its answer, on the page.

import { srt, vtt } from "./captions.js";
import { clock, copy, download, made } from "./dom.js";
import { Figures } from "./figures.js";

/** A turn: what was asked, the answer as it comes, what can be done with it. */
export class Turn {
  /** `asked`: `{clip, prompt, words}`; words are what a task's name stands for. */
  constructor({ player, prompt, words }) {
    this.player = player;
    this.said = "";
    this.words = made("p", { className: "words", dir: "auto" });
    this.under = made("div", { className: "under" });
    this.figures = new Figures();
    const asked = made("p", { className: "prompt" }, made("b", { textContent: prompt }));
    if (words) asked.append(made("span", { className: "soft", textContent: words }));
    this.answer = made("div", { className: "answer runs" }, this.words, this.under);
    const text = made("div", { className: "column" }, player?.element, asked, this.answer);
    this.element = made("li", { className: "turn" }, text, this.figures.element);
  }

  /** A piece of the answer. */
  add(text) {
    this.said += text;
    this.words.append(text);
  }

  /** The answer is whole. `timed`: whether its segments say something. */
  done({ alm, usage, whole }, timed) {
    this.said = whole ?? this.said.trim();
    this._end();
    const segments = timed || alm.segments?.length > 1 ? (alm.segments ?? []) : [];
    if (this.said) this._words(segments);
    else this._note("The answer is empty.");
    if (alm.language) this._note(`Language: ${alm.language}`);
    alm.notes.forEach((note) => this._note(note));
    this.figures.show(alm, usage);
    this._actions(segments);
  }

  /** Somebody stopped it; `going`: there are turns before it that are gone on with. */
  stopped(going) {
    this._end(true);
    const where = this.said ? "Stopped here." : "Stopped before the first word.";
    this._note(going ? `${where} The conversation goes on without it.` : where);
    if (this.said) this._actions([]);
  }

  /** It failed, with this sentence; `again` asks once more, after so many seconds at the soonest. */
  failed(sentence, again, seconds) {
    this._end(true);
    this.under.append(made("p", { className: "wrong", role: "alert", textContent: sentence }));
    const button = made("button", { type: "button", textContent: "Try again" });
    button.addEventListener("click", again);
    this.under.append(made("div", { className: "row" }, button));
    const wait = () => {
      button.disabled = seconds > 0;
      button.textContent = seconds > 0 ? `Try again in ${seconds} s` : "Try again";
      if (seconds-- > 0) setTimeout(wait, 1000);
    };
    wait();
  }

  /** It is taken off the page. */
  close() {
    this.figures.halt();
    this.player?.close();
    this.element.remove();
  }

  _end(bare = false) {
    this.answer.classList.remove("runs");
    this.words.hidden = !this.said;
    this.figures.halt();
    this.figures.element.hidden = bare; // the server told none
  }

  _note(text) {
    this.under.append(made("p", { className: "note soft", textContent: text }));
  }

  /** The text again, its segments marked where they stand in it, so that nothing moves. */
  _words(segments) {
    this.words.textContent = this.said;
    if (!segments.length || !this.player) return;
    this.player.mark(segments);
    const marked = inText(this.said, segments, (segment) => {
      const span = made("span", { className: "segment", title: times(segment) });
      const text = segment.text.trim();
      const words = (segment.words ?? []).filter((word) => word.text.trim());
      const inner = inText(text, words, () => made("span", { className: "word" }));
      span.append(...(inner?.nodes ?? [text]));
      span.addEventListener("click", ({ target }) => {
        const word = inner?.pairs.find(([node]) => node === target)?.[1];
        this.player.play((word ?? segment).start, segment.end);
      });
      span.inner = inner?.pairs ?? [];
      return span;
    });
    if (marked) this.words.replaceChildren(...marked.nodes);
    const rows = this._list(segments);
    this.player.onposition = (now, runs) => {
      const heard = (piece) => runs && piece.start <= now && now < piece.end;
      rows.forEach(([row, segment]) => row.classList.toggle("heard", heard(segment)));
      for (const [span, segment] of marked?.pairs ?? []) {
        span.classList.toggle("heard", heard(segment));
        span.inner.forEach(([node, word]) => node.classList.toggle("heard", heard(word)));
      }
    };
  }

  /** Segments with their times, where there are several. */
  _list(segments) {
    if (segments.length < 2 && !segments[0].speaker) return [];
    const rows = segments.map((segment) => {
      const row = made(
        "button",
        { type: "button", className: "line" },
        made("span", { className: "number soft", textContent: times(segment) }),
        segment.speaker ? made("b", { textContent: segment.speaker }) : null,
        made("span", { dir: "auto", textContent: segment.text }),
      );
      row.addEventListener("click", () => this.player.play(segment.start, segment.end));
      return [row, segment];
    });
    const list = made("ol", {}, ...rows.map(([row]) => made("li", {}, row)));
    const fold = made("details", { className: "segments" });
    fold.append(made("summary", { textContent: `${segments.length} segments` }), list);
    this.under.append(fold);
    return rows;
  }

  _actions(segments) {
    if (!this.said) return;
    const act = (text, does) => {
      const button = made("button", { type: "button", className: "quiet", textContent: text });
      button.addEventListener("click", () => does(button));
      return button;
    };
    const copied = async (button) => {
      await copy(this.said);
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy text"), 1500);
    };
    const row = made("div", { className: "row acts" }, act("Copy text", copied));
    if (segments.length && this.player) {
      const stem = this.player.clip.name.replace(/\.\w+$/, "");
      row.append(
        act("Download .srt", () => download(`${stem}.srt`, srt(segments), "application/x-subrip")),
        act("Download .vtt", () => download(`${stem}.vtt`, vtt(segments), "text/vtt")),
      );
    }
    this.under.append(row);
  }
}

const times = ({ start, end }) => `${clock(start)} – ${clock(end)}`;

/** The text as nodes, each piece found in it, in order, in one that `make` gives; null if not. */
function inText(text, pieces, make) {
  const nodes = [];
  const pairs = [];
  let place = 0;
  for (const piece of pieces) {
    const found = text.indexOf(piece.text.trim(), place);
    if (found < 0) return null;
    const node = make(piece);
    if (!node.childNodes.length) node.textContent = piece.text.trim();
    nodes.push(text.slice(place, found), node);
    pairs.push([node, piece]);
    place = found + piece.text.trim().length;
  }
  return { nodes: [...nodes, text.slice(place)], pairs };
}
