"""Somebody is listened to: the words of utterances, partials on the way, and nothing lost."""

from __future__ import annotations

import itertools
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import alm
from alm.errors import BadAudio, BadOption, BadPrompt, UnknownName
from alm.generation.model import Model
from alm.hearing.agreement import Agreement, units
from alm.hearing.ears import Written
from alm.hearing.events import Event, Final, Partial, Started, Stopped
from alm.hearing.following import Follower, paced
from alm.hearing.listener import Listener
from alm.hearing.sound import Sound
from alm.hearing.tasks import done
from alm.voice.activity import Settings
from tests import ROOT

RATE = 16_000
LAMP, DIGITS = "turn on the lamp in the kitchen", "four two eight eight one"


@pytest.fixture(scope="module")
def model(demo: Path) -> Model:
    return alm.load(demo, "cpu", threads=1)


def clip(name: str) -> np.ndarray:
    return soundfile.read(ROOT / "demo" / f"{name}.wav", dtype="float32")[0]


def silence(seconds: float, seed: int = 0) -> np.ndarray:
    """With the faint hiss that a microphone has."""
    noise = np.random.default_rng(seed).standard_normal(int(seconds * RATE))
    return (1e-4 * noise).astype(np.float32)


def talk() -> np.ndarray:
    parts = silence(1), clip("lamp"), silence(1.5, 1), clip("digits"), silence(1.3, 2)
    return np.concatenate(parts)


def cut(pcm: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """The same samples in pieces of any size, some empty."""
    chance, at = np.random.default_rng(seed), 0
    most = int(chance.choice([300, 3000, 40_000]))
    while at < len(pcm):
        size = int(chance.integers(0, most))
        yield pcm[at : at + size]
        at += size


def all_of(listener: Listener, pieces: Iterator[np.ndarray]) -> list[Event]:
    return [e for piece in pieces for e in listener.feed(piece)] + listener.finish()


def finals(events: list[Event]) -> list[tuple[float, float, str]]:
    return [(e.start, e.end, e.text) for e in events if isinstance(e, Final)]


def test_two_utterances_are_the_words_of_each_clip_alone(model: Model) -> None:
    for name, words in (("lamp", LAMP), ("digits", DIGITS)):
        assert model.generate(clip(name), "transcribe").text == words
    pcm = talk()
    events = all_of(model.listen(), cut(pcm, 0))
    said = finals(events)
    assert [text for *_, text in said] == [LAMP, DIGITS]
    for start, end, text in said:  # each is what the model answers of those samples alone
        alone = pcm[round(start * RATE) : round(end * RATE)]
        assert model.generate(alone, "transcribe").text == text
    assert 0.7 < said[0][0] < 1.2 and 2.8 < said[0][1] < 3.3
    for number in (0, 1):
        of = [e for e in events if e.number == number]
        kinds = [type(e) for e in of]
        assert kinds[0] is Started and kinds[-2:] == [Stopped, Final]
        assert set(kinds[1:-2]) == {Partial}
        assert len({e.start for e in of}) == 1


def test_the_same_samples_give_the_same_finals_however_they_are_cut(model: Model) -> None:
    pcm = talk()
    wanted = finals(all_of(model.listen(), iter([pcm])))
    assert len(wanted) == 2
    for seed in range(6):
        assert finals(all_of(model.listen(), cut(pcm, seed))) == wanted
    singly = (pcm[at : at + 1] for at in range(len(pcm) // 2))
    assert finals(all_of(model.listen(), singly))[0] == wanted[0]


def test_silence_and_steady_noise_say_nothing(model: Model) -> None:
    for sound in (np.zeros(5 * RATE, np.float32), silence(5), 500 * silence(5, 3)):
        listener = model.listen()
        assert all_of(listener, cut(sound, 1)) == []
        assert listener.seconds == len(sound) / RATE


def test_what_is_certain_only_grows_and_a_pause_makes_the_final_early(model: Model) -> None:
    events = all_of(model.listen(every=0.2), iter(np.split(talk(), range(1600, 125_000, 1600))))
    for number, words in ((0, LAMP), (1, DIGITS)):
        partials = [e for e in events if isinstance(e, Partial) and e.number == number]
        (final,) = [e for e in events if isinstance(e, Final) and e.number == number]
        assert len(partials) >= 4 and partials[0].certain == ""
        for before, now in itertools.pairwise(partials):
            assert now.certain.startswith(before.certain) and now.end >= before.end
            assert now.text.startswith(now.certain)
        assert partials[-1].text == words == final.text
        # The last of them heard all that the final did: it is not computed again.
        assert partials[-1].end == final.end


def test_speech_longer_than_the_window_is_cut_and_no_sample_of_it_is_lost(model: Model) -> None:
    window = model.manifest.facts.audio.window_samples / RATE
    fluent = clip("digits")[2400:-2400]
    pcm = np.concatenate([silence(1), *[fluent] * 14, silence(1.5)])
    said = finals(all_of(model.listen(), cut(pcm, 2)))
    assert len(said) >= 3 and all(end - start <= window for start, end, _ in said)
    for (_, end, _), (start, *_) in itertools.pairwise(said):
        assert start == end
    assert said[0][0] < 1.1 and said[-1][1] > len(pcm) / RATE - 1.4
    for start, end, text in said[:2]:
        alone = pcm[round(start * RATE) : round(end * RATE)]
        assert model.generate(alone, "transcribe").text == text != ""
    shorter = finals(all_of(model.listen(pauses=Settings(longest=3.0)), iter([pcm])))
    assert len(shorter) > len(said) and max(end - start for start, end, _ in shorter) <= 3


def test_a_hand_ends_utterances_where_no_pause_does(model: Model) -> None:
    listener, pcm = model.listen(pauses=None), talk()
    middle = int(3.5 * RATE)
    events = listener.feed(pcm[:middle])
    assert [type(e) for e in events] == [Started]
    listener.commit()
    events = listener.feed(pcm[middle:])
    assert [e.text for e in events if isinstance(e, Final)] == [LAMP]
    ((start, end, text),) = finals(listener.finish())
    assert (start, end) == (middle / RATE, len(pcm) / RATE) and text.startswith(DIGITS[:8])
    with pytest.raises(BadOption, match="the sound was ended"):
        listener.feed(pcm)
    assert listener.finish() == []


def test_what_is_cleared_is_not_heard(model: Model) -> None:
    listener, pcm = model.listen(), talk()
    assert any(isinstance(e, Started) for e in listener.feed(pcm[: int(1.8 * RATE)]))
    listener.clear()
    quiet = pcm[int(3.4 * RATE) :]
    assert [(e.number, e.text) for e in all_finals(listener, quiet)] == [(1, DIGITS)]


def all_finals(listener: Listener, pcm: np.ndarray) -> list[Final]:
    return [e for e in all_of(listener, iter([pcm])) if isinstance(e, Final)]


def test_another_question_may_be_asked_about_each_utterance(model: Model) -> None:
    assert finals(all_of(model.listen("describe"), iter([talk()])))[0][2] == "a person speaking"
    listener = model.listen(num_beams=2, max_new_tokens=3)  # no drafts, and an answer that is cut
    first = all_finals(listener, talk())[0]
    answer: Any = first.answer
    assert answer.stop_reason == "length" and first.to_json()["notes"]


def test_what_cannot_be_listened_to_is_refused_before_any_sound(model: Model) -> None:
    cases: Any = (
        (UnknownName, "did you mean transcribe", ("trascribe", {})),
        (BadPrompt, "is empty|no text|wanted", ("", {})),
        (BadOption, "hypothesis is not for it", ("transcribe", {"hypothesis": "four"})),
        (BadOption, "longest is 11 s, and this model hears 10 s", ("transcribe", {"pauses": 11})),
        (BadOption, "seconds above 0", ("transcribe", {"every": 0.0})),
        (BadOption, "delay is of a model that hears a stream", ("transcribe", {"delay": 80.0})),
    )
    for error, words, (prompt, options) in cases:
        if "pauses" in options:
            options: Any = {"pauses": Settings(longest=options["pauses"])}
        with pytest.raises(error, match=words):
            listener: Any = model.listen(prompt, **options)
            listener.feed(talk())
    with pytest.raises(BadAudio, match="not a finite number"):
        model.listen().feed(np.array([0.0, np.nan]))


# --- a machine that is too slow


class Slow:
    """Hears in so many seconds, and says how much it heard."""

    repeats = True

    def __init__(self, seconds: float) -> None:
        self.seconds, self.heard = seconds, 0

    def hear(
        self, number: int, pcm: np.ndarray, before: str, final: bool
    ) -> Generator[str, None, Written]:
        self.heard += 1
        for _ in range(2):
            time.sleep(self.seconds / 2)
            yield "word"
        return Written(f"{number}: {len(pcm)}", [])

    def forget(self) -> None:
        pass


def bursts(count: int) -> np.ndarray:
    """Sounds of 0.6 s with pauses of 1 s."""
    loud = 0.1 * np.random.default_rng(0).standard_normal(int(0.6 * RATE)).astype(np.float32)
    return np.concatenate([silence(1), *[np.concatenate([loud, silence(1)])] * count])


def test_a_slow_model_skips_partials_and_no_final() -> None:
    slow = Slow(0.25)
    listener = Listener(slow, RATE, Settings())
    chunks = paced(np.split(bursts(8), range(1280, 20 * RATE, 1280)), RATE, pace=20.0)
    events = [*Follower(listener, chunks, waits=False).events()]
    said = [e for e in events if isinstance(e, Final)]
    assert [e.number for e in said] == list(range(8))
    assert [e.text.split(":")[0] for e in said] == [str(n) for n in range(8)]
    assert slow.heard < 16  # fast enough, there is one partial a burst and one in its pause
    assert said[-1].latency > said[0].latency


def test_speech_that_waits_is_bounded_and_what_was_heard_is_written_down() -> None:
    pcm = bursts(8)
    listener = Listener(Slow(0.01), RATE, Settings(), waiting=3.0)
    with pytest.raises(BadAudio, match="s of speech behind"):
        for piece in np.split(pcm, range(1280, len(pcm), 1280)):
            listener.hear(piece)
    assert listener.behind <= 3.0
    while task := listener.take():
        assert done(listener.run(task))
    assert listener.hear(silence(0.1)) == []  # there is room again
    # What can wait does, and all is heard; a microphone is left with a sentence, behind its finals.
    for waits in (True, False):
        listener = Listener(Slow(0.05), RATE, Settings(), waiting=3.0)
        follower = Follower(listener, np.split(pcm, range(1280, len(pcm), 1280)), waits)
        said: list[Event] = []
        try:
            said.extend(follower.events())
        except BadAudio as error:
            assert not waits and "s of speech behind" in str(error)
        whole = [e.number for e in said if isinstance(e, Final)]
        assert whole == list(range(8 if waits else len(whole)))
        assert whole and (waits or len(whole) < 8)


def test_a_final_that_is_interrupted_is_due_again() -> None:
    listener = Listener(Slow(0.0), RATE, Settings())
    listener.hear(bursts(2))
    task = listener.take()
    assert task and task.number == 0
    run = listener.run(task)
    assert next(run) == "word"
    run.close()
    events = listener.finish()
    assert [e.number for e in events if isinstance(e, Final)] == [0, 1]


def test_memory_does_not_grow_with_what_nobody_says() -> None:
    listener, quiet = Listener(Slow(0.0), RATE, Settings()), silence(1)
    for _ in range(600):
        assert listener.feed(quiet) == []
    kept: Any = listener
    assert listener.behind < 2 and len(kept._marks) < 300
    assert kept._utterances._sound._held.nbytes < 2**20


# --- the parts


def test_two_runs_that_agree_make_a_beginning_certain() -> None:
    agreement = Agreement()
    assert agreement.push("turn of") == "turn of" and agreement.certain == ""
    assert agreement.push("turn on the lamb") == "turn on the lamb"
    assert agreement.certain == "turn"
    agreement.push(" turn on the lamp in")
    assert agreement.certain == "turn on the"
    # A run that takes a certain word back does not; what it says behind them stands.
    assert agreement.push("burn on the lamp in a") == "turn on the lamp in a"
    assert agreement.certain == "turn on the lamp in"
    assert agreement.push("") == agreement.certain == "turn on the lamp in"


def test_words_without_spaces_are_compared_by_character() -> None:
    assert units("打开 kitchen灯") == ["打", "开", " kitchen", "灯"]
    agreement = Agreement()
    agreement.push("打开厨")
    agreement.push("打开除了")
    assert agreement.certain == "打开"


def test_sound_is_held_as_long_as_it_is_needed() -> None:
    sound, whole = Sound(), np.arange(500_000, dtype=np.float32)
    chance, at = np.random.default_rng(0), 0
    while at < len(whole):
        size = int(chance.integers(0, 30_000))
        sound.append(whole[at : at + size])
        at = min(at + size, len(whole))
        assert sound.end == at
        sound.drop(at - int(chance.integers(0, 50_000)))
        assert np.array_equal(sound.between(sound.start, sound.end), whole[sound.start : at])
