"""Adapters: merged by us they say what peft says unmerged; what is unknown is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from torch import Tensor

import wrappers
from alm.errors import BadCheckpoint
from demo.random_checkpoint import Recipe, make
from tests.wrappers.checkpoint.checkpoints import Copy, in_peft, without
from wrappers.checkpoint.adapters import adapter_faults, contract, merging
from wrappers.checkpoint.weights.hollow import attach, hollow, weight
from wrappers.checkpoint.weights.tensors import Weights
from wrappers.families.salmonn import Salmonn
from wrappers.layers.decoder import Decoder

SMALL: dict[str, Any] = dict(
    vocab_size=67,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    tie_word_embeddings=False,
)
FEW = ["q_proj", "v_proj"]
ALL = [*FEW, "k_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
Tensors = dict[str, Tensor]


def lora(targets: list[str], **more: Any) -> Any:
    return peft.LoraConfig(r=4, lora_alpha=16, target_modules=targets, **more)


def vblora(targets: list[str]) -> Any:
    return peft.VBLoRAConfig(r=4, num_vectors=12, vector_length=16, target_modules=targets)


def wrapped(kind: str, config: Any) -> tuple[Any, Decoder, Tensors]:
    """transformers' model in peft's hands, our decoder without the adapter, and the adapter."""
    torch.manual_seed(0)
    llm_config = getattr(transformers, f"{kind}Config")(**SMALL)
    truth = getattr(transformers, f"{kind}ForCausalLM")(llm_config).eval().requires_grad_(False)
    for each in truth.parameters():
        each.normal_(0, 0.3 if each.ndim > 1 else 0.5)
    decoder = Decoder(wrappers.pick_role("llm", llm_config.model_type).spec(llm_config)).eval()
    base = {k: v.clone() for k, v in truth.state_dict().items() if "embed_tokens" not in k}
    decoder.load_state_dict(base)
    tuned = in_peft(truth, config)
    state = tuned.state_dict()
    names = [n for n in state if contract.is_adapter(n) and "ranknum" not in n]
    for name in names:
        scale = 1.0 if "vblora" in name else 0.3
        factor = "magnitude" in name or "ia3" in name
        state[name].copy_(scale * torch.randn(state[name].shape) + factor)
    return tuned, decoder, {n: state[n].clone() for n in names}


def logits(decoder: Decoder, embeds: Tensor) -> Tensor:
    cache = decoder.fresh(len(embeds), embeds.shape[1])
    lengths = torch.full((len(embeds),), embeds.shape[1])
    return decoder(embeds, torch.zeros_like(lengths), lengths, *cache)[0]


def merge(decoder: Decoder, tensors: Tensors, config: Any) -> tuple[Decoder, float]:
    """The decoder with the adapter merged into its weights as they are read, and the error."""
    adapter = contract.read(tensors, config.to_dict(), "the file")
    assert adapter
    weights = Weights("the decoder")
    weights.add_tensors(decoder.state_dict())
    for_faults, for_merge, for_truth, after = (
        hollow(lambda: Decoder(decoder.spec)) for _ in range(4)
    )
    if wrong := adapter_faults.faults(for_faults, adapter):
        raise BadCheckpoint("; ".join(wrong))
    attach(after, merging.merged(for_merge, weights, adapter))
    before = merging.unmerged(for_truth, weights, adapter)
    return after, merging.merge_error(before, after)


CONFIGS: dict[str, Callable[[], Any]] = {
    "LoRA": lambda: lora(FEW),
    "LoRA on all": lambda: lora(ALL),
    "LoRA on the head": lambda: lora(["lm_head", "down_proj"]),
    "rank-stabilized LoRA": lambda: lora(FEW, use_rslora=True),
    "LoRA of other ranks and scales": lambda: lora(
        ALL, rank_pattern={"q_proj": 2, "layers.1.mlp.up_proj": 3}, alpha_pattern={"down_proj": 5}
    ),
    "DoRA": lambda: lora(ALL, use_dora=True),
    "VB-LoRA": lambda: vblora(FEW),
    "VB-LoRA on all": lambda: vblora(ALL),
    "AdaLoRA": lambda: peft.AdaLoraConfig(
        init_r=4, target_r=2, lora_alpha=16, total_step=9, target_modules=ALL
    ),
    "LoHa": lambda: peft.LoHaConfig(r=4, alpha=6, target_modules=ALL, rank_pattern={"q_proj": 2}),
    "LoKr": lambda: peft.LoKrConfig(r=2, alpha=6, target_modules=ALL),
    "LoKr in four": lambda: peft.LoKrConfig(r=1, alpha=6, decompose_both=True, target_modules=ALL),
    "IA3": lambda: peft.IA3Config(
        target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]
    ),
    "HRA": lambda: peft.HRAConfig(r=2, target_modules=ALL),
    "HRA made orthogonal": lambda: peft.HRAConfig(r=4, apply_GS=True, target_modules=ALL),
}


@pytest.mark.parametrize("llm", ["Llama", "Qwen2", "Gemma2"])
@pytest.mark.parametrize("kind", CONFIGS)
@torch.no_grad()
def test_merged_logits_are_those_of_peft_unmerged(llm: str, kind: str) -> None:
    config = CONFIGS[kind]()
    tuned, decoder, tensors = wrapped(llm, config)
    embeds = torch.randn(2, 9, 32)
    plain = logits(decoder, embeds)
    merged, error = merge(decoder, tensors, config)
    wanted = tuned(inputs_embeds=embeds, use_cache=False).logits[:, -1:]
    size = wanted.abs().max()
    assert (plain - wanted).abs().max() > 0.05 * size  # the adapter matters
    assert (logits(merged, embeds) - wanted).abs().max() < 5e-5 * size
    assert 0 <= error < 1e-4 * size


def test_the_bank_of_vectors_may_be_saved_once() -> None:
    tuned, decoder, tensors = wrapped("Llama", vblora(FEW))
    shared = "base_model.vblora_vector_bank.default"
    once = {n: t for n, t in tensors.items() if "bank" not in n or n == shared}
    assert len(once) < len(tensors)
    merged, _ = merge(decoder, once, vblora(FEW))
    embeds = torch.randn(1, 5, 32)
    with torch.no_grad():
        wanted = tuned(inputs_embeds=embeds, use_cache=False).logits[:, -1:]
        assert (logits(merged, embeds) - wanted).abs().max() < 2e-5 * wanted.abs().max()


def spoilt(name: str, tensors: Tensors) -> Tensors:
    """The adapter with one thing wrong."""
    first = next(n for n in tensors if "lora_A" in n or "logits_A" in n)
    if name == "only A":
        return {n: t for n, t in tensors.items() if "_B" not in n}
    if name == "only B":
        return {n: t for n, t in tensors.items() if "_A" not in n}
    if name == "misshapen":
        return tensors | {first: tensors[first][:, :-1]}
    if name == "one tensor less":
        return {n: t for n, t in tensors.items() if n != first}
    if name == "unknown module":
        return {n.replace("q_proj", "query_key_value"): t for n, t in tensors.items()}
    if name == "unknown layer":
        return tensors | {first.replace("layers.0", "layers.7"): tensors[first]}
    return {n.replace("lora_A", "lora_embedding_A"): t for n, t in tensors.items()}


@pytest.mark.parametrize(
    "change, said",
    [
        ("only A", "lora_B is missing"),
        ("only B", "half of one"),
        ("misshapen", r"lora_A is \[4, 31\] and not \[4, 32\]"),
        ("one tensor less", "layers.0.self_attn.q_proj.lora_A is missing"),
        ("unknown module", "does not have: model.layers.0.self_attn.query_key_value"),
        ("unknown layer", "does not have: model.layers.7.self_attn.q_proj"),
        ("unknown kind", "lora_A is missing.*nothing takes .*lora_embedding_A"),
    ],
)
def test_a_lora_that_does_not_fit_is_refused(change: str, said: str) -> None:
    _, decoder, tensors = wrapped("Llama", lora(FEW))
    with pytest.raises(BadCheckpoint, match=said):
        merge(decoder, spoilt(change, tensors), lora(FEW))


@pytest.mark.parametrize(
    "change, said",
    [
        ("only A", "vblora_logits_B is missing"),
        ("misshapen", "vblora_logits_A is"),
        ("unknown module", "does not have: .*query_key_value"),
    ],
)
def test_a_vblora_that_does_not_fit_is_refused(change: str, said: str) -> None:
    _, decoder, tensors = wrapped("Llama", vblora(FEW))
    with pytest.raises(BadCheckpoint, match=said):
        merge(decoder, spoilt(change, tensors), vblora(FEW))


def test_a_vblora_without_its_bank_is_refused() -> None:
    _, decoder, tensors = wrapped("Llama", vblora(FEW))
    bare = {n: t for n, t in tensors.items() if "bank" not in n}
    with pytest.raises(BadCheckpoint, match="no vblora_vector_bank"):
        merge(decoder, bare, vblora(FEW))


def test_a_vblora_whose_vectors_do_not_divide_the_llm_is_refused() -> None:
    _, decoder, tensors = wrapped("Llama", vblora(FEW))
    odd = {n: torch.randn(12, 7) if "bank" in n else t for n, t in tensors.items()}
    with pytest.raises(BadCheckpoint, match="the VB-LoRA adapter does not fit"):
        merge(decoder, odd, vblora(FEW))


def test_a_vblora_saved_as_its_topk_weights_is_refused() -> None:
    _, decoder, tensors = wrapped("Llama", vblora(FEW))
    saved = {}
    for name, tensor in tensors.items():
        if "logits" in name:
            top = tensor.topk(2, -1)
            saved[f"{name}_topk_indices"] = top.indices
            saved[f"{name}_topk_weights"] = top.values.softmax(-1)[..., :-1]
        else:
            saved[name] = tensor
    with pytest.raises(BadCheckpoint, match="top-k weights only .*save the whole state_dict"):
        merge(decoder, saved, vblora(FEW))


# --- through a checkpoint

TINY = Recipe(window_seconds=4, speech_width=16, audio_width=0, bridge_width=48)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("adapters") / "model", TINY)


LAYER = "llama_model.base_model.model.model.layers.0"


def refused(copy: Copy) -> str:
    with pytest.raises(BadCheckpoint) as caught:
        wrappers.open_checkpoint(copy.config)
    return str(caught.value)


@pytest.mark.parametrize(
    "leaf",
    ["self_attn.k_proj.gate_u.default", "mlp.up_proj.vera_lambda_b", "oft_r.default.weight"],
)
def test_adapters_that_nobody_knows_are_refused_with_their_name(
    tiny: Path, tmp_path: Path, leaf: str
) -> None:
    name = f"{LAYER}.{leaf}"
    said = refused(Copy(tiny, tmp_path).trained(lambda m: m.update({name: torch.ones(4)})))
    assert "salmonn.pth holds an adapter that is not known here" in said
    assert name.removeprefix("llama_model.") in said


def test_lora_false_with_an_adapter_is_refused(tiny: Path, tmp_path: Path) -> None:
    said = refused(Copy(tiny, tmp_path).settings(lora=False))
    assert "config.yaml says lora: False, but" in said and "8 adapter tensors" in said


def test_lora_true_without_an_adapter_is_refused(tiny: Path, tmp_path: Path) -> None:
    said = refused(Copy(tiny, tmp_path).trained(without("lora_")))
    assert "says lora: True, but" in said and "holds no adapter; set lora: False" in said


def test_lora_is_wanted_when_the_config_does_not_say(tiny: Path, tmp_path: Path) -> None:
    copy = Copy(tiny, tmp_path).settings(lora=None).trained(without("lora_"))
    assert "lora: True" in refused(copy)


def test_another_rank_than_the_configs_is_refused(tiny: Path, tmp_path: Path) -> None:
    said = refused(Copy(tiny, tmp_path).settings(lora_rank=8))
    assert "lora_rank is 8 but the adapter's weights are of rank 4" in said
    assert "salmonn.pth" in said


def test_half_an_adapter_is_refused_before_anything_is_exported(tiny: Path, tmp_path: Path) -> None:
    said = refused(Copy(tiny, tmp_path).trained(without("layers.1.self_attn.v_proj.lora_B")))
    assert said.count("is missing") == 1 and "layers.1.self_attn.v_proj.lora_B" in said


def test_alpha_scales_the_adapter(tiny: Path, tmp_path: Path) -> None:
    made = Copy(tiny, tmp_path)
    weights = []
    for alpha in (16, 32):
        part: Any = Salmonn(made.settings(lora_alpha=alpha).config).decoder()
        weights.append(weight(part, "model.layers.0.self_attn.q_proj.weight"))
    base = Salmonn(tiny).llm_weights["model.layers.0.self_attn.q_proj.weight"]
    torch.testing.assert_close(weights[1] - base, 2 * (weights[0] - base))


def test_the_merge_is_a_fact_of_the_decoder(tiny: Path) -> None:
    facts = Salmonn(tiny).decoder().facts
    assert 0 <= facts["merge_error"] < 1e-3


def test_without_an_adapter_there_is_no_such_fact(tiny: Path, tmp_path: Path) -> None:
    copy = Copy(tiny, tmp_path).settings(lora=False).trained(without("lora_"))
    assert Salmonn(copy.config).decoder().facts == {}
    assert wrappers.open_checkpoint(copy.config).facts.source["adapter"] == "none"
