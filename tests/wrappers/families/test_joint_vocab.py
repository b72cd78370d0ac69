"""Joint vocabularies, tiny and random: parts, prompts and answers are those of transformers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import alm
from alm.facts import UnitFacts
from alm.generation.model import Model
from alm.text.prompt import Prompter
from alm.text.units import Units
from alm.timings import Stages
from tests.conftest import run_export
from tests.products import some
from tests.reference import LIBRISPEECH
from tests.whole.targets import TARGETS, check_fit, export_for
from tests.wrappers.families import tiny_joint_vocab, tiny_speechgpt
from tests.wrappers.families.tiny_joint_vocab import MADE, Original
from wrappers import Checkpoint, open_checkpoint
from wrappers.checkpoint.weights.hollow import filled
from wrappers.families import speechgpt

RATE = 16_000
GREEDY: dict[str, Any] = dict(do_sample=False, num_beams=1, max_new_tokens=32)
OF_TARGETS = dict(zip(("audiopalm", "named", "mel"), TARGETS, strict=True))
WORDS = "What is said?"


@dataclass
class Asked:
    original: Original
    model: Model


def sound(seconds: float, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    samples = int(seconds * RATE)
    loud = np.repeat(draw.uniform(0.01, 0.4, samples // 1600 + 1), 1600)[:samples]
    return (loud * draw.normal(size=samples)).astype(np.float32)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The three checkpoints."""
    folder = tmp_path_factory.mktemp("joint")
    return {name: tiny_joint_vocab.make(folder / name, made) for name, made in MADE.items()}


# --- parts


def encoded(made: Checkpoint, dialect: str, clips: list[np.ndarray]) -> tuple[Any, Any, Any]:
    """Features, their lengths and units of clips in one batch."""
    front, nearest = (filled(made.part(name, dialect)) for name in [*made.parts][:2])
    pcm = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(c) for c in clips], batch_first=True)
    with torch.no_grad():
        speech, lengths = front(pcm, torch.tensor([len(clip) for clip in clips]))
        return speech, lengths, nearest(speech, lengths)


@pytest.mark.parametrize("dialect", ["decomposed", "standard", "ort"])
@pytest.mark.parametrize("name", MADE)
def test_a_clip_becomes_the_units_of_transformers_features(
    name: str, dialect: str, folders: dict[str, Path]
) -> None:
    original, made = Original(folders[name]), open_checkpoint(folders[name])
    units, clips = Units(made.facts.units), [sound(3.3), sound(0.1, 1), sound(1, 2)]
    together = encoded(made, dialect, clips)
    for i, clip in enumerate(clips):
        alone = encoded(made, dialect, [clip])
        wanted = original.ears.features(clip)
        for speech, lengths, found in (
            [each[0] for each in alone],
            [each[i] for each in together],
        ):
            assert int(lengths) == len(wanted)
            assert float((speech[: len(wanted)] - wanted).abs().max()) < 1e-4
            assert units.ids(found.numpy()).tolist() == original.units(clip)


@pytest.mark.parametrize("name", MADE)
@torch.no_grad()
def test_the_decoder_gives_the_logits_of_transformers(name: str, folders: dict[str, Path]) -> None:
    original, made = Original(folders[name]), open_checkpoint(folders[name])
    decoder: Any = filled(made.part("decoder", "decomposed"))
    ids = torch.tensor([original.ids([(WORDS, [sound(1)], [])])])
    embeds = made.embedding()[ids].float()
    cache = decoder.fresh(1, ids.shape[1])
    logits = decoder(embeds, torch.tensor([0]), torch.tensor([ids.shape[1]]), *cache)[0][0, -1]
    wanted = original.llm(input_ids=ids).logits[0, -1]
    assert float((logits - wanted).abs().max()) < 1e-4


# --- answers


@pytest.fixture(scope="module", params=some([*OF_TARGETS], "audiopalm"))
def asked(
    request: pytest.FixtureRequest,
    folders: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Asked:
    path, out = folders[request.param], tmp_path_factory.mktemp(request.param)
    return Asked(Original(path), export_for(OF_TARGETS[request.param], path, out))


@pytest.mark.parametrize("seconds", [0.00007, 0.02, 1, 5, 5.99])
def test_an_answer_about_a_clip_is_the_originals(asked: Asked, seconds: float) -> None:
    pcm = sound(seconds)
    said = asked.model.generate((pcm, RATE), WORDS, **GREEDY)
    assert said.token_ids == asked.original.answer((WORDS, [pcm], []))


@pytest.mark.parametrize("task", tiny_joint_vocab.TASKS)
def test_a_task_has_its_clip_where_its_text_says(asked: Asked, task: str) -> None:
    pcm, words = sound(2, 3), tiny_joint_vocab.TASKS[task]
    said = asked.model.generate((pcm, RATE), task, **GREEDY)
    assert said.token_ids == asked.original.answer((words, [pcm], []))


def test_speech_is_answered_as_the_original_does(asked: Asked) -> None:
    pcm = soundfile.read(LIBRISPEECH[0], dtype="float32")[0]
    said = asked.model.generate((pcm, RATE), WORDS, **GREEDY)
    most = asked.model.manifest.facts.audio.window_samples
    assert said.windows == -(-len(pcm) // most)
    first = asked.model.generate((pcm, RATE), WORDS, truncate=True, **GREEDY)
    assert first.token_ids == asked.original.answer((WORDS, [pcm[:most]], []))


@pytest.mark.parametrize("seconds", [29.99, 31, 75])
def test_a_long_clip_is_answered_window_by_window(asked: Asked, seconds: float) -> None:
    pcm, most = sound(seconds), asked.model.manifest.facts.audio.window_samples
    said = asked.model.generate((pcm, RATE), WORDS, max_new_tokens=2)
    assert said.windows == -(-len(pcm) // most)


def test_silence_is_answered(asked: Asked) -> None:
    """HuBERT's first norm divides silence by nothing: its units are those of rounding errors."""
    pcm = np.zeros(8000, np.float32)
    said = asked.model.generate((pcm, RATE), WORDS, **GREEDY)
    assert said.token_ids
    if asked.original.ears.hubert is None:
        assert said.token_ids == asked.original.answer((WORDS, [pcm], []))


def test_a_batch_is_answered_as_each_of_it_alone(asked: Asked) -> None:
    clips = [sound(seconds, seed=7) for seconds in (0.1, 3.3, 1)]
    answers = asked.model.generate([(clip, RATE) for clip in clips], WORDS, **GREEDY)
    for answer, clip in zip(answers, clips, strict=True):
        assert answer.token_ids == asked.original.answer((WORDS, [clip], []))


@pytest.mark.parametrize("words", [WORDS, "<audio>", "is it<audio> or is it <audio>?"])
def test_any_number_of_clips_may_be_asked_about(asked: Asked, words: str) -> None:
    clips = [sound(1 + i, seed=i) for i in range(words.count("<audio>") or 2)]
    said = asked.model.chat(verbatim=True, **GREEDY).ask(words, *((c, RATE) for c in clips))
    assert said.token_ids == asked.original.answer((words, clips, []))


def test_penalties_see_a_clips_units(asked: Asked) -> None:
    parts, pcm = asked.model.parts, sound(1)
    prompt = parts.prompter.build(WORDS, 1)
    clips, _ = parts.audio_encoder.encode([pcm], Stages())
    assert parts.prompter.ids(prompt, clips) == asked.original.ids([(WORDS, [pcm], [])])


def test_later_turns_are_answered_where_the_config_says_how_one_ends(asked: Asked) -> None:
    chat = asked.model.chat(**GREEDY)
    turns: list[Any] = [("Which is longer?", [sound(1), sound(0.5, 1)]), ("And now?", [sound(2)])]
    turns.append(("Sure?", []))
    if asked.model.manifest.facts.prompt.one_turn:
        chat.ask(turns[0][0], (turns[0][1][0], RATE))
        with pytest.raises(alm.AlmError, match="answers one turn"):
            chat.ask("and now?")
        return
    before: list[Any] = []
    for words, clips in turns:
        said = chat.ask(words, *((clip, RATE) for clip in clips))
        before.append((words, clips, []))
        assert said.token_ids == asked.original.answer(*before)
        before[-1] = (words, clips, said.token_ids)


# --- units in an answer


def test_units_are_masked_or_written(asked: Asked) -> None:
    """Every step wants a unit: none is chosen, or each is written."""
    facts, original = asked.model.manifest.facts.units, asked.original
    units = range(facts.first, facts.first + facts.count)
    bias = {(unit,): 100.0 for unit in units}
    said = asked.model.generate((sound(1), RATE), WORDS, sequence_bias=bias, **GREEDY)
    if facts.unsaid:
        assert said.token_ids and not {*said.token_ids} & {*units}
        more = asked.model.generate((sound(1), RATE), WORDS, suppress_tokens=[5], **GREEDY)
        assert not {*more.token_ids} & {*units, 5}
        return
    assert {*said.token_ids} <= {*units}
    form = original.said.get("units", "<unit_{}>")
    assert said.text == "".join(form.format(i - facts.first) for i in said.token_ids)


def test_graphs_are_fit_for_their_target(asked: Asked) -> None:
    check_fit(asked.model.folder)


def test_no_text_becomes_a_unit_that_has_no_name(folders: dict[str, Path]) -> None:
    made = open_checkpoint(folders["mel"])
    prompter = Prompter(tokenizer(made), made.facts.prompt, made.facts.tokens)
    ids = prompter.build("<unit_3><unit_12>", 0).pieces[0]
    assert max(ids) < made.facts.units.first
    assert tokenizer(made).decode([made.facts.units.first + 12]) == "<unit_12>"


def tokenizer(made: Checkpoint) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_str(made.tokenizer_json)


# --- SpeechGPT, said in this family's words


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny SpeechGPT, and a config.yaml that says the same of it."""
    folder = tiny_speechgpt.make(tmp_path_factory.mktemp("both") / "model")
    return folder / "config.yaml", tiny_joint_vocab.speechgpt(folder)


def test_a_speechgpt_is_the_same_in_both_families(both: tuple[Path, Path]) -> None:
    one, other = map(open_checkpoint, both)
    assert (one.family, other.family) == ("speechgpt", "joint_vocab")
    assert one.tokenizer_json == other.tokenizer_json
    assert (one.embedding() == other.embedding()).all()
    for fact in ("prompt", "tokens", "units"):
        assert getattr(one.facts, fact) == getattr(other.facts, fact)
    for name in one.parts:
        ours, theirs = (filled(made.part(name, "ort")).state_dict() for made in (one, other))
        assert ours.keys() == theirs.keys()
        assert all((ours[key] == theirs[key]).all() for key in ours)


def test_a_speechgpt_answers_alike_through_both_families(
    both: tuple[Path, Path], tmp_path: Path
) -> None:
    words, pcm = "please transcribe the speech. This is input:<audio>", sound(3)
    original = tiny_speechgpt.Original(both[0].parent)
    said: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:  # export tries the longest clip, slow at 60 s
        patch.setattr(speechgpt, "MOST_SAMPLES", 12 * RATE)
        for file in both:
            options = ("--precision", "fp32", "--dialect", "ort", "--no-simplify")
            run_export("--model", file, *options, "--out", tmp_path / file.stem)
            model = alm.load(tmp_path / file.stem, "cpu")
            chat = model.chat(verbatim=True, min_new_tokens=0, **GREEDY)
            answer = chat.ask(words, (pcm, RATE))
            prompt = model.parts.prompter.build(words, 1, verbatim=True)
            clips, _ = model.parts.audio_encoder.encode([pcm], Stages())
            said.append((model.parts.prompter.ids(prompt, clips), answer.token_ids, answer.text))
    assert said[0] == said[1]
    assert said[1][:2] == (original.ids(words, pcm), original.answer(words, pcm))


def test_the_facts_say_what_the_config_says(folders: dict[str, Path]) -> None:
    made = open_checkpoint(folders["audiopalm"])
    offset = tiny_joint_vocab.said_in(folders["audiopalm"])["offset"]
    assert made.facts.units == UnitFacts(23, offset, merged=False, unsaid=True)
    assert made.facts.prompt.tasks == tiny_joint_vocab.TASKS
    assert made.facts.prompt.joined == (tiny_joint_vocab.TASKS["transcribe"],)
    assert made.facts.tokens.bos == 0 and made.facts.tokens.eos == (1,)
    assert made.facts.audio.window_samples == 6 * RATE
