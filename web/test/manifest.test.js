import assert from "node:assert/strict";
import test from "node:test";

import { checkName, parse } from "../src/manifest.js";

const SHA = "ab".repeat(32);
const file = (name, bytes = 8) => ({ name, bytes, sha256: SHA });
const floats = (...axes) => ({ dtype: "float32", axes });

/** The smallest manifest that is whole. */
function smallest() {
  return {
    format: "alm-edge",
    format_version: 2,
    family: "tiny",
    dimensions: { hidden: 4, vocab: 8, context: 16 },
    audio: { rate: 16000, channel: "first", least_samples: 1, window_samples: 160 },
    prompt: { turn: "{clips}{}", clip: "<a>", placeholder: "<a>", tasks: { transcribe: "Write." } },
    tokens: { eos: [2] },
    generation: {},
    tokenizer: file("tokenizer.json"),
    parts: [
      {
        name: "ear",
        role: "encoder",
        files: [file("ear.onnx")],
        inputs: { pcm: floats("batch", "samples") },
        outputs: { audio_embeds: floats("batch", "frames", 4) },
      },
      {
        name: "decoder",
        role: "decoder",
        files: [file("decoder.onnx")],
        inputs: {
          inputs_embeds: floats("batch", "seq", 4),
          "past_key_values.0.key": floats("batch", 1, "past", 4),
        },
        outputs: { logits: floats("batch", "wanted", 8), "present.0.key": floats("batch", 1, "past", 4) },
      },
      { name: "embed", role: "table", files: [file("embed.npy")], inputs: {}, outputs: {} },
    ],
  };
}

/** What `parse` says of the smallest manifest after a change. */
function said(change) {
  const plain = smallest();
  change(plain);
  try {
    parse(JSON.stringify(plain));
  } catch (error) {
    assert.equal(error.name, "BadArtifacts", error.stack);
    return error.message;
  }
  return "";
}

test("the smallest whole manifest is read, with what holds where it states nothing", () => {
  const { parts, facts } = parse(JSON.stringify(smallest()));
  assert.deepEqual(parts.map(({ name }) => name), ["ear", "decoder", "embed"]);
  assert.equal(facts.tokens.bos, null);
  assert.equal(facts.prompt.tasks.get("transcribe"), "Write.");
  assert.equal(said(() => {}), "");
});

test("a name that may lead out of the folder is refused", () => {
  const outside = ["../a", "a/../b", "/etc/passwd", "https://evil.example/a"];
  outside.push("a\\b", "", ".", "a//b", "C:a", "a\0");
  for (const name of outside) {
    assert.throws(() => checkName(name), { name: "BadArtifacts" }, name);
    assert.match(said((m) => (m.parts[0].files[0].name = name)), /refused|ends in \.onnx/, name);
    assert.match(said((m) => (m.tokenizer.name = name)), /refused/, name);
  }
  assert.equal(checkName("graphs/ear 1?.onnx"), "graphs/ear 1?.onnx");
});

test("what is misshapen is refused in words", () => {
  const cases = [
    [(m) => (m.format_version = 3), /format 3/],
    [(m) => (m.format = "other"), /no manifest/],
    [(m) => (m.parts[0].files[0].sha256 = "ab"), /sha256/],
    [(m) => (m.parts[0].files[0].bytes = 2 ** 40), /bytes/],
    [(m) => (m.parts[0].files[0].bytes = -1), /bytes/],
    [(m) => (m.parts[0].inputs.pcm.dtype = "constructor"), /type/],
    [(m) => (m.parts[0].inputs.pcm.axes = ["batch", 2 ** 41]), /axes/],
    [(m) => (m.parts[0].inputs.pcm.axes = [2 ** 20, 2 ** 20]), /bytes/],
    [(m) => (m.parts[0].inputs.noise = { dtype: "float32", axes: [] }), /wants noise/],
    [(m) => m.parts.pop(), /not a whole model/],
    [(m) => m.parts.push(m.parts[0]), /twice/],
    [(m) => delete m.audio.rate, /lacks 'rate'/],
    [(m) => (m.audio.rate = 0), /'rate'/],
    [(m) => (m.audio.later = 1), /does not know/],
    [(m) => delete m.tokens, /tokens/],
    [(m) => (m.prompt.tasks = ["a"]), /'tasks'/],
    [(m) => (m.parts[1].inputs.mood = { dtype: "float32", axes: [1] }), /mood/],
    [(m) => delete m.parts[1].outputs["present.0.key"], /KV cache/],
    [(m) => (m.parts[1].inputs["past_key_values.0.key"].axes[2] = "rows"), /KV cache/],
  ];
  for (const [change, words] of cases) assert.match(said(change), words, change.toString());
  assert.throws(() => parse("{"), /not JSON/);
  assert.throws(() => parse(`${"[".repeat(9000)}${"]".repeat(9000)}`), { name: "BadArtifacts" });
});

test("a model that wants what a browser does not do is refused by its name", () => {
  const cases = [
    [(m) => (m.live = { step_samples: 1280 }), /live/],
    [(m) => (m.align = { mark: "<t>" }), /align/],
    [(m) => (m.units = { count: 1000 }), /units/],
    [(m) => (m.dimensions.rope_switches_past = 4096), /rope_switches_past/],
    [(m) => (m.dimensions.rope_grows_past = 4096), /rope_grows_past/],
    [(m) => (m.dimensions.rope_doubles_past = 4096), /rope_doubles_past/],
  ];
  for (const [change, name] of cases) {
    assert.match(said(change), name);
    assert.match(said(change), /not done in a browser/);
  }
});
