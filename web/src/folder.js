// An artifact folder on a web server: files are contained in it, as long as stated, and unchanged.

import { BadArtifacts, shown } from "./errors.js";
import { checkName, MOST_BYTES, NAME, parse } from "./manifest.js";

/**
 * @typedef {import("./manifest.js").File} File
 * @typedef {(name: string, done: number, bytes: number) => void} OnProgress
 */

/** A folder by its address. Nothing outside of it is asked for, and no redirection is followed. */
export class Folder {
  /**
   * @param {string | URL} address of the folder, absolute or relative to `base`
   * @param {{base?: string, onProgress?: OnProgress}} [options] `onProgress` hears of each file how
   *   many of its bytes have come
   */
  constructor(address, { base = globalThis.location?.href, onProgress = () => {} } = {}) {
    let url;
    try {
      url = new URL(address, base);
    } catch {
      throw new BadArtifacts(`${shown(String(address), 200)} is no address of a folder`);
    }
    if (!/^https?:$/.test(url.protocol) || url.username || url.search || url.hash) {
      throw new BadArtifacts(
        `the folder ${shown(url.href, 200)} is wanted as http or https, without ?, # and a password`,
      );
    }
    if (!url.pathname.endsWith("/")) url.pathname += "/";
    this.url = url;
    this.onProgress = onProgress;
  }

  /** The manifest, checked. */
  async manifest() {
    const bytes = await this._download(NAME, { most: MOST_BYTES });
    let text;
    try {
      text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    } catch {
      throw new BadArtifacts(`${NAME} is not UTF-8`);
    }
    return parse(text);
  }

  /**
   * The bytes of a file, which are those that the manifest's sha256 is of.
   * @param {File} file
   * @param {number} [most] bytes that are taken at all
   * @returns {Promise<Uint8Array>}
   */
  async bytes(file, most = Infinity) {
    if (file.bytes > most) {
      throw new BadArtifacts(
        `'${file.name}' has ${file.bytes} bytes in the manifest, and ${most} at most are taken`,
      );
    }
    const bytes = await this._download(file.name, { wanted: file.bytes });
    const there = hex(await digest(bytes));
    if (there !== file.sha256) {
      throw new BadArtifacts(
        `'${file.name}' has sha256 ${there} and the manifest says ${file.sha256}; copy it again`,
      );
    }
    return bytes;
  }

  /** Where a file is: below the folder, whatever its name holds. */
  _address(name) {
    const path = checkName(name).split("/").map(encodeURIComponent).join("/");
    const url = new URL(path, this.url);
    if (url.origin !== this.url.origin || !url.pathname.startsWith(this.url.pathname)) {
      throw new BadArtifacts(`the file name ${shown(name)} is refused: it leads out of the folder`);
    }
    return url;
  }

  /** All of a file, of `wanted` bytes, or of `most` at most. */
  async _download(name, { wanted, most = wanted }) {
    const url = this._address(name);
    let response;
    try {
      // What a browser has kept of it is compared with the server: a folder may be exported anew.
      response = await fetch(url, { redirect: "error", cache: "no-cache" });
    } catch (error) {
      throw new BadArtifacts(`'${name}' cannot be had from ${this.url}: ${error.message}`);
    }
    if (!response.ok) {
      await response.body?.cancel();
      throw new BadArtifacts(`there is no '${name}' in ${this.url} (status ${response.status})`);
    }
    const stated = response.headers.get("content-length");
    const plain = !response.headers.get("content-encoding") && stated !== null;
    if (plain && (wanted === undefined ? Number(stated) > most : Number(stated) !== wanted)) {
      await response.body?.cancel();
      throw wrongLength(name, `${stated} bytes`, wanted, most);
    }
    return this._read(response, name, wanted, most, plain);
  }

  /** Memory is taken as bytes come, or at once where the server has stated as many as are wanted. */
  async _read(response, name, wanted, most, plain) {
    const whole = plain && wanted !== undefined ? new Uint8Array(wanted) : null;
    const chunks = [];
    let done = 0;
    const reader = response.body.getReader();
    for (;;) {
      const { done: ended, value } = await reader.read();
      if (ended) break;
      if (done + value.length > most) {
        await reader.cancel();
        throw wrongLength(name, "more", wanted, most);
      }
      if (whole) whole.set(value, done);
      else chunks.push(value);
      done += value.length;
      this.onProgress(name, done, wanted ?? done);
    }
    if (wanted !== undefined && done !== wanted) {
      throw wrongLength(name, `${done} bytes`, wanted, most);
    }
    return whole ?? joined(chunks, done);
  }
}

function wrongLength(name, there, wanted, most) {
  const says = wanted === undefined ? `${most} at most are taken` : `the manifest says ${wanted}`;
  return new BadArtifacts(`'${name}' has ${there}, and ${says}; copy it again`);
}

function joined(chunks, length) {
  const whole = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    whole.set(chunk, at);
    at += chunk.length;
  }
  return whole;
}

/** sha256 of bytes, in hexadecimal. */
async function digest(bytes) {
  if (!globalThis.crypto?.subtle) {
    throw new BadArtifacts(
      "this page may not hash files (crypto.subtle): open it on https, or on localhost",
    );
  }
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
}

const hex = (bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
