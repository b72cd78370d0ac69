// What Python says of the same inputs, in a file that ALM_SAID names: pytest writes it.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import { Joiner, Stops, TextStream } from "../src/detokenizer.js";
import { FACTS, section } from "../src/facts.js";
import { Markers } from "../src/markers.js";
import { choose } from "../src/options.js";
import { Prompter } from "../src/prompt.js";
import { ReadingStream, read } from "../src/reading.js";
import { next } from "../src/scores.js";
import { Words } from "../src/tokenizer.js";
import { Rules } from "../src/windows.js";

const path = process.env.ALM_SAID;
const skip = path ? false : "pytest compares with Python";
const said = path ? JSON.parse(readFileSync(path, "utf-8")) : {};
const words = path ? new Words(readFileSync(said.tokenizer)) : null;

const prompterOf = ({ prompt, tokens }) => {
  const read = [section({ prompt }, "prompt"), section({ tokens }, "tokens")];
  return new Prompter(words, ...read);
};

test("facts are declared as in Python", { skip }, () => {
  const plain = {};
  for (const [name, facts] of Object.entries(FACTS)) {
    const entries = Object.entries(facts).map(([fact, { value, words = [], needed = false, ...rest }]) => [
      fact,
      { ...rest, value, words, needed },
    ]);
    plain[name] = Object.fromEntries(entries);
  }
  assert.deepEqual(plain, said.facts);
});

test("prompts are the same token ids", { skip }, () => {
  for (const { facts, asked, clips, how, gave } of said.prompts) {
    const what = JSON.stringify([facts.name, asked, clips, how]);
    let made;
    try {
      const { pieces, joined, language, begun } = prompterOf(facts).build(asked, clips, how);
      made = { pieces, joined, language, begun };
    } catch (error) {
      made = error.name;
      if (!["BadPrompt", "UnknownName"].includes(made)) throw error;
    }
    assert.deepEqual(made, gave, what);
  }
});

test("numbers stand among a clip's embeddings at the same places", { skip }, () => {
  for (const { facts, rows, held, ids } of said.markers) {
    assert.deepEqual(new Markers(section({ prompt: facts }, "prompt"), words).ids(rows, held), ids);
  }
});

test("texts stream in the same pieces", { skip }, () => {
  for (const { facts, ids, stops, thinking, pieces, reading } of said.streams) {
    const prompter = prompterOf(facts);
    const prompt = { begun: false };
    const stream = new ReadingStream(new TextStream(words, stops), prompter, prompt, thinking);
    const joiner = new Joiner(" ");
    const given = [...ids.map((id) => joiner.push(stream.push(id))), joiner.push(stream.finish())];
    assert.deepEqual(given, pieces);
    const ends = new Stops(words, stops);
    const whole = read(ends.cut(ids), prompter, prompt);
    assert.deepEqual([whole.thinking, whole.language, whole.words, ends.reached(ids)], reading);
  }
});

test("long clips are cut at the same samples", { skip }, () => {
  for (const { audio, file, truncate, readsOn, pieces, notes } of said.windows) {
    const bytes = readFileSync(file);
    const pcm = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
    const rules = new Rules(section({ audio }, "audio"));
    const made = rules.windows(pcm, truncate, readsOn);
    const places = made.pieces.map(({ pcm, start, samples }) => [start, samples, pcm.length]);
    assert.deepEqual(places, pieces);
    assert.deepEqual(made.notes, notes);
  }
});

test("scores choose the same tokens", { skip }, () => {
  for (const { scores, options, eos, prompt, said: before, token } of said.scores) {
    const chosen = choose({}, options);
    assert.equal(next(Float32Array.from(scores), chosen, eos, prompt, before), token);
  }
});
