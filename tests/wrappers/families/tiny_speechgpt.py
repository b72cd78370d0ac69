"""A SpeechGPT with few and random weights, put together of transformers' own models.

Its units and its prompt are computed here by other code than is exported: `Original`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch
import yaml
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModel, LlamaConfig, LlamaForCausalLM

from wrappers.checkpoint.speechgpt_files import META

UNITS, PIECES = 20, 320
NAMED = ("<sosp>", "<eosp>", "[Human]", "[SpeechGPT]", "<eoh>", "<eos>")
WORDS = "You are an AI assistant, please transcribe the speech. This is input: what is it?\n"
SIZES: dict[str, Any] = dict(hidden_size=24, intermediate_size=40, num_hidden_layers=3)
SIZES |= dict(num_attention_heads=3, conv_dim=(12,) * 7, num_conv_pos_embedding_groups=4)
LLM: dict[str, Any] = dict(hidden_size=36, intermediate_size=52, num_hidden_layers=2)
LLM |= dict(num_attention_heads=6, num_key_value_heads=2, max_position_embeddings=8192)
LLM |= dict(initializer_range=0.15)


def config(folder: Path, **said: Any) -> Path:
    """A folder with a config.yaml that says this of `speechgpt`; None is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    section = {
        key: str(v) if isinstance(v, Path) else v for key, v in said.items() if v is not None
    }
    (folder / "config.yaml").write_text(yaml.safe_dump({"speechgpt": section}))
    return folder


def make(
    folder: Path,
    *,
    lora: bool = True,
    normalize: bool = False,
    layer: int = 2,
    seed: int = 0,
    kind: str = "hubert",
    hubert: dict[str, Any] | None = None,
    llm: dict[str, Any] | None = None,
) -> Path:
    """A checkpoint of three folders and a file, named by a config.yaml; `kind` is its encoder's."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    speech: Any = AutoModel.from_config(AutoConfig.for_model(kind, **SIZES | (hubert or {})))
    speech.save_pretrained(folder / "hubert")
    extractor = dict(sampling_rate=16000, do_normalize=normalize)
    (folder / "hubert" / "preprocessor_config.json").write_text(json.dumps(extractor))
    noise = 0.3 * torch.randn(1, 40_000)
    with torch.no_grad():
        states = speech.eval()(noise, output_hidden_states=True).hidden_states[layer][0]
    np.save(folder / "km.npy", states[torch.randperm(len(states))[:UNITS]].numpy())
    vocab = _tokenizer(folder / "llm")
    settings: dict[str, Any] = LLM | dict(
        vocab_size=vocab, bos_token_id=1, eos_token_id=2, pad_token_id=0
    )
    model: Any = LlamaForCausalLM(LlamaConfig(**settings | (llm or {})))
    with torch.no_grad():
        model.get_input_embeddings().weight.normal_(0, 0.5)
    model.save_pretrained(folder / "llm")
    if lora:
        tuned: Any = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
        with torch.no_grad():
            for name, weight in tuned.named_parameters():
                if "lora_B" in name:
                    weight.normal_(0, 0.2)
        tuned.save_pretrained(folder / "lora")
    paths = dict(llama_path="llm", hubert_path="hubert", km_path="km.npy", layer=layer)
    return config(folder, **paths, lora_path="lora" if lora else None)


def _tokenizer(folder: Path) -> int:
    """A sentencepiece model of its own with the tokens that the original adds; its size."""
    folder.mkdir()
    (folder / "text.txt").write_text((WORDS + META) * 20)
    settings: dict[str, Any] = dict(byte_fallback=True, model_type="bpe", hard_vocab_limit=False)
    settings |= dict(remove_extra_whitespaces=False, normalization_rule_name="identity")
    sentencepiece.SentencePieceTrainer.train(  # pyright: ignore
        input=str(folder / "text.txt"),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=PIECES,
        minloglevel=2,
        **settings,
    )
    encoder: Any = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    first = encoder.get_piece_size()
    names = [*(f"<{i}>" for i in range(UNITS)), *NAMED]
    added = {name: first + i for i, name in enumerate(names)}
    (folder / "added_tokens.json").write_text(json.dumps(added))
    plain = dict(tokenizer_class="LlamaTokenizer", legacy=None, bos_token="<s>", eos_token="</s>")
    (folder / "tokenizer_config.json").write_text(json.dumps(plain | {"unk_token": "<unk>"}))
    return first + len(names)


class Original:
    """As the authors' code does it: units, text, the tokens of transformers 4.33, `generate`."""

    def __init__(self, folder: Path) -> None:
        said = yaml.safe_load((folder / "config.yaml").read_text())["speechgpt"]
        self.layer = said["layer"]
        self.speech: Any = AutoModel.from_pretrained(folder / "hubert").eval()
        plain = json.loads((folder / "hubert" / "preprocessor_config.json").read_text())
        self.normalize = plain["do_normalize"]
        self.centres = torch.from_numpy(np.load(folder / "km.npy"))
        model: Any = LlamaForCausalLM.from_pretrained(folder / "llm")
        if "lora_path" in said:
            model = PeftModel.from_pretrained(model, folder / "lora")
        self.llm = model.eval()
        self.pieces: Any = sentencepiece.SentencePieceProcessor(
            model_file=str(folder / "llm" / "tokenizer.model")
        )
        self.added = json.loads((folder / "llm" / "added_tokens.json").read_text())

    @torch.no_grad()
    def units(self, pcm: np.ndarray) -> str:
        """`<sosp><12><7>...<eosp>` of a clip."""
        x = torch.from_numpy(pcm)[None]
        x = torch.nn.functional.layer_norm(x, x.shape) if self.normalize else x
        states = self.speech(x, output_hidden_states=True).hidden_states[self.layer][0]
        far = torch.cdist(states.double(), self.centres.double())
        units = far.argmin(1).tolist()
        kept = [u for i, u in enumerate(units) if not i or units[i - 1] != u]
        return "<sosp>" + "".join(f"<{u}>" for u in kept) + "<eosp>"

    def ids(self, words: str, *clips: np.ndarray) -> list[int]:
        """A prompt's tokens; each `<audio>` in the words is the next clip."""
        heard = iter(clips)
        words = re.sub("<audio>", lambda _: self.units(next(heard)), words)
        text = f"{META}[Human]: {words} <eoh>. [SpeechGPT]: "
        ids, at = [1], 0
        for match in re.finditer(r"<\d+>|<sosp>|<eosp>|\[Human\]|\[SpeechGPT\]|<eoh>|<eos>", text):
            ids += self.pieces.encode(text[at : match.start()].strip())
            ids.append(self.added[match[0]])
            at = match.end()
        return ids + self.pieces.encode(text[at:].lstrip())

    @torch.no_grad()
    def answer(self, words: str, *clips: np.ndarray, most: int = 32) -> list[int]:
        """The tokens that `generate` chooses, greedily."""
        ids = torch.tensor([self.ids(words, *clips)])
        made = self.llm.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=most,
            pad_token_id=0,
            eos_token_id=2,
        )
        return made[0, ids.shape[1] :].tolist()
