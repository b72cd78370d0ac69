"""What an audio-llm checkpoint consists of on disk: config, projector and LoRA, Whisper, Llama."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from tokenizers import AddedToken, Tokenizer
from torch import Tensor

from alm.errors import BadCheckpoint
from alm.facts import TokenFacts
from wrappers.checkpoint.adapters import contract
from wrappers.checkpoint.adapters.contract import Adapter
from wrappers.checkpoint.named_folders import Folders
from wrappers.checkpoint.text import generation_fields, tokenizer_files
from wrappers.checkpoint.weights.tensors import Weights, load_pickled

SECTION, PATHS = "audio_llm", ("llama_path", "whisper_path", "checkpoint_path")
SAVED = ("projector", "lora_layers")
LORA_ALPHA = 16  # in the original's code, whatever the rank
OPEN, CLOSE = "<audio>", "</audio>"
TASKS = {
    "transcribe": "Please transcribe this audio recording.",  # one of those trained with
    "describe": "Describe this sound:",
}


class AudioFiles(Folders):
    """One checkpoint on disk; each property is read once, on first use."""

    @cached_property
    def settings(self) -> dict[str, Any]:
        section = self.section(SECTION)
        return {**section, "ckpt": section.get("checkpoint_path")}  # the fingerprint's key

    @cached_property
    def trained(self) -> Weights:
        """projector.NAME, lora_layers.MODULE.lora_A and lora_layers.MODULE.lora_B."""
        path = self.path("checkpoint_path")
        weights = Weights(str(path))
        if path.suffix == ".safetensors":
            weights.add_safetensors(path)
            return weights
        plain = load_pickled(path)
        held = plain.get("model", plain) if isinstance(plain, dict) else None
        if not isinstance(held, dict) or not set(SAVED) <= held.keys():
            raise BadCheckpoint(f"{path} holds no `projector` and `lora_layers` under `model`")
        if held is not plain and (more := [str(name) for name in held if name not in SAVED]):
            raise BadCheckpoint(f"{path} holds what is not known beside {SAVED}: {', '.join(more)}")
        tensors = dict(_flat({name: held[name] for name in SAVED}))
        if strange := [name for name, value in tensors.items() if not isinstance(value, Tensor)]:
            raise BadCheckpoint(f"{path} holds what is no tensor: {', '.join(strange)}")
        weights.add_tensors(tensors)
        return weights

    @cached_property
    def adapter(self) -> Adapter | None:
        """The LoRA of the checkpoint, or the adapter in the LLM's folder.

        y += 16 / rank * x A' B', A [rank, in] and B [out, rank], with the one rank of all modules.

        Raises:
            BadCheckpoint: a tensor that is no matrix, or of no adapter; or there are both.
        """
        tensors = self.trained.under("lora_layers.").take()
        ranks = [len(v) for k, v in tensors.items() if k.endswith(".lora_A") and v.ndim]
        settings = {"r": ranks[0] if ranks else 1, "lora_alpha": LORA_ALPHA}
        return self.one_adapter(contract.read(tensors, settings, self.trained.where))

    @property
    def widths(self) -> list[int]:
        """Of what the projector takes, of what is between its layers, and of what it gives."""
        shapes = self.trained.under("projector.layers.").shapes
        first, last = (shapes.get(f"{i}.weight", ()) for i in (0, 2))
        into = first[1] if len(first) == 2 else int(self.whisper_config["d_model"])
        out = last[0] if len(last) == 2 else self.spec.hidden
        return [into, first[0] if len(first) == 2 else (into + out) // 2, out]

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The LLM's own with the two tokens that the original adds.

        Raises:
            BadCheckpoint: it reads a text behind them in another way than alone.
        """
        folder = self.path("llama_path")
        known = Tokenizer.from_str(tokenizer_files.tokenizer_json(folder, TASKS.values()))
        known.add_special_tokens(
            [AddedToken(token, special=True, normalized=False) for token in (OPEN, CLOSE)]
        )
        before, after = around(known)
        for text in TASKS.values():
            within = known.encode(CLOSE + before + text + after, add_special_tokens=False).ids
            if within[1:] != known.encode(text).ids:
                raise BadCheckpoint(
                    f"the tokenizer in {folder} reads {text!r} behind {CLOSE} in another way than "
                    "alone, as the original does; put a tokenizer.json there that does not"
                )
        return known

    @property
    def added(self) -> int:
        """Rows that the LLM's own table lacks for the tokens that were added."""
        ids = [self.tokenizer.token_to_id(token) or 0 for token in (OPEN, CLOSE)]
        return max(0, max(ids) + 1 - self.spec.vocab)

    @cached_property
    def tokens(self) -> TokenFacts:
        """Where an answer ends: at the tokenizer's own end, as the original has `generate` do."""
        folder, end = self.path("llama_path"), self.spec.config.eos_token_id
        named = tokenizer_files.special_id(folder, self.tokenizer, "eos_token")
        given = end if named is None else named
        ends = [int(i) for i in (given if isinstance(given, list) else [given]) if i is not None]
        if not ends:
            raise BadCheckpoint(f"{folder} does not say eos_token_id")
        file, plain = generation_fields.in_folder(folder)
        stops = generation_fields.stop_strings(plain, file)
        return TokenFacts(None, tuple(ends), tuple(stops))


def _flat(held: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What checkpoint.pt holds by name: sections of tensors, of which LoRA's are in pairs."""
    for section, plain in held.items():
        if not isinstance(plain, Mapping):
            yield section, plain
            continue
        for name, value in plain.items():
            if isinstance(value, Mapping):
                yield from ((f"{section}.{name}.{leaf}", item) for leaf, item in value.items())
            else:
                yield f"{section}.{name}", value


def around(tokenizer: Tokenizer) -> tuple[str, str]:
    """The special tokens that a tokenizer puts before and after a text."""
    encoding = tokenizer.encode("a")
    real = [i for i, special in enumerate(encoding.special_tokens_mask) if not special]
    before, after = encoding.tokens[: real[0]], encoding.tokens[real[-1] + 1 :]
    return "".join(before), "".join(after)
