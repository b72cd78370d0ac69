"""Folders of Qwen3-Omni: other names, models that think before they answer, refusals."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jinja2
import peft
import pytest
import torch
from tokenizers import Tokenizer

import alm
from alm.errors import BadCheckpoint
from alm.facts import AudioFacts, TokenFacts
from tests.conftest import run_export
from tests.wrappers.checkpoint.checkpoints import Copy, in_peft, refused, renamed, without
from tests.wrappers.families import tiny_qwen3_omni
from tests.wrappers.families.test_qwen2_5_omni_folders import changed, extracted, same
from tests.wrappers.families.tiny_hf import noise
from tests.wrappers.families.tiny_qwen3_omni import (
    AUDIO,
    BEGUN,
    CLOSED,
    GREEDY,
    RATE,
    TEMPLATE,
    Said,
    Tiny,
)
from wrappers import open_checkpoint

ASK = "Transcribe the speech."


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return tiny_qwen3_omni.make(tmp_path_factory.mktemp("plain"))


@pytest.fixture
def copy(plain: Tiny, tmp_path: Path) -> Copy:
    return Copy(plain.folder / "config.json", tmp_path)


def test_the_manifest_states_what_is_heard(plain: Tiny) -> None:
    made = open_checkpoint(plain.folder)
    assert made.roles == {
        **{"mel": "frontend", "qwen3_asr": "encoder"},
        **{"projector": "bridge", "decoder": "decoder"},
    }
    assert made.facts.audio == AudioFacts(RATE, "mean", 201, 2400 * RATE, "each")
    assert made.facts.dimensions.audio_tokens == 13 * 2400
    assert made.facts.dimensions.experts == 5 and made.facts.dimensions.active_experts == 2
    assert made.facts.tokens == TokenFacts(eos=(0, 2), penalize_prompt=True)
    prompt = made.facts.prompt
    assert (prompt.start, prompt.thought, prompt.left_out) == ("", "<think>{}</think>", "lines")
    assert "39 weights of images and videos and 0 of the talker" in made.notes[-1]


def test_prompts_are_those_of_the_template(plain: Tiny) -> None:
    made = open_checkpoint(plain.folder)
    tokenizer, prompt = Tokenizer.from_str(made.tokenizer_json), made.facts.prompt
    text = prompt.start + prompt.turn.replace("{clips}", 2 * prompt.clip).replace("{}", ASK)
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    ids = [i for token in ids for i in [token] * (13 if token == AUDIO else 1)]
    asked = plain.asked([(ASK, [noise(RATE), noise(RATE, 1)], [])])
    assert ids == asked["input_ids"][0].tolist()


def test_a_system_prompt_of_the_template_opens_a_conversation(copy: Copy) -> None:
    system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    first = "{%- if messages[0].role != 'system' -%}{{- '" + system + "' -}}{%- endif -%}"
    copy.json("chat_template.json", chat_template=first.replace("\n", "\\n") + TEMPLATE)
    assert open_checkpoint(copy.config).facts.prompt.start == system


def test_what_speaks_and_sees_is_counted_and_its_settings_are_left_out(tmp_path: Path) -> None:
    tiny = tiny_qwen3_omni.whole(tmp_path / "model")
    file = tiny.folder / "generation_config.json"
    said = json.loads(file.read_text()) | {"talker_temperature": 0.9, "talker_top_k": 50}
    file.write_text(json.dumps(said))
    loaded = open_checkpoint(tiny.folder)
    speech = sum(name.startswith(("talker.", "code2wav.")) for name in open_names(tiny.folder))
    assert speech > 50
    left = f"39 weights of images and videos and {speech} of the talker and its sound"
    assert left in loaded.notes[-1]
    assert "talker_temperature" not in loaded.facts.generation


def open_names(folder: Path) -> list[str]:
    """Names of the weights that are in a folder."""
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as file:
        return list(file.keys())


def test_a_whole_model_without_what_speaks_is_the_same_model(plain: Tiny, copy: Copy) -> None:
    """As a Thinking model is published: `enable_audio_output` is false."""
    said = json.loads(copy.config.read_text())
    whole = {"model_type": "qwen3_omni_moe", "enable_audio_output": False, "thinker_config": said}
    copy.config.write_text(json.dumps(whole))
    copy.weights("", renamed(lambda name: f"thinker.{name}"))
    same(open_checkpoint(copy.config), open_checkpoint(plain.folder))


def test_names_of_transformers_5_are_the_same_model(plain: Tiny, copy: Copy) -> None:
    def inner(name: str) -> str:
        name = "language_model." + name.removeprefix("model.") if "model." in name[:6] else name
        return name if name.startswith("lm_head") else "model." + name

    copy.weights("", renamed(inner))
    same(open_checkpoint(copy.config), open_checkpoint(plain.folder))


@pytest.mark.parametrize("kind", ["mrope", "default"])
def test_published_names_of_settings_are_the_same_model(plain: Tiny, copy: Copy, kind: str) -> None:
    said = json.loads(copy.config.read_text())
    text = said["text_config"]
    del text["rope_parameters"]
    text |= {"rope_theta": 1e4, "use_qk_norm": True, "shared_expert_intermediate_size": 0}
    scaling = {"type": kind, "interleaved": True, "mrope_interleaved": True}
    said["text_config"] = text | {"rope_scaling": scaling | {"mrope_section": [2, 2, 2]}}
    copy.config.write_text(json.dumps(said))
    same(open_checkpoint(copy.config), open_checkpoint(plain.folder))


# --- thoughts


def asked(tiny: Tiny, turns: Sequence[Said], begun: str) -> dict[str, Any]:
    """What the processor makes of a conversation whose answers stand in it as their text."""
    messages: list[dict[str, Any]] = []
    for words, clips, answer in turns:
        audio: list[dict[str, str]] = [{"type": "audio", "audio": "x"} for _ in clips]
        messages.append({"role": "user", "content": [*audio, {"type": "text", "text": words}]})
        text = tiny.tokenizer.decode(answer, skip_special_tokens=True)
        messages.append({"role": "assistant", "content": text})
    template = jinja2.Template(TEMPLATE, keep_trailing_newline=True)
    text = template.render(messages=messages[:-1], add_generation_prompt=True) + begun
    heard = tiny.apart([clip for _, clips, _ in turns for clip in clips])
    ids = tiny.tokenizer.encode(text, add_special_tokens=False)
    return {"input_ids": torch.tensor([tiny.spread(ids, heard)]), **heard}


@pytest.mark.parametrize("begun", ["", BEGUN])
def test_a_thought_is_gone_in_later_turns(tmp_path: Path, begun: str) -> None:
    """The original's template cuts it out of an answer, and may begin an answer with its mark."""
    tiny = tiny_qwen3_omni.make(tmp_path / "model")
    turns: list[Said] = [("What is said?", [noise(RATE)], [])]
    # The model thinks: where it said what it says most it now ends a thought.
    often = Counter(tiny.generated(asked(tiny, turns, begun))[1:]).most_common(1)[0][0]
    head = tiny.truth.get_output_embeddings().weight
    head[CLOSED] = 1.01 * head[often]
    tiny.truth.save_pretrained(tiny.folder)
    prompt = "{{- '<|im_start|>assistant\n' -}}"
    opened = TEMPLATE.replace(prompt, prompt + "{{- '" + begun.replace("\n", "\\n") + "' -}}")
    (tiny.folder / "chat_template.json").write_text(json.dumps({"chat_template": opened}))
    run_export("--model", tiny.folder, "--no-simplify", "--out", tmp_path / "out")
    model = alm.load(tmp_path / "out", "cpu")
    assert open_checkpoint(tiny.folder).facts.prompt.fleeting == begun
    chat = model.chat(**GREEDY)
    for words, clips in (("What is said?", [noise(RATE)]), ("And?", []), ("Now?", [noise(RATE)])):
        turns = [*turns, (words, clips, [])] if turns[-1][2] else [(words, clips, [])]
        answer = chat.ask(words, *clips)
        assert answer.token_ids == tiny.generated(asked(tiny, turns, begun))
        turns[-1] = (words, clips, answer.token_ids)
        if len(turns) < 3:
            assert CLOSED in answer.token_ids and (begun or "</think>" in answer.text)
            assert bool(answer.thinking) == bool(begun)


def test_a_template_that_keeps_thoughts_keeps_them(copy: Copy) -> None:
    kept = TEMPLATE.replace("'</think>' in content", "false")
    copy.json("chat_template.json", chat_template=kept)
    assert open_checkpoint(copy.config).facts.prompt.left_out == ""


# --- refusals


def rotated(copy: Copy, **values: Any) -> None:
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 2, 2]}
    changed(copy, "text_config", rope_parameters=rope | values)


def templated(copy: Copy, old: str, new: str) -> None:
    assert old in TEMPLATE
    copy.json("chat_template.json", chat_template=TEMPLATE.replace(old, new))


CASES: dict[str, tuple[tuple[str, ...], Callable[[Copy], Any]]] = {
    "rotations that are no head": (
        ("mrope_section: [2, 2, 3], which do not add up to the 6 pairs of a head of 12",),
        lambda c: rotated(c, mrope_section=[2, 2, 3]),
    ),
    "another LLM": (
        ("text_config.model_type: 'llama'; known is qwen3_omni_moe_text",),
        lambda c: changed(c, "text_config", model_type="llama"),
    ),
    "what the LLM does not have": (
        (
            "text_config.sliding_window: 64; known is None",
            "text_config.use_qk_norm: False; known is True",
            "text_config.shared_expert_intermediate_size: 16; known is 0",
        ),
        lambda c: changed(
            c, "text_config",
            sliding_window=64, use_qk_norm=False, shared_expert_intermediate_size=16,
        ),
    ),
    "a layer without experts that is none": (
        ("mlp_only_layers name 2, and layers are 0 to 1",),
        lambda c: changed(c, "text_config", mlp_only_layers=[2]),
    ),
    "more experts for a token than there are": (
        ("num_experts_per_tok 6 are not 1 to 5",),
        lambda c: changed(c, "text_config", num_experts_per_tok=6),
    ),
    "another tower": (
        ("audio_config.model_type: 'whisper'",),
        lambda c: changed(c, "audio_config", model_type="whisper"),
    ),
    "chunks of another length, and windows that are no chunks": (
        (
            "Qwen3-Omni's audio_config says n_window 60 with 1500 positions",
            "n_window_infer 800, which is no multiple of 120",
        ),
        lambda c: changed(c, "audio_config", n_window=60),
    ),
    "fewer positions than rows": (
        ("n_window 50 with 12 positions",),
        lambda c: changed(c, "audio_config", max_source_positions=12),
    ),
    "rows of another width than the LLM's": (
        ("audio_config.output_dim: 64, and the LLM's rows are 48 wide",),
        lambda c: changed(c, "audio_config", output_dim=64),
    ),
    "an extractor of another spectrogram": (
        ("dither 0.1 and not 0", "feature_size 80 and not 20", "hop_length 200 and not 160"),
        lambda c: extracted(c, dither=0.1, feature_size=80, hop_length=200),
    ),
    "an extractor that pads in front, and a processor that counts otherwise": (
        (
            "padding_side 'left'; known is 'right'",
            "a processor of n_window 51, and audio_config says 50",
        ),
        lambda c: (
            extracted(c, padding_side="left"),
            (c.folder / "processor_config.json").write_text('{"n_window": 51}'),
        ),
    ),
    "weights missing from every piece": (
        (
            "audio_tower.layers.1.fc2.bias",
            "multi_modal_projector.proj2.weight",
            "language_model.model.norm.weight",
        ),
        lambda c: c.weights("", without("layers.1.fc2.bias", "tower.proj2", "model.norm.weight")),
    ),
    "an expert that is not there": (
        ("model.layers.1.mlp.experts.3.up_proj.weight is missing",),
        lambda c: c.weights("", without("layers.1.mlp.experts.3.up_proj")),
    ),
    "a weight that no part takes": (
        ("audio_tower.extra.weight",),
        lambda c: c.weights("", lambda s: s.update({"audio_tower.extra.weight": torch.ones(3)})),
    ),
    "a token for audio that no tokenizer has": (
        ("says that token 5000 stands for audio",),
        lambda c: changed(c, "", audio_token_id=5000),
    ),
    "another token for audio in the tokenizer": (
        ("has '<|audio_pad|>' for audio in its config and '<|image_pad|>' in its tokenizer",),
        lambda c: c.json(
            "tokenizer_config.json", extra_special_tokens={"audio_token": "<|image_pad|>"}
        ),
    ),
    "a template that cuts thoughts in a way of its own": (
        ("after the answer", "it writes"),
        lambda c: templated(c, "[-1].lstrip('\n')", "[0]"),
    ),
    "a template that knows no clip": (
        ("its chat template takes no clip",),
        lambda c: c.json("chat_template.json", chat_template="{{ messages[0].content }}"),
    ),
    "a whole model without a thinker": (
        ("lacks thinker_config",),
        lambda c: changed(c, "", model_type="qwen3_omni_moe"),
    ),
    "a thinker beyond all limits": (
        ("thinker_config says audio_config.n_window 0; it must be a whole number from 1",),
        lambda c: changed(
            c, "", model_type="qwen3_omni_moe", thinker_config={"audio_config": {"n_window": 0}}
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_folder_that_cannot_be_followed_is_one_sentence(copy: Copy, case: str) -> None:
    names, change = CASES[case]
    change(copy)
    sentence = refused(copy, BadCheckpoint)
    assert all(name in sentence for name in names), sentence


def test_an_adapter_is_merged(plain: Tiny, tmp_path: Path) -> None:
    torch.manual_seed(1)
    modules = r".*language_model.*(q_proj|o_proj)|.*audio_tower\.(proj1|proj2|layers\.0\.fc1)"
    tuned: Any = in_peft(plain.truth, peft.LoraConfig(r=3, lora_alpha=9, target_modules=modules))
    for name, weight in tuned.named_parameters():
        if "lora_" in name:
            weight.data.normal_(0, 0.3)
    tuned.save_pretrained(tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_config.json"
    said = json.loads(file.read_text()) | {"base_model_name_or_path": str(plain.folder)}
    file.write_text(json.dumps(said))
    run_export("--model", tmp_path / "adapter", "--no-simplify", "--out", tmp_path / "out")
    clip = noise(3 * RATE)
    got = alm.load(tmp_path / "out", "cpu").generate(clip, "What is said?", **GREEDY)
    # Its base has the same modules, with the adapter's in them.
    wanted = Tiny(plain.folder, tuned.base_model.model).answer(("What is said?", [clip], []))
    with tuned.disable_adapter():
        bare = Tiny(plain.folder, tuned.base_model.model).answer(("What is said?", [clip], []))
    assert got.token_ids == wanted != bare
