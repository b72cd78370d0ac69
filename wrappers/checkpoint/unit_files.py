"""A tokenizer of sound on disk: HuBERT's folder and k-means centres, and an LLM that reads units.

Settings name them: `hubert_path`, `layer`, `km_path`, `llama_path`, `lora_path`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from alm.errors import BadCheckpoint, MissingFile
from wrappers import Wrapper
from wrappers.bridges.kmeans import KMeans
from wrappers.checkpoint import llm_files
from wrappers.checkpoint.adapters import adapter_faults, peft_folder
from wrappers.checkpoint.adapters.contract import Adapter
from wrappers.checkpoint.llm_files import TABLE
from wrappers.checkpoint.named_folders import Folders
from wrappers.checkpoint.plain_files import extractor, read_json, refuse_pointer
from wrappers.checkpoint.weights.fit import faults, unknown
from wrappers.checkpoint.weights.hollow import attach, hollow
from wrappers.checkpoint.weights.tensors import Weights, open_folder
from wrappers.encoders import hubert
from wrappers.encoders.hubert import Hubert

LAYER = 11  # of mHuBERT, of which it has 12
NORMALIZE_EPS = 1e-5  # fairseq's layer_norm over the samples
PREFIXES = ("hubert.", "wav2vec2.", "wavlm.", "")
TO_NPY = (
    "python -c \"import joblib, numpy; numpy.save('km.npy', joblib.load('{}').cluster_centers_)\""
)
# Of HuBERT's training, and its layers behind the one that is asked for.
UNUSED = (
    r"^masked_spec_embed$",
    r"^(final_proj|label_embs_concat|lm_head|quantizer|project_hid|project_q|projector|classifier)",
    r"^encoder\.(layer_norm|layers\.\d+)\.",
    r"^encoder\.pos_conv_embed\.conv\.(weight_[gv]|parametrizations\.weight\.original[01])$",
)


class UnitFiles(Folders):
    """One checkpoint on disk; each property is read once, on first use."""

    @property
    def most_samples(self) -> int:
        """Samples of the longest clip that is heard at once."""
        raise NotImplementedError

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

    def unit_tokens(
        self, known: Tokenizer, name: str, others: Iterable[str], file: Path
    ) -> tuple[int, int]:
        """How many units there are, and the token of the first.

        Args:
            known: the LLM's tokenizer.
            name: of a unit's token, `<{}>`.
            others: tokens that the prompt needs.
            file: where tokens come from, for messages.

        Raises:
            BadCheckpoint: one of them is no token of the LLM, or units do not follow each other.
        """
        count = self.centres.shapes["centres"][0]
        names = [name.replace("{}", str(i)) for i in range(count)]
        numbers = {token: known.token_to_id(token) for token in (*others, *names)}
        odd = [n for n, i in numbers.items() if i is None or i >= self.spec.vocab]
        if odd:
            raise BadCheckpoint(
                f"{file} has no token {odd[0]} below the {self.spec.vocab} of the LLM, and "
                f"{self.path('km_path')} has {count} units"
            )
        first = int(numbers[names[0]] or 0)
        apart = [i for i in range(count) if numbers[names[i]] != first + i]
        if apart:
            token = names[apart[0]]
            raise BadCheckpoint(
                f"{file} gives {token} the id {numbers[token]}; units must follow each other from "
                f"{names[0]} at {first} on"
            )
        return count, first

    # --- parts

    def build_hubert(self) -> Hubert:
        """HuBERT without memory, for names and shapes."""
        config, layer, eps, most = self.hubert_config, self.layer, self.normalize, self.most_samples
        return hollow(lambda: Hubert(config, layer, most, normalize=eps))

    def hubert(self) -> Wrapper:
        return attach(self.build_hubert(), self.hubert_weights)

    def kmeans(self) -> Wrapper:
        return attach(hollow(lambda: KMeans(*self.centres.shapes["centres"])), self.centres)

    def decoder(self) -> Wrapper:
        return llm_files.decoder(self.spec, self.llm_weights, self.adapter)

    def embedding(self) -> Tensor:
        """The table [vocab, hidden], in which units have rows like all tokens."""
        table = llm_files.adapted(self.spec, self.llm_weights, self.adapter)[TABLE]
        return llm_files.scaled(table, self.spec)

    # --- what is wrong with them

    def hubert_faults(self) -> list[str]:
        """Weights of HuBERT that are missing, misshapen or unknown, or of another width."""
        speech, weights, where = self.build_hubert(), self.hubert_weights, self.path("hubert_path")
        wrong = faults(speech, weights.shapes, weights.where)
        wrong += unknown(weights, speech.state_dict(), UNUSED, "HuBERT")
        width, wanted = self.centres.shapes["centres"][1], self.hubert_config["hidden_size"]
        if width != wanted:
            wrong.append(f"{where} is {wanted} wide, but {self.centres.where} was made of {width}")
        return wrong

    def llm_faults(self) -> list[str]:
        """Weights of the LLM, or of its adapter, that are missing, misshapen or unknown."""
        wrong = llm_files.faults(self.spec, self.llm_weights)
        if self.adapter:
            wrong += adapter_faults.faults(llm_files.with_table(self.spec), self.adapter)
        return wrong
