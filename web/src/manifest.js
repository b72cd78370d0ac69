// The manifest: everything the runtime knows of a model. It is an untrusted file, and stays data.

import { BadArtifacts, shown } from "./errors.js";
import { isObject, section } from "./facts.js";
import { checkDecoder, isCarried, portsOf, taken } from "./ports.js";

export const NAME = "manifest.json";
export const MOST_BYTES = 8 * 2 ** 20; // a manifest is kilobytes; more is no manifest
const VERSION = 2; // of the format
const ROLES = ["frontend", "encoder", "bridge", "decoder", "table"];
const MOST_FILE = 2 ** 31 - 1; // bytes: a WebAssembly memory of 4 GiB holds a graph beside its copy
const MOST_DEEP = 32; // lists and objects in each other

/**
 * @typedef {{name: string, bytes: number, sha256: string}} File
 * @typedef {import("./ports.js").Port} Port
 * @typedef {object} Part one module of the model: a graph with its ports, or the embedding table
 * @property {string} name
 * @property {string} role
 * @property {File[]} files the graph or the table, then its external data
 * @property {Map<string, Port>} inputs
 * @property {Map<string, Port>} outputs
 * @property {Map<string, number[]>} spans least, usual and most of each dynamic axis
 * @property {string} dialect of a decoder: the form of its attention
 * @property {boolean} halves it computes in float16
 * @property {string} pieces the axis that is cut into pieces as long as its span
 * @typedef {object} Manifest
 * @property {string} family
 * @property {Part[]} parts in the order of a run
 * @property {File} tokenizer
 * @property {Record<string, any>} facts by section
 * @property {Record<string, unknown>} generation the model's own decoding options
 */

/**
 * The manifest in a JSON text, complete and checked.
 * @param {string} text
 * @returns {Manifest}
 */
export function parse(text) {
  let plain;
  try {
    plain = JSON.parse(text);
  } catch (error) {
    throw new BadArtifacts(`${NAME} is not JSON: ${shown(error.message, 200)}`);
  }
  if (!isObject(plain) || plain.format !== "alm-edge") {
    throw new BadArtifacts(`${NAME} is no manifest of alm-edge`);
  }
  if (plain.format_version !== VERSION) {
    const what = shown(plain.format_version);
    throw new BadArtifacts(`${NAME} is of format ${what}, and this version reads ${VERSION}`);
  }
  if (deep(plain) > MOST_DEEP) throw new BadArtifacts(`${NAME} is nested too deep`);
  if (!Array.isArray(plain.parts)) throw new BadArtifacts(`${NAME} lists no parts`);
  const parts = plain.parts.map(partOf);
  if (new Set(parts.map(({ name }) => name)).size < parts.length) {
    throw new BadArtifacts(`${NAME} lists a part twice`);
  }
  if (!isObject(plain.generation)) throw new BadArtifacts(`${NAME} lacks 'generation'`);
  const facts = {};
  for (const name of ["dimensions", "audio", "prompt", "tokens", "units", "align", "live"]) {
    facts[name] = section(plain, name);
  }
  const family = typeof plain.family === "string" ? plain.family : "";
  checkWhole(plain, parts);
  refuse(facts, parts);
  const { generation, tokenizer } = plain;
  return { family, parts, tokenizer: fileOf(tokenizer, "the tokenizer"), facts, generation };
}

/** The parts of one of these roles, in the order of a run. */
export const withRole = (/** @type {Manifest} */ manifest, ...roles) =>
  manifest.parts.filter(({ role }) => roles.includes(role));

/** The parts before the decoder. */
export const front = (/** @type {Manifest} */ manifest) =>
  withRole(manifest, "frontend", "encoder", "bridge");

/**
 * Refuse a name that could mean a file outside its folder.
 * @param {unknown} name parts joined by "/", relative, none of them "", "." or ".."
 * @returns {string}
 */
export function checkName(name) {
  const right =
    typeof name === "string" &&
    name.length <= 1000 &&
    !/[\u0000-\u001f\u007f\\:]/.test(name) &&
    name.split("/").every((part) => !["", ".", ".."].includes(part));
  if (!right) {
    throw new BadArtifacts(`the file name ${shown(name)} is refused: it may lead out of the folder`);
  }
  return /** @type {string} */ (name);
}

function fileOf(plain, where) {
  const { name, bytes, sha256 } = isObject(plain) ? plain : {};
  checkName(name);
  if (!Number.isInteger(bytes) || bytes < 0 || bytes > MOST_FILE) {
    throw new BadArtifacts(
      `${shown(name)}, a file of ${where}, has ${shown(bytes)} bytes; a page can take ${MOST_FILE}`,
    );
  }
  if (typeof sha256 !== "string" || !/^[0-9a-f]{64}$/i.test(sha256)) {
    throw new BadArtifacts(`${shown(name)}, a file of ${where}, has no sha256`);
  }
  return { name, bytes, sha256: sha256.toLowerCase() };
}

/** @returns {Part} */
function partOf(plain, number) {
  if (!isObject(plain) || typeof plain.name !== "string") {
    throw new BadArtifacts(`part ${number} of ${NAME} has no name`);
  }
  const where = `part ${shown(plain.name)}`;
  const { name, role, files, spans = {}, pieces = "", dialect = "" } = plain;
  if (typeof dialect !== "string") throw new BadArtifacts(`'dialect' of ${where} is no text`);
  if (!ROLES.includes(role)) throw new BadArtifacts(`${where} has the role ${shown(role)}`);
  if (!Array.isArray(files) || !files.length) throw new BadArtifacts(`${where} has no files`);
  if (role !== "table" && !String(files[0]?.name).endsWith(".onnx")) {
    throw new BadArtifacts(`${where}: a graph's name ends in .onnx, not ${shown(files[0]?.name)}`);
  }
  const inputs = portsOf(plain.inputs, `inputs of ${where}`);
  const read = spansOf(spans, where);
  if (typeof pieces !== "string" || (pieces && !read.has(pieces))) {
    throw new BadArtifacts(`'pieces' of ${where} is ${shown(pieces)}, no axis with a span`);
  }
  return {
    name,
    role,
    files: files.map((file) => fileOf(file, where)),
    inputs,
    outputs: portsOf(plain.outputs, `outputs of ${where}`),
    spans: read,
    dialect,
    halves: Boolean(plain.storage?.computes?.includes?.("float16")),
    pieces,
  };
}

function spansOf(plain, where) {
  if (!isObject(plain)) throw new BadArtifacts(`'spans' of ${where} is no object`);
  for (const [axis, span] of Object.entries(plain)) {
    const three = Array.isArray(span) && span.length === 3 && span.every(Number.isInteger);
    if (!three || !(0 <= span[0] && span[0] <= span[1] && span[1] <= span[2])) {
      throw new BadArtifacts(`span ${shown(axis)} of ${where} is ${shown(span)}`);
    }
  }
  return new Map(Object.entries(plain));
}

/** Refuse a folder that lacks what answering needs. */
function checkWhole(plain, parts) {
  const names = parts.map(({ name }) => name).join(", ") || "nothing";
  const there = new Set(["pcm", "pcm_lengths"]);
  let lack = "";
  for (const part of parts.filter(({ role }) => !["table", "decoder"].includes(role))) {
    const absent = taken(part.inputs).filter((name) => !there.has(name));
    if (absent.length) lack ||= `part ${part.name} wants ${absent.join(", ")}`;
    for (const name of part.outputs.keys()) there.add(name);
  }
  const heard = ["audio_embeds", "units"].some((name) => there.has(name));
  const roles = parts.map(({ role }) => role);
  if (lack || !heard || !roles.includes("table") || !roles.includes("decoder") || !plain.tokenizer) {
    const why = lack ? ` (${lack})` : "";
    throw new BadArtifacts(`the folder holds only ${names}, not a whole model${why}`);
  }
}

/** Refuse, by its name, what a model wants that is not done in a browser. */
function refuse({ dimensions, units, align, live }, parts) {
  const not = (what) => {
    throw new BadArtifacts(`${what}: that is not done in a browser; use the Python runtime`);
  };
  if (live.step_samples) not("this model hears a stream step by step (live)");
  if (align.mark) not("this folder is an aligner, which times words (align)");
  if (units.count) not("this model hears a clip as tokens of its vocabulary (units)");
  for (const name of ["rope_grows_past", "rope_switches_past", "rope_doubles_past"]) {
    if (dimensions[name] !== null) not(`this model's rotary frequencies change with length (${name})`);
  }
  for (const part of parts) {
    if (part.role === "decoder") checkDecoder(part);
    else if ([...part.inputs.keys()].some(isCarried)) {
      not(`part ${shown(part.name)} hears a clip piece by piece (past_key_values)`);
    }
  }
  const { vocab, table } = dimensions;
  if (table !== null && table < vocab) {
    throw new BadArtifacts(`'table' of 'dimensions' is ${table}, and 'vocab' is ${vocab}`);
  }
}

/** How many lists and objects are in each other. */
function deep(plain) {
  let level = [plain];
  for (let depth = 0; ; depth++) {
    level = level.flatMap((value) => (value && typeof value === "object" ? Object.values(value) : []));
    if (!level.length || depth > MOST_DEEP) return depth;
  }
}
