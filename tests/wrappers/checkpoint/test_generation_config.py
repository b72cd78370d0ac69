"""What a checkpoint says of decoding is done, known to change nothing, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import GenerationConfig

from alm.decoding import options as decoding_options
from alm.errors import BadCheckpoint, BadOption
from tests.wrappers.checkpoint.checkpoints import Copy, refused
from tests.wrappers.families import tiny_hf
from tests.wrappers.families.tiny_hf import Tiny
from wrappers import open_checkpoint
from wrappers.checkpoint.text import generation_fields
from wrappers.checkpoint.text.generation_fields import DONE, HARMLESS, REFUSED, TOKENS

UNLIKE: dict[str, Any] = {
    "cache_implementation": "quantized",
    "cache_config": {"nbits": 4},
    "speculation_type": "dflash",
    "dola_layers": "high",
    "constraints": [{}],
    "force_words_ids": [[3]],
    "forced_decoder_ids": [[1, 3]],
}


@pytest.fixture(scope="module")
def brief(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A window of 2 s."""
    return tiny_hf.qwen2_audio(tmp_path_factory.mktemp("brief"), seconds=2)


@pytest.fixture
def copy(brief: Tiny, tmp_path: Path) -> Copy:
    return Copy(brief.folder / "config.json", tmp_path)


def test_the_table_knows_every_field_of_transformers() -> None:
    fields = {*vars(GenerationConfig()), *GenerationConfig().to_dict()}
    fields |= {*GenerationConfig._get_default_generation_params()}
    fields |= {*getattr(GenerationConfig, "__annotations__", {})} - {"_mask_length"}
    fields = {name for name in fields if not name.endswith("_token_tensor")}
    assert fields - generation_fields.KNOWN == set()


def test_no_field_stands_in_two_places() -> None:
    groups = (DONE, TOKENS.keys(), HARMLESS.keys(), REFUSED.keys())
    assert sum(map(len, groups)) == len(generation_fields.KNOWN)


def test_what_is_done_is_a_field_of_transformers() -> None:
    assert DONE <= vars(GenerationConfig()).keys()


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_done_is_refused_by_name(name: str) -> None:
    with pytest.raises(BadCheckpoint, match=f"x asks for {name}: .*, which is not done here"):
        generation_fields.settings({name: UNLIKE.get(name, 7.5)}, "x")


def test_neutral_and_harmless_values_are_no_options() -> None:
    neutral = {name: values[0] for name, (values, _) in REFUSED.items() if values}
    assert generation_fields.settings(neutral | dict.fromkeys(HARMLESS, 1), "x") == {}
    assert generation_fields.settings(dict.fromkeys(generation_fields.KNOWN), "x") == {}


def test_the_longest_answer_in_new_tokens_goes_before_that_with_the_prompt() -> None:
    both = {"max_new_tokens": 5, "max_length": 99, "min_new_tokens": 2, "min_length": 40}
    assert generation_fields.settings(both, "x") == {"max_new_tokens": 5, "min_new_tokens": 2}
    made = generation_fields.defaults({"max_length": 99}, where="x", vocab=9, max_new_tokens=512)
    assert made["max_length"] == 99 and "max_new_tokens" not in made


def test_a_folders_settings_are_its_defaults(copy: Copy) -> None:
    wanted = dict(
        suppress_tokens=[7, 9],
        sequence_bias=[[[5], -1.0]],
        early_stopping=True,
        num_beams=3,
        length_penalty=2.0,
        forced_eos_token_id=[2, 0],
        exponential_decay_length_penalty=[2, 1.5],
        max_length=90,
        stop_strings="END",
        eos_token_id=2,
    )
    (copy.folder / "generation_config.json").write_text(json.dumps(wanted))
    made = open_checkpoint(copy.folder)
    assert made.facts.tokens.stop_strings == (wanted.pop("stop_strings"),)
    assert made.facts.tokens.eos == (wanted.pop("eos_token_id"),)
    assert wanted.items() <= made.facts.generation.items()
    assert "max_new_tokens" not in made.facts.generation
    assert decoding_options.choose(made.facts.generation, {}).suppress_tokens == (7, 9)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"guidance_scale": 1.5}, "asks for guidance_scale: 1.5, which is not done here"),
        ({"top_q": 2}, "asks for top_q: 2, which transformers' GenerationConfig has not"),
        ({"min_p": 2.0}, "min_p must be a number from 0 to 1, not 2.0"),
        ({"bad_words_ids": [[999]]}, "bad_words_ids has token 999, and the vocabulary is 300"),
        ({"bad_words_ids": "no"}, "bad_words_ids must be a list of lists of token ids"),
        ({"sequence_bias": [[[5], "x"]]}, "a bias of sequence_bias must be a number"),
        ({"watermarking_config": {"seeding_scheme": "selfhash"}}, "'lefthash' only"),
        ({"watermarking_config": {"ngram_len": 5}}, "watermarking_config has 'ngram_len'"),
        ({"suppress_tokens": [-1]}, "a token of suppress_tokens must be a whole number"),
        ({"stop_strings": [7]}, r"has stop_strings \[7\], which are no strings"),
        ({"suppress_tokens": [3], "forced_eos_token_id": 3}, "suppress_tokens forbids it"),
        ({"exponential_decay_length_penalty": [1]}, r"must be \[start, factor\], not \[1\]"),
    ],
)
def test_a_setting_that_is_not_done_stops_the_export(
    copy: Copy, setting: dict[str, Any], words: str
) -> None:
    plain = {"eos_token_id": 2} | setting
    (copy.folder / "generation_config.json").write_text(json.dumps(plain))
    with pytest.raises(BadCheckpoint, match=words):
        open_checkpoint(copy.folder)


def test_settings_in_config_json_count_only_without_a_generation_config(copy: Copy) -> None:
    config = json.loads((copy.folder / "config.json").read_text())
    config["text_config"] |= {"num_beams": 2, "top_k": 7}
    copy.json("config.json", text_config=config["text_config"], num_beams=3)
    (copy.folder / "generation_config.json").write_text('{"eos_token_id": 2}')
    assert open_checkpoint(copy.folder).facts.generation["num_beams"] == 1
    (copy.folder / "generation_config.json").unlink()
    made = open_checkpoint(copy.folder).facts.generation
    assert (made["num_beams"], made["top_k"]) == (3, 7)
    theirs = GenerationConfig.from_model_config(
        json.loads((copy.folder / "config.json").read_text())
    )
    assert (theirs.num_beams, theirs.top_k) == (3, 7)


def test_salmonn_takes_from_its_llm_what_the_original_leaves_to_it(
    checkpoint: Path, tmp_path: Path
) -> None:
    copy = Copy(checkpoint, tmp_path)
    made = open_checkpoint(copy.config).facts.generation
    assert made["top_k"] == 50 and made["min_new_tokens"] == 1  # transformers', the original's
    copy.json("llm/generation_config.json", top_k=7, early_stopping=True, temperature=0.3)
    made = open_checkpoint(copy.config).facts.generation
    assert (made["top_k"], made["early_stopping"], made["temperature"]) == (7, True, 1.0)
    copy.json("llm/generation_config.json", guidance_scale=2.0)
    assert "guidance_scale: 2.0, which is not done here" in refused(copy)


# --- what a call asks for


def test_defaults_that_are_unknown_are_refused() -> None:
    with pytest.raises(BadOption, match="unknown option 'guidance_scale'"):
        decoding_options.choose({"guidance_scale": 2.0}, {})


@pytest.mark.parametrize(
    ("defaults", "asked", "wanted"),
    [
        ({"max_length": 50}, {"max_new_tokens": 5}, {"max_length": None, "max_new_tokens": 5}),
        ({"max_length": 50}, {}, {"max_length": 50}),
        ({"min_new_tokens": 9}, {"max_new_tokens": 5}, {"min_new_tokens": 5}),
        ({"min_new_tokens": 9}, {"min_length": 30}, {"min_new_tokens": None, "min_length": 30}),
        ({"num_beams": 4}, {"min_p": 0.1}, {"num_beams": 1, "do_sample": True}),
        ({"num_beams": 4, "do_sample": True}, {}, {"num_beams": 4, "do_sample": True}),
        ({"num_beams": 4, "do_sample": True}, {"top_k": 3}, {"num_beams": 4, "do_sample": True}),
        ({"do_sample": True}, {"num_beams": 3}, {"num_beams": 3, "do_sample": False}),
    ],
)
def test_what_is_asked_goes_before_the_defaults(
    defaults: dict[str, Any], asked: dict[str, Any], wanted: dict[str, Any]
) -> None:
    chosen = decoding_options.choose(defaults, asked)
    assert {name: getattr(chosen, name) for name in wanted} == wanted
