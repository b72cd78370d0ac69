// The microphone as samples at the model's rate.

const SENTENCES = {
  NotAllowedError: "The microphone was not allowed; the browser's address bar lets you change that.",
  NotFoundError: "There is no microphone.",
  NotReadableError: "The microphone is in use by another program.",
};

/** A recording that runs. */
export class Recording {
  /** Start it at `rate` Hz; `heard(seconds)` is told how long it is. */
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
    const recording = new Recording(stream, rate, heard);
    try {
      await recording._open();
    } catch (error) {
      recording._release();
      throw new Error(`The recording could not begin: ${error.message}`);
    }
    return recording;
  }

  constructor(stream, rate, heard) {
    this.stream = stream;
    this.rate = rate;
    this.heard = heard;
    this.blocks = [];
    this.samples = 0;
  }

  async _open() {
    // Some browsers resample no microphone: there the samples are resampled at the end.
    this.context = new AudioContext({ sampleRate: this.rate });
    let source;
    try {
      source = this.context.createMediaStreamSource(this.stream);
    } catch {
      await this.context.close();
      this.context = new AudioContext();
      source = this.context.createMediaStreamSource(this.stream);
    }
    await this.context.audioWorklet.addModule(new URL("recorder-worklet.js", import.meta.url));
    const one = { channelCount: 1, channelCountMode: "explicit" };
    this.tap = new AudioWorkletNode(this.context, "tap", one);
    this.tap.port.onmessage = ({ data }) => this._take(data);
    source.connect(this.tap).connect(this.context.destination); // silent; pulls the samples
    await this.context.resume();
  }

  _take(block) {
    if (!block.length) {
      this.ended?.();
      return;
    }
    this.blocks.push(block);
    this.samples += block.length;
    this.heard(this.samples / this.context.sampleRate);
  }

  /** End it, and give the samples at the model's rate; null if nothing came. */
  async stop() {
    const last = new Promise((done) => (this.ended = done));
    this.tap.port.postMessage("end");
    await last;
    const { sampleRate } = this.context;
    this._release();
    if (!this.samples) return null;
    const pcm = new Float32Array(this.samples);
    this.blocks.reduce((place, block) => (pcm.set(block, place), place + block.length), 0);
    return sampleRate === this.rate ? pcm : resampled(pcm, sampleRate, this.rate);
  }

  _release() {
    for (const track of this.stream.getTracks()) track.stop();
    this.context?.close();
  }
}

async function resampled(pcm, from, to) {
  const context = new OfflineAudioContext(1, Math.ceil((pcm.length * to) / from), to);
  const buffer = context.createBuffer(1, pcm.length, from);
  buffer.copyToChannel(pcm, 0);
  const source = new AudioBufferSourceNode(context, { buffer });
  source.connect(context.destination);
  source.start();
  return (await context.startRendering()).getChannelData(0);
}
