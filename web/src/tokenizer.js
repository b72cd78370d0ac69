// Words and tokens: Hugging Face's own tokenizer in JavaScript, from the model's tokenizer.json.

import { Tokenizer } from "../vendor/tokenizers.min.mjs";
import { BadArtifacts, shown } from "./errors.js";
import { isObject } from "./facts.js";

export const MOST_BYTES = 256 * 2 ** 20; // of a tokenizer.json; those of large vocabularies have 35
const CONFIG = { clean_up_tokenization_spaces: false }; // text is what the tokens say, and no more

/** A tokenizer, whose failures are refusals. */
export class Words {
  /** @param {Uint8Array} bytes a verified tokenizer.json */
  constructor(bytes) {
    this._calm(() => {
      const plain = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
      if (!isObject(plain) || !isObject(plain.model)) throw new Error("it is no tokenizer.json");
      const added = plain.added_tokens ?? [];
      this._tokenizer = new Tokenizer({ ...plain, added_tokens: added }, CONFIG);
      this._controls = added.filter(({ special }) => special).map(({ content }) => content);
      const plainly = added.filter(({ special }) => !special);
      this._literally = () => new Tokenizer({ ...plain, added_tokens: plainly }, CONFIG);
    });
  }

  /**
   * Ids of a text, without tokens around it.
   * @param {string} text
   * @param {boolean} [literal] control tokens that it spells stay text
   * @returns {number[]}
   */
  ids(text, literal = false) {
    if (!text) return [];
    const spelled = literal && this._controls.some((token) => text.includes(token));
    return this._calm(() => {
      const tokenizer = spelled ? (this._plain ??= this._literally()) : this._tokenizer;
      const { ids } = tokenizer.encode(text, { add_special_tokens: false });
      if (!ids.every(Number.isInteger)) throw new Error("it has no token for a part of a text");
      return ids;
    });
  }

  /** The text of ids, special tokens left out. */
  text(/** @type {number[]} */ ids) {
    if (!ids.length) return "";
    return this._calm(() => this._tokenizer.decode(ids, { skip_special_tokens: true }));
  }

  /** The token's own spelling; "" where there is none. */
  token(/** @type {number} */ id) {
    return this._tokenizer.id_to_token(id) ?? "";
  }

  /** The id of a token by its spelling, or null. */
  id(/** @type {string} */ token) {
    return this._tokenizer.token_to_id(token) ?? null;
  }

  _calm(work) {
    try {
      return work();
    } catch (error) {
      throw new BadArtifacts(`the model's tokenizer failed: ${shown(error.message ?? error, 200)}`);
    }
  }
}
