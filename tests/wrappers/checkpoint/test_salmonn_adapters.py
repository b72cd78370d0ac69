"""What peft leaves in SALMONN's .pth, adapters and modules trained whole, says what peft says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import peft
import pytest
import torch
import transformers
from peft.tuners.lora.variants import QALoraLinearVariant
from torch import Tensor, nn

from alm.errors import BadCheckpoint
from demo.random_checkpoint import Recipe, make
from tests.wrappers.checkpoint.checkpoints import Copy, in_peft
from wrappers import open_checkpoint
from wrappers.checkpoint.adapters import contract, merging
from wrappers.checkpoint.weights.hollow import filled, hollow
from wrappers.checkpoint.weights.tensors import Weights
from wrappers.families.salmonn import Salmonn

ALL = ["q_proj", "v_proj", "k_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
FEW = ["q_proj", "v_proj"]
KINDS: dict[str, tuple[Callable[..., Any], dict[str, Any], dict[str, Any]]] = {
    "LoRA": (peft.LoraConfig, dict(r=4, lora_alpha=16, target_modules=ALL), {}),
    "rsLoRA": (
        peft.LoraConfig,
        dict(r=4, lora_alpha=16, use_rslora=True, target_modules=FEW),
        dict(use_rslora=True),
    ),
    "DoRA": (
        peft.LoraConfig,
        dict(r=4, lora_alpha=16, use_dora=True, target_modules=FEW),
        dict(use_dora=True),
    ),
    "HRA": (peft.HRAConfig, dict(r=2, target_modules=ALL), {}),
    "HRA made orthogonal": (
        peft.HRAConfig,
        dict(r=4, apply_GS=True, target_modules=FEW),
        dict(hra_apply_GS=True),
    ),
    "VB-LoRA": (
        peft.VBLoRAConfig,
        dict(r=4, num_vectors=12, vector_length=16, topk=3, target_modules=FEW),
        dict(vblora_topk=3),
    ),
}
# What is trained whole beside an adapter, and whether the LLM's head is its table.
SAVED: list[tuple[str, list[str] | None, bool]] = [
    *((kind, None, True) for kind in KINDS),
    *((kind, ["lm_head", "norm"], False) for kind in KINDS),
    ("LoRA", ["embed_tokens"], True),
    ("LoRA", ["lm_head"], True),
    ("HRA", ["embed_tokens", "lm_head"], True),
    ("VB-LoRA", ["embed_tokens", "norm"], False),
]


def recipe(tied: bool) -> Recipe:
    options = dict(tie_word_embeddings=tied)
    return Recipe(
        window_seconds=4, speech_width=16, audio_width=0, bridge_width=48, adapter="",
        llm_options=options,
    )  # fmt: skip


@torch.no_grad()
def trained(
    folder: Path, kind: str, saved: list[str] | None, tied: bool, pad: bool = False
) -> tuple[Copy, Any]:
    """A checkpoint with the adapter in its .pth as the original saves it, and peft's model."""
    copy = Copy(make(folder / "model", recipe(tied)), folder)
    build, fields, settings = KINDS[kind]
    llm = transformers.AutoModelForCausalLM.from_pretrained(copy.folder / "llm").eval()
    if pad:  # as the original's tokenizer has one token more
        llm.resize_token_embeddings(llm.config.vocab_size + 1)
    tuned = in_peft(llm, build(modules_to_save=saved, **fields))
    torch.manual_seed(1)
    for name, each in tuned.named_parameters():
        if each.requires_grad:
            each.add_((1.0 if "vblora" in name else 0.3) * torch.randn(each.shape))
    frozen = {n for n, each in tuned.named_parameters() if not each.requires_grad}
    kept = {f"llama_model.{n}": t for n, t in tuned.state_dict().items() if n not in frozen}
    copy.trained(lambda model: model.update({n: t.clone() for n, t in kept.items()}))
    copy.settings(lora=True, lora_rank=fields["r"], lora_alpha=16, **settings)
    return copy, tuned


def logits(decoder: Any, embeds: Tensor) -> Tensor:
    """[batch, vocab] behind the last position."""
    cache = decoder.fresh(len(embeds), embeds.shape[1])
    lengths = torch.full((len(embeds),), embeds.shape[1])
    return decoder(embeds, torch.zeros_like(lengths), lengths, *cache)[0][:, -1]


@torch.no_grad()
def same(copy: Copy, tuned: Any, steps: int = 8) -> None:
    """Logits within 1e-4 of peft's, unmerged, and greedy tokens equal."""
    made = open_checkpoint(copy.config)
    decoder, table = filled(made.part("decoder", "standard")), made.embedding()
    ids = torch.tensor([[5, 9, 300, 17]])
    for _ in range(steps):
        wanted = tuned(input_ids=ids, use_cache=False).logits[:, -1]
        got = logits(decoder, table[ids].float())
        size = wanted.abs().max()
        assert (got - wanted[:, : got.shape[1]]).abs().max() < 1e-4 * size
        ids = torch.cat((ids, wanted[:, : got.shape[1]].argmax(-1, keepdim=True)), 1)
        assert got.argmax() == ids[0, -1]


@pytest.mark.parametrize("kind, saved, tied", SAVED)
def test_an_adapter_and_what_was_trained_whole_say_what_peft_says(
    tmp_path: Path, kind: str, saved: list[str] | None, tied: bool
) -> None:
    same(*trained(tmp_path, kind, saved, tied), steps=4)


def test_a_table_trained_whole_may_have_the_row_of_padding(tmp_path: Path) -> None:
    same(*trained(tmp_path, "LoRA", ["embed_tokens", "lm_head"], False, pad=True))


def test_what_was_trained_whole_is_refused_without_its_adapter(tmp_path: Path) -> None:
    copy, _ = trained(tmp_path, "LoRA", ["norm"], True)

    def bare(model: dict[str, Tensor]) -> None:
        for name in [n for n in model if "lora_" in n]:
            del model[name]

    copy.trained(bare).settings(lora=False)
    with pytest.raises(BadCheckpoint, match="beside an adapter .*norm.weight.*, but no adap"):
        open_checkpoint(copy.config)


# --- QA-LoRA


def pooled(group: int, size: int = 64) -> tuple[nn.Linear, Tensor, Tensor, Callable[..., Tensor]]:
    """A layer, the two matrices of a QA-LoRA, and what peft's own code computes with them."""
    torch.manual_seed(0)
    base = nn.Linear(size, 24, bias=False).requires_grad_(False)
    narrow, wide = torch.randn(4, size // group), torch.randn(24, 4)
    module: Any = SimpleNamespace(
        lora_A={"default": SimpleNamespace(weight=narrow)},
        lora_B={"default": SimpleNamespace(weight=wide)},
        lora_dropout={"default": nn.Identity()},
        scaling={"default": 16 / 4},
        qalora_group_size={"default": group},
        in_features=size,
        training=False,
    )
    return base, narrow, wide, lambda x: QALoraLinearVariant.forward(module, "default", x, base(x))


def qalora(tensors: dict[str, Tensor], **settings: Any) -> Any:
    said = dict(r=4, lora_alpha=16, use_qalora=True, target_modules=["layer"]) | settings
    adapter = contract.read(tensors, said, "the file")
    assert adapter
    return adapter


def merged(base: nn.Linear, adapter: Any) -> Tensor:
    weights = Weights("the model")
    weights.add_tensors({"layer.weight": base.weight})
    skeleton = hollow(lambda: nn.ModuleDict({"layer": nn.Linear(base.in_features, 24, bias=False)}))
    return merging.merged(skeleton, weights, adapter)["layer.weight"]


@pytest.mark.parametrize("group", [2, 8, 16, 64])
def test_a_qalora_is_merged_as_the_map_that_peft_computes(group: int) -> None:
    base, narrow, wide, truth = pooled(group)
    tensors = {"layer.lora_A.weight": narrow, "layer.lora_B.weight": wide}
    weight = merged(base, qalora(tensors, qalora_group_size=group))
    x = torch.randn(3, 5, 64)
    wanted = truth(x)
    assert (base(x) - wanted).abs().max() > 0.1 * wanted.abs().max()
    assert (nn.functional.linear(x, weight) - wanted).abs().max() < 1e-5 * wanted.abs().max()


def test_a_matrix_as_wide_as_its_module_is_not_pooled() -> None:
    base = nn.Linear(64, 24, bias=False).requires_grad_(False)
    a, b = torch.randn(4, 64), torch.randn(24, 4)
    weight = merged(base, qalora({"layer.lora_A.weight": a, "layer.lora_B.weight": b}))
    torch.testing.assert_close(weight, base.weight + 4 * b @ a, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "said, sentence",
    [
        (dict(qalora_group_size=8), "has 4 columns, each of qalora_group_size 8 inputs, and the"),
        (dict(qalora_group_size=0), "qalora_group_size is '0'"),
        (dict(qalora_group_size=True), "qalora_group_size is 'True'"),
        (dict(use_dora=True), "use_qalora and use_dora, which peft has not together"),
    ],
)
def test_a_qalora_that_does_not_fit_is_refused(said: dict[str, Any], sentence: str) -> None:
    base, narrow, wide, _ = pooled(16)
    tensors = {"layer.lora_A.weight": narrow, "layer.lora_B.weight": wide}
    with pytest.raises(BadCheckpoint, match=sentence):
        merged(base, qalora(tensors, **said))


def test_a_qalora_of_a_salmonn_says_what_its_map_says(tmp_path: Path) -> None:
    copy, tuned = trained(tmp_path, "LoRA", None, True)
    settings = tuned.peft_config["default"].to_dict() | dict(use_qalora=True, qalora_group_size=4)
    fields = {n: v for n, v in settings.items() if n != "target_modules"}
    copy.json("adapter_config.json", **fields | dict(peft_type="LORA", target_modules=sorted(ALL)))
    state = tuned.state_dict()

    def pool(model: dict[str, Tensor]) -> None:
        for name in [n for n in model if ".lora_A." in n]:
            rank, width = model[name].shape
            model[name] = model[name].reshape(rank, width // 4, 4).sum(2) * 4 / (width // 4) / 4
            spread = model[name].repeat_interleave(4, 1) * (width // 4) / 4
            state[name.removeprefix("llama_model.")].copy_(spread)

    with torch.no_grad():
        copy.trained(pool)
    same(copy, tuned, steps=3)
    assert Salmonn(copy.config).adapter is not None
