// The microphone as a WAV: mono, 16 bits, at the model's rate where the browser can.

const SENTENCES = {
  NotAllowedError: "The microphone was not allowed; the browser's address bar lets you change that.",
  NotFoundError: "There is no microphone.",
  NotReadableError: "The microphone is in use by another program.",
};

/** The samples of a recording as a file. */
export function wav(blocks, rate) {
  const samples = blocks.reduce((sum, block) => sum + block.length, 0);
  const view = new DataView(new ArrayBuffer(44 + 2 * samples));
  const text = (place, letters) =>
    [...letters].forEach((letter, i) => view.setUint8(place + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // channels
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * samples, true);
  let place = 44;
  for (const block of blocks) {
    for (const sample of block) {
      view.setInt16(place, Math.round(32767 * Math.max(-1, Math.min(1, sample))), true);
      place += 2;
    }
  }
  return new Blob([view.buffer], { type: "audio/wav" });
}

/** A recording that runs. */
export class Recording {
  /** Start it at `rate` Hz; `heard(block, seconds)` is told what comes. */
  static async start(rate, heard) {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Error("Browsers give the microphone to pages on localhost or https only.");
    }
    const sound = { channelCount: 1, echoCancellation: false, noiseSuppression: false };
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: sound });
    } catch (error) {
      throw new Error(SENTENCES[error.name] ?? `The microphone failed: ${error.message}`);
    }
    const recording = new Recording(stream, heard);
    try {
      await recording._open(rate);
    } catch (error) {
      recording.discard();
      throw new Error(`The recording could not begin: ${error.message}`);
    }
    return recording;
  }

  constructor(stream, heard) {
    this.stream = stream;
    this.heard = heard;
    this.blocks = [];
    this.samples = 0;
  }

  async _open(rate) {
    try {
      this._source(new AudioContext({ sampleRate: rate }));
    } catch {
      await this.context?.close(); // some browsers resample no microphone; then the server does
      this._source(new AudioContext());
    }
    await this.context.audioWorklet.addModule(new URL("recorder-worklet.js", import.meta.url));
    this.tap = new AudioWorkletNode(this.context, "tap", {
      channelCount: 1,
      channelCountMode: "explicit",
    });
    this.tap.port.onmessage = ({ data }) => this._take(data);
    this.source.connect(this.tap).connect(this.context.destination); // silent; pulls the samples
    await this.context.resume();
  }

  _source(context) {
    this.context = context;
    this.source = context.createMediaStreamSource(this.stream);
  }

  _take(block) {
    if (!block.length) {
      this.ended?.();
      return;
    }
    this.blocks.push(block);
    this.samples += block.length;
    this.heard(block, this.samples / this.context.sampleRate);
  }

  /** End it, and give the file; null if nothing came. */
  async stop() {
    const last = new Promise((done) => (this.ended = done));
    this.tap.port.postMessage("end");
    await last;
    const { sampleRate } = this.context;
    this.discard();
    return this.samples ? wav(this.blocks, sampleRate) : null;
  }

  /** End it, and let go of the microphone. */
  discard() {
    this.stream.getTracks().forEach((track) => track.stop());
    this.context?.close();
  }
}
