"""Chat templates of models that think: what begins a thought, and what later turns leave out."""

from __future__ import annotations

import json
from typing import Any

import jinja2
import pytest
from tokenizers import AddedToken

from alm.errors import BadCheckpoint
from alm.facts import PromptFacts
from alm.text.thoughts import Thoughts
from tests.wrappers.families.tiny_hf import of_bytes
from wrappers.checkpoint.text import thoughts
from wrappers.checkpoint.text.chat_template import Template
from wrappers.checkpoint.text.conversations import written

CLIP = "<|audio|>"
MARKS = "<think>{}</think>"
R1_TOKENS = {"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>"}
# As DeepSeek-R1-Distill-Qwen-1.5B has it, but for tools.
R1 = (
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}"
    "{% endif %}{% set ns = namespace(is_first=false, is_tool=false, is_output_first=true, "
    "system_prompt='') %}{%- for message in messages %}{%- if message['role'] == 'system' %}"
    "{% set ns.system_prompt = message['content'] %}{%- endif %}{%- endfor %}"
    "{{bos_token}}{{ns.system_prompt}}{%- for message in messages %}"
    "{%- if message['role'] == 'user' %}{%- set ns.is_tool = false -%}"
    "{{'<｜User｜>' + message['content']}}{%- endif %}"
    "{%- if message['role'] == 'assistant' and message['content'] is not none %}"
    "{%- if ns.is_tool %}{{'<｜tool▁outputs▁end｜>' + message['content'] + "
    "'<｜end▁of▁sentence｜>'}}{%- set ns.is_tool = false -%}{%- else %}"
    "{% set content = message['content'] %}{% if '</think>' in content %}"
    "{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{'<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>'}}{%- endif %}{%- endif %}"
    "{%- endfor -%}{% if ns.is_tool %}{{'<｜tool▁outputs▁end｜>'}}{% endif %}"
    "{% if add_generation_prompt and not ns.is_tool %}{{'<｜Assistant｜><think>\\n'}}{% endif %}"
)
# As Qwen3 has it, but for tools.
QWEN3 = """\
{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not\
(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n')\
.split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\\n<think>\\n' + \
reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""
# Qwen3-4B-Thinking-2507 begins the thought; a fork that never thinks ends it at once.
THINKING = QWEN3.partition("\n    {%- if enable_thinking")[0].replace(
    "{{- '<|im_start|>assistant\\n' }}", "{{- '<|im_start|>assistant\\n<think>\\n' }}\n{%- endif %}"
)
SILENT = QWEN3.replace("enable_thinking is defined and enable_thinking is false", "true")
TURN = "<|im_start|>user\n{clips}{}<|im_end|>\n<|im_start|>assistant\n"
QWEN: dict[str, Any] = dict(
    system="<|im_start|>system\n{}<|im_end|>\n",
    turn=TURN,
    clip=CLIP,
    placeholder=CLIP,
    end="<|im_end|>\n",
    thought=MARKS,
)


def said(source: str, **variables: str) -> PromptFacts:
    return Template(source, variables, "here", spelled=True).prompt(CLIP)


def test_deepseeks_template_begins_the_thought_and_later_turns_have_neither() -> None:
    assert said(R1, **R1_TOKENS) == PromptFacts(
        start="<｜begin▁of▁sentence｜>",
        system="<｜begin▁of▁sentence｜>{}",
        turn="<｜User｜>{clips}{}<｜Assistant｜><think>\n",
        clip=CLIP,
        placeholder=CLIP,
        end="<｜end▁of▁sentence｜>",
        thought=MARKS,
        fleeting="<think>\n",
        left_out="rest",
    )


def test_qwen3s_template_leaves_the_thought_to_the_model() -> None:
    assert said(QWEN3) == PromptFacts(**QWEN, left_out="lines")


def test_a_template_may_begin_a_thought_or_end_it_at_once() -> None:
    begun = "<think>\n"
    wanted: dict[str, Any] = QWEN | dict(turn=TURN + begun, fleeting=begun, left_out="lines")
    assert said(THINKING) == PromptFacts(**wanted)
    over = "<think>\n\n</think>\n\n"
    found = said(SILENT)
    wanted = QWEN | dict(turn=TURN + over, fleeting=over, left_out="lines")
    assert found == PromptFacts(**wanted)
    assert not Thoughts(found.thought).begun_by(found.turn)


@pytest.mark.parametrize("source", [R1, QWEN3, THINKING, SILENT])
def test_conversations_are_written_as_jinja_writes_them(source: str) -> None:
    found = said(source, **R1_TOKENS)
    own = "" if found.turn.endswith("<think>\n") else "<think>"
    answers = [f"{own}\nwhy\n</think>\n\nIt rains.", f"{own}well</think>No.", f"{own}I was cut"]
    words = ["What is it?", "Snow?", "Sure?", "Why?"]
    messages: list[dict[str, str]] = [{"role": "user", "content": words[0]}]
    for answer, word in zip(answers, words[1:], strict=True):
        messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": word}]
    world = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    template: Any = world.from_string(source)
    text = template.render(messages=messages, add_generation_prompt=True, **R1_TOKENS)
    assert written(found, tuple((word,) for word in words), answers) == text


def test_a_template_that_keeps_thoughts_is_said_so() -> None:
    source = (
        "{% for message in messages %}<{{ message.role }}>{{ message.content }}|{% endfor %}"
        "{# </think> ends a thought #}{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    assert (found := said(source)).thought == MARKS and not found.left_out and not found.fleeting


def test_what_later_turns_leave_out_otherwise_is_refused() -> None:
    source = QWEN3.replace("split('</think>')[-1].lstrip('\\n')", "split('</think>')[0]")
    with pytest.raises(BadCheckpoint, match="after the answer '<think>") as caught:
        said(source)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    source = R1.replace("<｜Assistant｜><think>", "<｜Assistant｜><thought>")
    with pytest.raises(BadCheckpoint, match="not written alike first and last"):
        said(source)


@pytest.mark.parametrize("special", [False, True])
def test_a_tokenizer_with_both_marks_gives_them_back_as_text(special: bool) -> None:
    tokenizer = of_bytes(())
    plain = tokenizer.to_str()
    assert thoughts.in_tokenizer(plain) == "" and thoughts.spelled(plain, MARKS) == plain
    tokenizer.add_tokens([AddedToken("<think>", special=special)])
    assert thoughts.in_tokenizer(tokenizer.to_str()) == ""
    tokenizer.add_tokens([AddedToken("</think>", special=special)])
    known = tokenizer.to_str()
    assert thoughts.in_tokenizer(known) == MARKS
    made = thoughts.spelled(known, MARKS)
    assert special or made == known
    spelled = type(tokenizer).from_str(made)
    text = "<think>why</think> so"
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert spelled.encode(text, add_special_tokens=False).ids == ids
    assert spelled.decode(ids, skip_special_tokens=True) == text
    assert json.loads(made)["model"] == json.loads(known)["model"]
