// A user's words and clips as the model was trained to see them: token ids around the audio.

import { BadArtifacts, BadPrompt, shown } from "./errors.js";
import { Heading, Thoughts } from "./reading.js";
import { MARK, checkTurn, inLanguage, interleaved, task } from "./tasks.js";
import { count, lstrip, rstrip, strip } from "./words.js";

// In the manifest's templates; a clip has a number in the conversation and one in its turn.
const [CLIPS, WORDS, NUMBER, TURN_NUMBER] = ["{clips}", "{}", "{n}", "{k}"];
const JOINT = /\{\}\s+\{clips\}/; // words, and clips behind them

/**
 * @typedef {object} Prompt one turn
 * @property {number[][]} pieces token ids before, between and after its clips
 * @property {boolean} joined answers to consecutive windows of one recording read on
 * @property {string} language in which the answer is begun
 * @property {boolean} begun it begins what the model thinks
 */

/** Turns a task's name or free text into the token ids around the audio. */
export class Prompter {
  /**
   * @param {import("./tokenizer.js").Words} tokenizer
   * @param {Record<string, any>} facts the manifest's `prompt`
   * @param {Record<string, any>} tokens the manifest's `tokens`
   */
  constructor(tokenizer, facts, tokens) {
    this.tokenizer = tokenizer;
    this.facts = facts;
    this.tokens = tokens;
    this.joined = new Set(facts.joined.map(strip));
    this.heading = new Heading(facts.heading);
    this.thoughts = new Thoughts(facts.thought);
    for (const turn of [facts.turn, ...facts.turns.values()]) {
      if (count(turn, CLIPS) !== 1 || count(turn, WORDS) !== 1) {
        throw new BadArtifacts(
          `the manifest's prompt turn ${shown(turn)} wants one ${CLIPS} and one ${WORDS}`,
        );
      }
    }
    if (!facts.placeholder || count(facts.clip, facts.placeholder) !== 1) {
      throw new BadArtifacts("the manifest's prompt clip lacks its one placeholder");
    }
    if (facts.system && count(facts.system, WORDS) !== 1) {
      throw new BadArtifacts(`the manifest's prompt system ${shown(facts.system)} wants one ${WORDS}`);
    }
  }

  /**
   * Token ids of a conversation's first turn, about `clips` clips.
   * @param {string} asked a task's name or free text, in which each `<audio>` is a clip's place
   * @param {number} clips
   * @param {{verbatim?: boolean, language?: string, system?: string}} [how]
   * @returns {Prompt}
   */
  build(asked, clips, { verbatim = false, language = "", system = "" } = {}) {
    const { facts } = this;
    checkTurn(facts, asked, clips);
    const [query, named] = language ? inLanguage(asked, language, facts) : [asked, ""];
    const name = verbatim ? null : task(query, facts.tasks);
    const words = name === null ? query : facts.tasks.get(name);
    const fromUser = name === null; // not the manifest's words
    this._check(words, clips, fromUser);
    const own = name === null ? undefined : facts.turns.get(name);
    const turn = (own ?? facts.turn) + (named ? this.heading.filled(named) : "");
    const pieces = [];
    let texts = this._opening(system); // since the last clip, and which are encoded apart
    let number = 0;
    for (const [text, users] of this._closed(this._slots(turn, words, clips, fromUser))) {
      if (text !== null) {
        texts.push([text, users]);
        continue;
      }
      number++;
      const clip = facts.clip.replaceAll(NUMBER, `${number}`).replaceAll(TURN_NUMBER, `${number}`);
      const [before, after] = clip.split(facts.placeholder);
      pieces.push(this._encoded([...texts, [before, facts.apart]]));
      texts = [[after, facts.apart]];
    }
    pieces.push(this._encoded(texts));
    if (this.tokens.bos !== null) pieces[0].unshift(this.tokens.bos);
    const joined = this.joined.has(strip(words)) || this.joined.has(WORDS);
    return { pieces, joined, language: named, begun: this.thoughts.begunBy(turn) };
  }

  /**
   * All ids of a turn whose clips have so many embeddings, a placeholder for each of them.
   * @param {Prompt} prompt
   * @param {number[]} rows of each clip
   * @param {import("./markers.js").Markers} markers
   */
  ids({ pieces }, rows, markers) {
    const { audio } = this.tokens;
    const held = audio === null ? this.tokenizer.ids(this.facts.placeholder) : [audio];
    const ids = [...pieces[0]];
    for (const [i, size] of rows.entries()) {
      if (held.length === 3) ids.push(held[0], ...Array(Math.max(0, size - 2)).fill(held[1]), held[2]);
      else ids.push(...markers.ids(size, held[0]));
      ids.push(...pieces[i + 1]);
    }
    return ids;
  }

  _opening(system) {
    const { facts } = this;
    if (!strip(system)) return [[facts.start, false]];
    if (!facts.system) {
      throw new BadPrompt("this model's prompt has no place for a system message; say it in the question");
    }
    if (system.includes(facts.placeholder) && !facts.literal) {
      throw new BadPrompt(`a system message may not hold ${facts.placeholder}`);
    }
    const [before, after] = facts.system.split(WORDS);
    const said = facts.system_trimmed ? strip(system) : system;
    return [[before, false], [said, facts.literal], [after, false]];
  }

  _check(words, clips, fromUser) {
    const { facts } = this;
    const marks = count(words, MARK);
    const bare = words.replaceAll(MARK, "");
    if (fromUser && !strip(bare) && (!marks || !clips)) {
      const names = [...facts.tasks.keys()].sort().join(", ");
      throw new BadPrompt(`the prompt is empty; say what to do, or one of: ${names}`);
    }
    if (!(fromUser && facts.literal) && bare.includes(facts.placeholder)) {
      throw new BadPrompt(`the prompt may not hold ${facts.placeholder}, the audio's own place`);
    }
    if (marks && marks !== clips) {
      throw new BadPrompt(`the prompt has places for ${marks} clips (${MARK}), and ${clips} are given`);
    }
  }

  /** The turn's texts in their order and whether they are encoded apart; null is a clip. */
  *_slots(turn, words, clips, fromUser) {
    const { trim, apart, literal, clip } = this.facts;
    let content = interleaved(trim === "words" ? strip(words) : words);
    const marked = content.length > 1;
    const placed = clips > 0 && !marked; // clips stand where the turn has them
    if (fromUser) content = trimmedBeside(content, trim, placed ? turn : "");
    const shape = JOINT.test(turn) && !placed ? turn.replace(JOINT, () => WORDS + CLIPS) : turn;
    for (const piece of shape.split(/(\{clips\}|\{\})/)) {
      if (piece === CLIPS) {
        for (let i = 0; i < (marked ? 0 : clips); i++) yield [null, false];
      } else if (piece === WORDS) {
        let before = "";
        for (const text of content) {
          // A clip that ends in a space needs no second one.
          const spaced = text?.startsWith(" ") && before === null && clip.endsWith(" ");
          yield [spaced ? text.slice(1) : text, apart || (fromUser && literal)];
          before = spaced ? text.slice(1) : text;
        }
      } else {
        yield [piece, false];
      }
    }
  }

  /** The slots with what stands behind a clip that no words follow; the last is the turn's. */
  _closed(slots) {
    const content = [...slots];
    const end = content.pop();
    const last = content.findLast(([text]) => text !== "");
    const behind = last && last[0] === null ? [[this.facts.clip_last, false]] : [];
    return [...content, ...behind, end];
  }

  /** Ids of texts, those that are encoded apart and the others each joined. */
  _encoded(texts) {
    const groups = [];
    for (const [text, users] of texts) {
      if (groups.length && groups.at(-1)[1] === users) groups.at(-1)[0] += text;
      else groups.push([text, users]);
    }
    return groups.flatMap(([text, users]) =>
      this.tokenizer.ids(text, Boolean(users && this.facts.literal)),
    );
  }
}

/** A user's texts and clips as `trimmed`, beside the clips that the turn has next to them. */
function trimmedBeside(content, how, turn) {
  const before = turn.includes(CLIPS + WORDS) ? [null] : [];
  const behind = turn.includes(WORDS + CLIPS) || JOINT.test(turn) ? [null] : [];
  const items = trimmed([...before, ...content, ...behind], how);
  return items.slice(before.length, items.length - behind.length);
}

/** A turn's texts, null where a clip is, without the white space that `how` names. */
function trimmed(items, how) {
  if (how === "parts") return items.map((text) => text && strip(text));
  const texts = items.flatMap((text, i) => (text === null ? [] : [i]));
  const ends = how === "words" ? [texts[0], texts.at(-1)] : how === "content" ? [0, items.length - 1] : [];
  const made = [...items];
  const [first, last] = ends;
  if (typeof made[first] === "string") made[first] = lstrip(made[first]);
  if (typeof made[last] === "string") made[last] = rstrip(made[last]);
  return made;
}
