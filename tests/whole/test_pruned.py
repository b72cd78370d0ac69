"""A SALMONN on a pruned LLM, from audio to tokens: what transformers says, in every dialect."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

import alm
from alm import lint
from alm.artifacts import manifest
from alm.cli import alm_commands, exit_status
from alm.plan import estimate
from alm.ports import CACHE_IN
from alm.tensorrt import profiles
from demo.random_checkpoint import Recipe, bridge, make
from tests.conftest import run_export
from tests.products import LONG, some
from tests.whole.test_truth import ALL, QUESTION, SIZES, Case, Original, clip
from tests.wrappers.checkpoint.checkpoints import Copy, in_peft
from tests.wrappers.checkpoint.pruned_llms import WHOLE, Pruned

RECIPE = Recipe(seed=5, audio_width=0, adapter="", **SIZES)
LORA = peft.LoraConfig(r=4, lora_alpha=16, target_modules=ALL)
LLMS = {
    "uneven, with LoRA": (
        Pruned("Llama", [WHOLE, (3, 1, 40), (2, 2, 72), WHOLE], dict(head_dim=20), biases=True),
        Case(RECIPE, kernel=17, stride=17, adapter=LORA),
    ),
    "layers without attention and without MLP": (
        Pruned(
            "Mistral",
            [WHOLE, (0, 0, 96), (3, 1, 0), (0, 0, 0)],
            dict(sliding_window=24),
            said=dict(drop_attn_list=[1, 3], drop_mlp_list=[2, 3]),
        ),
        Case(RECIPE, kernel=17, stride=17),
    ),
    "heads that do not go into its width": (
        Pruned(
            "Qwen2",
            [(3, 1, 56)] * 4,
            said=dict(num_attention_heads=3, num_key_value_heads=1, head_dim=None),
        ),
        Case(RECIPE, kernel=17, stride=17),
    ),
}
ORT = [(name, "ort") for name in LLMS]
EVERY = [*(ORT if LONG else ORT[1:]), ("uneven, with LoRA", "decomposed")]
EVERY += [
    ("uneven, with LoRA", "standard"),
    ("layers without attention and without MLP", "decomposed"),
] * LONG
GREEDY: dict[str, Any] = dict(max_new_tokens=32, num_beams=1)


class OnPruned(Original):
    """SALMONN on an LLM that was pruned by hand, which transformers opens from no folder."""

    def __init__(self, config: Path, case: Case, llm: Any) -> None:
        self.pruned = llm
        super().__init__(config, case)

    def read_llm(self) -> Any:
        return self.pruned


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The checkpoint of a name in LLMS, made once, and its original."""

    def made(name: str) -> OnPruned:
        pruned, case = LLMS[name]
        folder = tmp_path_factory.mktemp("pruned")
        config = make(folder / "model", RECIPE)
        for file in (config.parent / "llm").iterdir():
            file.unlink()
        llm = pruned.make(config.parent / "llm")
        trained = bridge(RECIPE, 64)
        if case.adapter:
            state = in_peft(llm, case.adapter).state_dict()
            noise = {n: 0.2 * torch.randn(t.shape) for n, t in state.items() if "lora_" in n}
            trained |= {f"llama_model.{n}": tensor for n, tensor in noise.items()}
            (folder / "again").mkdir()
            llm = pruned.make(folder / "again")  # without peft's modules in it
        torch.save({"model": trained, "config": {}, "epoch": 0}, config.parent / "salmonn.pth")
        if case.adapter:
            config = Copy(config, folder).settings(lora=True).config
        return OnPruned(config, case, llm)

    return cache(made)


@pytest.mark.parametrize(("name", "dialect"), EVERY, ids=map("-".join, EVERY))
def test_the_tokens_are_those_of_the_original(
    name: str, dialect: str, original: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    truth = original(name)
    out = tmp_path / "out"
    words = ("--dialect", dialect, "--precision", "fp32", "--dynamic-batch", "--no-simplify")
    run_export("--model", truth.folder, *words, "--out", out)
    assert "is pruned: its weights have" in capfd.readouterr().err
    part = manifest.load(out).with_role("decoder")[0]
    layers = LLMS[name][0].layers
    caches = {n: p.axes[1] for n, p in part.inputs.items() if n.startswith(CACHE_IN)}
    caches.pop(f"{CACHE_IN}positions", None)
    assert caches == {
        f"{CACHE_IN}{i}.{kind}": kv
        for i, (_, kv, _) in enumerate(layers)
        for kind in ("key", "value")
        if kv
    }
    model = alm.load(out, provider="cpu")
    short, whole = clip(1.5), clip(4.0)
    wanted = [truth.generate(pcm, GREEDY) for pcm in (short, whole)]
    assert [a.token_ids for a in model.generate([short, whole], QUESTION, **GREEDY)] == wanted
    assert model.generate(short, QUESTION, **GREEDY).token_ids == wanted[0]
    assert len(set(wanted[0])) > 2
    beams: dict[str, Any] = dict(max_new_tokens=12, num_beams=3)
    assert model.generate(short, QUESTION, **beams).token_ids == truth.generate(short, beams)


@pytest.fixture(scope="module")
def uneven(original: Any) -> Path:
    return original("uneven, with LoRA").folder


def test_a_cache_of_integers_has_the_heads_of_each_layer_and_is_planned_for(
    uneven: Path, tmp_path: Path
) -> None:
    words = ("--precision", "decoder=int8+kv8", "--dynamic-batch", "--out", tmp_path / "kv8")
    run_export("--model", uneven, *words)
    part = manifest.load(tmp_path / "kv8").with_role("decoder")[0]
    ports = {n: (p.dtype, p.axes[1]) for n, p in part.inputs.items() if n.startswith(CACHE_IN)}
    assert [ports[f"{CACHE_IN}{i}.key"] for i in range(4)] == [("int8", n) for n in (2, 1, 2, 2)]
    model = alm.load(tmp_path / "kv8", provider="cpu")
    both = model.generate([clip(1.5), clip(4.0)], QUESTION, num_beams=3, max_new_tokens=9)
    alone = model.generate(clip(1.5), QUESTION, num_beams=3, max_new_tokens=9)
    assert both[0].token_ids == alone.token_ids != []
    words = ["plan", "--device", "orin-nano-8gb", str(tmp_path / "kv8")]
    assert exit_status.run(alm_commands.app, words) == 0


@pytest.mark.parametrize(
    "target", some(["trt-jetpack6", "trt-jetpack7", "trt-rtx"], "trt-jetpack6", "trt-rtx")
)
def test_its_decoder_passes_the_lint_and_each_layer_is_counted(
    target: str, uneven: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run_export("--model", uneven, "--target", target, "--part", "decoder", "--out", out)
    verdict = lint.lint(out, target)
    assert not verdict.refused, verdict.findings
    said = manifest.load(out)
    assert said.facts.dimensions.heads == 4 and said.facts.dimensions.kv_heads == 2
    part = said.with_role("decoder")[0]
    numbered = f"{CACHE_IN}positions" in part.inputs  # as wide as a value
    head = part.inputs[f"{CACHE_IN}0.key"].axes[-1]  # 20, or what an engine wants them to be
    assert head in (20, 24)
    wide = 2 * (2 + 1 + 2 + 2) * int(head) + numbered
    assert estimate.cache(part, 256, "float16") == wide * 256 * 2
    first, _ = profiles.fit(part, profiles.Sizes()).profiles
    caches = [f"{CACHE_IN}{i}.key" for i in range(4)]
    assert [part.inputs[name].axes[1] for name in caches] == [2, 1, 2, 2]
    if numbered:  # a cache in place is of one size, which no profile names
        assert [first[name][1][1] for name in caches] == [2, 1, 2, 2]
