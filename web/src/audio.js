// Sound in: a file becomes float32 mono at the model's rate, by the browser's own decoder.

import { BadAudio } from "./errors.js";

const MOST_BYTES = 256 * 2 ** 20; // of a file
const MOST_PCM = 2 ** 26; // samples at the model's rate, 70 minutes at 16 kHz

/**
 * The samples of a file of a kind that this browser plays; it resamples to the model's rate.
 * @param {Blob | ArrayBuffer} file
 * @param {{rate: number, channel: string}} model whose rate is wanted, and what of stereo it hears
 * @returns {Promise<Float32Array>} full scale 1.0
 */
export async function decode(file, { rate, channel }) {
  const size = file instanceof Blob ? file.size : file.byteLength;
  if (!size) throw new BadAudio("the file is empty; wanted an audio file");
  if (size > MOST_BYTES) {
    throw new BadAudio(`the file has ${Math.round(size / 2 ** 20)} MiB, and 256 at most are taken; cut it`);
  }
  const bytes = file instanceof Blob ? await file.arrayBuffer() : file.slice(0);
  let sound;
  try {
    sound = await new OfflineAudioContext(1, 1, rate).decodeAudioData(bytes);
  } catch {
    throw new BadAudio("this browser cannot decode the file; wanted wav, flac, mp3 or ogg");
  }
  if (sound.length > MOST_PCM) {
    throw new BadAudio(`the file lasts ${Math.round(sound.duration)} s, which is too long; cut it`);
  }
  return mono(
    Array.from({ length: sound.numberOfChannels }, (_, i) => sound.getChannelData(i)),
    channel,
  );
}

/**
 * One channel of several: the first, or their mean.
 * @param {Float32Array[]} channels [samples] each
 * @param {string} channel "first" or "mean"
 */
export function mono(channels, channel) {
  const [first, ...others] = channels;
  if (channel === "first" || !others.length) return first.slice();
  // Summed as float64, since the sum of loud channels may be off in float32.
  return first.map((sample, i) => others.reduce((sum, c) => sum + c[i], sample) / channels.length);
}
