// ONNX Runtime Web: it is loaded from this package's own folder, and opens a part's graphs.

import { BadArtifacts, BadOption, shown } from "./errors.js";
import { ARRAYS } from "./ports.js";
import { cut, joined } from "./tensors.js";

export const PROVIDERS = ["wasm", "webgpu"];
const MOST_THREADS = 64;
const VENDOR = new URL("../vendor/", import.meta.url);
// A build for each: that with WebGPU has twice the bytes.
const SCRIPTS = { wasm: "ort.wasm.min.mjs", webgpu: "ort.webgpu.min.mjs" };

/**
 * @typedef {import("./manifest.js").Part} Part
 * @typedef {import("./tensors.js").Plain} Plain
 * @typedef {{run: (feeds: Record<string, any>, keep?: string[]) => Promise<Record<string, any>>,
 *   release: () => Promise<void>}} Session
 */

/** One of `PROVIDERS`, loaded. */
export class Engine {
  /**
   * @param {string} provider "wasm", "webgpu", or "auto": WebGPU where the browser has it
   * @param {number} threads of wasm; 0: as many as the browser has cores, 4 at most
   * @param {{dialect?: string, halves?: boolean}} graphs the decoder's dialect, and whether any
   *   part computes in float16: what WebGPU may lack
   */
  static async load(provider = "auto", threads = 0, graphs = {}) {
    if (!["auto", ...PROVIDERS].includes(provider)) {
      throw new BadOption(`provider is auto, ${PROVIDERS.join(" or ")}, not ${shown(provider)}`);
    }
    if (!Number.isInteger(threads) || threads < 0 || threads > MOST_THREADS) {
      throw new BadOption(`threads is 0 to ${MOST_THREADS}, not ${shown(threads)}`);
    }
    const lack = provider === "wasm" ? "" : await lackOfGpu(graphs);
    if (provider === "webgpu" && lack) throw new BadOption(`${lack}; use provider wasm`);
    const gpu = provider !== "wasm" && !lack;
    const chosen = gpu ? "webgpu" : "wasm";
    const ort = await import(new URL(SCRIPTS[chosen], VENDOR).href);
    ort.env.wasm.wasmPaths = VENDOR.href;
    ort.env.logLevel = "error";
    // Threads share memory, which browsers give only to pages that are isolated from other origins.
    const cores = Math.min(4, globalThis.navigator?.hardwareConcurrency ?? 1);
    ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? threads || cores : 1;
    return new Engine(ort, chosen);
  }

  /** @param {any} ort its module */
  constructor(ort, provider) {
    this.ort = ort;
    this.provider = provider;
  }

  /** How many threads of wasm run. */
  get threads() {
    return this.ort.env.wasm.numThreads;
  }

  /**
   * Open a part's graph.
   * @param {Part} part
   * @param {Uint8Array[]} files verified, in the order of the part's
   * @param {string[]} kept outputs that stay where the graph runs
   * @returns {Promise<Session>}
   */
  async open(part, files, kept = []) {
    const [graph, ...others] = part.files;
    const inside = graph.name.slice(0, graph.name.lastIndexOf("/") + 1); // of the graph's folder
    const options = {
      executionProviders: [this.provider],
      logSeverityLevel: 3, // errors, which are thrown
      externalData: others.map((file, i) => ({
        path: file.name.startsWith(inside) ? file.name.slice(inside.length) : file.name,
        data: files[i + 1],
      })),
    };
    if (this.provider === "webgpu" && kept.length) {
      options.preferredOutputLocation = Object.fromEntries(kept.map((name) => [name, "gpu-buffer"]));
    }
    let session;
    try {
      session = await this.ort.InferenceSession.create(files[0], options);
    } catch (error) {
      const why = shown(error.message ?? error, 300);
      throw new BadArtifacts(`${this.provider} cannot load '${graph.name}': ${why}`);
    }
    checkPorts(part, session);
    const opened = new Graph(this.ort, session, part);
    return part.pieces ? new PieceByPiece(opened, part) : opened;
  }
}

/** Why WebGPU does not run these graphs here, in words; "" where it does. */
async function lackOfGpu({ dialect = "", halves = false }) {
  if (dialect === "ort") {
    return "WebGPU takes no padding mask in the attention of dialect ort: export with --target web";
  }
  const adapter = await navigator.gpu?.requestAdapter();
  if (!adapter) return "this browser has no WebGPU here";
  if (halves && !adapter.features.has("shader-f16")) {
    return "this device's WebGPU has no float16 (shader-f16), which the folder computes in";
  }
  return "";
}

/** Refuse a graph whose inputs and outputs are not the manifest's. */
function checkPorts({ name, inputs, outputs }, session) {
  const sides = [
    ["inputs", inputs, session.inputNames],
    ["outputs", outputs, session.outputNames],
  ];
  for (const [side, stated, there] of sides) {
    const odd = [...there, ...stated.keys()].find((n) => !stated.has(n) || !there.includes(n));
    if (odd !== undefined) {
      throw new BadArtifacts(
        `${shown(odd)} is not both in the manifest and in the graph, of the ${side} of part ${shown(name)}`,
      );
    }
  }
}

/** One graph. Its tensors are plain ones, or those that a run before kept. */
class Graph {
  constructor(ort, session, part) {
    this.ort = ort;
    this.session = session;
    this.part = part;
  }

  /**
   * All outputs by name; those in `keep` are good as feeds of the next run, and for `release`.
   * @param {Record<string, Plain | Kept>} feeds
   */
  async run(feeds, keep = []) {
    const given = Object.entries(feeds).map(([name, feed]) => [name, this._tensor(feed)]);
    let outputs;
    try {
      outputs = await this.session.run(Object.fromEntries(given));
    } catch (error) {
      const why = shown(error.message ?? error, 300);
      throw new BadArtifacts(`part ${shown(this.part.name)} failed: ${why}`);
    }
    const made = {};
    for (const [name, tensor] of Object.entries(outputs)) {
      made[name] = keep.includes(name) ? new Kept(tensor) : await plainOf(tensor);
    }
    return made;
  }

  _tensor(feed) {
    if (feed instanceof Kept) return feed.tensor;
    return new this.ort.Tensor(feed.dtype, feed.data, feed.dims);
  }

  /** The graph is wanted no more. */
  release() {
    return this.session.release();
  }
}

/** A tensor that stays where the graph runs. */
export class Kept {
  constructor(tensor) {
    this.tensor = tensor;
  }

  /** On the processor. */
  fetch() {
    return plainOf(this.tensor);
  }

  /** Its memory is wanted no more. */
  release() {
    this.tensor.dispose();
  }
}

/** @returns {Promise<Plain>} */
async function plainOf(tensor) {
  const data = await tensor.getData();
  const kind = ARRAYS[tensor.type];
  if (!kind) throw new BadArtifacts(`a graph gave a tensor of ${shown(tensor.type)}`);
  const right = data instanceof kind ? data : new kind(data.buffer, data.byteOffset, data.length);
  return { dtype: tensor.type, dims: [...tensor.dims], data: right };
}

/**
 * A graph that hears pieces of one size at most: longer inputs are run piece by piece, and what it
 * makes of them follows each other along the second axis; counts, of one axis, add up.
 */
class PieceByPiece {
  constructor(graph, { inputs, pieces, spans }) {
    this.graph = graph;
    this.most = Math.max(1, spans.get(pieces)[2]);
    const ports = [...inputs];
    this.cuts = ports.flatMap(([name, { axes }]) =>
      axes.includes(pieces) ? [[name, axes.indexOf(pieces)]] : [],
    );
    this.counts = ports.flatMap(([name, { counts }]) => (counts === pieces ? [name] : []));
  }

  async run(feeds, keep = []) {
    const whole = Math.max(...this.cuts.map(([name, axis]) => feeds[name].dims[axis]));
    if (whole <= this.most) return this.graph.run(feeds, keep);
    const outputs = [];
    for (let start = 0; start < whole; start += this.most) {
      outputs.push(await this._piece(feeds, start));
    }
    return Object.fromEntries(
      Object.keys(outputs[0]).map((name) => [name, follow(outputs.map((made) => made[name]))]),
    );
  }

  async _piece(feeds, start) {
    const piece = { ...feeds };
    for (const [name, axis] of this.cuts) {
      piece[name] = cut(feeds[name], axis, start, start + this.most);
    }
    let ended = false; // the clip itself, behind which there is padding
    for (const name of this.counts) {
      const left = Number(feeds[name].data[0]) - start;
      ended ||= left <= 0;
      const kind = ARRAYS[feeds[name].dtype];
      const number = Math.max(1, Math.min(left, this.most));
      const data = kind === BigInt64Array ? [BigInt(number)] : [number];
      piece[name] = { ...feeds[name], data: kind.from(data) };
    }
    const made = await this.graph.run(piece);
    if (ended) for (const { data } of Object.values(made)) data.fill(zeroOf(data));
    return made;
  }

  release() {
    return this.graph.release();
  }
}

const zeroOf = (data) => (data instanceof BigInt64Array ? 0n : 0);

function follow(tensors) {
  if (tensors[0].dims.length > 1) return joined(tensors, 1);
  const data = tensors[0].data.slice();
  for (const tensor of tensors.slice(1)) data.forEach((_, i) => (data[i] += tensor.data[i]));
  return { ...tensors[0], data };
}
