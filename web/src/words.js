// White space and near names as Python has them, so that prompts and texts are the same here.

// What str.strip() strips; JavaScript's trim() knows U+FEFF too, and not U+001C to U+001F and U+0085.
const SPACE = "[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]";
const LEFT = new RegExp(`^${SPACE}+`);
const RIGHT = new RegExp(`${SPACE}+$`);
const NEAR = 0.8; // of difflib's ratio: one wrong letter in a word of five is near

/** The text without white space at its beginning. */
export const lstrip = (/** @type {string} */ text) => text.replace(LEFT, "");

/** The text without white space at its end. */
export function rstrip(/** @type {string} */ text) {
  let end = text.length; // a pattern that ends in $ is tried at every space
  while (end && RIGHT.test(text[end - 1])) end--;
  return text.slice(0, end);
}

/** The text without white space at both ends. */
export const strip = (/** @type {string} */ text) => lstrip(rstrip(text));

/** How often `part` stands in `text`, without overlaps. */
export const count = (/** @type {string} */ text, /** @type {string} */ part) =>
  text.split(part).length - 1;

/** `a`, `a or b`, `a, b or c`. */
export function either(/** @type {string[]} */ names) {
  return [names.slice(0, -1).join(", "), names.at(-1)].filter(Boolean).join(" or ");
}

/**
 * The name that `name` is likely a slip of, as difflib.get_close_matches finds it; "" for none.
 * @param {string} name
 * @param {Iterable<string>} known
 */
export function near(name, known) {
  const word = name.toLowerCase();
  let best = { ratio: 0, lower: "", other: "" };
  for (const other of known) {
    const lower = other.toLowerCase();
    const found = ratio(lower, word);
    const better = found > best.ratio || (found === best.ratio && lower > best.lower);
    if (found >= NEAR && better) best = { ratio: found, lower, other };
  }
  return best.other;
}

/** Twice the letters in blocks that both have, as a share of all letters. */
function ratio(/** @type {string} */ a, /** @type {string} */ b) {
  if (!a.length && !b.length) return 1;
  let same = 0;
  const open = [[0, a.length, 0, b.length]];
  while (open.length) {
    const [aLow, aHigh, bLow, bHigh] = /** @type {number[]} */ (open.pop());
    const [i, j, size] = longest(a, aLow, aHigh, b, bLow, bHigh);
    if (!size) continue;
    same += size;
    open.push([aLow, i, bLow, j], [i + size, aHigh, j + size, bHigh]);
  }
  return (2 * same) / (a.length + b.length);
}

/** The longest block of both, the earliest of equals: its places and its length. */
function longest(a, aLow, aHigh, b, bLow, bHigh) {
  let best = [aLow, bLow, 0];
  let lengths = new Map();
  for (let i = aLow; i < aHigh; i++) {
    const next = new Map();
    for (let j = bLow; j < bHigh; j++) {
      if (a[i] !== b[j]) continue;
      const size = (lengths.get(j - 1) ?? 0) + 1;
      next.set(j, size);
      if (size > best[2]) best = [i - size + 1, j - size + 1, size];
    }
    lengths = next;
  }
  return best;
}
