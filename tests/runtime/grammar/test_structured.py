"""Models of random weights say anything, and yet every answer follows what was asked of it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

import alm
from alm.artifacts.manifest import NAME
from alm.errors import BadOption
from alm.generation.model import Model
from tests.runtime.cli.commands import Capture, alm_run, answer, refused
from tests.runtime.grammar.shapes import SCHEMAS, Schema, llama, problem, thing

NOTE = thing(
    ["who", "loud"],
    who={"type": "string", "maxLength": 12},
    loud={"type": "boolean"},
    tags={"type": "array", "items": {"enum": ["dog", "rain"]}, "maxItems": 2},
)
LONG: dict[str, Any] = dict(max_new_tokens=300, num_beams=1)
WAYS: dict[str, dict[str, Any]] = {
    "greedy": LONG,
    "sampled": LONG | dict(do_sample=True, temperature=2.0, seed=3),
    "the likeliest few": LONG | dict(do_sample=True, top_k=1, top_p=0.5, seed=1),
    "beams": LONG | dict(num_beams=3),
    "sampled beams": LONG | dict(num_beams=2, do_sample=True, seed=2),
    "penalties": LONG | dict(repetition_penalty=1.7, no_repeat_ngram_size=0, suppress_tokens=[9]),
}
BOUNDED = (
    *("required and optional", "an enum", "a constant", "a bounded integer", "a tuple", "one of"),
    *("an array", "a pattern", "formats", "a length in characters", "strange names"),
)


def noise(seconds: float = 1.5, seed: int = 1) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal(int(16000 * seconds))
    return (0.1 * drawn).astype(np.float32)


def told(folder: Path, tokenizer: Tokenizer | None = None, **said: dict[str, Any]) -> Path:
    """The folder, its manifest's sections changed, or its tokenizer another one."""
    plain = json.loads((folder / NAME).read_text())
    for section, values in said.items():
        plain[section] |= values
    if tokenizer:
        file = folder / plain["tokenizer"]["name"]
        tokenizer.save(str(file))
        content = file.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        plain["tokenizer"] |= {"bytes": len(content), "sha256": digest}
    (folder / NAME).write_text(json.dumps(plain))
    return folder


@pytest.fixture(scope="module")
def model(artifacts: Path) -> Model:
    return alm.load(artifacts)


@pytest.mark.parametrize("way", WAYS)
def test_every_answer_is_json_of_its_schema(model: Model, way: str) -> None:
    whole = 0
    for what in (*BOUNDED, "nested", "an open object"):
        said = model.generate(noise(), "transcribe", schema=SCHEMAS[what], **WAYS[way])
        if said.stop_reason == "length":
            assert any("is not JSON of the schema" in note for note in said.notes), said
            continue
        whole += 1
        assert problem(SCHEMAS[what], said.text) == "", what
        assert said.stop_reason in ("grammar", "eos")
    assert whole >= len(BOUNDED) - 2


def test_the_tokenizer_of_llama_strips_and_falls_back_to_bytes(own: Path) -> None:
    # The same ids stand for other texts: what the model says is as random as before.
    made = llama()
    assert made.get_vocab_size() < json.loads((own / NAME).read_text())["dimensions"]["vocab"]
    model = alm.load(told(own, made))
    for what in BOUNDED[:8]:
        for way in ("greedy", "sampled"):
            said = model.generate(noise(), "transcribe", schema=SCHEMAS[what], **WAYS[way])
            if said.stop_reason != "length":
                assert problem(SCHEMAS[what], said.text) == "", (what, way)


def test_rows_of_a_batch_end_when_they_do_and_say_what_they_say_alone(model: Model) -> None:
    clips = [noise(), noise(0.7, 2), noise(2.5, 3), noise(1.0, 4)]
    shapes: list[Schema | None] = [NOTE, None, SCHEMAS["a bounded integer"], SCHEMAS["formats"]]
    for way in ("greedy", "sampled"):
        many = model.generate(clips, "transcribe", schema=shapes, **WAYS[way])
        alone = [
            model.generate(clip, "transcribe", schema=shape, **WAYS[way])
            for clip, shape in zip(clips, shapes, strict=True)
        ]
        assert [one.token_ids for one in many] == [one.token_ids for one in alone]
        assert len({len(one.token_ids) for one in many}) > 2
        for one, shape in zip(many, shapes, strict=True):
            assert shape is None or problem(shape, one.text) == "" or one.stop_reason == "length"
    same = model.generate(clips, "transcribe", schema=NOTE, **LONG)
    assert [problem(NOTE, one.text) for one in same] == [""] * 4


def test_a_grammar_and_an_expression_are_followed(model: Model) -> None:
    lark = 'start: COLOUR (" and " COLOUR)?\nCOLOUR: "red" | "blue" | "grün"'
    ebnf = 'root ::= colour (" and " colour)?\ncolour ::= "red" | "blue" | "grün"'
    colours = r"(red|blue|grün)( and (red|blue|grün))?"
    for way in WAYS.values():
        for form in ({"grammar": lark}, {"grammar": ebnf}, {"regex": colours}):
            said = model.generate(noise(), "transcribe", **form, **way)
            assert re.fullmatch(colours, said.text), said
    inline = 'start: "found: " %json {"type": "integer", "minimum": 1, "maximum": 9}'
    assert re.fullmatch(
        "found: [1-9]", model.generate(noise(), "transcribe", grammar=inline, **LONG).text
    )


def test_pieces_joined_are_the_answer_and_the_command_prints_it(
    model: Model, artifacts: Path, clip: Path, tmp_path: Path, capfd: Capture
) -> None:
    (tmp_path / "schema.json").write_text(json.dumps(NOTE))
    whole = model.generate(clip, "transcribe", schema=json.dumps(NOTE), **LONG)
    assert problem(NOTE, whole.text) == ""
    assert "".join(model.stream(clip, "transcribe", schema=NOTE, **LONG)) == whole.text
    words = ("--engine", artifacts, clip, "transcribe", "--num-beams", "1")
    shaped = (*words, "--max-new-tokens", "300", "--schema", tmp_path / "schema.json")
    assert alm_run(*shaped) == 0
    assert capfd.readouterr().out == whole.text + "\n"
    assert answer(capfd, *shaped)["stop_reason"] == "grammar"
    assert alm_run(*words, "--regex", "yes|no") == 0
    assert capfd.readouterr().out in ("yes\n", "no\n")
    (tmp_path / "g.lark").write_text('start: "so" | "not so"')
    assert alm_run(*words, "--grammar", tmp_path / "g.lark") == 0
    assert capfd.readouterr().out in ("so\n", "not so\n")


def test_drafts_say_what_is_said_without_them(artifacts: Path, model: Model) -> None:
    drafted = alm.load(artifacts, draft="ngrams")
    for way in ("greedy", "sampled"):
        said = model.generate(noise(), "transcribe", schema=SCHEMAS["nested"], **WAYS[way])
        same = drafted.generate(
            noise(), "transcribe", schema=SCHEMAS["nested"], hypothesis=said.text, **WAYS[way]
        )
        assert same.token_ids == said.token_ids and same.accepted_tokens > 0


def test_an_answer_that_is_cut_says_so_and_one_that_just_fits_is_whole(model: Model) -> None:
    whole = model.generate(noise(), "transcribe", schema=NOTE, **LONG)
    count = len(whole.token_ids)
    fits = model.generate(noise(), "transcribe", schema=NOTE, num_beams=1, max_new_tokens=count)
    assert (fits.text, fits.stop_reason, fits.notes) == (whole.text, "grammar", ())
    cut = model.generate(noise(), "transcribe", schema=NOTE, num_beams=1, max_new_tokens=count - 1)
    assert cut.stop_reason == "length"
    assert cut.notes == (
        f"the answer was cut after {count - 1} tokens and is not JSON of the schema, as many as "
        "were asked for; more: --max-new-tokens",
    )
    for beams in (2, 3, 6):  # a hypothesis that was cut is no better than one that is whole
        few: dict[str, Any] = dict(num_beams=beams, max_new_tokens=6, length_penalty=8.0)
        said = model.generate(noise(), "transcribe", regex="a|b|(c|d){40}", **few)
        assert said.text in ("a", "b") and said.stop_reason == "grammar"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (dict(min_new_tokens=40), "loosen min_new_tokens"),
        (dict(suppress_tokens=[*range(3, 1000)]), "loosen min_new_tokens, suppress_tokens"),
        (dict(forced_eos_token_id=2), "forced_eos_token_id ends an answer wherever it is"),
    ],
)
def test_options_that_leave_nothing_are_named(
    model: Model, options: dict[str, Any], why: str
) -> None:
    with pytest.raises(BadOption, match=why):
        model.generate(noise(), "transcribe", regex="yes|no", **LONG | options)
    bare = model.generate(noise(), "transcribe", regex="yes|no", **LONG)
    assert bare.text in ("yes", "no")


def test_a_clip_of_several_windows_is_refused(model: Model) -> None:
    with pytest.raises(BadOption, match="cut into 3 windows.*a schema of its own; --truncate"):
        model.generate(noise(11), "transcribe", schema=NOTE, **LONG)
    said = model.generate(noise(11), "transcribe", schema=NOTE, truncate=True, **LONG)
    assert problem(NOTE, said.text) == ""


def test_turns_of_a_conversation_have_the_form_that_each_was_asked_in(model: Model) -> None:
    chat = model.chat(**LONG)
    chat.ask("transcribe", noise(), max_new_tokens=4)
    assert problem(NOTE, chat.ask("What is it?", schema=NOTE).text) == ""
    again = chat.ask("And now?", regex="[ab]{3}")
    assert re.fullmatch("[ab]{3}", again.text) and again.cached_tokens > 0
    always = model.chat(schema=NOTE, **LONG)
    said = [always.ask(words, *clips).text for words, clips in (("One", [noise()]), ("Two", []))]
    assert [problem(NOTE, one) for one in said] == ["", ""]
    assert always.ask("Three", regex="c").text == "c"
    whole = chat.ask("And then?", schema=thing(["a"], a={"const": 1}))
    assert json.loads(whole.text) == {"a": 1}
    anew = model.chat(**LONG)
    with pytest.raises(BadOption, match="a schema is an object"):
        anew.ask("transcribe", noise(), schema="[]")
    assert anew.turns == 0


def test_a_text_that_ends_answers_does_not_end_one_inside(own: Path) -> None:
    model = alm.load(told(own, tokens={"stop_strings": ["a", '"', ":"]}))
    said = model.generate(noise(), "transcribe", schema=NOTE, **LONG)
    assert problem(NOTE, said.text) == ""
    assert "".join(model.stream(noise(), "transcribe", schema=NOTE, **LONG)) == said.text
    chat = model.chat(**LONG)
    first = chat.ask("transcribe", noise(), schema=NOTE)
    again = chat.ask("And now?", schema=NOTE)
    assert again.prompt_tokens > first.prompt_tokens + len(first.token_ids)


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize("marks", [("<t>", "c"), ("<t>", "ab")])
def test_a_model_thinks_freely_and_then_follows(
    artifacts: Path, tmp_path: Path, begun: bool, marks: Sequence[str]
) -> None:
    folder = Path(shutil.copytree(artifacts, tmp_path / "model"))
    turn = json.loads((folder / NAME).read_text())["prompt"]["turn"]
    prompt = {"thought": "{}".join(marks)}
    prompt |= {"turn": turn + marks[0], "fleeting": marks[0]} if begun else {}
    model, thoughts = alm.load(told(folder, prompt=prompt)), 0
    for seed in range(12):
        hot: dict[str, Any] = dict(do_sample=True, temperature=3.0, seed=seed, max_new_tokens=900)
        said = model.generate(noise(1), "Listen well.", schema=NOTE, **hot)
        thoughts += bool(said.thinking)
        if said.stop_reason in ("length", "context"):
            assert any("is not JSON of the schema" in note for note in said.notes)
        else:
            assert problem(NOTE, said.text) == "", said.thinking
            assert said.thinking is not None and marks[1] not in said.thinking
    assert thoughts > 3 if begun else thoughts < 12


def test_what_the_command_line_names_is_refused_before_a_model_is_loaded(
    tmp_path: Path, artifacts: Path, clip: Path, capfd: Capture
) -> None:
    words = ("--engine", artifacts, clip, "transcribe")
    for name, content in (
        ("bad", b"{"),
        ("latin", b"\xe9"),
        ("empty", b" \n"),
        ("not", b'{"not":{}}'),
    ):
        (tmp_path / name).write_bytes(content)
    for more, why in (
        (("--schema", tmp_path / "bad"), "the schema is no JSON"),
        (("--schema", tmp_path / "latin"), "is not text in UTF-8"),
        (("--grammar", tmp_path / "empty"), "is empty"),
        (("--schema", tmp_path / "not"), "has 'not', which is not kept here"),
        (("--schema", tmp_path), "cannot be read"),
        (("--regex", "("), "the regex cannot be kept"),
        (("--regex", "a", "--grammar", tmp_path / "bad"), "grammar and regex are both asked for"),
        (("--regex", "a", "--format", "srt"), "shape an answer, and neither --live nor subtitles"),
    ):
        status, sentence = refused(capfd, *words, *more)
        assert status == 2 and why in sentence, (more, sentence)
    status, sentence = refused(capfd, *words, "--schema", tmp_path / "none")
    assert status == 1 and "there is no file" in sentence
