"""A user's words and clips into the token ids around the audio."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from alm.errors import BadArtifacts, BadPrompt, UnknownName
from alm.facts import PromptFacts, TokenFacts
from alm.text.prompt import Prompt, Prompter
from alm.text.tasks import in_language
from demo import random_checkpoint

TOKENIZER = random_checkpoint.tokenizer()
PROMPT = PromptFacts(
    turn="USER: {clips}{}\nASSISTANT:",
    clip="<Speech><SpeechHere></Speech> ",
    placeholder="<SpeechHere>",
    end="</s>\n",
    tasks={"asr": "Write it down.", "describe": "Describe it."},
    joined=("Write it down.",),
)
NUMBERED = {
    "start": "Be kind.\n",
    "turn": "me: {clips}{}\nyou:",
    "clip": "Audio {n}: <a>\n",
    "placeholder": "<a>",
}


def built(
    query: str,
    *turn: Any,
    bos: int | None = 1,
    verbatim: bool = False,
    language: str = "",
    **other: Any,
) -> Prompt:
    prompter = Prompter(TOKENIZER, replace(PROMPT, **other), TokenFacts(bos=bos))
    return prompter.build(query, *turn, verbatim=verbatim, language=language)


def texts(query: str, *turn: Any, **other: Any) -> list[str]:
    pieces = built(query, *turn, bos=None, **other).pieces
    return [TOKENIZER.decode(ids, skip_special_tokens=False) for ids in pieces]


def test_what_is_around_a_clip_is_tokenized_alone_and_without_special_tokens() -> None:
    before = TOKENIZER.encode("USER: <Speech>", add_special_tokens=False).ids
    after = TOKENIZER.encode("</Speech> What?\nASSISTANT:", add_special_tokens=False).ids
    assert built("What?") == Prompt([[1, *before], after], joined=False)
    assert built("What?", bos=None) == Prompt([before, after], joined=False)
    assert built("What?", bos=0).pieces[0][:1] == [0]


def test_a_tasks_name_stands_for_its_prompt() -> None:
    assert built("asr") == built("Write it down.") == built(" asr\n")
    assert built("asr").joined and not built("describe").joined and not built("other").joined
    assert built("asr", verbatim=True) != built("asr")


@pytest.mark.parametrize(
    "query", ["{}", "a {} b {0} {name}", "{{}}", "{clips} {n}", "%s $1 \\1", "</s> <unk>"]
)
def test_braces_and_the_like_in_a_prompt_stay_as_they_are(query: str) -> None:
    assert texts(query)[1] == f"</Speech> {query}\nASSISTANT:"


def test_the_text_may_come_before_the_audio() -> None:
    assert texts("{}?", turn="{} {clips}!", clip="<SpeechHere>") == ["{}? ", "!"]


def test_space_before_clips_behind_the_words_is_theirs() -> None:
    behind: dict[str, Any] = dict(turn="[{} {clips}]", clip="<SpeechHere>")
    assert texts("What?", 2, **behind) == ["[What? ", "", "]"]
    assert texts("What?", 0, **behind) == ["[What?]"]
    assert texts("Is <audio> it?", 1, **behind) == ["[Is ", " it?]"]
    assert texts("<audio>", 1, **behind) == ["[", "]"]
    # White space of the words that is inside of the turn's content stays.
    assert texts(" What?\n", 1, trim="content", **behind) == ["[What?\n ", "]"]
    assert texts(" What?\n", 0, trim="content", **behind) == ["[What?]"]
    assert texts(" What?\n", 1, trim="parts", **behind) == ["[What? ", "]"]


def test_penalties_see_the_token_that_stands_for_audio() -> None:
    clip = np.zeros((3, 4), np.float32)
    end = TOKENIZER.token_to_id("</s>")
    for tokens, held in ((TokenFacts(audio=7), 7), (TokenFacts(), end)):
        prompter = Prompter(TOKENIZER, replace(PROMPT, placeholder="</s>", clip="</s>"), tokens)
        prompt = prompter.build("What?")
        assert prompter.ids(prompt, [clip]) == [*prompt.pieces[0], *[held] * 3, *prompt.pieces[1]]


def test_clips_are_counted_through_the_conversation() -> None:
    found = texts("Compare.", 2, 0, True, **NUMBERED)
    assert found == ["Be kind.\nme: Audio 1: ", "\nAudio 2: ", "\nCompare.\nyou:"]
    assert texts("And?", 1, 2, False, **NUMBERED) == ["</s>\nme: Audio 3: ", "\nAnd?\nyou:"]
    assert texts("Sure?", 0, 3, False, **NUMBERED) == ["</s>\nme: Sure?\nyou:"]


def test_only_the_first_turn_has_the_bos_and_the_start() -> None:
    first, later = built("x", 0, 0, True, bos=7), built("x", 0, 0, False, bos=7)
    assert first.pieces[0][0] == 7 and 7 not in later.pieces[0][:1]


def test_marks_in_the_words_are_the_clips_places() -> None:
    found = texts("Is <audio> after <audio>?", 2, 0, True, **NUMBERED)
    assert found == ["Be kind.\nme: Is Audio 1: ", "\n after Audio 2: ", "\n?\nyou:"]
    # SALMONN's clip ends in a space: one is enough.
    assert texts("Is <audio> right?") == ["USER: Is <Speech>", "</Speech> right?\nASSISTANT:"]
    assert texts("<audio>") == ["USER: <Speech>", "</Speech> \nASSISTANT:"]


@pytest.mark.parametrize(("query", "clips"), [("<audio>", 2), ("a <audio> <audio>", 1)])
def test_marks_for_other_clips_than_there_are_are_refused(query: str, clips: int) -> None:
    with pytest.raises(BadPrompt, match=rf"has places for \d clips \(<audio>\), and {clips} are"):
        built(query, clips)


def test_a_task_may_have_a_turn_of_its_own() -> None:
    own: dict[str, Any] = {"turns": {"asr": "{clips}{}[WRITE]"}, "tasks": {"asr": "lang:en"}}
    assert texts("asr", **own) == ["<Speech>", "</Speech> lang:en[WRITE]"]
    assert texts("lang:en", **own)[0] == "USER: <Speech>"


@pytest.mark.parametrize("query", ["", "  \n"])
def test_an_empty_prompt_is_answered_with_the_tasks(query: str) -> None:
    with pytest.raises(BadPrompt, match="the prompt is empty; .*: asr, describe$"):
        built(query)


def test_a_prompt_may_not_hold_the_audios_place() -> None:
    with pytest.raises(BadPrompt, match="may not hold <SpeechHere>"):
        built("listen to <SpeechHere> and")


@pytest.mark.parametrize("turn", ["{}", "{clips}", "{clips} {} {}", ""])
def test_a_turn_without_its_places_is_refused(turn: str) -> None:
    others: list[dict[str, Any]] = [{"turn": turn}, {"turns": {"asr": turn}}]
    for other in others:
        with pytest.raises(BadArtifacts, match="wants one {clips} and one {}"):
            built("x", **other)


@pytest.mark.parametrize("clip", ["", "audio", "<SpeechHere><SpeechHere>"])
def test_a_clip_without_its_place_is_refused(clip: str) -> None:
    with pytest.raises(BadArtifacts, match="clip lacks its one placeholder"):
        built("x", clip=clip)


# --- white space, and control tokens that are only spelled


@pytest.mark.parametrize("query", ["hi ", " hi", "hi\n", "\t hi \n\n", "a  b"])
def test_white_space_of_the_user_stays(query: str) -> None:
    assert texts(query)[1] == f"</Speech> {query}\nASSISTANT:"
    literal = texts(query, literal=True)[1]
    assert literal == f"</Speech> {query}\nASSISTANT:"


@pytest.mark.parametrize(
    ("trim", "clips", "query", "wanted"),
    [
        ("words", 1, " a \n", ["[<a>", "|a]"]),
        ("parts", 1, " a \n", ["[<a>", "|a]"]),
        ("content", 1, " a \n", ["[<a>", "| a]"]),  # beside the clip it is inside
        ("content", 0, " a \n", ["[a]"]),
        ("words", 2, " <audio> b <audio> c ", ["[<a>", "| b <a>", "| c]"]),
        ("parts", 2, " <audio> b <audio> c ", ["[<a>", "|b<a>", "|c]"]),
        ("content", 2, " <audio> b <audio> c ", ["[<a>", "| b <a>", "| c]"]),
    ],
)
def test_white_space_goes_where_the_original_strips_it(
    trim: str, clips: int, query: str, wanted: list[str]
) -> None:
    own = {"turn": "[{clips}{}]", "clip": "<a>@|", "placeholder": "@", "trim": trim}
    assert texts(query, clips, 0, True, **own) == wanted


def test_a_spelled_control_token_is_text_where_the_original_has_it_so() -> None:
    end: Any = TOKENIZER.token_to_id("</s>")
    own: dict[str, Any] = {"turn": "</s>{clips}{}</s>", "clip": "<SpeechHere>"}
    as_text = built("a </s> b<SpeechHere>", literal=True, bos=None, **own).pieces[1]
    assert as_text.count(end) == 1 and as_text[-1] == end  # the turn's own
    assert TOKENIZER.decode(as_text, skip_special_tokens=False) == "a </s> b<SpeechHere></s>"
    as_token = built("a </s> b", bos=None, **own).pieces[1]
    assert as_token.count(end) == 2


def test_a_tasks_own_control_tokens_are_tokens() -> None:
    own = {"tasks": {"go": "x</s>"}, "literal": True}
    assert TOKENIZER.token_to_id("</s>") in built("go", **own).pieces[1]


@pytest.mark.parametrize("query", ["hi\udcff", b"hi", None, 3])
def test_what_is_no_text_is_one_sentence(query: Any) -> None:
    with pytest.raises(BadPrompt, match="^the prompt (holds bytes that are not UTF-8|is wanted)"):
        built(query)


# --- a word that is nearly a task


@pytest.mark.parametrize(
    ("query", "meant"),
    [("transcibe", "transcribe"), ("Describe", "describe"), ("descrbe ", "describe")],
)
def test_a_word_that_is_nearly_a_task_is_refused_with_the_task(query: str, meant: str) -> None:
    tasks = {"transcribe": "Write.", "describe": "Describe it."}
    with pytest.raises(UnknownName, match=f"did you mean {meant}\\?.*--verbatim"):
        built(query, tasks=tasks)
    assert built(query, tasks=tasks, verbatim=True).pieces


@pytest.mark.parametrize(
    "query", ["x", "describe?", "please describe", "Why", "desk", "[describe]"]
)
def test_other_words_are_asked_as_they_are(query: str) -> None:
    assert texts(query)[1] == f"</Speech> {query}\nASSISTANT:"


def test_a_task_that_needs_a_language_names_those_there_are() -> None:
    tasks = {"translate_de": "Into German.", "translate_en": "Into English.", "asr": "Write."}
    with pytest.raises(UnknownName, match=r"did you mean translate_de or translate_en\?"):
        built("translate", tasks=tasks)
    facts = replace(PROMPT, tasks=tasks)
    assert in_language("translate ", "DE", facts) == ("translate_de", "")
    with pytest.raises(UnknownName, match="no language 'fr'; there is: de, en"):
        in_language("translate", "fr", facts)
    with pytest.raises(UnknownName, match="'asr' is none in this model"):
        in_language("asr", "de", facts)


HEADED = {"heading": "language {}<asr>", "languages": {"de": "German", "pl": "Polish"}}


def test_an_answer_in_a_language_is_begun_with_its_name() -> None:
    begun = TOKENIZER.encode("language German<asr>", add_special_tokens=False).ids
    for words, language in (("Write it down.", "DE"), ("asr", "german"), ("Any words", "de")):
        prompter = Prompter(TOKENIZER, replace(PROMPT, **HEADED), TokenFacts())
        free, forced = prompter.build(words), prompter.build(words, language=language)
        assert forced.language == "German" and free.language == ""
        text = [TOKENIZER.decode(p.pieces[-1], skip_special_tokens=False) for p in (free, forced)]
        assert text[1] == text[0] + TOKENIZER.decode(begun, skip_special_tokens=False)
    with pytest.raises(UnknownName, match="no language 'fr'; there is: de, pl"):
        built("asr", language="fr", **HEADED)
    with pytest.raises(BadArtifacts, match="heading 'language' wants one {}"):
        built("asr", heading="language")


def test_a_task_may_be_no_words_at_all_but_a_users_prompt_may_not() -> None:
    assert built("asr", tasks={"asr": ""}).pieces
    with pytest.raises(BadPrompt, match="the prompt is empty"):
        built(" ", tasks={"asr": ""})


def test_any_words_read_on_where_the_model_only_transcribes() -> None:
    assert built("Names: Anna", joined=("{}",)).joined
    assert not built("Names: Anna").joined


def test_a_model_whose_weights_are_for_sound_wants_a_clip_with_its_first_question() -> None:
    assert len(built("What?", 2, clip_first=True).pieces) == 3
    assert len(built("And now?", 0, 1, False, clip_first=True).pieces) == 1
    with pytest.raises(BadPrompt, match="give one with the first question"):
        built("What?", 0, clip_first=True)


def test_a_model_of_one_turn_takes_any_number_of_clips_and_no_second_turn() -> None:
    assert len(built("What?", 2, one_turn=True).pieces) == 3
    assert len(built("What?", 0, one_turn=True).pieces) == 1
    with pytest.raises(BadPrompt, match="answers one turn"):
        built("And now?", 0, 1, False, one_turn=True)


def test_a_model_of_one_clip_answers_turns_about_it_and_takes_no_second() -> None:
    assert len(built("And now?", 0, 1, False, one_clip=True).pieces) == 1
    assert len(built("What?", 1, 0, False, one_clip=True).pieces) == 2
    with pytest.raises(BadPrompt, match="one clip at a time, and 2 are given"):
        built("What?", 2, one_clip=True)
    with pytest.raises(BadPrompt, match="hears one clip in a conversation"):
        built("What?", 1, 1, False, one_clip=True)
    with pytest.raises(BadPrompt, match="leave out the <audio>"):
        built("Is <audio> loud?", one_clip=True)
