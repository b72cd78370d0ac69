"""What a SpeechGPT checkpoint consists of on disk: config, HuBERT, centres, LLaMA and its LoRA."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from alm.errors import BadCheckpoint, MissingFile
from alm.facts import TokenFacts, UnitFacts
from wrappers.checkpoint.adapters import peft_folder
from wrappers.checkpoint.adapters.contract import Adapter
from wrappers.checkpoint.named_folders import Folders
from wrappers.checkpoint.plain_files import extractor, read_json, refuse_pointer
from wrappers.checkpoint.text import generation_fields, legacy_pieces
from wrappers.checkpoint.weights.tensors import Weights, open_folder
from wrappers.encoders import hubert

SECTION = "speechgpt"
PATHS = ("llama_path", "hubert_path", "km_path")
KEYS = (*PATHS, "lora_path", "layer")
LAYER = 11  # of the original's mHuBERT, of which it has 12
OPEN, CLOSE, UNIT = "<sosp>", "<eosp>", "<{}>"
ANSWER_ENDS = "<eoa>"
TURN = "[Human]: {}{clips} <eoh>. [SpeechGPT]: "
META = """\
You are an AI assistant whose name is SpeechGPT.
- SpeechGPT is a intrinsic cross-modal conversational language model that is developed by Fudan \
University.  SpeechGPT can understand and communicate fluently with human through speech or text \
chosen by the user.
- It can perceive cross-modal inputs and generate cross-modal outputs.
"""
NORMALIZE_EPS = 1e-5  # fairseq's layer_norm over the samples
PREFIXES = ("hubert.", "wav2vec2.", "")
TO_NPY = (
    "python -c \"import joblib, numpy; numpy.save('km.npy', joblib.load('{}').cluster_centers_)\""
)


class SpeechGptFiles(Folders):
    """One checkpoint on disk; each property is read once, on first use."""

    @cached_property
    def settings(self) -> dict[str, Any]:
        return self.section(SECTION)

    @cached_property
    def layer(self) -> int:
        """The layer of HuBERT whose output is made into units."""
        layer = self.settings.get("layer", LAYER)
        if type(layer) is not int:
            raise BadCheckpoint(f"{self.file} says layer: {layer!r:.60}; it counts layers")
        return layer

    @cached_property
    def hubert_config(self) -> dict[str, Any]:
        folder = self.path("hubert_path")
        if not folder.is_dir():
            raise BadCheckpoint(
                f"hubert_path {folder} is no folder; wanted is the one that transformers' "
                "convert_hubert_original_pytorch_checkpoint_to_pytorch.py makes of fairseq's file"
            )
        if peft_folder.is_beside(folder):
            raise BadCheckpoint(f"{folder} holds a PEFT adapter; {peft_folder.MERGE}")
        file = folder / "config.json"
        return hubert.known(read_json(file), str(file))

    @cached_property
    def normalize(self) -> float:
        """The epsilon by which a clip is normalized; 0: it is not."""
        file, plain = extractor(self.path("hubert_path"))
        if plain.get("sampling_rate", hubert.RATE) != hubert.RATE:
            raise BadCheckpoint(
                f"{file} says sampling_rate: {plain['sampling_rate']!r:.60}, and units are made of "
                f"{hubert.RATE} samples a second"
            )
        wanted = plain.get("do_normalize", False)
        if not isinstance(wanted, bool):
            raise BadCheckpoint(
                f"{file} says do_normalize: {wanted!r:.60}; true or false is wanted"
            )
        return NORMALIZE_EPS if wanted else 0.0

    @cached_property
    def hubert_weights(self) -> Weights:
        return hubert.folded(open_folder(self.path("hubert_path")).under(*PREFIXES))

    @cached_property
    def centres(self) -> Weights:
        """`centres` [units, width], of an .npy or a safetensors file that holds nothing else.

        Raises:
            MissingFile: a Git LFS pointer.
            BadCheckpoint: joblib's pickle, which is code, or no matrix of finite floats.
        """
        path = self.path("km_path")
        refuse_pointer(path)
        if path.suffix == ".safetensors":
            stored = Weights(str(path))
            stored.add_safetensors(path)
            if len(stored.shapes) != 1:
                raise BadCheckpoint(f"{path} holds {len(stored.shapes)} tensors; one is wanted")
            [values] = stored.take().values()
        elif path.suffix == ".npy":
            try:
                values = torch.from_numpy(np.load(path, allow_pickle=False))
            except (ValueError, TypeError, OSError, EOFError) as error:
                raise BadCheckpoint(f"{path} is no array of numbers: {error!s:.200}") from error
        else:
            raise BadCheckpoint(
                f"{path} is not .npy or .safetensors; a pickle of joblib is code and is not run "
                f"here. Where you trust it: {TO_NPY.format(path)}"
            )
        if values.ndim != 2 or not values.is_floating_point() or not values.isfinite().all():
            raise BadCheckpoint(
                f"{path} is {values.dtype} {list(values.shape)}; wanted are finite centres "
                "[units, width]"
            )
        held = Weights(str(path))
        held.add_tensors({"centres": values.float()})
        return held

    @cached_property
    def adapter(self) -> Adapter | None:
        """The LoRA of lora_path, or of the LLM's own folder."""
        if not self.settings.get("lora_path"):
            return self.one_adapter(None)
        folder = self.path("lora_path")
        if not peft_folder.is_beside(folder):
            raise MissingFile(f"lora_path {folder} holds no {peft_folder.CONFIG}")
        return self.one_adapter(peft_folder.read(folder))

    @cached_property
    def tokenizer(self) -> Tokenizer:
        filled = META + TURN.replace("{clips}", OPEN + CLOSE)
        texts = (filled.replace("{}", "what is this? This is input:"), f"{OPEN}<1><1>{CLOSE} a")
        return legacy_pieces.tokenizer(self.path("llama_path"), texts)

    @cached_property
    def units(self) -> UnitFacts:
        """The tokens of units, which must follow each other.

        Raises:
            BadCheckpoint: one of them, or of the tokens of the prompt, is no token of the LLM.
        """
        count, known = self.centres.shapes["centres"][0], self.tokenizer
        file = self.path("llama_path") / legacy_pieces.ADDED
        needed = (OPEN, CLOSE, "[Human]", "[SpeechGPT]", "<eoh>")
        names = (*needed, *(UNIT.format(i) for i in range(count)))
        numbers = {name: known.token_to_id(name) for name in names}
        odd = [n for n, i in numbers.items() if i is None or i >= self.spec.vocab]
        if odd:
            raise BadCheckpoint(
                f"{file} has no token {odd[0]} below the {self.spec.vocab} of the LLM, and "
                f"{self.path('km_path')} has {count} units"
            )
        first = int(numbers[UNIT.format(0)] or 0)
        apart = [i for i in range(count) if numbers[UNIT.format(i)] != first + i]
        if apart:
            name = UNIT.format(apart[0])
            raise BadCheckpoint(
                f"{file} gives {name} the id {numbers[name]}; units must follow each other from "
                f"{UNIT.format(0)} at {first} on"
            )
        return UnitFacts(count=count, first=first, merged=True)

    @cached_property
    def tokens(self) -> TokenFacts:
        """Where a conversation begins and an answer ends; `generate` is given ids."""
        folder, config = self.path("llama_path"), self.spec.config
        file, plain = generation_fields.in_folder(folder)
        end = plain.get("eos_token_id", config.eos_token_id)
        ends = [int(i) for i in (end if isinstance(end, list) else [end]) if i is not None]
        if not ends or config.bos_token_id is None:
            raise BadCheckpoint(f"{folder} does not say bos_token_id and eos_token_id")
        stops = (*generation_fields.stop_strings(plain, file), ANSWER_ENDS)
        return TokenFacts(int(config.bos_token_id), tuple(ends), stops, penalize_prompt=True)
