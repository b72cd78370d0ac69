// The page: an artifact folder is loaded, a clip chosen, and the model asked about it.

import { decode, openInWorker } from "../src/index.js";
import { Answer } from "./answer.js";
import { at, made } from "./dom.js";
import { Recording } from "./recorder.js";

const MAIN = 6; // tasks that are shown at once

let model = null;
let clip = null; // {name, pcm}
let recording = null;
let playing = null; // the AudioContext
let running = null; // the pieces of the answer that comes

function wrong(sentence) {
  at("wrong").textContent = sentence;
  at("wrong").hidden = !sentence;
}

/** Load the folder that is named. */
async function open() {
  wrong("");
  at("open").inert = true;
  at("progress").hidden = false;
  const old = model;
  model = null;
  at("ask").hidden = true;
  await old?.close();
  const onProgress = (name, done, bytes) => {
    at("progress").value = bytes ? done / bytes : 1;
    at("about").textContent = `${name}: ${(done / 2 ** 20).toFixed(1)} MiB`;
  };
  try {
    const provider = at("provider").value;
    model = await openInWorker(at("address").value.trim(), { provider, onProgress });
    opened();
  } catch (error) {
    at("about").textContent = "No model is loaded.";
    wrong(error.message);
  }
  at("progress").hidden = true;
  at("open").inert = false;
}

function opened() {
  const { family, provider, threads, rate, tasks, loadMs } = model;
  const where = provider === "wasm" ? `wasm, ${threads} thread${threads > 1 ? "s" : ""}` : provider;
  at("about").textContent =
    `${family} · ${where} · ${rate / 1000} kHz · loaded in ${(loadMs / 1000).toFixed(1)} s`;
  const button = (name) => {
    const element = made("button", { type: "button", title: tasks[name], textContent: name });
    element.addEventListener("click", () => ask(name));
    return element;
  };
  const names = Object.keys(tasks);
  at("tasks").replaceChildren(...names.slice(0, MAIN).map(button));
  if (names.length > MAIN) {
    const summary = made("summary", { textContent: `${names.length - MAIN} more` });
    const others = made("div", { className: "row" }, ...names.slice(MAIN).map(button));
    at("tasks").append(made("details", {}, summary, others));
  }
  at("ask").hidden = false;
  at("file").focus();
}

/** This sound is asked about next. */
function choose(name, pcm) {
  clip = { name, pcm };
  at("invite").textContent = `${name}, ${(pcm.length / model.rate).toFixed(1)} s`;
  at("play").hidden = false;
  at("tasks").querySelector("button")?.focus();
}

/** A file from wherever it came. */
async function took([file]) {
  if (!file) return;
  wrong("");
  if (!model) {
    wrong("Load a model first: it says at which rate it hears.");
    return;
  }
  try {
    choose(file.name || "clip", await decode(file, model));
  } catch (error) {
    wrong(`${file.name}: ${error.message}`);
  }
}

async function ask(prompt) {
  wrong("");
  if (running || !model) return;
  if (!prompt) {
    wrong("Say what to do: choose a task, or write a prompt.");
    at("prompt").focus();
    return;
  }
  if (!clip) {
    wrong("What shall be heard? Choose a clip or record one.");
    at("record").focus();
    return;
  }
  at("prompt").value = "";
  const answer = new Answer(prompt, clip.name);
  at("answers").prepend(answer.element);
  runs(model.stream(clip.pcm, prompt));
  let stopped = true;
  try {
    for (;;) {
      const { done, value } = await running.next();
      if (done && value) answer.done(value);
      if (done) {
        stopped = !value;
        break;
      }
      answer.add(value);
    }
    if (stopped) answer.ended("Stopped here.", false);
  } catch (error) {
    answer.ended(error.message, true);
  }
  runs(null);
}

/** While an answer comes it can be stopped, and nothing else asked. */
function runs(pieces) {
  running = pieces;
  for (const button of at("tasks").querySelectorAll("button")) button.disabled = Boolean(pieces);
  at("send").hidden = Boolean(pieces);
  at("stop").hidden = !pieces;
}

async function record() {
  wrong("");
  if (recording) {
    const pcm = await recording.stop();
    recording = null;
    at("record").textContent = "Record";
    if (pcm) choose("recording", pcm);
    else wrong("Nothing came from the microphone.");
    return;
  }
  try {
    recording = await Recording.start(model.rate, (seconds) => {
      at("record").textContent = `Stop recording · ${seconds.toFixed(1)} s`;
    });
    at("record").textContent = "Stop recording";
  } catch (error) {
    wrong(error.message);
  }
}

/** Hear the clip as the model hears it; once more ends it. */
function play() {
  if (playing) {
    playing.close();
    playing = null;
    at("play").textContent = "Play";
    return;
  }
  playing = new AudioContext({ sampleRate: model.rate });
  const buffer = playing.createBuffer(1, clip.pcm.length, model.rate);
  buffer.copyToChannel(clip.pcm, 0);
  const source = new AudioBufferSourceNode(playing, { buffer });
  source.connect(playing.destination);
  source.addEventListener("ended", () => playing && play());
  source.start();
  at("play").textContent = "Stop playing";
}

function listen() {
  at("open").addEventListener("submit", (event) => {
    event.preventDefault();
    open();
  });
  at("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    ask(at("prompt").value.trim());
  });
  at("stop").addEventListener("click", () => running?.return());
  at("record").addEventListener("click", record);
  at("play").addEventListener("click", play);
  at("file").addEventListener("change", async ({ target }) => {
    await took(target.files);
    target.value = ""; // the same file may be chosen again
  });
  addEventListener("keydown", ({ key }) => key === "Escape" && running?.return());
  addEventListener("paste", ({ clipboardData }) => took(clipboardData.files));
  const carriesFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
    addEventListener(name, (event) => {
      if (!carriesFiles(event)) return;
      event.preventDefault();
      at("veil").hidden = name === "drop" || (name === "dragleave" && !event.relatedTarget);
      if (name === "drop") took(event.dataTransfer.files);
    });
  }
}

listen();
const named = new URLSearchParams(location.search).get("model");
at("address").value = named ?? "artifacts/";
// A link may name a folder; one on another server is asked for only when somebody presses Load.
if (named && new URL(named, location.href).origin === location.origin) open();
