"""SALMONN over DeepSeek-R1-Distill-Qwen and Llama 3.2, asked as their own templates ask."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import jinja2
import pytest
import torch
import transformers
from tokenizers import AddedToken, Tokenizer

from alm.text.prompt import Prompter
from demo.random_checkpoint import Recipe, make, tokenizer
from tests.wrappers.checkpoint.checkpoints import Copy
from tests.wrappers.checkpoint.test_nf4 import logits
from tests.wrappers.checkpoint.test_thinking_templates import MARKS, R1
from tests.wrappers.families.tiny_ultravox import TEMPLATE as LLAMA
from wrappers import Checkpoint, open_checkpoint
from wrappers.checkpoint.weights.hollow import filled

AUDIO = "<Speech><SpeechHere></Speech> "
HEADER = "<|start_header_id|>{}<|end_header_id|>\n\n"
VOCAB = 346  # some rows more than the tokenizer knows, as published ones have


@dataclass(frozen=True)
class Backbone:
    """An LLM as it is published, but small."""

    recipe: Recipe
    config: dict[str, Any]  # what its config.json says besides
    generation: dict[str, Any]  # its generation_config.json
    template: str
    bos: str
    eos: str
    tokens: dict[str, bool]  # added ones, and whether they are special
    prompt: str  # its template as SALMONN's `prompt_template`, without the bos that SALMONN adds
    ends: tuple[str, ...]
    thought: str = ""


def recipe(llm: str, **options: Any) -> Recipe:
    return Recipe(
        window_seconds=4, speech_width=16, audio_width=0, bridge_width=48, llm=llm,
        llm_options=dict(vocab_size=VOCAB) | options,
    )  # fmt: skip


BACKBONES = {
    "R1-Distill-Qwen": Backbone(
        recipe("Qwen2", tie_word_embeddings=False, hidden_size=60, num_attention_heads=6),
        dict(
            use_mrope=False, use_sliding_window=False, sliding_window=4096, max_window_layers=21,
            rope_theta=10000, bos_token_id=320, eos_token_id=320,
        ),
        dict(do_sample=True, temperature=0.6, top_p=0.95, bos_token_id=323, eos_token_id=320),
        R1,
        "<｜begin▁of▁sentence｜>",
        "<｜end▁of▁sentence｜>",
        {
            **{"<｜end▁of▁sentence｜>": True, "<｜User｜>": False, "<｜Assistant｜>": False},
            **{"<｜begin▁of▁sentence｜>": True, "<think>": False, "</think>": False},
        },
        "<｜User｜>{}<｜Assistant｜><think>\n",
        ("<｜end▁of▁sentence｜>",),
        MARKS,
    ),
    "Llama-3.2": Backbone(
        recipe("Llama", tie_word_embeddings=True),
        dict(
            rope_theta=500000.0,
            rope_scaling=dict(
                factor=32.0, high_freq_factor=4.0, low_freq_factor=1.0,
                original_max_position_embeddings=64, rope_type="llama3",
            ),
        ),
        dict(do_sample=True, temperature=0.6, top_p=0.9, eos_token_id=[321, 322]),
        LLAMA,
        "<|begin_of_text|>",
        "<|eot_id|>",
        dict.fromkeys(
            ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>")
            + ("<|end_header_id|>",),
            True,
        ),
        HEADER.format("system") + "Today Date: 26 Jul 2024\n\n<|eot_id|>" + HEADER.format("user")
        + "{}<|eot_id|>" + HEADER.format("assistant"),
        ("<|end_of_text|>", "<|eot_id|>"),
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=BACKBONES)
def loaded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Backbone, Copy, Checkpoint]:
    backbone = BACKBONES[request.param]
    folder = tmp_path_factory.mktemp("backbone")
    copy = Copy(make(folder / "model", backbone.recipe), folder)
    llm = copy.folder / "llm"
    plain = json.loads((llm / "config.json").read_text())
    plain.pop("rope_parameters", None)  # as transformers 4 wrote it
    (llm / "config.json").write_text(json.dumps(plain | backbone.config))
    (llm / "generation_config.json").write_text(json.dumps(backbone.generation))
    made: Any = tokenizer()
    made.post_processor = None
    for text, special in backbone.tokens.items():
        made.add_tokens([AddedToken(text, special=special, normalized=False)])
    made.save(str(llm / "tokenizer.json"))
    said = dict(bos_token={"content": backbone.bos}, eos_token={"content": backbone.eos})
    said |= dict(tokenizer_class="LlamaTokenizerFast", chat_template=backbone.template)
    (llm / "tokenizer_config.json").write_text(json.dumps(said))
    copy.settings(prompt_template=backbone.prompt, end_sym=backbone.eos)
    return backbone, copy, open_checkpoint(copy.config)


Loaded = tuple[Backbone, Copy, Checkpoint]


def test_the_prompt_template_is_what_the_chat_template_writes(loaded: Loaded) -> None:
    backbone = loaded[0]
    world = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    template: Any = world.from_string(backbone.template)
    text = template.render(
        messages=[{"role": "user", "content": "What is it?"}],
        add_generation_prompt=True,
        bos_token=backbone.bos,
        eos_token=backbone.eos,
    )
    assert text == backbone.bos + backbone.prompt.format("What is it?")


def test_the_prompts_ids_are_those_of_the_original(loaded: Loaded) -> None:
    backbone, copy, made = loaded
    facts, known = made.facts, Tokenizer.from_str(made.tokenizer_json)
    theirs: Any = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(copy.folder / "llm" / "tokenizer.json"), bos_token=backbone.bos
    )
    # The original: one text, cut at the clip, each half tokenized alone behind a bos.
    text = backbone.prompt.format(f"{AUDIO}What is it?")
    before, after = text.split("<SpeechHere>")
    wanted = [theirs(half, add_special_tokens=False).input_ids for half in (before, after)]
    prompt = Prompter(known, facts.prompt, facts.tokens).build("What is it?")
    assert prompt.pieces == [[theirs.bos_token_id, *wanted[0]], wanted[1]]
    assert prompt.begun == bool(backbone.thought) and prompt.later is None
    assert facts.prompt.thought == backbone.thought
    assert facts.tokens.eos == tuple(known.token_to_id(end) for end in backbone.ends)
    assert facts.tokens.bos == known.token_to_id(backbone.bos)
    assert facts.tokens.stop_strings == (backbone.eos,)
    assert facts.generation["do_sample"] is False and facts.generation["num_beams"] == 4


@torch.no_grad()
def test_logits_and_greedy_tokens_are_those_of_transformers(loaded: Loaded) -> None:
    _, copy, made = loaded
    truth: Any = transformers.AutoModelForCausalLM.from_pretrained(copy.folder / "llm").eval()
    trained = torch.load(copy.folder / "salmonn.pth", weights_only=True)["model"]
    lora = {n.removeprefix("llama_model.base_model.model."): t for n, t in trained.items()}
    for name in [n for n in lora if n.endswith("lora_A.default.weight")]:
        layer = truth.get_submodule(name.removesuffix(".lora_A.default.weight"))
        layer.weight += 4 * lora[name.replace("lora_A", "lora_B")] @ lora[name]
    embeds = torch.randn(1, 90, truth.config.hidden_size)  # past the first 64 positions
    decoder, table = filled(made.part("decoder", "standard")), made.embedding().float()
    wanted = truth.generate(
        inputs_embeds=embeds, max_new_tokens=12, do_sample=False, eos_token_id=[], pad_token_id=0
    )[0].tolist()
    said = list[int]()
    for _ in wanted:
        got = logits(decoder, embeds)[0, -1]
        theirs = truth(inputs_embeds=embeds, use_cache=False).logits[0, -1]
        assert (got - theirs).abs().max() < 1e-4 * theirs.abs().max()
        said.append(int(got.argmax()))
        embeds = torch.cat((embeds, table[said[-1:]][None]), 1)
    assert said == wanted
