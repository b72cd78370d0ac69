"""What may be asked of a model: options, lengths and ends; and folders that hold no whole model."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import alm
from alm import backends
from alm.artifacts import manifest
from alm.errors import BadArtifacts, BadOption, BadPrompt
from alm.generation.model import Model
from tests.runtime.generation.test_model import GREEDY, core, noise


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hashes are remembered beside the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def loaded(artifacts: Path, cache: None) -> Model:
    return alm.load(artifacts, threads=1)


def test_unsaid_options_are_the_manifests(loaded: Model) -> None:
    said = loaded.manifest.facts.generation
    for chosen in (loaded.options(), loaded.options(num_beams=None, seed=None, top_k=None)):
        assert {name: getattr(chosen, name) for name in said} == said
    assert core(loaded.generate(noise(9), "describe")) == core(
        loaded.generate(noise(9), "describe", num_beams=4, max_new_tokens=24, min_length=None)
    )


@pytest.mark.parametrize(
    ("said", "sampled", "beams"),
    [
        ({"temperature": 0.7}, True, 1),
        ({"top_p": 0.5}, True, 1),
        ({"top_k": 4}, True, 1),
        ({"do_sample": True}, True, 1),
        ({"temperature": 0}, False, 4),
        ({"temperature": 0.7, "do_sample": False}, False, 4),
        ({"num_beams": 2}, False, 2),
        ({"seed": 3}, False, 4),
    ],
    ids=str,
)
def test_asking_for_a_temperature_asks_for_sampling(
    loaded: Model, said: dict[str, Any], sampled: bool, beams: int
) -> None:
    chosen = loaded.options(**said)
    assert (chosen.do_sample, chosen.num_beams) == (sampled, beams)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"beams": 4}, "unknown option 'beams'; there is: bad_words_ids, begin_suppress_tokens, "),
        ({"num_beams": 0}, "num_beams must be"),
        ({"max_new_tokens": "many"}, "max_new_tokens must be a whole number"),
        ({"max_new_tokens": 0}, "max_new_tokens must be"),
        ({"temperature": "warm"}, "temperature must be"),
        ({"min_new_tokens": 9, "max_new_tokens": 8}, "min_new_tokens 9 is more"),
    ],
    ids=str,
)
def test_wrong_options_are_one_sentence(loaded: Model, said: dict[str, Any], words: str) -> None:
    with pytest.raises(BadOption, match=words):
        loaded.generate(noise(9), "describe", **said)


def test_a_default_never_forbids_what_was_asked_for(own: Path) -> None:
    said = manifest.load(own)
    odd = {"max_new_tokens": 20, "min_new_tokens": 10, "num_beams": 4, "do_sample": True}
    facts = dataclasses.replace(said.facts, generation=odd)
    dataclasses.replace(said, facts=facts).save(own)
    opened = alm.load(own)
    assert opened.options(max_new_tokens=5).min_new_tokens == 5
    assert (opened.options().num_beams, opened.options().do_sample) == (4, True)
    assert (opened.options(num_beams=3).num_beams, opened.options(num_beams=3).do_sample) == (
        3,
        False,
    )
    facts = dataclasses.replace(said.facts, generation={})
    dataclasses.replace(said, facts=facts).save(own)
    assert alm.load(own).options().max_new_tokens == 200


# --- prompts, lengths and ends


def test_a_prompt_longer_than_the_context_is_refused_with_both_lengths(loaded: Model) -> None:
    with pytest.raises(BadPrompt, match=r"is \d{4} tokens long .* context is 512"):
        loaded.generate(noise(9), "x y z " * 400, **GREEDY)


def test_an_answer_that_fills_the_context_says_so(loaded: Model) -> None:
    used = loaded.generate(noise(9), "describe", **GREEDY).prompt_tokens
    room = loaded.manifest.facts.dimensions.context - used
    steps: dict[str, Any] = {"num_beams": 1, "min_new_tokens": room}
    full = loaded.generate(noise(9), "describe", max_new_tokens=room + 50, **steps)
    fits = loaded.generate(noise(9), "describe", max_new_tokens=room, **steps)
    assert (full.stop_reason, fits.stop_reason) == ("context", "length")
    assert len(full.token_ids) == len(fits.token_ids) == room


def variant(own: Path, **tokens: Any) -> Model:
    said = manifest.load(own)
    changed = dataclasses.replace(said.facts.tokens, **tokens)
    dataclasses.replace(said, facts=dataclasses.replace(said.facts, tokens=changed)).save(own)
    return alm.load(own)


def test_an_answer_ends_at_an_end_token_but_not_before_its_least_length(own: Path) -> None:
    free = variant(own, eos=[]).generate(noise(9000), "describe", num_beams=1, max_new_tokens=12)
    end = free.token_ids[4]
    ended = variant(own, eos=[end])
    first = free.token_ids.index(end) + 1
    answer = ended.generate(noise(9000), "describe", num_beams=1, max_new_tokens=12)
    assert answer.token_ids == free.token_ids[:first] and answer.stop_reason == "eos"
    longer = ended.generate(
        noise(9000), "describe", num_beams=1, max_new_tokens=12, min_new_tokens=first + 2
    )
    assert len(longer.token_ids) > first + 2 and end not in longer.token_ids[: first + 2]


@pytest.mark.parametrize("beams", [1, 3])
def test_an_answer_ends_at_a_stop_string_that_is_not_in_it(own: Path, beams: int) -> None:
    said: dict[str, Any] = {"num_beams": beams, "max_new_tokens": 24}
    free = variant(own, eos=[], stop_strings=[]).generate(noise(9000), "describe", **said)
    stop = next(c for c in free.text[3:] if c.isascii() and c.isprintable() and not c.isspace())
    stopping = variant(own, stop_strings=[stop])
    answer = stopping.generate(noise(9000), "describe", **said)
    assert stop not in answer.text
    assert "".join(stopping.stream(noise(9000), "describe", **said)) == answer.text
    if beams == 1:
        assert answer.stop_reason == "stop_string"
        assert answer.text == free.text.partition(stop)[0].strip()
        assert answer.token_ids == free.token_ids[: len(answer.token_ids)]


def test_every_stage_is_timed(loaded: Model) -> None:
    answer = loaded.generate(noise(77), "describe", **GREEDY)
    front = [p.name for p in loaded.manifest.parts if p.role not in ("table", "decoder")]
    rest = ["prefill", "first_token", "per_token", "total"]
    assert list(answer.timings_ms) == ["load", "decode_audio", *front, *rest]
    assert min(answer.timings_ms.values()) > 0 and answer.provider in backends.known()
    json.dumps(answer.to_json())


def test_a_models_tasks_are_those_of_its_manifest(loaded: Model) -> None:
    assert loaded.tasks == loaded.manifest.facts.prompt.tasks
    by_name = loaded.generate(noise(9), "describe", **GREEDY)
    assert core(by_name) == core(loaded.generate(noise(9), loaded.tasks["describe"], **GREEDY))


# --- folders


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        ({"whisper"}, "part qformer wants speech, which no part before it makes"),
        ({"qformer"}, "no part makes audio_embeds"),
        ({"decoder"}, "holds only mel, whisper, fbank, beats, qformer, embed"),
        ({"embed"}, "not a whole model"),
        ({"mel", "whisper", "fbank", "beats", "qformer", "decoder", "embed"}, "holds only nothing"),
    ],
    ids=["whisper", "qformer", "decoder", "embed", "all"],
)
def test_a_folder_with_some_parts_is_answered_with_what_to_type(
    own: Path, gone: set[str], words: str
) -> None:
    said = manifest.load(own)
    kept = tuple(part for part in said.parts if part.name not in gone)
    dataclasses.replace(said, parts=kept).save(own)
    with pytest.raises(BadArtifacts) as caught:
        alm.load(own)
    assert words in str(caught.value) and f"--part all --out {own}" in str(caught.value)


@pytest.mark.parametrize(
    ("section", "change", "words"),
    [
        ("prompt", {"turn": None}, "'turn' of 'prompt' is None"),
        ("prompt", {"tasks": {"a": 1}}, "'tasks' is"),
        ("prompt", {"tries": 2}, "'prompt' states 'tries', which this alm-edge does not know"),
        (
            "prompt",
            {"trim": "all"},
            "'trim' of 'prompt' is 'all', not one of words, parts, content",
        ),
        ("audio", {"channel": "left"}, "'channel' of 'audio' is 'left', not one of first, mean"),
        ("audio", {"long": 1}, "'long' of 'audio' is 1, not str"),
        ("dimensions", {"table": 9}, "'table' of 'dimensions' is 9, and 'vocab' is 320"),
        ("prompt", {"turn": "no place"}, "wants one {clips} and one {}"),
        ("prompt", {"clip": "no place"}, "clip lacks its one placeholder"),
        ("prompt", {"turns": {"asr": 1}}, "'turns' is"),
        ("tokens", {"eos": 2}, "'eos' of 'tokens' is 2, not list"),
        ("tokens", {"stop_strings": "</s>"}, "'stop_strings' of 'tokens' is"),
        ("tokens", {"penalize_prompt": 1}, "'penalize_prompt' of 'tokens' is 1"),
        ("tokens", {"bos": -1}, "'bos' of 'tokens' is out of range"),
        ("audio", {"rate": 0}, "'rate' of 'audio' is out of range"),
        ("dimensions", {"context": "long"}, "'context' of 'dimensions' is 'long', not int"),
        ("dimensions", {"vocab": 9}, r"table is \[320, 64\], not \[9, 64\]"),
        ("generation", {"num_beams": 0}, "generation defaults of .*: num_beams must be"),
    ],
    ids=str,
)
def test_a_manifest_that_cannot_be_run_is_refused_when_it_is_loaded(
    own: Path, section: str, change: dict[str, Any], words: str
) -> None:
    path = own / manifest.NAME
    plain = json.loads(path.read_text("utf-8"))
    plain[section] |= change
    path.write_text(json.dumps(plain), "utf-8")
    with pytest.raises(BadArtifacts, match=words):
        alm.load(own)
