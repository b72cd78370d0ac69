// Tensors on the processor as plain data: made, cut along an axis, and put one behind another.

import { widened } from "./npy.js";
import { ARRAYS } from "./ports.js";

/**
 * @typedef {{dtype: string, dims: number[], data: any}} Plain
 * A tensor whose typed `data` lies row by row; float16 lies as its bits.
 */

const product = (sizes) => sizes.reduce((size, n) => size * n, 1);

/**
 * Zeros of a shape.
 * @param {string} dtype numpy's name
 * @param {number[]} dims
 * @returns {Plain}
 */
export function zeros(dtype, dims) {
  return { dtype, dims, data: new ARRAYS[dtype](product(dims)) };
}

/** float32 of a shape, of data that lies so. */
export const floats = (data, ...dims) => ({ dtype: "float32", dims, data });

/** The values of floats as float32. */
export const wide = (/** @type {Plain} */ { dtype, data }) =>
  dtype === "float16" ? widened(data) : data;

/** int64 [n] of numbers. */
export function longs(...numbers) {
  return { dtype: "int64", dims: [numbers.length], data: BigInt64Array.from(numbers, BigInt) };
}

/**
 * What lies between `start` and `end` on an axis.
 * @param {Plain} tensor
 * @param {number} axis
 * @param {number} start
 * @param {number} end
 * @returns {Plain}
 */
export function cut({ dtype, dims, data }, axis, start, end) {
  const outer = product(dims.slice(0, axis));
  const inner = product(dims.slice(axis + 1));
  const size = Math.min(end, dims[axis]) - start;
  const made = zeros(dtype, dims.with(axis, size));
  for (let i = 0; i < outer; i++) {
    const from = (i * dims[axis] + start) * inner;
    made.data.set(data.subarray(from, from + size * inner), i * size * inner);
  }
  return made;
}

/**
 * The same with room for `length` on an axis; what is new is zero.
 * @param {Plain} tensor
 * @returns {Plain}
 */
export function grown({ dtype, dims, data }, axis, length) {
  const inner = product(dims.slice(axis + 1));
  const made = zeros(dtype, dims.with(axis, length));
  for (let i = 0; i < product(dims.slice(0, axis)); i++) {
    const from = i * dims[axis] * inner;
    made.data.set(data.subarray(from, from + dims[axis] * inner), i * length * inner);
  }
  return made;
}

/**
 * Tensors one behind another on an axis; those that are alike but for its length.
 * @param {Plain[]} tensors
 * @returns {Plain}
 */
export function joined(tensors, axis) {
  const [{ dtype, dims }] = tensors;
  const length = tensors.reduce((sum, tensor) => sum + tensor.dims[axis], 0);
  const made = zeros(dtype, dims.with(axis, length));
  const inner = product(dims.slice(axis + 1));
  for (let i = 0; i < product(dims.slice(0, axis)); i++) {
    let at = i * length * inner;
    for (const tensor of tensors) {
      const size = tensor.dims[axis] * inner;
      made.data.set(tensor.data.subarray(i * size, (i + 1) * size), at);
      at += size;
    }
  }
  return made;
}
