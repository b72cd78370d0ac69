"""4-bit LLMs: read as bitsandbytes reads them, tensor by tensor, and what is damaged is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

from alm.errors import BadCheckpoint
from demo.random_checkpoint import make
from tests.reference import DATA
from tests.wrappers.checkpoint.checkpoints import (
    TINY,
    Copy,
    as_bin,
    in_peft,
    in_shards,
    refused,
    renamed,
)
from wrappers import open_checkpoint
from wrappers.checkpoint.weights import nf4
from wrappers.checkpoint.weights.tensors import Weights
from wrappers.dialect import bound
from wrappers.families.salmonn import Salmonn

GOLDEN = DATA / "nf4.safetensors"
CASES = ["nf4_double", "nf4_plain", "nf4_odd", "nf4_many", "nf4_storage"]
CASES += ["fp4_double", "fp4_plain", "fp4_float"]
CONFIG = dict(
    quant_method="bitsandbytes",
    load_in_4bit=True,
    load_in_8bit=False,
    bnb_4bit_quant_type="nf4",
    bnb_4bit_use_double_quant=True,
    bnb_4bit_compute_dtype="bfloat16",
)
MATRIX = "model.layers.1.mlp.up_proj.weight"
STATE = "quant_state.bitsandbytes__nf4"
Tensors = dict[str, Tensor]


# --- a packer of its own: nothing here is the reader's


def nf4_code() -> Tensor:
    """The 16 values as bitsandbytes saved them."""
    return load_file(GOLDEN)["nf4_plain.weight.quant_map"]


def packed(matrix: Tensor, dtype: str, double: bool = True) -> tuple[Tensors, Tensor]:
    """A matrix's pieces in NF4, and the matrix that they stand for, value by value."""
    flat = matrix.double().flatten().tolist()
    blocks = [flat[i : i + 64] for i in range(0, len(flat), 64)]
    code = nf4_code().tolist()
    scales = torch.tensor([max(map(abs, block)) for block in blocks])
    said: dict[str, Any] = dict(
        quant_type="nf4", blocksize=64, dtype=dtype, shape=list(matrix.shape)
    )
    pieces = {"quant_map": torch.tensor(code)}
    if double:
        offset, ramp = scales.mean(), torch.linspace(-1, 1, 256)
        centred = (scales - offset).split(256)
        outer = torch.stack([part.abs().max() for part in centred])
        near = [part[:, None] / part.abs().max() - ramp for part in centred]
        steps = [each.abs().argmin(1) for each in near]
        pieces["absmax"] = torch.cat(steps).to(torch.uint8)
        pieces |= {"nested_absmax": outer, "nested_quant_map": ramp}
        said |= dict(nested_blocksize=256, nested_dtype="float32", nested_offset=offset.item())
        scales = torch.cat([ramp[s] * outer[i] for i, s in enumerate(steps)]) + offset
    else:
        pieces["absmax"] = scales
    nibbles, values = [], []
    for block, scale in zip(blocks, scales, strict=True):
        for value in block:
            nearest = min(range(16), key=lambda i: abs(code[i] * float(scale) - value))
            nibbles.append(nearest)
            values.append(torch.tensor(code[nearest]) * scale)
    pairs = zip(nibbles[::2], nibbles[1::2], strict=True)
    pieces[""] = torch.tensor([[high * 16 + low] for high, low in pairs], dtype=torch.uint8)
    pieces[STATE] = torch.tensor(list(json.dumps(said).encode()), dtype=torch.uint8)
    meant = torch.stack(values).to(getattr(torch, dtype)).view(matrix.shape)
    return pieces, meant


def in_nf4(copy: Copy, dtype: str = "float16", double: bool = True) -> Tensors:
    """Rewrite the copy's LLM as a model in 4 bits is saved; what its matrices now stand for."""
    meant: Tensors = {}

    def change(state: Tensors) -> None:
        for name in [n for n in state if n.endswith("_proj.weight")]:
            pieces, meant[name] = packed(state.pop(name), dtype, double)
            for piece, tensor in pieces.items():
                state[f"{name}.{piece}".rstrip(".")] = tensor

    copy.weights("llm", change).json("llm/config.json", quantization_config=CONFIG)
    return meant


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("plain") / "model", TINY)


@pytest.fixture(scope="module")
def small(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tensors]:
    """The checkpoint with its LLM in NF4, and what the matrices stand for."""
    copy = Copy(tiny, tmp_path_factory.mktemp("nf4"))
    return copy.config, in_nf4(copy)


@pytest.fixture
def copy(small: tuple[Path, Tensors], tmp_path: Path) -> Copy:
    return Copy(small[0], tmp_path)


# --- as bitsandbytes


def pieces_of(case: str) -> Weights:
    weights = Weights("golden")
    weights.add_tensors({k: v for k, v in load_file(GOLDEN).items() if k.startswith(case)})
    return weights


@pytest.mark.parametrize("case", CASES)
def test_values_are_bit_for_bit_those_of_bitsandbytes(case: str) -> None:
    found = nf4.dequantized(pieces_of(case))
    wanted, got = found[f"{case}.expected"], found[f"{case}.weight"]
    assert found.shapes.keys() == {f"{case}.expected", f"{case}.weight"}
    assert got.shape == found.shapes[f"{case}.weight"] and got.dtype == wanted.dtype
    assert got.float().abs().max() > 0.1
    assert torch.equal(got[-6:].contiguous().view(torch.uint8), wanted.view(torch.uint8))


def test_a_large_matrix_is_dequantized_in_parts_that_meet() -> None:
    rows = nf4.CHUNK // 512 + 3  # more than one part, the last one short
    torch.manual_seed(0)
    storage = torch.randint(0, 256, (rows * 256, 1), dtype=torch.uint8)
    scales = torch.rand(rows * 8)
    said = dict(quant_type="nf4", blocksize=64, dtype="float32", shape=[rows, 512])
    weights = Weights("large")
    weights.add_tensors(
        {
            "w.weight": storage,
            "w.weight.absmax": scales,
            "w.weight.quant_map": torch.zeros(16),
            f"w.weight.{STATE}": torch.tensor(list(json.dumps(said).encode()), dtype=torch.uint8),
        }
    )
    got = nf4.dequantized(weights)["w.weight"]
    code = nf4_code()
    halves = torch.cat((storage >> 4, storage & 15), 1).flatten().long()
    assert torch.equal(got, (code[halves].view(-1, 64) * scales[:, None]).view(rows, 512))


def test_only_the_states_are_read_before_a_weight_is_asked_for(
    small: tuple[Path, Tensors],
) -> None:
    inner = Salmonn(small[0]).llm_folder
    read: list[str] = []

    def noted(name: str) -> Callable[[], Tensor]:
        return lambda: (read.append(name), inner[name])[1]

    watched = Weights("watched")
    for name, shape in inner.shapes.items():
        watched.add(name, shape, noted(name))
    plain = nf4.dequantized(watched)
    assert len(read) == 14 and all(name.endswith(STATE) for name in read)
    read.clear()
    assert plain[MATRIX].shape == plain.shapes[MATRIX] == (128, 64)
    assert read and all(name.startswith(MATRIX) for name in read)


# --- whole checkpoints


def logits(decoder: Any, embeds: Tensor) -> Tensor:
    cache = decoder.fresh(1, embeds.shape[1])
    return decoder(embeds, torch.tensor([0]), torch.tensor([embeds.shape[1]]), *cache)[0]


@pytest.mark.parametrize("dialect", ["standard", "decomposed"])
@torch.no_grad()
def test_an_llm_in_nf4_says_what_its_dequantized_weights_and_the_lora_say(
    tiny: Path, small: tuple[Path, Tensors], dialect: str
) -> None:
    config, meant = small
    truth: Any = transformers.LlamaForCausalLM.from_pretrained(tiny.parent / "llm").eval()
    embeds = torch.randn(1, 9, 64, generator=torch.Generator().manual_seed(0))
    before = truth(inputs_embeds=embeds).logits[:, -1:]
    assert truth.load_state_dict(meant, strict=False).unexpected_keys == []
    rounded = truth(inputs_embeds=embeds).logits[:, -1:]
    lora = peft.LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj"])
    tuned = in_peft(truth, lora)
    trained = torch.load(config.parent / "salmonn.pth", weights_only=True)["model"]
    adapter = {k.removeprefix("llama_model."): v for k, v in trained.items() if "lora_" in k}
    assert adapter and tuned.load_state_dict(adapter, strict=False).unexpected_keys == []
    wanted = tuned(inputs_embeds=embeds).logits[:, -1:]
    with bound(dialect):
        got = logits(Salmonn(config).decoder(), embeds)
    size = wanted.abs().max()
    assert (before - rounded).abs().max() > 0.02 * size  # 4 bits matter
    assert (rounded - wanted).abs().max() > 0.05 * size  # and so does the adapter
    assert (got - wanted).abs().max() < 1e-5 * size


def test_its_weights_come_in_the_dtype_they_had(small: tuple[Path, Tensors]) -> None:
    config, meant = small
    found = Salmonn(config).llm_weights
    assert len(meant) == 14 and not any("absmax" in name for name in found.shapes)
    for name, tensor in meant.items():
        assert found[name].dtype == torch.float16 and torch.equal(found[name], tensor)


@pytest.mark.parametrize("double", [True, False], ids=["double", "single"])
def test_other_dtypes_and_single_quantization_are_read(
    tiny: Path, tmp_path: Path, double: bool
) -> None:
    copy = Copy(tiny, tmp_path)
    meant = in_nf4(copy, "bfloat16", double)
    found = Salmonn(copy.config).llm_weights
    assert all(torch.equal(found[name], tensor) for name, tensor in meant.items())


@pytest.mark.parametrize("save", [as_bin, in_shards])
def test_it_may_be_in_shards_or_in_torch_files(
    copy: Copy, small: tuple[Path, Tensors], save: Callable[[Path], None]
) -> None:
    save(copy.folder / "llm")
    found = Salmonn(copy.config).llm_weights
    assert torch.equal(found[MATRIX], small[1][MATRIX])


def test_it_may_be_saved_from_the_bare_model(copy: Copy, small: tuple[Path, Tensors]) -> None:
    copy.weights("llm", renamed(lambda name: name.removeprefix("model.")))
    assert torch.equal(Salmonn(copy.config).llm_weights[MATRIX], small[1][MATRIX])


def test_the_person_is_told_that_the_llm_was_quantized(copy: Copy, tiny: Path) -> None:
    said = [note for note in open_checkpoint(copy.config).notes if "bitsandbytes" in note]
    assert len(said) == 1
    assert (
        f"the LLM in {copy.folder / 'llm'} is quantized by bitsandbytes (14 weights in NF4)"
        in (said[0])
    )
    assert not any("bitsandbytes" in note for note in open_checkpoint(tiny).notes)


# --- what is refused

REFUSED: dict[str, dict[str, Any]] = {
    "8 bits": dict(quant_method="bitsandbytes", load_in_8bit=True, load_in_4bit=False),
    "both": dict(quant_method="bitsandbytes", load_in_8bit=True, load_in_4bit=True),
    "neither": dict(quant_method="bitsandbytes"),
    "GPTQ": dict(quant_method="gptq", bits=4, group_size=128),
    "AWQ": dict(quant_method="awq", bits=4, load_in_4bit=True),
}


@pytest.mark.parametrize("config", REFUSED)
def test_other_quantized_folders_are_refused(copy: Copy, config: str) -> None:
    said = refused(copy.json("llm/config.json", quantization_config=REFUSED[config]))
    assert "llm/config.json describes quantised weights" in said
    assert "bitsandbytes' 4-bit ones" in said and "give the folder of the plain ones" in said


def piece(suffix: str, tensor: Tensor | None) -> Callable[[Tensors], None]:
    """Puts a tensor in the place of one piece of MATRIX, or takes the piece out."""
    name = f"{MATRIX}.{suffix}".rstrip(".")

    def change(state: Tensors) -> None:
        del state[name]
        if tensor is not None:
            state[name] = tensor

    return change


def says(**changed: Any) -> Callable[[Tensors], None]:
    """Changes what the state of MATRIX says; None takes a key out."""
    name = f"{MATRIX}.{STATE}"

    def change(state: Tensors) -> None:
        said = json.loads(bytes(state[name].tolist())) | changed
        text = json.dumps({k: v for k, v in said.items() if v is not None})
        state[name] = torch.tensor(list(text.encode()), dtype=torch.uint8)

    return change


def text(said: str) -> Tensor:
    return torch.tensor(list(said.encode()), dtype=torch.uint8)


def another(state: Tensors) -> None:
    state[f"{MATRIX}.quant_state.bitsandbytes__fp4"] = text("{}")


BYTES = torch.uint8
DAMAGED: dict[str, tuple[str, Callable[[Tensors], None]]] = {
    "no values": ("lacks its weight", piece("", None)),
    "no scales": ("lacks its weight.absmax", piece("absmax", None)),
    "no map": ("lacks its weight.quant_map", piece("quant_map", None)),
    "no nested map": ("lacks its weight.nested_quant_map", piece("nested_quant_map", None)),
    "no nested scales": ("says nested_blocksize, but", piece("nested_absmax", None)),
    "no state": ("needs one quant_state.bitsandbytes__nf4", piece(STATE, None)),
    "two states": ("there are 2", another),
    "a value too few": (
        "of shape [128, 64] has a weight of [4095, 1] and not [4096, 1]",
        piece("", torch.zeros(4095, 1, dtype=BYTES)),
    ),
    "a value in floats": (
        "has a weight of [128, 64] and not [4096, 1]",
        piece("", torch.zeros(128, 64)),
    ),
    "values transposed": ("of [1, 4096]", piece("", torch.zeros(1, 4096, dtype=BYTES))),
    "a scale too many": (
        "has a weight.absmax of [129] and not [128]",
        piece("absmax", torch.zeros(129, dtype=BYTES)),
    ),
    "nested scales too many": ("of [2] and not [1]", piece("nested_absmax", torch.zeros(2))),
    "a map of 8": ("a weight.quant_map of [8]", piece("quant_map", torch.zeros(8))),
    "a nested map of 255": ("of [255]", piece("nested_quant_map", torch.zeros(255))),
    "no JSON": ("a quant_state that is not JSON", piece(STATE, text("{quant"))),
    "no text": ("that is not JSON", piece(STATE, torch.full((9,), 255, dtype=BYTES))),
    "endless JSON": ("that is not JSON", piece(STATE, text("[" * 60000))),
    "much JSON": ("of more than 65536 bytes", piece(STATE, text(" " * 65537))),
    "a list": ("that is no JSON object", piece(STATE, text("[1]"))),
    "a state of floats": ("of torch.float32 and not of bytes", piece(STATE, torch.zeros(9))),
    "another type": ("says quant_type: 'fp4'; it must be", says(quant_type="fp4")),
    "no dtype": ("says dtype: 'None'; it must be one of float16", says(dtype=None)),
    "a dtype of bytes": ("says dtype: 'uint8'", says(dtype="uint8")),
    "no shape": ("says shape: 'None'; it must be a list", says(shape=None)),
    "a negative shape": ("says shape: '[-128, -64]'", says(shape=[-128, -64])),
    "a shape of words": ("says shape", says(shape=["128", 64])),
    "a huge shape": ("of shape [", says(shape=[10**30, 64])),
    "blocks of none": ("says blocksize: '0'; it must be one of 32", says(blocksize=0)),
    "blocks of truth": ("says blocksize: 'True'", says(blocksize=True)),
    "larger blocks": ("a weight.absmax of [128] and not [64]", says(blocksize=128)),
    "nested blocks of none": ("says nested_blocksize: '0'", says(nested_blocksize=0)),
    "nested halves": ("says nested_dtype: 'float16'", says(nested_dtype="float16")),
    "no offset": ("says nested_offset: 'None'", says(nested_offset=None)),
    "an endless offset": ("says nested_offset: 'inf'", says(nested_offset=float("inf"))),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_weight_is_one_sentence_that_names_it(copy: Copy, case: str) -> None:
    said, change = DAMAGED[case]
    found = refused(copy.weights("llm", change))
    assert said in found and f"llm/model.safetensors: the 4-bit weight {MATRIX} " in found


@pytest.mark.parametrize(
    "said, change",
    [
        ("absmax is of torch.float32 and not of torch.uint8", piece("absmax", torch.zeros(128))),
        (
            f"the 4-bit weight {MATRIX} has 2048 bytes and not 4096",
            piece("", torch.zeros(2048, 1, dtype=BYTES)),
        ),
        (
            "nested_quant_map is of torch.int64",
            piece("nested_quant_map", torch.zeros(256, dtype=torch.int64)),
        ),
    ],
    ids=["scales", "values", "map"],
)
def test_a_piece_of_another_dtype_is_refused_when_it_is_read(
    copy: Copy, said: str, change: Callable[[Tensors], None]
) -> None:
    weights = Salmonn(copy.weights("llm", change).config).llm_weights
    with pytest.raises(BadCheckpoint) as caught:
        _ = weights[MATRIX]
    assert said in str(caught.value)


def test_another_shape_than_the_llms_is_named_as_of_a_plain_weight(copy: Copy) -> None:
    said = refused(copy.weights("llm", says(shape=[64, 128])))
    assert f"{MATRIX} is [64, 128] and not [128, 64]" in said
