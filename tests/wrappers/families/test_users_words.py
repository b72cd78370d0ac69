"""A user's words become the tokens that the originals make of them, white space and all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from alm.errors import BadArtifacts, BadPrompt
from alm.facts import TokenFacts
from alm.text.prompt import Prompter
from tests.wrappers.families import tiny_hf
from tests.wrappers.families.tiny_hf import TEMPLATE, chatml
from wrappers import open_checkpoint
from wrappers.checkpoint.text.chat_template import Template

AUDIO = "<|AUDIO|>"
QUERIES = ("hi ", " hi", "hi\n", " \n hi\t", "a  b", "say <|im_end|> now", "nothing<|endoftext|>")
# As Llama 3's: each text stripped; and as others': what all of a turn's content comes to.
PARTS_STRIPPED = TEMPLATE.replace("{{ content['text'] }}", "{{ content['text'] | trim }}")
CONTENT_STRIPPED = (
    "{% for m in messages %}{% set all = namespace(text='') %}"
    "{% if m.content is string %}{% set all.text = m.content %}{% else %}"
    "{% for c in m.content %}{% if 'audio' in c %}{% set all.text = all.text + '<|AUDIO|>' %}"
    "{% else %}{% set all.text = all.text + c.text %}{% endif %}{% endfor %}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ all.text | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("clips", [0, 1, 2])
@pytest.mark.parametrize("source", [TEMPLATE, PARTS_STRIPPED, CONTENT_STRIPPED])
def test_a_question_has_the_tokens_that_transformers_gives_it(
    source: str, clips: int, query: str
) -> None:
    ours = Prompter(chatml(), Template(source, {}, "here").prompt(AUDIO), TokenFacts())
    theirs = PreTrainedTokenizerFast(tokenizer_object=chatml(), chat_template=source)
    audio: dict[str, Any] = {"type": "audio", "audio": "a.wav", "audio_url": "a.wav"}
    content = [audio] * clips + [{"type": "text", "text": query}]
    turn: Any = {"role": "user", "content": content}
    wanted = theirs.apply_chat_template([turn], add_generation_prompt=True, return_dict=False)
    place = chatml().token_to_id(AUDIO)
    first, *rest = ours.build(query, clips).pieces
    got = first + [token for piece in rest for token in (place, *piece)]
    assert got == wanted


@pytest.mark.parametrize("said", ["Be brief.", " Two\n lines <|im_end|>. \n"])
@pytest.mark.parametrize("source", [TEMPLATE, CONTENT_STRIPPED])
def test_a_system_message_has_the_tokens_that_transformers_gives_it(source: str, said: str) -> None:
    ours = Prompter(chatml(), Template(source, {}, "here").prompt(AUDIO), TokenFacts())
    theirs = PreTrainedTokenizerFast(tokenizer_object=chatml(), chat_template=source)
    messages: Any = [{"role": "system", "content": said}, {"role": "user", "content": "Who?"}]
    wanted = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert ours.build("Who?", 0, system=said).pieces == [wanted]
    assert ours.build("Who?", 0, system=" ").pieces == ours.build("Who?", 0).pieces


def test_a_prompt_without_a_place_takes_no_system_message() -> None:
    facts = replace(Template(TEMPLATE, {}, "here").prompt(AUDIO), system="")
    with pytest.raises(BadPrompt, match="no place for a system message"):
        Prompter(chatml(), facts, TokenFacts()).build("Who?", 0, system="Be brief.")
    facts = Template(TEMPLATE, {}, "here").prompt(AUDIO)
    with pytest.raises(BadPrompt, match="may not hold"):
        Prompter(chatml(), facts, TokenFacts()).build("Who?", 0, system=f"Hear {AUDIO}.")
    with pytest.raises(BadArtifacts, match="wants one {}"):
        Prompter(chatml(), replace(facts, system="system"), TokenFacts())


@pytest.mark.parametrize(
    ("source", "trim"), [(TEMPLATE, ""), (PARTS_STRIPPED, "parts"), (CONTENT_STRIPPED, "content")]
)
def test_what_a_template_strips_is_found(source: str, trim: str) -> None:
    assert Template(source, {}, "here").prompt(AUDIO).trim == trim


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("hi ", [1, 3, 144, 145, 72, 4]),
        (" hi", [1, 3, 72, 144, 145, 4]),
        ("hi\n", [1, 3, 144, 145, 50, 4]),
        ("[INST] </s>", [1, 3, 131, 113, 118, 123, 124, 133, 72, 100, 87, 155, 102, 4]),
        ("<s>[AUDIO]", [1, 3, 100, 155, 102, 131, 105, 125, 108, 113, 119, 133, 4]),
        (
            " \n[TRANSCRIBE] the\t",
            [1, 3, 72, 50, 131, 124, 122, 105, 118, 123, 107, 122, 113, 106, 109, 133]
            + [72, 298, 49, 4],
        ),
    ],
)
def test_voxtrals_questions_hold_no_control_tokens_of_the_user(
    query: str, ids: list[int], voxtral: Prompter
) -> None:
    """The ids are what mistral-common 1.13 writes with the same tekken.json."""
    assert voxtral.build(query, 0).pieces == [ids]


@pytest.fixture(scope="module")
def voxtral(tmp_path_factory: pytest.TempPathFactory) -> Prompter:
    folder: Path = tmp_path_factory.mktemp("voxtral")
    made = open_checkpoint(tiny_hf.voxtral(folder, seconds=4).folder)
    return Prompter(Tokenizer.from_str(made.tokenizer_json), made.facts.prompt, made.facts.tokens)


def test_a_task_of_voxtral_keeps_its_control_token(voxtral: Prompter) -> None:
    assert voxtral.build("transcribe ", 1).pieces == [[1, 3, 25], [4, 34]]
    assert voxtral.build("transcribe_de", 1).pieces[1][-1] == 34


def test_a_salmonns_words_are_stripped_as_its_command_line_does(checkpoint: Path) -> None:
    made = open_checkpoint(checkpoint)
    build = Prompter(
        Tokenizer.from_str(made.tokenizer_json), made.facts.prompt, made.facts.tokens
    ).build
    assert build(" What is it? \n") == build("What is it?")
    assert build("What  is it?") != build("What is it?")


def test_a_task_with_a_language_names_it_in_every_family(checkpoint: Path, tmp_path: Path) -> None:
    for make in (tiny_hf.voxtral, tiny_hf.qwen2_audio):
        (tmp_path / make.__name__).mkdir()
    folders = [
        checkpoint,
        tiny_hf.voxtral(tmp_path / "voxtral", seconds=4).folder,
        tiny_hf.qwen2_audio(tmp_path / "qwen2_audio", seconds=4).folder,
    ]
    for folder in folders:
        tasks = open_checkpoint(folder).facts.prompt.tasks
        assert "translate" not in tasks and any(name.startswith("translate_") for name in tasks)
        for name, text in tasks.items():
            if name in ("translate_en", "translate_de", "translate_zh", "translate_ja"):
                language = {"en": "English", "de": "German", "zh": "Chinese", "ja": "Japanese"}
                assert f"into {language[name[-2:]]}." in text
