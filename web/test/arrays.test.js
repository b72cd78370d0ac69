import assert from "node:assert/strict";
import test from "node:test";

import { mono } from "../src/audio.js";
import { header, widened } from "../src/npy.js";
import { Table } from "../src/table.js";
import { cut, grown, joined, zeros } from "../src/tensors.js";
import { Rules, windows } from "../src/windows.js";
import { near, strip } from "../src/words.js";

/** An .npy file of a header and bytes. */
function npy(descr, shape, bytes, fortran = "False") {
  const text = `{'descr': '${descr}', 'fortran_order': ${fortran}, 'shape': ${shape}, }`.padEnd(117) + "\n";
  const head = [0x93, ...Buffer.from("NUMPY"), 1, 0, text.length, 0, ...Buffer.from(text, "latin1")];
  return Uint8Array.from([...head, ...bytes]);
}

const bytesOf = (array) => new Uint8Array(array.buffer);

test("a table's rows are read, in every type that there is", async () => {
  const values = Float32Array.of(1, -2, 0.5, 4, 5, 6);
  const plain = new Table(npy("<f4", "(3, 2)", bytesOf(values)), null, "embed.npy");
  assert.deepEqual([...(await plain.rows([2, 0]))], [5, 6, 1, -2]);
  const halves = Uint16Array.of(0x3c00, 0xc000, 0x3800, 0x0001);
  const half = new Table(npy("<f2", "(2, 2)", bytesOf(halves)), null, "embed.npy");
  assert.deepEqual([...(await half.rows([0, 1]))], [1, -2, 0.5, 2 ** -24]);
  const scales = npy("<f4", "(2,)", bytesOf(Float32Array.of(0.5, 2)));
  const codes = new Table(npy("|i1", "(2, 2)", [1, 255, 3, 4]), scales, "embed.npy");
  assert.deepEqual([...(await codes.rows([0, 1]))], [0.5, -0.5, 6, 8]);
  await assert.rejects(plain.rows([3]), { name: "BadPrompt" });
  await assert.rejects(plain.rows([-1]), { name: "BadPrompt" });
});

test("what is no table is refused", () => {
  const refused = [
    npy("<f4", "(3, 2)", [0]), // too short
    npy("<f4", "(999999999999, 999999999999)", [0]),
    npy("<f4", "(1, 1)", [0, 0, 0, 0], "True"),
    npy("|O", "(1, 1)", [0, 0, 0, 0]),
    npy(">f4", "(1, 1)", [0, 0, 0, 0]),
    Uint8Array.of(1, 2, 3),
    new Uint8Array(64),
  ];
  for (const bytes of refused) assert.throws(() => header(bytes, "t.npy"), { name: "BadArtifacts" });
  assert.throws(() => new Table(npy("|i1", "(1, 1)", [0]), null, "t.npy"), { name: "BadArtifacts" });
});

test("float16 is widened as IEEE 754 says", () => {
  const bits = Uint16Array.of(0, 0x8000, 0x7bff, 0x7c00, 0xfc00, 0x7e00, 0x03ff, 0x3555);
  const [zero, minus, most, up, down, none, least, third] = widened(bits);
  assert.ok(Object.is(zero, 0) && Object.is(minus, -0));
  assert.deepEqual([most, up, down], [65504, Infinity, -Infinity]);
  assert.ok(Number.isNaN(none));
  assert.equal(least, 1023 * 2 ** -24);
  assert.ok(Math.abs(third - 1 / 3) < 1e-4);
});

test("tensors are cut, joined and grown along any axis", () => {
  const tensor = { dtype: "float32", dims: [2, 3], data: Float32Array.of(1, 2, 3, 4, 5, 6) };
  const left = cut(tensor, 1, 0, 2);
  assert.deepEqual([...left.data], [1, 2, 4, 5]);
  assert.deepEqual(joined([left, cut(tensor, 1, 2, 9)], 1), tensor);
  assert.deepEqual([...grown(left, 1, 3).data], [1, 2, 0, 4, 5, 0]);
  assert.deepEqual([...grown(left, 0, 3).data], [1, 2, 4, 5, 0, 0]);
  assert.deepEqual(zeros("int64", [1, 0]).data, new BigInt64Array(0));
});

test("a long clip is cut where it is quiet, and covers all of it", () => {
  const pcm = Float32Array.from({ length: 25_000 }, (_, i) => (9000 <= i && i < 9400 ? 0 : 0.5));
  const places = windows(pcm, 10_000, 4000, 500);
  assert.equal(places.length, 3);
  assert.ok(9100 < places[0][1] && places[0][1] < 9300);
  assert.deepEqual(places.map(([start]) => start).slice(1), places.map(([, end]) => end).slice(0, -1));
  assert.equal(places.at(-1)[1], 25_000);
});

test("short clips are padded, silence at the end gets no window, and bad samples are refused", () => {
  const rules = new Rules({ rate: 1000, least_samples: 500, window_samples: 1000, long: "" });
  const [piece] = rules.windows(new Float32Array(10).fill(0.5), false).pieces;
  assert.deepEqual([piece.pcm.length, piece.samples], [500, 10]);
  const clip = new Float32Array(2500);
  clip.fill(0.5, 0, 900);
  const { pieces, notes } = rules.windows(clip, false);
  assert.equal(pieces.length, 1);
  assert.match(notes[0], /^1\.5 s of silence at the end/);
  assert.throws(() => rules.one(new Float32Array(2500).fill(0.5), false), { name: "BadAudio" });
  assert.equal(rules.one(new Float32Array(2500).fill(0.5), true).pcm.length, 1000);
  for (const bad of [[0, NaN], [Infinity], [], [3e9]]) {
    assert.throws(() => rules.check(Float32Array.from(bad), 60), { name: "BadAudio" });
  }
  assert.throws(() => rules.check(new Float32Array(61_000), 60), /max_audio_seconds/);
});

test("stereo is heard as the model hears it", () => {
  const sides = [Float32Array.of(1, 0), Float32Array.of(0, 0.5)];
  assert.deepEqual([...mono(sides, "first")], [1, 0]);
  assert.deepEqual([...mono(sides, "mean")], [0.5, 0.25]);
});

test("words are stripped and compared as Python does", () => {
  assert.equal(strip("\u2003a b\x1c\u00a0"), "a b");
  assert.equal(strip("\ufeffa"), "\ufeffa");
  assert.equal(near("transcibe", ["describe", "transcribe"]), "transcribe");
  assert.equal(near("music", ["describe"]), "");
});
