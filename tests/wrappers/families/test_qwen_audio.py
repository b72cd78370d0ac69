"""Qwen-Audio as the authors' code computes it, of which tests/data/qwen_audio holds the results.

transformers has no such model, and the authors' code is not part of this project: four folders of
other sizes and settings are made from a seed, and were run through it once.
"""

from __future__ import annotations

import json
import random
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import regex
import torch
from tokenizers import Tokenizer
from torch import Tensor

import alm
from alm import lint
from alm.errors import BadCheckpoint, MissingFile, UnknownName
from alm.facts import AudioFacts, TokenFacts
from alm.generation.model import Model
from alm.text.prompt import Prompter
from tests.conftest import run_export
from tests.reference import DATA
from tests.wrappers.checkpoint.checkpoints import Copy, in_shards, refused, without
from tests.wrappers.families import tiny_qwen_audio
from tests.wrappers.families.tiny_hf import batch
from tests.wrappers.families.tiny_qwen_audio import (
    CONTROLS,
    PIECES,
    TOKENS,
    VARIANTS,
    asked,
    ranks,
    restated,
    sound,
)
from wrappers import Wrapper, open_checkpoint
from wrappers.checkpoint.text import qwen_tokens
from wrappers.checkpoint.weights.hollow import filled

GOLDEN = DATA / "qwen_audio"
RATE = 16_000
# Clips of the golden files: samples and seed.
CLIPS = {
    **{"s1": (16000, 1), "s5": (80001, 2), "s3": (47999, 3), "tiny": (480, 4)},
    **{"odd": (16161, 5), "s31": (31 * RATE, 6), "s29": (int(29.99 * RATE), 7)},
}
DIALECTS = ("decomposed", "standard", "ort")
QUIET = "<|im_start|>system\n<|im_end|>"  # an empty system text still has its block


def clip(name: str) -> np.ndarray:
    return sound(*CLIPS[name])


def said(variant: str) -> dict[str, Any]:
    return json.loads((GOLDEN / f"{variant}.json").read_text())


def arrays(variant: str) -> Any:
    return np.load(GOLDEN / f"{variant}.npz")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("qwen_audio")
    return {name: tiny_qwen_audio.make(root / name, **VARIANTS[name]) for name in VARIANTS}


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def copy(folders: dict[str, Path], tmp_path: Path) -> Copy:
    return Copy(folders["published"] / "config.json", tmp_path)


# --- what is heard


def rows(folder: Path, clips: list[np.ndarray], dialect: str = "ort") -> list[Tensor]:
    """Our parts in torch: clips [samples] -> embeddings [n, hidden]."""
    made = open_checkpoint(folder)
    mel, tower, bridge = (
        filled(made.part(name, dialect)) for name in ("mel", "qwen_audio", "projector")
    )
    pcm, lengths = batch(clips)
    with torch.no_grad():
        speech, counts = tower(mel(pcm), lengths)
        together = bridge(speech, counts)
    return [row[:n] for row, n in zip(together, counts.tolist(), strict=True)]


def test_a_clip_alone_is_heard_as_the_authors_code_hears_it(
    folders: dict[str, Path], variant: str
) -> None:
    wanted = arrays(variant)
    for name in [key.removesuffix(".rows") for key in wanted if key.endswith(".rows")]:
        pcm = clip(name)[: 30 * RATE]
        [got] = rows(folders[variant], [pcm])
        assert len(got) == int(wanted[f"{name}.count"])
        kept = got if len(got) < 60 else got[::25]
        assert float((kept - torch.from_numpy(wanted[f"{name}.rows"])).abs().max()) < 1e-4


def test_clips_of_different_lengths_are_heard_together_as_each_alone(
    folders: dict[str, Path],
) -> None:
    clips = [clip("tiny"), clip("s5"), 20 * clip("odd"), np.zeros(20_000, np.float32)]
    for got, pcm in zip(rows(folders["short"], clips), clips, strict=True):
        assert float((got - rows(folders["short"], [pcm])[0]).abs().max()) < 1e-5


# --- words


def prompter(folder: Path) -> Prompter:
    made = open_checkpoint(folder)
    tokenizer = Tokenizer.from_str(made.tokenizer_json)
    return Prompter(tokenizer, made.facts.prompt, made.facts.tokens)


@pytest.mark.parametrize("form", ["chat", "base"])
def test_prompts_are_those_of_the_authors_code(
    folders: dict[str, Path], tmp_path: Path, form: str
) -> None:
    path = folders["published"] if form == "chat" else tiny_qwen_audio.make(tmp_path, "raw")
    writes = prompter(path)
    queries = {k: v for k, v in said("published").items() if v["kind"] == form}
    assert queries
    for name, sequence in queries.items():
        turn = sequence["turns"][0]
        writes.start = QUIET if sequence.get("system") == "" else writes.facts.start
        words, names = asked(turn["query"])
        lengths = [(len(clip(n)[: 30 * RATE]) // 160 + 1) // 2 // 2 + 2 for n in names]
        prompt = writes.build(words, len(names), verbatim=True)
        ids = writes.ids(prompt, [np.zeros((n, 1)) for n in lengths])
        assert len(ids) == turn["prompt_tokens"], name
        assert ids == turn["prompt"] or not turn["prompt"], name


def encoded(text: str, pieces: dict[bytes, int]) -> list[int]:
    """tiktoken's rule, written down: of all neighbours the pair of the lowest rank, leftmost."""
    ids: list[int] = []
    for match in regex.findall(qwen_tokens.PATTERN, text):
        whole = match.encode()
        parts = [whole] if whole in pieces else [bytes([byte]) for byte in whole]
        while True:
            pairs = zip(parts, parts[1:], strict=False)
            joined = [pieces.get(a + b, len(pieces)) for a, b in pairs]
            if not joined or min(joined) == len(pieces):
                break
            at = joined.index(min(joined))
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        ids += [pieces[part] for part in parts]
    return ids


def test_every_piece_and_random_texts_are_tokenized_as_tiktoken_does(
    folders: dict[str, Path],
) -> None:
    tokenizer = Tokenizer.from_str(open_checkpoint(folders["published"]).tokenizer_json)
    pieces = ranks()
    for piece, rank in pieces.items():
        shown = tokenizer.decode([rank], skip_special_tokens=False)
        assert shown == piece.decode(errors="replace")
        text = piece.decode(errors="ignore")
        if text.encode() == piece:
            assert tokenizer.encode(text, add_special_tokens=False).ids == encoded(text, pieces)
    chance = random.Random(3)
    letters = [*PIECES, "a", "A", " ", "\n", "\r\n", "7", "42", "語", "🙂", "e\u0301", "I'll", "--"]
    for _ in range(2000):
        text = "".join(chance.choices(letters, k=chance.randint(1, 12)))
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        normal = unicodedata.normalize("NFC", text)
        assert ids == encoded(normal, pieces), text
        assert tokenizer.decode(ids, skip_special_tokens=False) == normal


def test_special_tokens_have_the_ids_and_manners_of_the_authors(folders: dict[str, Path]) -> None:
    tokenizer = Tokenizer.from_str(open_checkpoint(folders["published"]).tokenizer_json)
    known = len(ranks())
    wanted = {
        **{"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2, "<|extra_0|>": 3},
        **{"<|extra_204|>": 207, "[[[AUDIO:modality]]]": 208, "<|startoftranscript|>": 209},
        **{"<|unknown|>": 215, "<|en|>": 216, "<|it|>": 223, "<|zh_tr|>": 224, "<|sil|>": 226},
        **{"<|0.00|>": 228, "<|0.29|>": 257, "<|30.00|>": 3228, "<|caption_audiocaps|>": 3229},
        **{"<|midi_pitch_127|>": 3375, "<|midi_velocity_0|>": 3377, "<|speech_edit|>": 3519},
        **{"<audio>": 3520, "</audio>": 3521},
    }
    for name, place in wanted.items():
        assert tokenizer.encode(f"a{name}b", add_special_tokens=False).ids[1] == known + place
    assert tokenizer.get_vocab_size() == known + TOKENS
    # Times and the like are shown in an answer, control tokens are not.
    shown = tokenizer.decode([known + 228, 65, known + 2, known], skip_special_tokens=True)
    assert shown == "<|0.00|>A"
    # In a user's words to the chat model the first are tokens, the others text.
    ids = prompter(folders["published"])._literal_ids("<|0.00|><|im_end|><|extra_7|>")
    assert ids[0] == known + 228 and not {known + 2, known + 10} & set(ids)


# --- whole runs


@pytest.fixture(scope="module", params=zip(VARIANTS, (*DIALECTS, "ort"), strict=True))
def pair(
    request: pytest.FixtureRequest, folders: dict[str, Path], tmp_path_factory: Any
) -> tuple[str, dict[str, Model]]:
    """A variant in a dialect: the chat model, with an empty system text, and as a base model."""
    name, dialect = request.param
    folder = tmp_path_factory.mktemp(name)
    words = ("--precision", "fp32", "--dialect", dialect, "--dynamic-batch", "--no-simplify")
    run_export("--model", folders[name], *words, "--out", folder / "chat")
    for kind in ("quiet", "base"):
        shutil.copytree(folder / "chat", folder / kind)
    restated(folder / "quiet", start=QUIET)
    raw = tiny_qwen_audio.make(folder / "raw", "raw", **VARIANTS[name])
    restated(folder / "base", open_checkpoint(raw).facts.to_json())
    return name, {kind: alm.load(folder / kind, "cpu") for kind in ("chat", "quiet", "base")}


def test_every_turn_is_answered_as_the_authors_code_does(
    pair: tuple[str, dict[str, Model]],
) -> None:
    name, models = pair
    for key, sequence in said(name).items():
        kind = "quiet" if sequence.get("system") == "" else sequence["kind"]
        options: dict[str, Any] = dict(verbatim=True, truncate=True, do_sample=False, num_beams=1)
        conversation = models[kind].chat(**options)
        most = 32 if sequence["kind"] == "chat" else 24
        for at, turn in enumerate(sequence["turns"]):
            words, names = asked(turn["query"])
            answer = conversation.ask(words, *map(clip, names), max_new_tokens=most)
            assert answer.prompt_tokens == turn["prompt_tokens"], (key, at)
            greedy = turn["greedy"]
            # Behind the end of a turn the authors' code forces the end of the text.
            ended = greedy[-1] == len(ranks()) and greedy[-2:-1] != [] and len(greedy) > 1
            ended = ended and greedy[-2] in (len(ranks()) + 1, len(ranks()) + 2)
            assert answer.token_ids == (greedy[:-1] if ended else greedy), (key, at)


def test_rows_of_one_batch_are_answered_as_alone(pair: tuple[str, dict[str, Model]]) -> None:
    """Prompts on both sides of a doubling of the trained length, whose frequencies differ."""
    _, models = pair
    clips = [clip("s1"), clip("s5"), clip("odd")]
    greedy: dict[str, Any] = dict(max_new_tokens=16, do_sample=False, num_beams=1)
    together = models["chat"].generate(clips, "what is that sound?", **greedy)
    for answer, pcm in zip(together, clips, strict=True):
        alone = models["chat"].generate(pcm, "what is that sound?", **greedy)
        assert answer.token_ids == alone.token_ids


@pytest.mark.parametrize("target", ["trt-jetpack6", "trt-jetpack7", "trt-rtx"])
def test_graphs_for_tensorrt_pass_its_lint(
    folders: dict[str, Path], tmp_path: Path, target: str
) -> None:
    out = tmp_path / "out"
    run_export("--model", folders["short"], "--target", target, "--no-simplify", "--out", out)
    verdict = lint.lint(out, target)
    assert not verdict.refused, verdict.findings


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_what_rounding_costs_is_reported(
    folders: dict[str, Path], tmp_path: Path, precision: str
) -> None:
    words = ("--precision", precision, "--no-simplify", "--out", tmp_path / "out")
    run_export("--model", folders["published"], *words)
    model = alm.load(tmp_path / "out", "cpu")
    measured = {part.name: part.measured for part in model.manifest.parts}
    assert 0 < measured["decoder"]["parity"]["rms"] < 0.2
    assert model.generate(clip("s1"), "transcribe", max_new_tokens=4).token_ids


# --- folders


def test_the_manifest_states_what_is_heard(folders: dict[str, Path]) -> None:
    made, known = open_checkpoint(folders["published"]), len(ranks())
    assert made.roles == {
        **{"mel": "frontend", "qwen_audio": "encoder"},
        **{"projector": "bridge", "decoder": "decoder"},
    }
    assert made.facts.audio == AudioFacts(RATE, "mean", 480, 30 * RATE, "each")
    assert made.facts.dimensions.audio_tokens == 752
    assert made.facts.dimensions.rope_doubles_past == 2048
    ends = (known, known + 2, known + 1)
    assert made.facts.tokens == TokenFacts(eos=ends, penalize_prompt=True)
    assert any("6144" in note for note in made.notes)
    few = open_checkpoint(folders["tied"]).facts
    assert few.audio.window_samples == 8 * RATE and few.dimensions.audio_tokens == 202
    assert open_checkpoint(folders["unpooled"]).facts.dimensions.rope_doubles_past is None


def test_the_base_model_is_asked_by_tags(tmp_path: Path) -> None:
    made = open_checkpoint(tiny_qwen_audio.make(tmp_path, "raw"))
    facts, tokenizer = made.facts, Tokenizer.from_str(made.tokenizer_json)
    assert facts.tokens.eos == (len(ranks()),) and facts.prompt.turn == "{clips}{}"
    tags = "<|startoftranscript|><|en|><|transcribe|><|en|><|notimestamps|><|wo_itn|>"
    assert facts.prompt.tasks["transcribe"] == tags
    for words in facts.prompt.tasks.values():  # each tag is one token, none is spelled out
        ids = tokenizer.encode(words, add_special_tokens=False).ids
        assert len(ids) == words.count("<|") and min(ids) >= len(ranks()) + CONTROLS


def test_weights_in_shards_are_read_alike(copy: Copy, folders: dict[str, Path]) -> None:
    in_shards(copy.folder)
    want, got = (
        filled(open_checkpoint(path).part("decoder", "ort")).state_dict()
        for path in (folders["published"], copy.folder)
    )
    assert want.keys() == got.keys()
    assert all(torch.equal(want[name], got[name]) for name in want)


def test_a_lora_of_the_authors_names_is_merged(copy: Copy, folders: dict[str, Path]) -> None:
    from safetensors.torch import save_file

    noise = torch.Generator().manual_seed(1)
    settings = dict(peft_type="LORA", task_type="CAUSAL_LM", r=3, lora_alpha=6)
    settings |= dict(target_modules=["c_attn", "w1", "attn.c_proj"], base_model_name_or_path="")
    tensors = {}
    shapes = {"attn.c_attn": (144, 48), "mlp.w1": (64, 48), "attn.c_proj": (48, 48)}
    for i in range(2):
        for module, (out, wide) in shapes.items():
            at = f"base_model.model.transformer.h.{i}.{module}"
            tensors[f"{at}.lora_A.weight"] = torch.randn(3, wide, generator=noise)
            tensors[f"{at}.lora_B.weight"] = torch.randn(out, 3, generator=noise)
    copy.json("adapter_config.json", **settings)
    save_file(tensors, copy.folder / "adapter_model.safetensors")
    plain, merged = (
        filled(open_checkpoint(path).part("decoder", "ort")).state_dict()
        for path in (folders["published"], copy.folder)
    )
    names = {"attn.c_attn": "self_attn.c_attn", "mlp.w1": "mlp.up_proj"}
    names |= {"attn.c_proj": "self_attn.o_proj"}
    for module, name in names.items():
        at = f"base_model.model.transformer.h.1.{module}"
        delta = 2 * tensors[f"{at}.lora_B.weight"] @ tensors[f"{at}.lora_A.weight"]
        key = f"model.layers.1.{name}.weight"
        assert float((merged[key] - plain[key] - delta).abs().max()) < 1e-5


def changed(copy: Copy, section: str, **values: Any) -> None:
    """Change the config, or its section; None takes a key out."""
    plain = json.loads(copy.config.read_text())
    inner = plain[section] if section else plain
    inner.update(values)
    for name in [name for name, value in values.items() if value is None]:
        del inner[name]
    copy.config.write_text(json.dumps(plain))


def lines(copy: Copy, change: Callable[[list[str]], list[str]]) -> None:
    file = copy.folder / "qwen.tiktoken"
    file.write_text("\n".join(change(file.read_text().splitlines())))


GENERATION, WORDS = "generation_config.json", "tokenizer_config.json"
CASES: dict[str, tuple[tuple[str, ...], Callable[[Copy], Any]]] = {
    "heads that are not the width": (
        ("num_attention_heads 4 of kv_channels 16, which are not the hidden_size 48",),
        lambda c: changed(c, "", kv_channels=16),
    ),
    "heads that are turned in part": (
        ("rotary_pct 0.5; known is 1",),
        lambda c: changed(c, "", rotary_pct=0.5),
    ),
    "no trained length": (("no seq_length",), lambda c: changed(c, "", seq_length=None)),
    "values of other types": (
        ("seq_length 'long'; it must be a whole number", "use_logn_attn 1; it must be true or"),
        lambda c: changed(c, "", seq_length="long", use_logn_attn=1),
    ),
    "half of an odd number": (
        ("intermediate_size 127, which has no half",),
        lambda c: changed(c, "", intermediate_size=127),
    ),
    "a cache of integers": (
        ("use_cache_quantization true",),
        lambda c: changed(c, "", use_cache_quantization=True),
    ),
    "two precisions": (
        ("more than one of bf16, fp16 and fp32",),
        lambda c: changed(c, "", bf16=True),
    ),
    "quantized weights": (
        ("config.json describes quantised weights",),
        lambda c: changed(c, "", quantization_config={"quant_method": "gptq", "bits": 4}),
    ),
    "another spectrogram": (
        ("audio.n_mels 128; known is 80",),
        lambda c: changed(c, "audio", n_mels=128),
    ),
    "no rows around a clip": (
        ("audio.add_audio_bos_eos_token false",),
        lambda c: changed(c, "audio", add_audio_bos_eos_token=False),
    ),
    "rows of another width, and a size left out": (
        ("audio.output_dim 64, and the LLM's rows are 48 wide", "no audio.n_layer"),
        lambda c: changed(c, "audio", output_dim=64, n_layer=None),
    ),
    "heads that do not share the tower's width": (
        ("48 is not divisible by its 5 heads",),
        lambda c: changed(c, "audio", n_head=5),
    ),
    "another token before a clip": (
        ("audio.audio_start_id 5, and with qwen.tiktoken it is",),
        lambda c: changed(c, "audio", audio_start_id=5),
    ),
    "another form of chat": (
        ("chat_format: 'alpaca'; known are chatml and raw",),
        lambda c: c.json(GENERATION, chat_format="alpaca"),
    ),
    "several ends": (
        ("eos_token_id [1, 2]; it must be one token", "stop_words_ids [[1, 2]]"),
        lambda c: c.json(GENERATION, eos_token_id=[1, 2], stop_words_ids=[[1, 2]]),
    ),
    "decoding that is not done": (
        ("penalty_alpha: 0.6, which is not done here",),
        lambda c: c.json(GENERATION, penalty_alpha=0.6),
    ),
    "another way to decode half a character": (
        ("errors: 'strict'; known is `replace`",),
        lambda c: c.json(WORDS, errors="strict"),
    ),
    "tags that mean something else": (
        ("tags around a clip (<|en|> and </audio>) that mean something else",),
        lambda c: c.json(WORDS, audio_start_tag="<|en|>"),
    ),
    "a rank that is missing": (
        ("qwen.tiktoken does not give 307 pieces the ranks from 0 on",),
        lambda c: lines(c, lambda every: every[:280] + every[281:]),
    ),
    "a byte that is no piece": (
        ("qwen.tiktoken has no piece of the byte 65",),
        lambda c: lines(c, lambda every: [*every[:65], "eHl6eHl6 65", *every[66:]]),
    ),
    "no tiktoken file": (
        ("qwen.tiktoken is no tiktoken file",),
        lambda c: lines(c, lambda every: ["<html>", *every]),
    ),
    "weights missing from every piece, in the authors' names": (
        (
            "transformer.audio.blocks.1.mlp.2.bias",
            "transformer.audio.audio_bos_eos_token.weight",
            "transformer.h.0.attn.c_attn.bias",
            "transformer.ln_f.weight",
        ),
        lambda c: c.weights("", without("1.mlp.2.bias", "bos_eos", "0.attn.c_attn.b", "ln_f")),
    ),
    "a weight that no part takes": (
        ("transformer.audio.blocks.0.cross_attn.query.weight",),
        lambda c: c.weights(
            "",
            lambda s: s.update(
                {"transformer.audio.blocks.0.cross_attn.query.weight": torch.ones(3)}
            ),
        ),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_folder_that_cannot_be_followed_is_one_sentence(copy: Copy, case: str) -> None:
    names, change = CASES[case]
    change(copy)
    sentence = refused(copy, BadCheckpoint)
    assert all(name in sentence for name in names), sentence


def test_too_few_rows_for_the_tokens_are_refused(tmp_path: Path) -> None:
    folder = tiny_qwen_audio.make(tmp_path, vocab_size=3000)
    with pytest.raises(BadCheckpoint, match="vocab_size 3000, and the tokenizer has 38"):
        open_checkpoint(folder)


def test_a_missing_vocabulary_is_named(copy: Copy) -> None:
    (copy.folder / "qwen.tiktoken").unlink()
    assert "qwen.tiktoken" in refused(copy, MissingFile)


def test_a_qwen_without_ears_is_no_model_here(copy: Copy) -> None:
    changed(copy, "", audio=None)
    assert "model_type: 'qwen'" in refused(copy, UnknownName)


def test_code_in_a_folder_is_never_run(copy: Copy) -> None:
    for name in ("configuration_qwen", "modeling_qwen", "tokenization_qwen", "audio"):
        (copy.folder / f"{name}.py").write_text("raise SystemExit('this ran')")
    made: Wrapper = open_checkpoint(copy.folder).part("decoder", "ort")
    assert made.role == "decoder"
