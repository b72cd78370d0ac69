// The parts before the decoder, stitched by tensor name.

import { BadArtifacts } from "./errors.js";
import { blank, taken } from "./ports.js";
import { cut, floats, joined, longs, wide, zeros } from "./tensors.js";

/**
 * Embeddings of a clip. Each part takes its inputs by name out of what the parts before it made.
 * @param {{part: import("./manifest.js").Part, session: import("./engine.js").Session}[]} opened
 * @param {Float32Array} pcm samples at the model's rate, full scale 1.0
 * @param {import("./times.js").Times} times
 * @returns {Promise<import("./tensors.js").Plain>} float32 [n, hidden]
 */
export async function embeddings(opened, pcm, times) {
  let tensors = { pcm: floats(pcm, 1, pcm.length), pcm_lengths: longs(pcm.length) };
  for (const { part, session } of opened) {
    const since = performance.now();
    const feeds = Object.fromEntries(taken(part.inputs).map((name) => [name, tensors[name]]));
    const slots = blank(part.inputs).map(([name, port, sizes]) => [
      name,
      zeros(port.dtype, port.axes.map((axis) => sizes[axis] ?? axis)),
    ]);
    const outputs = [];
    for (const window of windows(part, feeds)) {
      outputs.push(await session.run({ ...window, ...Object.fromEntries(slots) }));
    }
    tensors = { ...tensors, ...together(outputs) };
    times.add(part.name, since);
  }
  const { dims, dtype } = tensors.audio_embeds;
  if (dims.length !== 3 || dims[0] !== 1 || !["float32", "float16"].includes(dtype)) {
    throw new BadArtifacts(`audio_embeds is ${dtype} [${dims}], not floats [1, n, hidden]`);
  }
  const data = wide(tensors.audio_embeds);
  const stated = tensors.audio_embeds_lengths;
  const rows = stated ? Math.min(Number(stated.data[0]), dims[1]) : dims[1];
  return floats(data.subarray(0, rows * dims[2]), rows, dims[2]);
}

/** The feeds, as many times as the part's window of fixed size goes into them. */
function windows(part, feeds) {
  const cuts = [];
  let count = 1;
  for (const [name, { dims }] of Object.entries(feeds)) {
    part.inputs.get(name).axes.forEach((size, axis) => {
      const there = dims[axis] ?? 0;
      if (axis && typeof size === "number" && size && there > size && there % size === 0) {
        cuts.push([name, axis, size]);
        count = Math.max(count, there / size);
      }
    });
  }
  return Array.from({ length: count }, (_, i) => ({
    ...feeds,
    ...Object.fromEntries(
      cuts.map(([name, axis, size]) => [name, cut(feeds[name], axis, i * size, (i + 1) * size)]),
    ),
  }));
}

/** What a part made of several windows follows each other along the second axis. */
function together(outputs) {
  if (outputs.length === 1) return outputs[0];
  const join = (tensors) => (tensors[0].dims.length > 1 ? joined(tensors, 1) : tensors.at(-1));
  return Object.fromEntries(
    Object.keys(outputs[0]).map((name) => [name, join(outputs.map((made) => made[name]))]),
  );
}
