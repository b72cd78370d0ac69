// Greedy tokens of transformers.js: node THIS PACKAGES FOLDER CLIP.f32 PROMPT STEPS
// PACKAGES is a folder with @huggingface/transformers in its node_modules.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, dirname, join } from "node:path";

const [packages, folder, clip, prompt, steps] = process.argv.slice(2);
const require = createRequire(join(packages, "package.json"));
const { AutoModelForAudioTextToText, AutoProcessor, env } = require("@huggingface/transformers");

env.allowRemoteModels = false;
env.localModelPath = dirname(folder);
const name = basename(folder);
const bytes = readFileSync(clip);
const pcm = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
const processor = await AutoProcessor.from_pretrained(name);
const model = await AutoModelForAudioTextToText.from_pretrained(name, { device: "cpu" });
const inputs = await processor(prompt, pcm);
const made = await model.generate({ ...inputs, max_new_tokens: Number(steps) });
const tokens = made.tolist()[0].map(Number).slice(inputs.input_ids.dims[1]);
const text = processor.tokenizer.decode(tokens, { skip_special_tokens: true });
console.log(JSON.stringify({ tokens, text, version: `transformers.js ${env.version}` }));
