// A clip: the file as it is sent, and what of it can be drawn.

const RATE = 8000; // Hz at which it is decoded for the picture alone
const BUCKETS = 4000; // pairs of lowest and highest sample

/** A sound that a person chose or recorded. */
export class Clip {
  constructor(blob, name) {
    this.blob = blob;
    this.name = name;
    this.url = URL.createObjectURL(blob);
  }

  /** `{seconds, low, high}` for the picture; null where the browser cannot decode the file. */
  picture() {
    this._picture ??= drawn(this.blob);
    return this._picture;
  }

  /** The file in base64. */
  base64() {
    this._base64 ??= new Promise((done, failed) => {
      const reader = new FileReader();
      reader.onload = () => done(reader.result.slice(reader.result.indexOf(",") + 1));
      reader.onerror = () => failed(new Error(`${this.name} cannot be read any more.`));
      reader.readAsDataURL(this.blob);
    });
    return this._base64;
  }

  /** Nobody wants to hear it again. */
  release() {
    URL.revokeObjectURL(this.url);
  }
}

async function drawn(blob) {
  try {
    const context = new OfflineAudioContext(1, 1, RATE);
    const buffer = await context.decodeAudioData(await blob.arrayBuffer());
    return { seconds: buffer.duration, ...peaks(buffer.getChannelData(0)) };
  } catch {
    return null;
  }
}

/** Lowest and highest sample of each bucket, as parts of the clip's loudest. */
export function peaks(pcm) {
  const count = Math.max(1, Math.min(BUCKETS, pcm.length));
  const low = new Float32Array(count);
  const high = new Float32Array(count);
  let loudest = 0.02; // silence stays a line
  for (let i = 0; i < count; i++) {
    const end = Math.floor(((i + 1) * pcm.length) / count);
    for (let j = Math.floor((i * pcm.length) / count); j < end; j++) {
      if (pcm[j] < low[i]) low[i] = pcm[j];
      if (pcm[j] > high[i]) high[i] = pcm[j];
    }
    loudest = Math.max(loudest, high[i], -low[i]);
  }
  return { low: low.map((v) => v / loudest), high: high.map((v) => v / loudest) };
}
