"""A small checkpoint in SALMONN's own format with random weights: real in form, it says nothing.

It stands in for a trained demo model, and tests make their variants with it.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn

SENTENCES = [
    "USER: <Speech></Speech> Recognize the speech and give me the transcription.\nASSISTANT:",
    "Please describe the audio. Listen to the song and write down its content.",
    "the quick brown fox jumps over the lazy dog 0 1 2 3 4 5 6 7 8 9",
]


@dataclass(frozen=True)
class Recipe:
    """What to make. The defaults are small, with a window Q-Former, BEATs and LoRA."""

    seed: int = 0
    mels: int = 80
    window_seconds: int = 30
    speech_width: int = 64
    audio_width: int = 48  # 0: without BEATs
    bridge_width: int = 96
    bridge_heads: int = 12
    queries: int = 1
    second_per_window: float = 0.333333
    second_stride: float = 0.333333
    windowed: bool = True
    llm: str = "Llama"  # transformers' name: Llama, Qwen2, Gemma3Text
    llm_options: Mapping[str, Any] = field(default_factory=dict)
    adapter: str = "lora"  # lora, vblora or ""
    model_options: Mapping[str, Any] = field(default_factory=dict)  # into config.yaml


def make(folder: Path, recipe: Recipe = Recipe()) -> Path:  # noqa: B008 (frozen)
    """Write the checkpoint and return the path of its config.yaml; beside, then renamed."""
    site = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(site, ignore_errors=True)
    site.mkdir(parents=True)
    torch.manual_seed(recipe.seed)
    _whisper(site / "whisper", recipe)
    if recipe.audio_width:
        torch.save(beats(recipe), site / "beats.pt")
    llm = _llm(site / "llm", recipe)
    trained = bridge(recipe, llm.config.hidden_size) | adapter(recipe, llm)
    torch.save({"model": trained, "config": {}, "epoch": 0}, site / "salmonn.pth")
    (site / "config.yaml").write_text(yaml.safe_dump(_config(recipe), sort_keys=False))
    shutil.rmtree(folder, ignore_errors=True)
    site.rename(folder)
    return folder / "config.yaml"


def _config(recipe: Recipe) -> dict[str, Any]:
    model: dict[str, Any] = dict(
        llama_path="llm",
        whisper_path="whisper",
        beats_path="beats.pt" if recipe.audio_width else "",
        ckpt="salmonn.pth",
        use_speech_Qformer=True,
        window_level_Qformer=recipe.windowed,
        num_speech_query_token=recipe.queries,
        qformer_heads=recipe.bridge_heads,
        second_per_window=recipe.second_per_window,
        second_stride=recipe.second_stride,
        lora=bool(recipe.adapter),
        lora_rank=4,
        lora_alpha=16,
        prompt_template="USER: {}\nASSISTANT:",
        end_sym="</s>",
    )
    generate = dict(max_new_tokens=24, num_beams=4, do_sample=False, min_length=1)
    return {"model": model | dict(recipe.model_options), "generate": generate}


def _whisper(folder: Path, recipe: Recipe) -> None:
    frames = recipe.window_seconds * 50
    config = transformers.WhisperConfig(
        vocab_size=100,
        num_mel_bins=recipe.mels,
        d_model=recipe.speech_width,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=2 * recipe.speech_width,
        max_source_positions=frames,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=64,
        max_target_positions=16,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=3,
    )
    folder.mkdir()
    config.save_pretrained(folder)
    encoder = transformers.WhisperModel(config).encoder
    state = {f"encoder.{name}": _loud(tensor) for name, tensor in encoder.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    extractor = transformers.WhisperFeatureExtractor(
        feature_size=recipe.mels, chunk_length=recipe.window_seconds
    )
    extractor.save_pretrained(folder)


def _loud(tensor: Tensor) -> Tensor:
    """Weights large enough that the output depends on the input."""
    return (3 * tensor).contiguous() if tensor.ndim > 1 else tensor.contiguous()


def beats(recipe: Recipe) -> dict[str, Any]:
    """{'cfg', 'model'} as a BEATs checkpoint has them."""
    width, heads, layers, wide = recipe.audio_width, 4, 2, 2 * recipe.audio_width
    cfg = dict(
        input_patch_size=16,
        embed_dim=32,
        conv_bias=False,
        encoder_layers=layers,
        encoder_embed_dim=width,
        encoder_ffn_embed_dim=wide,
        encoder_attention_heads=heads,
        activation_fn="gelu",
        layer_norm_first=False,
        deep_norm=True,
        conv_pos=16,
        conv_pos_groups=4,
        relative_position_embedding=True,
        num_buckets=320,
        max_distance=800,
        gru_rel_pos=True,
    )
    state: dict[str, Tensor] = {
        "patch_embedding.weight": 0.1 * torch.randn(32, 1, 16, 16),
        "encoder.pos_conv.0.bias": 0.1 * torch.randn(width),
        "encoder.pos_conv.0.weight_g": 1 + 0.1 * torch.randn(1, 1, 16),
        "encoder.pos_conv.0.weight_v": torch.randn(width, width // 4, 16),
    }
    state |= _linear("post_extract_proj", 32, width)
    state |= _norm("layer_norm", 32) | _norm("encoder.layer_norm", width)
    table = torch.randn(320, heads)
    for i in range(layers):
        layer = f"encoder.layers.{i}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            state |= _linear(f"{layer}.self_attn.{name}", width, width)
        state |= _linear(f"{layer}.self_attn.grep_linear", width // heads, 8)
        state[f"{layer}.self_attn.grep_a"] = 1 + 0.1 * torch.randn(1, heads, 1, 1)
        state[f"{layer}.self_attn.relative_attention_bias.weight"] = table
        state |= _linear(f"{layer}.fc1", width, wide) | _linear(f"{layer}.fc2", wide, width)
        state |= _norm(f"{layer}.self_attn_layer_norm", width)
        state |= _norm(f"{layer}.final_layer_norm", width)
    return {"cfg": cfg, "model": state}


def _linear(name: str, source: int, width: int) -> dict[str, Tensor]:
    weight = torch.randn(width, source) * source**-0.5
    return {f"{name}.weight": weight, f"{name}.bias": 0.1 * torch.randn(width)}


def _norm(name: str, width: int) -> dict[str, Tensor]:
    return {
        f"{name}.weight": 1 + 0.1 * torch.randn(width),
        f"{name}.bias": 0.1 * torch.randn(width),
    }


def bridge(recipe: Recipe, out: int) -> dict[str, Tensor]:
    """The layer norms, the Q-Former and the projection, named as in SALMONN's .pth."""
    width, source = recipe.bridge_width, recipe.speech_width + recipe.audio_width
    bert = "speech_Qformer.bert"
    state = {"speech_query_tokens": torch.randn(1, recipe.queries, width)}
    state |= _norm("ln_speech", recipe.speech_width)
    if recipe.audio_width:
        state |= _norm("ln_audio", recipe.audio_width)
    state[f"{bert}.embeddings.position_ids"] = torch.arange(64)[None]
    state |= _norm(f"{bert}.embeddings.LayerNorm", width)
    for i in range(2):
        layer = f"{bert}.encoder.layer.{i}"
        for kind, inner in (("attention", width), ("crossattention", source)):
            state |= _linear(f"{layer}.{kind}.self.query", width, width)
            state |= _linear(f"{layer}.{kind}.self.key", inner, width)
            state |= _linear(f"{layer}.{kind}.self.value", inner, width)
            state |= _linear(f"{layer}.{kind}.output.dense", width, width)
            state |= _norm(f"{layer}.{kind}.output.LayerNorm", width)
        state |= _linear(f"{layer}.intermediate_query.dense", width, 2 * width)
        state |= _linear(f"{layer}.output_query.dense", 2 * width, width)
        state |= _norm(f"{layer}.output_query.LayerNorm", width)
    return state | _linear("speech_llama_proj", width, out)


def tokenizer() -> Tokenizer:
    """A byte-level BPE of 320 entries that knows SALMONN's prompts."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    made.decoder = decoders.ByteLevel()  # pyright: ignore
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(SENTENCES, trainer)
    made.post_processor = processors.TemplateProcessing(  # pyright: ignore
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return made


def _llm(folder: Path, recipe: Recipe) -> Any:
    """A random LLM of transformers in a folder of its own, with a tokenizer."""
    made = tokenizer()
    sizes: dict[str, Any] = dict(
        vocab_size=made.get_vocab_size(),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    config = getattr(transformers, f"{recipe.llm}Config")(**(sizes | dict(recipe.llm_options)))
    model = getattr(transformers, f"{recipe.llm.removesuffix('Text')}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 2.5 * parameter.shape[1] ** -0.5)
    model.save_pretrained(folder)
    made.save(str(folder / "tokenizer.json"))
    said = dict(tokenizer_class="PreTrainedTokenizerFast", bos_token="<s>", eos_token="</s>")
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    return model


def adapter(recipe: Recipe, llm: nn.Module) -> dict[str, Tensor]:
    """Adapter tensors under the names that a SALMONN checkpoint gives them."""
    if not recipe.adapter:
        return {}
    import peft

    targets = ["q_proj", "v_proj"]
    if recipe.adapter == "lora":
        config: Any = peft.LoraConfig(r=4, lora_alpha=16, target_modules=targets)
    else:
        config = peft.VBLoRAConfig(
            r=4, num_vectors=16, vector_length=16, topk=2, target_modules=targets
        )
    with warnings.catch_warnings():  # peft asks transformers by a name that is going away
        warnings.simplefilter("ignore", FutureWarning)
        wrapped: Any = peft.get_peft_model(llm, config)  # pyright: ignore
    shared: dict[int, Tensor] = {}  # VB-LoRA saves its one bank of vectors under many names
    for tensor in (t for n, t in wrapped.state_dict().items() if "lora_" in n):
        shared[tensor.data_ptr()] = 0.2 * torch.randn(tensor.shape)
    return {
        f"llama_model.{name}": shared[tensor.data_ptr()]
        for name, tensor in wrapped.state_dict().items()
        if "lora_" in name
    }
