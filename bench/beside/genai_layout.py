"""Greedy tokens of onnxruntime-genai; run in its environment: FOLDER CLIP.npy TASK ROWS STEPS."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    """Print the tokens, their text and the version as JSON."""
    folder, clip, task = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    rows, steps = map(int, sys.argv[4:])
    genai: Any = import_module("onnxruntime_genai")
    told = json.loads((folder / "genai_prompts.json").read_text("utf-8"))
    prompt = told["tasks"][task]
    ids = prompt["before"] + [told["audio_token_id"]] * rows + prompt["behind"]
    model = genai.Model(str(folder))
    params = genai.GeneratorParams(model)
    params.set_search_options(max_length=len(ids) + steps)
    generator, given = genai.Generator(model, params), genai.NamedTensors()
    given["input_ids"] = np.array([ids], np.int32)
    given["audio_embeds"] = np.load(clip)[None]
    given["audio_sizes"] = np.array([rows], np.int64)
    generator.set_inputs(given)
    tokens: list[int] = []
    while not generator.is_done():
        generator.generate_next_token()
        tokens.append(int(generator.get_next_tokens()[0]))
    text = genai.Tokenizer(model).decode(np.array(tokens, np.int32))
    said = {"tokens": tokens, "text": text, "version": f"onnxruntime-genai {genai.__version__}"}
    print(json.dumps(said))


if __name__ == "__main__":
    main()
