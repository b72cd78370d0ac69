"""Write the trained model in SALMONN's own format, in float16: all that such a checkpoint holds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml
from safetensors.torch import save_file
from torch import Tensor

from demo.compose import WINDOW_SECONDS
from demo.data import MELS, PER_WINDOW
from demo.model import BEATS, BRIDGE_HEADS, WHISPER, Hearing, llama


def write(net: Hearing, folder: Path, rank: int, alpha: int) -> Path:
    """The whole checkpoint; beside, then renamed. Returns the path of its config.yaml."""
    site = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(site, ignore_errors=True)
    site.mkdir(parents=True)
    _whisper(net, site / "whisper")
    torch.save({"cfg": BEATS, "model": beats_state(net)}, site / "beats.pt")
    _llm(net, site / "llm")
    trained = _half(net.qformer.state_dict()) | lora_state(net)
    torch.save({"model": trained, "config": {}, "epoch": 0}, site / "salmonn.pth")
    config = yaml.safe_dump(_config(rank, alpha), sort_keys=False)
    (site / "config.yaml").write_text(config, "utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    site.rename(folder)
    return folder / "config.yaml"


def _half(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().half().contiguous() for name, tensor in state.items()}


def _config(rank: int, alpha: int) -> dict[str, Any]:
    seconds = PER_WINDOW / 50  # 50 encoder frames a second
    model: dict[str, Any] = dict(
        llama_path="llm",
        whisper_path="whisper",
        beats_path="beats.pt",
        ckpt="salmonn.pth",
        use_speech_Qformer=True,
        window_level_Qformer=True,
        num_speech_query_token=1,
        qformer_heads=BRIDGE_HEADS,
        second_per_window=seconds,
        second_stride=seconds,
        lora=True,
        lora_rank=rank,
        lora_alpha=alpha,
        prompt_template="USER: {}\nASSISTANT:",
        end_sym="</s>",
    )
    generate = dict(max_new_tokens=32, num_beams=1, do_sample=False, min_length=1)
    return {"model": model, "generate": generate}


def _whisper(net: Hearing, folder: Path) -> None:
    folder.mkdir()
    WHISPER.save_pretrained(folder)
    state = {f"encoder.{name}": t for name, t in _half(net.whisper.state_dict()).items()}
    save_file(state, folder / "model.safetensors")
    extractor = transformers.WhisperFeatureExtractor(feature_size=MELS, chunk_length=WINDOW_SECONDS)
    extractor.save_pretrained(folder)


def beats_state(net: Hearing) -> dict[str, Tensor]:
    """BEATs' weights under the original's names: what our part folds is unfolded again.

    The positional convolution gets its weight norm back (one norm for each tap), the gate its
    eight outputs (each of our two, shared out over four), and every layer the one table.
    """
    state = dict(net.beats.state_dict())
    weight = state.pop("encoder.pos_conv.0.weight")
    state["encoder.pos_conv.0.weight_g"] = weight.norm(dim=(0, 1), keepdim=True)
    state["encoder.pos_conv.0.weight_v"] = weight
    table = state.pop("encoder.relative_attention_bias.weight")
    for i in range(BEATS["encoder_layers"]):  # pyright: ignore
        layer = f"encoder.layers.{i}.self_attn"
        state[f"{layer}.relative_attention_bias.weight"] = table
        for kind in ("weight", "bias"):
            gate = f"{layer}.grep_linear.{kind}"
            state[gate] = (state[gate] / 4).repeat_interleave(4, 0)
    buffers = {name for name, _ in net.beats.named_buffers()}
    return _half({name: tensor for name, tensor in state.items() if name not in buffers})


def _llm(net: Hearing, folder: Path) -> None:
    config = llama(net.tokenizer.get_vocab_size())
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    state = {
        name.replace(".base_layer", ""): tensor
        for name, tensor in net.decoder.state_dict().items()
        if "lora_" not in name and name.startswith("model.")
    }
    state["model.embed_tokens.weight"] = net.decoder.lm_head.weight  # tied
    save_file(_half(state), folder / "model.safetensors", metadata={"format": "pt"})
    net.tokenizer.save(str(folder / "tokenizer.json"))
    said = dict(tokenizer_class="PreTrainedTokenizerFast", bos_token="<s>", eos_token="</s>")
    (folder / "tokenizer_config.json").write_text(json.dumps(said))


def lora_state(net: Hearing) -> dict[str, Tensor]:
    """LoRA's tensors as peft names them in a wrapped LLM."""
    state = {n: t for n, t in net.decoder.state_dict().items() if "lora_" in n}
    return _half({f"llama_model.base_model.model.{name}": t for name, t in state.items()})
