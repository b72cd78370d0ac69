"""Joint vocabularies with few and random weights, put together of transformers' own models.

Features, units and prompts are computed here by other code than is exported: `Original`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    HubertConfig,
    HubertModel,
    WhisperFeatureExtractor,
)

from tests.wrappers.families import tiny_speechgpt
from wrappers.checkpoint.speechgpt_files import META

WORDS = "[ASR English] What is said? Which is longer? And now? Transcribe it. User: Bot: \n"
LLM: dict[str, Any] = dict(hidden_size=36, intermediate_size=52, num_hidden_layers=2)
LLM |= dict(num_attention_heads=6, num_key_value_heads=2, max_position_embeddings=4096)
LLM |= dict(initializer_range=0.15, bos_token_id=0, eos_token_id=1, pad_token_id=1)
LARGE: dict[str, Any] = dict(
    do_stable_layer_norm=True, feat_extract_norm="layer", conv_bias=True, num_conv_pos_embeddings=19
)
TASKS = {"transcribe": "[ASR English] <audio>", "which": "[ASR] <audio> Which is longer?"}
WINDOW = 6  # seconds


@dataclass(frozen=True)
class Made:
    """What a checkpoint is made of; `said` goes into its config.yaml beside the paths."""

    said: dict[str, Any]
    llm: dict[str, Any]
    hubert: dict[str, Any] | None = field(default_factory=dict)  # None: units of mel frames
    normalize: bool = False
    units: int = 23
    named: str = ""  # of units in the LLM's tokenizer
    behind: int = 0  # rows of the table that nothing uses
    generation: dict[str, Any] = field(default_factory=dict)
    seed: int = 0


MADE: dict[str, Made] = {
    # AudioPaLM's shape: an offset, a tied table, every unit, no tokens around a clip.
    "audiopalm": Made(
        said=dict(layer=2, audio_answers="masked"),
        llm=LLM | dict(model_type="llama", tie_word_embeddings=True),
    ),
    # Units by name between two tokens, repeats merged; they may be answered.
    "named": Made(
        said=dict(
            layer=1,
            units="[Hu{}]",
            begin="[Speech]",
            end="[Text]",
            dedup=True,
            audio_answers="written",
            turn="{}<audio>",
            stop="Z~",
        ),
        llm=LLM
        | dict(model_type="qwen2", hidden_size=42, tie_word_embeddings=False)
        | dict(num_attention_heads=3, num_key_value_heads=1),
        hubert=LARGE,
        normalize=True,
        named="[Hu{}]",
        behind=3,
        generation=dict(repetition_penalty=1.1),
        seed=1,
    ),
    # Mel frames, a scaled table with rows behind the units, turns after the first.
    "mel": Made(
        said=dict(
            kind="mel_kmeans",
            mel_bins=21,
            stack=3,
            audio_answers="written",
            start="Listen.\n",
            turn="User: {} <audio>\nBot:",
            answer_end="\n",
        ),
        llm=LLM
        | dict(model_type="gemma2", head_dim=10, query_pre_attn_scalar=10, sliding_window=4096)
        | dict(tie_word_embeddings=True, hidden_size=30),
        hubert=None,
        units=31,
        behind=5,
        seed=2,
    ),
}


def make(folder: Path, made: Made = MADE["audiopalm"], **said: Any) -> Path:
    """A checkpoint of folders and a file, named by a config.yaml; `said` goes before its own."""
    torch.manual_seed(made.seed)
    folder.mkdir(parents=True, exist_ok=True)
    plain: dict[str, Any] = dict(llama_path="llm", km_path="km.npy", window_seconds=WINDOW)
    plain |= dict(bos="<s>", tasks=TASKS) | made.said
    if made.hubert is not None:
        sizes = tiny_speechgpt.SIZES | made.hubert
        HubertModel(HubertConfig(**sizes)).save_pretrained(folder / "hubert")
        extractor = dict(sampling_rate=16000, do_normalize=made.normalize)
        (folder / "hubert" / "preprocessor_config.json").write_text(json.dumps(extractor))
        plain["hubert_path"] = "hubert"
    text = tokenizer(folder / "llm", made)
    if not made.named:
        plain["offset"] = text
    rows = text + (0 if made.named else made.units) + made.behind
    config = AutoConfig.for_model(**made.llm, vocab_size=rows)
    model: Any = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        model.get_input_embeddings().weight.normal_(0, 0.5)
    for name, value in made.generation.items():
        setattr(model.generation_config, name, value)
    model.save_pretrained(folder / "llm")
    written(folder, plain | said)
    noise = 0.3 * np.random.default_rng(0).normal(size=60_000).astype(np.float32)
    heard = Ears(folder).features(noise)
    np.save(folder / "km.npy", heard[torch.randperm(len(heard))[: made.units]].numpy())
    return folder


def written(folder: Path, said: dict[str, Any], **sections: Any) -> Path:
    """A folder whose config.yaml says this of `joint_vocab`; None is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = {"joint_vocab": {k: v for k, v in said.items() if v is not None}} | sections
    (folder / "config.yaml").write_text(yaml.safe_dump(plain))
    return folder


def said_in(folder: Path) -> dict[str, Any]:
    """What a folder's config.yaml says."""
    return yaml.safe_load((folder / "config.yaml").read_text())["joint_vocab"]


def tokenizer(folder: Path, made: Made) -> int:
    """A tokenizer of byte pairs in the folder; its size, named units in it."""
    folder.mkdir(exist_ok=True)
    known = Tokenizer(models.BPE())
    known.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    known.decoder = decoders.ByteLevel()  # pyright: ignore
    trainer = trainers.BpeTrainer(
        vocab_size=290,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    known.train_from_iterator([WORDS] * 4, trainer)
    if made.named:
        names = ["[Speech]", *(made.named.format(i) for i in range(made.units)), "[Text]"]
        known.add_tokens([AddedToken(name, special=False, normalized=False) for name in names])
    known.save(str(folder / "tokenizer.json"))
    return known.get_vocab_size()


class Ears:
    """A clip's feature vectors, as transformers has them."""

    def __init__(self, folder: Path) -> None:
        self.said = said_in(folder)
        self.hubert: Any = None
        if "hubert_path" in self.said:
            self.hubert = HubertModel.from_pretrained(folder / "hubert").eval()
            plain = json.loads((folder / "hubert" / "preprocessor_config.json").read_text())
            self.normalize = plain["do_normalize"]
        else:
            self.extractor = WhisperFeatureExtractor(feature_size=self.said["mel_bins"])

    @torch.no_grad()
    def features(self, pcm: np.ndarray) -> Tensor:
        """[samples] -> [frames, width]."""
        if self.hubert is not None:
            x = torch.from_numpy(np.pad(pcm, (0, max(0, 400 - len(pcm)))))[None]
            x = torch.nn.functional.layer_norm(x, x.shape) if self.normalize else x
            return self.hubert(x, output_hidden_states=True).hidden_states[self.said["layer"]][0]
        stack = self.said["stack"]
        pcm = np.pad(pcm, (0, max(0, 160 * stack - len(pcm))))
        settings: dict[str, Any] = dict(sampling_rate=16000, padding=True, truncation=False)
        heard: Any = self.extractor(pcm, return_tensors="pt", **settings)
        frames = heard.input_features[0].T
        frames = frames - frames.mean(0)
        return torch.stack([x.flatten() for x in frames.split(stack) if len(x) == stack])


class Original:
    """A clip's units among the tokens of a prompt, and `generate`."""

    def __init__(self, folder: Path) -> None:
        self.said, self.ears = said_in(folder), Ears(folder)
        self.centres = torch.from_numpy(np.load(folder / "km.npy")).double()
        self.llm: Any = AutoModelForCausalLM.from_pretrained(folder / "llm").float().eval()
        self.tokenizer = Tokenizer.from_file(str(folder / "llm" / "tokenizer.json"))

    @cached_property
    def first(self) -> int:
        """The token of unit 0."""
        if "offset" in self.said:
            return self.said["offset"]
        return self.tokenizer.get_vocab()[self.said["units"].format(0)]

    def units(self, pcm: np.ndarray) -> list[int]:
        """The clip's units as tokens."""
        found = torch.cdist(self.ears.features(pcm).double(), self.centres).argmin(1).tolist()
        if self.said.get("dedup"):
            found = [u for i, u in enumerate(found) if not i or found[i - 1] != u]
        return [self.first + unit for unit in found]

    def ids(self, turns: Sequence[tuple[str, Sequence[np.ndarray], Sequence[int]]]) -> list[int]:
        """A conversation's tokens: words, in which clips may have places, clips and answers."""
        around = (self.said.get("begin", ""), self.said.get("end", ""))
        form, ids, text = self.said.get("turn", "{} <audio>"), [0], self.said.get("start", "")
        for i, (words, clips, answer) in enumerate(turns):
            place = "" if "<audio>" in words else "<audio>" * len(clips)
            turn = form if place else form.replace(" <audio>", "<audio>")
            text += turn.replace("<audio>", place).replace("{}", words)
            first, *rest = text.split("<audio>")
            pieces = [first, *(around[1] + piece for piece in rest)]
            for piece, clip in zip(pieces[:-1], clips, strict=True):
                ids += self._text(piece + around[0]) + self.units(clip)
            ids += self._text(pieces[-1])
            if i + 1 < len(turns):
                ids += [token for token in answer if token != 1]
                text = self.said.get("answer_end", "")
        return ids

    @torch.no_grad()
    def answer(
        self,
        *turns: tuple[str, Sequence[np.ndarray], Sequence[int]],
        most: int = 32,
    ) -> list[int]:
        """The tokens that `generate` chooses, greedily."""
        ids = torch.tensor([self.ids(turns)])
        masked = self.said.get("audio_answers", "masked") == "masked"
        held = range(self.first, self.first + len(self.centres)) if masked else ()
        made = self.llm.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=most,
            suppress_tokens=[*held] or None,
        )
        return made[0, ids.shape[1] :].tolist()

    def _text(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids


def speechgpt(folder: Path) -> Path:
    """The config.yaml by which this family reads the SpeechGPT in `folder`, as `joint.yaml`."""
    said = yaml.safe_load((folder / "config.yaml").read_text())["speechgpt"]
    said |= dict(units="<{}>", begin="<sosp>", end="<eosp>", dedup=True, legacy=True, bos="<s>")
    said |= dict(start=META, turn="[Human]: {}<audio> <eoh>. [SpeechGPT]: ", stop="<eoa>")
    said |= dict(audio_answers="written", window_seconds=12)
    words = ("please transcribe the speech.", "Try to repeat this speech,")
    names = ("transcribe", "repeat")
    said["tasks"] = {n: f"{w} This is input:" for n, w in zip(names, words, strict=True)}
    file = folder / "joint.yaml"
    file.write_text(yaml.safe_dump({"joint_vocab": said}))
    return file
