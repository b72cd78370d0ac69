// Ports: what a part takes and gives. The tensor's name is the joint between two parts.

import { BadArtifacts, shown } from "./errors.js";
import { isObject } from "./facts.js";

export const CAPACITY_STEP = 64; // caches of fixed capacity come in multiples of this
export const FIRST = "first_position"; // of a decoder: the position of slot 0 of the cache
export const FROM_END = "logits_from_end"; // of a decoder: which logits, 0 is the last position's
const CACHE_IN = "past_key_values.";
const CACHE_OUT = "present.";
const SLOT = "lora."; // begins the inputs that take an adapter
const RANK = "rank"; // the axis of those that is as long as the adapter's rank
const FED = ["inputs_embeds", "past_lengths", "seq_lengths", FIRST, FROM_END];

const MOST_AXES = 16;
const MOST_AXIS = 2 ** 40;
const MOST_PORT = 2 ** 34; // bytes of a port whose dynamic axes are 1

/** Typed arrays by numpy's name of a dtype; float16 lies as its bits. */
export const ARRAYS = {
  float32: Float32Array,
  float16: Uint16Array,
  float64: Float64Array,
  int8: Int8Array,
  uint8: Uint8Array,
  bool: Uint8Array,
  int16: Int16Array,
  uint16: Uint16Array,
  int32: Int32Array,
  uint32: Uint32Array,
  int64: BigInt64Array,
  uint64: BigUint64Array,
};

/**
 * @typedef {{dtype: string, axes: (number | string)[], counts: string, below: number}} Port
 * An axis is a number, or the name of a dynamic one. `counts` names the axis of which an integer
 * port gives the valid part.
 */

/** Whether a port takes what the run before gave: a KV cache's. */
export const isCarried = (/** @type {string} */ name) => name.startsWith(CACHE_IN);

/** Whether a port takes an adapter's weights. */
export const isSlot = (/** @type {string} */ name) => name.startsWith(SLOT);

/** The output that a carried input is fed from at the next run. */
export const givenAs = (/** @type {string} */ name) => CACHE_OUT + name.slice(CACHE_IN.length);

/** The inputs that other parts, or the caller, give. */
export const taken = (/** @type {Map<string, Port>} */ ports) =>
  [...ports.keys()].filter((name) => !isCarried(name) && !isSlot(name));

/** The shape of a port whose dynamic axes have these sizes. */
export function shape(/** @type {Port} */ port, /** @type {Record<string, number>} */ sizes) {
  return port.axes.map((axis) => {
    const size = typeof axis === "number" ? axis : sizes[axis];
    if (size === undefined) throw new BadArtifacts(`nothing says how long axis ${shown(axis)} is`);
    return size;
  });
}

/** What the slots of a part take where there is no adapter: the sizes of zeros of rank 1. */
export const blank = (/** @type {Map<string, Port>} */ ports) =>
  [...ports].filter(([name]) => isSlot(name)).map(([name, port]) => [name, port, { [RANK]: 1 }]);

/**
 * Ports out of a manifest, checked.
 * @param {unknown} plain
 * @param {string} where in words
 * @returns {Map<string, Port>}
 */
export function portsOf(plain, where) {
  if (!isObject(plain)) throw new BadArtifacts(`${where} are no object`);
  return new Map(Object.entries(plain).map(([name, port]) => [name, checked(port, name, where)]));
}

function checked(plain, name, where) {
  const which = `port ${shown(name)} in the ${where}`;
  const { dtype, axes, counts = "", below = 0 } = isObject(plain) ? plain : {};
  if (!Object.hasOwn(ARRAYS, dtype ?? "")) {
    throw new BadArtifacts(`${which} is of type ${shown(dtype)}, which no tensor here can be`);
  }
  const right = (axis) =>
    typeof axis === "string" || (Number.isInteger(axis) && 0 <= axis && axis <= MOST_AXIS);
  if (!Array.isArray(axes) || axes.length > MOST_AXES || !axes.every(right)) {
    throw new BadArtifacts(`the axes of ${which} are ${shown(axes)}, not numbers and names`);
  }
  const fixed = axes.filter((axis) => typeof axis === "number");
  if (fixed.reduce((size, axis) => size * axis, ARRAYS[dtype].BYTES_PER_ELEMENT) > MOST_PORT) {
    throw new BadArtifacts(`the axes of ${which} are ${shown(axes)}, more than ${MOST_PORT} bytes`);
  }
  if (typeof counts !== "string" || !Number.isInteger(below) || below < 0) {
    throw new BadArtifacts(`${which} counts ${shown(counts)} below ${shown(below)}`);
  }
  return { dtype, axes, counts, below };
}

/** Refuse a decoder that cannot be fed. */
export function checkDecoder({ name, inputs, outputs }) {
  if (!inputs.has("inputs_embeds") || !outputs.has("logits")) {
    throw new BadArtifacts(`part ${shown(name)} lacks inputs_embeds or logits`);
  }
  for (const [input, port] of inputs) {
    if (isCarried(input)) {
      const named = port.axes.slice(1).filter((axis) => typeof axis === "string");
      const grows = named.length === 1 && ["past", "capacity"].includes(String(named[0]));
      if (!grows || !["batch", 1].includes(port.axes[0]) || !outputs.has(givenAs(input))) {
        throw new BadArtifacts(`${shown(input)} of part ${shown(name)} is no KV cache's`);
      }
    } else if (!isSlot(input) && !FED.includes(input)) {
      throw new BadArtifacts(`part ${shown(name)} takes ${shown(input)}, which nothing gives here`);
    }
  }
}
