// What an .npy file holds, by its header: a Python expression of which only one form is taken.

import { BadArtifacts, shown } from "./errors.js";

const MAGIC = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59]; // "\x93NUMPY"
const MOST_HEADER = 10_000; // numpy's own limit
const DTYPES = { "<f2": "float16", "<f4": "float32", "|i1": "int8" };
const FORM =
  /^\{'descr': '([<|][a-z]\d+)', 'fortran_order': False, 'shape': \((\d{1,12}),(?: ?(\d{1,12}),?)?\), ?\}\s*$/;

/**
 * Shape, type and start of the values of an .npy file that is long enough for them.
 * @param {Uint8Array} bytes the file
 * @param {string} name for messages
 * @returns {{shape: number[], dtype: "float16" | "float32" | "int8", start: number}}
 */
export function header(bytes, name) {
  const not = (why) => new BadArtifacts(`'${name}' is no readable table: ${why}`);
  if (bytes.length < 12 || MAGIC.some((byte, i) => bytes[i] !== byte)) throw not("it is no .npy");
  const [major, minor] = [bytes[6], bytes[7]];
  if (![1, 2].includes(major) || minor) throw not(`it is .npy of version ${major}.${minor}`);
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const length = major === 1 ? view.getUint16(8, true) : view.getUint32(8, true);
  const begin = major === 1 ? 10 : 12;
  if (length > MOST_HEADER || begin + length > bytes.length) throw not("its header is too long");
  const text = String.fromCharCode(...bytes.subarray(begin, begin + length));
  const read = FORM.exec(text);
  const dtype = read ? DTYPES[read[1]] : undefined;
  if (!read || !dtype) throw not(`its header is ${shown(text, 200)}`);
  const shape = read.slice(2).filter((size) => size !== undefined).map(Number);
  const start = begin + length;
  const size = { float16: 2, float32: 4, int8: 1 }[dtype];
  const ends = start + shape.reduce((product, n) => product * n, size);
  if (ends > bytes.length) throw not(`${bytes.length} bytes hold no ${dtype} [${shape}]`);
  return { shape, dtype, start };
}

let halves = null; // float32 of every float16, by its bits

/** float32 [n] of float16 [n], which lie as their bits. */
export function widened(/** @type {Uint16Array} */ bits) {
  halves ??= Float32Array.from({ length: 65536 }, (_, i) => half(i));
  const wide = new Float32Array(bits.length);
  for (let i = 0; i < bits.length; i++) wide[i] = halves[bits[i]];
  return wide;
}

function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  if (!exponent) return sign * fraction * 2 ** -24;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
