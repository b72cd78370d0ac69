// What a page imports.

export { decode, mono } from "./audio.js";
export { BadArtifacts, BadAudio, BadOption, BadPrompt, Refused, UnknownName } from "./errors.js";
export { Model } from "./model.js";
export { openInWorker } from "./remote.js";
