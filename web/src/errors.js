// What this runtime refuses, each in one sentence: what was wanted, what there was, what to do.

/** A refusal; `name` says of what. The message is a whole sentence for a person. */
export class Refused extends Error {
  /** @param {string} message */
  constructor(message) {
    super(message);
    this.name = this.constructor.name;
  }
}

/** The artifact folder: absent, changed, misshapen, or of another format. */
export class BadArtifacts extends Refused {}

/** Sound that cannot be used. */
export class BadAudio extends Refused {}

/** An option that is unknown, out of range, or not done in a browser. */
export class BadOption extends Refused {}

/** A prompt that this model has no place for. */
export class BadPrompt extends Refused {}

/** A task or language that this model does not have. */
export class UnknownName extends Refused {}

const KINDS = { BadArtifacts, BadAudio, BadOption, BadPrompt, UnknownName };

/**
 * An error as plain data, for another thread.
 * @param {unknown} error
 * @returns {{name: string, message: string}}
 */
export function plainOf(error) {
  if (error instanceof Error) return { name: error.name, message: error.message };
  return { name: "Error", message: String(error) };
}

/**
 * The error that `plainOf` made plain data of.
 * @param {{name: string, message: string}} plain
 * @returns {Error}
 */
export function errorOf({ name, message }) {
  if (Object.hasOwn(KINDS, name)) return new KINDS[name](message);
  const error = new Error(message);
  error.name = name;
  return error;
}

/**
 * A value out of an untrusted file as a message may show it: short, one line, no control characters.
 * @param {unknown} value
 */
export function shown(value, most = 80) {
  const text = typeof value === "string" ? `'${value}'` : (JSON.stringify(value) ?? String(value));
  const cut = text.length > most ? `${text.slice(0, most - 1)}\u2026` : text;
  return cut.replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, "\ufffd");
}
