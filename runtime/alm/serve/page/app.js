// The page: a conversation with the model that is served, about clips.

import { Refused, completion, forgetKey, models, transcription, useKey } from "./api.js";
import { Clip } from "./clip.js";
import { Composer } from "./composer.js";
import { at } from "./dom.js";
import { Live } from "./live.js";
import { Player } from "./player.js";
import { Turn } from "./turn.js";

const ENDPOINTS = { transcribe: "transcriptions", translate_en: "translations" };

const live = new Live(at("live"));
let model = null;
let turns = [];
let told = []; // messages of the conversation that were answered
let last = null; // the clip that was asked about
let heard = null; // the last that is in the conversation
let running = null; // the AbortController of the answer that comes
let withKey = null; // what to do once there is a key

const composer = new Composer({ ask, stop: () => running?.abort() });

/** Ask the model; a prompt that is a task's name stands for the task. */
async function ask(prompt, clip) {
  await answer({ prompt, clip, words: model.alm.tasks[prompt] ?? "", language: composer.language });
}

async function answer(question) {
  const { clip, prompt, words } = question;
  const turn = new Turn({ player: clip && new Player(clip), prompt, words });
  last = clip ?? last;
  turns.push(turn);
  show(turn);
  running = new AbortController();
  composer.about(last);
  composer.run(true);
  live.begin();
  let ended = null;
  try {
    for await (const piece of pieces(question, running.signal)) {
      if (piece.text) {
        turn.add(piece.text);
        live.add(piece.text);
      }
      if (piece.alm) ended = piece;
    }
    if (!ended) throw new Refused(0, { message: "The answer broke off." });
    turn.done(ended, prompt in ENDPOINTS || /^(transcribe|translate|asr)/.test(prompt));
    // A clip longer than the model's window is answered alone, piece by piece.
    if (ended.alm.windows <= 1) await remember(question, turn.said);
  } catch (error) {
    failed(error, question, turn);
  }
  live.end();
  running = null;
  composer.run(false);
  composer.going = told.length > 0 && last === heard;
}

/** The first turn about what is said is transcribed, all else is a conversation. */
async function* pieces({ clip, prompt, language }, signal) {
  const kind = ENDPOINTS[prompt];
  if (kind && clip && !told.length) {
    const spoken = kind === "transcriptions" ? language : "";
    yield* transcription(kind, clip, { model: model.id, language: spoken, signal });
    return;
  }
  const messages = [...told, await message(clip, prompt)];
  yield* completion(messages, { model: model.id, signal });
}

async function message(clip, prompt) {
  const content = [{ type: "text", text: prompt }];
  if (clip) {
    const format = /\.(\w+)$/.exec(clip.name)?.[1] ?? "wav";
    content.unshift({ type: "input_audio", input_audio: { data: await clip.base64(), format } });
  }
  return { role: "user", content };
}

async function remember({ clip, prompt }, said) {
  if (!said || model.alm.one_turn) return;
  told.push(await message(clip, prompt), { role: "assistant", content: said });
  heard = clip ?? heard;
}

function failed(error, question, turn) {
  if (error.name === "AbortError") {
    turn.stopped(told.length > 0);
    return;
  }
  if (!(error instanceof Refused)) console.error(error); // a fault of this page
  const again = () => {
    if (running) return;
    turns = turns.filter((other) => other !== turn);
    turn.close();
    answer(question);
  };
  turn.failed(error.message, again, error.retryAfter ?? 0);
  if (error.status === 401) askKey(again, error.message);
}

function show(turn) {
  document.body.classList.remove("fresh");
  at("anew").hidden = false;
  at("turns").append(turn.element);
  composer.measure(); // its clip has gone into the turn
  turn.element.scrollIntoView({ block: "start" });
}

/** All is forgotten but the last clip, which may be asked about anew. */
function anew() {
  running?.abort();
  for (const turn of turns) {
    turn.close();
    const { clip } = turn.player ?? {};
    if (clip && clip !== last) clip.release();
  }
  [turns, told] = [[], []];
  document.body.classList.add("fresh");
  at("anew").hidden = true;
  composer.about(null);
  composer.going = false;
  if (last && !composer.clip) composer.choose(last);
  last = heard = null;
  composer.focus();
}

/** Ask for the server's key, and then do what wanted it. */
function askKey(then, why) {
  const wrong = forgetKey();
  withKey = then;
  at("key-why").textContent = wrong
    ? `The server says: ${why}`
    : "This server answers to those who have its key.";
  at("ask-key").showModal();
}

at("key").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(at("key-text").value.trim());
  at("key-text").value = "";
  at("ask-key").close();
  withKey?.();
});

at("anew").addEventListener("click", anew);

async function open() {
  composer.wrong("");
  try {
    [model] = await models();
  } catch (error) {
    if (error.status === 401) askKey(open, error.message);
    else composer.wrong(error.message);
    return;
  }
  const { provider, rate } = model.alm;
  document.title = `${model.id} · alm`;
  at("model").textContent = `${model.id} · ${provider} · ${rate / 1000} kHz`;
  composer.open(model.alm);
}

/** A file from wherever it came. */
function took(files) {
  const [file, ...others] = files;
  if (!file) return;
  composer.choose(new Clip(file, file.name || "clip"));
  if (others.length) composer.wrong(`One clip at a time: this is ${file.name}.`);
}

at("file").addEventListener("change", ({ target }) => {
  took(target.files);
  target.value = ""; // the same file may be chosen again
});

addEventListener("paste", ({ clipboardData }) => took(clipboardData.files));

const carriesFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  addEventListener(name, (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    const left = name === "dragleave" && event.relatedTarget;
    at("veil").hidden = name === "drop" || (name === "dragleave" && !left);
    if (name === "drop") took(event.dataTransfer.files);
  });
}

open();
