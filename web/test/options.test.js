import assert from "node:assert/strict";
import test from "node:test";

import { choose, least, most, within } from "../src/options.js";
import { next } from "../src/scores.js";

const DEMO = { num_beams: 1, do_sample: false, top_k: 50, top_p: 0.9, max_new_tokens: 32, min_new_tokens: 1 };

test("the model's own options hold, and what is asked for stands in their place", () => {
  const own = choose(DEMO, {});
  assert.equal(own.max_new_tokens, 32);
  assert.equal(most(own, 100), 32);
  assert.equal(least(own, 100), 1);
  assert.equal(choose(DEMO, { max_new_tokens: 5, language: null }).max_new_tokens, 5);
  const byLength = choose({ max_length: 110, min_length: 104 }, {});
  assert.equal(most(byLength, 100), 10);
  assert.equal(least(byLength, 100), 4);
  assert.throws(() => most(byLength, 110), { name: "BadPrompt" });
  assert.equal(most(within(byLength, 3, 100), 100), 3);
});

test("what is not done is refused by its name", () => {
  const asked = {
    num_beams: 4,
    do_sample: true,
    temperature: 0.7,
    top_k: 5,
    seed: 1,
    schema: { type: "object" },
    grammar: "start: A",
    regex: "a+",
    adapter: "medical",
    hypothesis: "turn on",
    merge_audio: 50,
    gate: true,
    joins: "quiet",
    delay: 480,
    bad_words_ids: [[1]],
    forced_eos_token_id: 2,
    watermarking_config: {},
    sequence_bias: [[[1], 2]],
    length_penalty: 2,
  };
  for (const [name, value] of Object.entries(asked)) {
    assert.throws(() => choose(DEMO, { [name]: value }), (error) => {
      return error.name === "BadOption" && error.message.startsWith(`${name} is not done in a browser`);
    });
  }
  choose(DEMO, { num_beams: 1, do_sample: false, temperature: 0, gate: false, joins: "exact" });
});

test("a model's own beams and sampling are refused until greedy is asked for", () => {
  assert.throws(() => choose({ num_beams: 4 }, {}), /num_beams is 4.*num_beams: 1/);
  assert.throws(() => choose({ do_sample: true, temperature: 0.7 }, {}), /do_sample: false/);
  choose({ num_beams: 4, do_sample: true }, { num_beams: 1, do_sample: false });
  choose({ do_sample: true }, { temperature: 0 });
  assert.throws(() => choose({ bad_words_ids: [[3]] }, {}), /bad_words_ids/);
  assert.throws(() => choose({ later: 1 }, {}), /'later' is not known/);
});

test("an option that nobody knows, or out of range, is refused", () => {
  assert.throws(() => choose(DEMO, { max_new_token: 5 }), /did you mean max_new_tokens/);
  assert.throws(() => choose(DEMO, { constructor: 5 }), /unknown option/);
  assert.throws(() => choose(DEMO, { max_new_tokens: 0 }), { name: "BadOption" });
  assert.throws(() => choose(DEMO, { repetition_penalty: 0 }), { name: "BadOption" });
  assert.throws(() => choose(DEMO, { stop: [""] }), { name: "BadOption" });
  assert.throws(() => choose(DEMO, { min_new_tokens: 9, max_new_tokens: 3 }), { name: "BadOption" });
  assert.throws(() => choose(DEMO, []), { name: "BadOption" });
});

test("scores are changed as asked, and the first of the highest is taken", () => {
  const prompt = { length: 3, ids: [4] };
  const chosen = (given, scores, said = []) =>
    next(Float32Array.from(scores), choose({}, given), [2], prompt, said);
  assert.equal(chosen({}, [0, 3, 1, 3]), 1);
  assert.equal(chosen({ repetition_penalty: 2 }, [0, 3, 0, 2.9, 5], [1]), 3);
  assert.equal(chosen({ repetition_penalty: 2, repetition_window: 1 }, [0, 3, 0, 2.9, 5], [1]), 4);
  assert.equal(chosen({ no_repeat_ngram_size: 2 }, [0, 3, 0, 2, 0], [1, 1]), 3);
  assert.equal(chosen({ min_new_tokens: 1 }, [0, 3, 9, 1]), 1);
  assert.equal(chosen({ suppress_tokens: [1, 99], begin_suppress_tokens: [3] }, [0, 3, 1, 2]), 2);
  assert.throws(() => chosen({ suppress_tokens: [0, 1] }, [1, 2]), { name: "BadOption" });
  assert.throws(() => chosen({}, [NaN, 2]), { name: "BadArtifacts" });
  assert.throws(() => chosen({}, [-Infinity, -Infinity]), { name: "BadArtifacts" });
});
