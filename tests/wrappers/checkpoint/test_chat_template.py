"""Chat templates as a start, turns and an end: proved, or refused; never trusted."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from alm.errors import BadCheckpoint
from alm.facts import PromptFacts
from tests.wrappers.families.tiny_hf import TEMPLATE
from wrappers.checkpoint.text import jinja
from wrappers.checkpoint.text.chat_template import MOST_SOURCE, Template, of_tokenizer, template
from wrappers.checkpoint.text.conversations import written

AUDIO = "<|AUDIO|>"
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
CONTENT = (
    "{%% if message.content is string %%}{{ message.content }}{%% else %%}"
    "{%% for part in message.content %%}"
    "{%% if part.type == 'text' %%}{{ part.text }}{%% else %%}%s{%% endif %%}"
    "{%% endfor %%}{%% endif %%}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'user' %}[INST]"
    "{% for part in message.content %}{% if part.type == 'text' %}{{ part.text }}"
    "{% elif part.type in ['input_audio', 'audio_url'] %}[AUDIO]"
    "{% else %}{{ raise_exception('Only text and audio are supported') }}{% endif %}{% endfor %}"
    "[/INST]{% else %}{{ message.content }}{{ eos_token }}{% endif %}{% endfor %}"
)


def plain(before: str, clip: str, after: str) -> str:
    """A template of users' words between `before` and `after`, and answers behind "A:"."""
    content = CONTENT % clip
    return (
        "{% for message in messages %}{% if message.role == 'user' %}"
        f"{before}{{% else %}}A:{{% endif %}}{content}{after}"
        "{% endfor %}{% if add_generation_prompt %}A:{% endif %}"
    )


def said(source: str, audio: str = AUDIO, **variables: str) -> PromptFacts:
    return Template(source, variables, "here").prompt(audio)


def refusal(source: str) -> str:
    with pytest.raises(BadCheckpoint) as caught:
        said(source)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 800
    return str(caught.value)


# --- what can be said


def test_chatml_that_counts_its_clips_is_said() -> None:
    assert said(TEMPLATE) == PromptFacts(
        start="<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n",
        system="<|im_start|>system\n{}<|im_end|>\n",
        turn="<|im_start|>user\n{clips}{}<|im_end|>\n<|im_start|>assistant\n",
        clip="Audio {n}: <|audio_bos|><|AUDIO|><|audio_eos|>\n",
        placeholder=AUDIO,
        end="<|im_end|>\n",
    )


def test_the_template_in_transformers_is_the_published_one() -> None:
    from transformers import Qwen2AudioProcessor

    default: Any = Qwen2AudioProcessor.default_chat_template
    assert said(default.fget(None)) == said(TEMPLATE)


def test_a_template_that_wants_clips_described_otherwise_is_said() -> None:
    assert said(MISTRAL, "[AUDIO]", **TOKENS) == PromptFacts(
        start="<s>",
        system="<s>{}</s>",
        turn="[INST]{clips}{}[/INST]",
        clip="[AUDIO]",
        placeholder="[AUDIO]",
        end="</s>",
    )


@pytest.mark.parametrize(
    ("role", "system"),
    [
        ("<{{ m.role }}>{{ m.content }};", "<system>{};"),
        ("{% if m.role != 'system' %}<{{ m.role }}>{{ m.content }};{% endif %}", ""),  # dropped
        ("{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}"
         "<{{ m.role }}>{{ m.content }};", ""),
        ("<{{ m.role }}>{{ m.content | upper if m.role == 'system' else m.content }};", ""),
        ("<{{ m.role }}>{{ m.content.replace('\"', '') }};", ""),  # other than what was said
    ],
)  # fmt: skip
def test_a_system_message_has_its_place_or_none(role: str, system: str) -> None:
    source = f"{{% for m in messages %}}{role}{{% endfor %}}<assistant>"
    found = Template(source, {}, "here", spelled=True).prompt(AUDIO)
    assert (found.start, found.system, found.system_trimmed) == ("", system, False)


def test_a_template_without_a_start_and_with_plain_clips_is_said() -> None:
    found = said(plain("user: ", AUDIO, ";\n"))
    assert found.start == "" and found.clip == AUDIO and found.end == ";\n"
    assert found.turn == "user: {clips}{};\nA:"


def test_an_answer_without_an_end_is_followed_by_the_next_turn() -> None:
    found = said(plain("|", AUDIO, ""))
    assert (found.start, found.turn, found.end) == ("", "|{clips}{}A:", "")


def test_the_template_of_an_llm_has_clips_spelled_in_a_text(tmp_path: Path) -> None:
    source = (
        "{{ bos_token }}{% for message in messages %}<{{ message.role }}>"
        "{{ message['content'] | trim }}{{ eos_token }}"
        "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    wanted = PromptFacts(
        start="<s>",
        system="<s><system>{}</s>",
        system_trimmed=True,
        turn="<user>{clips}{}</s><assistant>",
        clip="<|audio|>",
        placeholder="<|audio|>",
        end="</s>",
        trim="content",
    )
    assert of_tokenizer(tmp_path) is None
    config = TOKENS | {"chat_template": source}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    # Those of a processor are not the tokenizer's.
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "x"}))
    found = of_tokenizer(tmp_path)
    assert found and found.prompt("<|audio|>") == wanted
    (tmp_path / "chat_template.jinja").write_text(source.replace("<user>", "").replace("s>", "s>!"))
    found = of_tokenizer(tmp_path)
    assert found and found.spelled and found.where.endswith("chat_template.jinja")
    spaced = source.replace("{{ message['c", "{{ ' ' }}{{ message['c")
    with pytest.raises(BadCheckpoint, match="a turn is not written alike first and last"):
        Template(spaced, TOKENS, "here", spelled=True).prompt("<|audio|>")


def test_a_conversation_is_written_with_its_clips_counted_on() -> None:
    talk = written(said(TEMPLATE), ((None, "What?"), ("Listen: ", None), ("And?", None, None)))
    assert [f"Audio {n}: " in talk for n in (1, 2, 3, 4, 5)] == [True] * 4 + [False]
    assert talk.count("<|im_end|>") == 1 + 3 + 2
    assert talk.index("Listen: ") < talk.index("Audio 2: ") < talk.index("And?")
    assert talk.endswith("<|im_start|>assistant\n")


def test_a_template_of_texts_alone_is_said_where_the_user_spells_the_clip() -> None:
    source = (
        "{% for message in messages %}{% if message.role == 'user' %}"
        "USER: {{ message.content }}\n ASSISTANT:{% else %}{{ message.content }}{% endif %}"
        "{% endfor %}"
    )
    found = Template(source, {}, "here", spelled=True).prompt(AUDIO)
    assert (found.start, found.turn, found.clip, found.end) == (
        *("", "USER: {clips}{}\n ASSISTANT:"),
        *(AUDIO, ""),
    )
    assert "takes no clip" in refusal(source)


def test_a_template_may_write_the_days_date() -> None:
    source = "{{ strftime_now('%d.%m.%Y') }}|" + plain("user: ", AUDIO, ";\n")
    assert len(said(source).start) == len("29.11.2026|")


# --- what cannot


@pytest.mark.parametrize(
    "source, reason",
    [
        (plain("U: ", f"{{{{ loop.index }}}}{AUDIO}", ";"), "it writes '"),
        (
            plain("U: ", f"{{% if loop.first %}}[{AUDIO}]{{% endif %}}", ";"),
            "it writes '<|AUDIO|>]W",
        ),
        (plain("{{ loop.index }}: ", AUDIO, ";"), "it writes"),
        (plain("U: ", AUDIO, "{{ '!' if loop.last }}"), "not written alike first and last"),
        (plain("U{n}: ", AUDIO, ";"), "holds a place of our own"),
        (plain("U: ", AUDIO, ";") + "{{ messages[0].content[-1].text }}", "2 times"),
        (plain("U: ", f"{AUDIO}{AUDIO}", ";"), "without one"),
        (plain("U: ", "clip", ";"), f"it writes no {AUDIO} for a clip"),
        (AUDIO, "0 times"),
        ("", "takes no clip"),
        ("{% for", "unexpected 'end of template'"),
        ("{{ messages[7].role }}", "has no element 7"),
        ("{{ raise_exception('Only text, please') }}", "Only text, please"),
    ],
)
def test_a_template_that_is_not_turns_is_refused_with_the_reason(source: str, reason: str) -> None:
    assert reason in refusal(source)


def test_the_conversation_that_differs_is_named() -> None:
    late = plain("{{ '?' if messages | length > 4 }}U: ", AUDIO, ";")
    said_of = refusal(late)
    assert "What is that? / " in said_of and "it writes '?U: " in said_of


# --- what is not trusted


@pytest.mark.parametrize(
    "source, reason",
    [
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "is unsafe"),
        ("{{ messages.append(messages[0]) }}", "is unsafe"),
        ("{% include '/etc/passwd' %}", "no loader"),
        ("{{ 'x' * 10 ** 10 }}", "MemoryError"),
        ("{% for i in range(99999) %}0123456789{% endfor %}", "more than 65536 characters"),
    ],
)
def test_a_hostile_template_is_refused(source: str, reason: str) -> None:
    assert reason in refusal(source)


def test_a_template_without_end_is_stopped() -> None:
    loop = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    start = time.monotonic()
    assert f"takes more than {jinja.MOST_SECONDS} s" in refusal(loop)
    assert time.monotonic() - start < 300


def test_a_template_of_a_book_is_not_even_read() -> None:
    assert f"{MOST_SOURCE + 1} characters" in refusal(" " * (MOST_SOURCE + 1))


# --- where it is found


def write(folder: Path, name: str, **said: Any) -> None:
    (folder / name).write_text(json.dumps(said))


def test_files_are_asked_in_the_order_of_transformers(tmp_path: Path) -> None:
    def found(default: str = "") -> str | None:
        made = template(tmp_path, AUDIO, default)
        return None if made is None else made.source

    assert found() is None and found("default") == "default"
    write(tmp_path, "tokenizer_config.json", chat_template="of text alone")
    assert found() is None
    write(tmp_path, "tokenizer_config.json", chat_template=f"tokenizer {AUDIO}")
    assert found("default") == f"tokenizer {AUDIO}"
    write(tmp_path, "processor_config.json", chat_template="processor")
    assert found() == "processor"
    write(tmp_path, "chat_template.json", chat_template="json")
    assert found() == "json"
    (tmp_path / "chat_template.jinja").write_text("jinja")
    assert found() == "jinja"


def test_of_several_named_templates_the_default_is_taken(tmp_path: Path) -> None:
    several = [dict(name="tool_use", template="no"), dict(name="default", template="yes")]
    write(tmp_path, "chat_template.json", chat_template=several)
    made = template(tmp_path, AUDIO)
    assert made is not None and made.source == "yes"


def test_special_tokens_are_the_templates_to_use(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text(MISTRAL)
    write(tmp_path, "special_tokens_map.json", bos_token="<old>", eos_token="</s>")
    write(tmp_path, "tokenizer_config.json", bos_token=dict(content="<s>", lstrip=False))
    made = template(tmp_path, "[AUDIO]")
    assert made is not None and made.prompt("[AUDIO]").start == "<s>"


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(BadCheckpoint, match="chat_template.jinja is no text"):
        template(tmp_path, AUDIO)
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "chat_template.json").write_text("{")
    with pytest.raises(BadCheckpoint, match="chat_template.json is not JSON"):
        template(tmp_path, AUDIO)
