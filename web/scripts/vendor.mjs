// Puts what runs in a page beside it, out of node_modules: npm run build

import { copyFile, mkdir, rm } from "node:fs/promises";

const FROM = new URL("../node_modules/", import.meta.url);
const TO = new URL("../vendor/", import.meta.url);
const ORT = "onnxruntime-web/dist/";
const FILES = [
  `${ORT}ort.wasm.min.mjs`,
  `${ORT}ort-wasm-simd-threaded.mjs`,
  `${ORT}ort-wasm-simd-threaded.wasm`,
  `${ORT}ort.webgpu.min.mjs`,
  `${ORT}ort-wasm-simd-threaded.asyncify.mjs`,
  `${ORT}ort-wasm-simd-threaded.asyncify.wasm`,
  "@huggingface/tokenizers/dist/tokenizers.min.mjs",
];

await rm(TO, { recursive: true, force: true });
await mkdir(TO);
for (const file of FILES) {
  await copyFile(new URL(file, FROM), new URL(file.slice(file.lastIndexOf("/") + 1), TO));
}
await copyFile(new URL("@huggingface/tokenizers/LICENSE", FROM), new URL("tokenizers.LICENSE", TO));
const licence = "onnxruntime-web.LICENSE"; // its package holds none
await copyFile(new URL(licence, import.meta.url), new URL(licence, TO));
