"""What a SALMONN checkpoint consists of on disk: its config, four sets of weights, their sizes."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

from torch import Tensor

from alm.errors import BadCheckpoint
from wrappers.bridges.qformer import Shape
from wrappers.checkpoint import pruned
from wrappers.checkpoint.adapters import contract, merging, salmonn
from wrappers.checkpoint.adapters.contract import Adapter
from wrappers.checkpoint.llm_files import HEAD, TABLE, named, on_meta
from wrappers.checkpoint.named_folders import Folders
from wrappers.checkpoint.weights.hollow import hollow
from wrappers.checkpoint.weights.tensors import Weights, load_pickled, state_dict
from wrappers.encoders import beats, whisper

WHOLE = ".modules_to_save."  # in the names of modules that peft trained whole
FRAME_RATE = 50  # encoder frames a second; the original hard-codes 1500 per 30 s
BERT_HEAD_DIM = 64  # of bert-base-uncased, which the original's Q-Former always is
SMALL_BERT_HEADS = 4  # of the reduced Q-Formers that are made for tests

# What training runs leave in the .pth and carries nothing trained: buffers, and the frozen twin of
# a module that peft trained whole.
IGNORED = (
    "rotary_emb.inv_freq",
    ".absmax",
    ".quant_map",
    ".nested_",
    ".quant_state.",
    ".original_module.",
)


# What else a .pth may hold that the original has no use for, as regular expressions.
UNUSED = (
    r"^speech_Qformer\.bert\.embeddings\.position_ids$",  # a buffer
    # Of words, which never go through the Q-Former; the original deletes them all.
    r"^speech_Qformer\.(cls|bert\.embeddings\.(word|position)_embeddings)\.",
    r"^speech_Qformer\.bert\.encoder\.layer\.\d+\.(intermediate|output)\.",
    *map(re.escape, IGNORED),
)


class Files(Folders):
    """One SALMONN checkpoint on disk; each property is read once, on first use."""

    @cached_property
    def trained(self) -> Weights:
        """The tensors of the .pth, `module.` cut off."""
        path = self.path("ckpt")
        weights = Weights(str(path))
        for given in (self.settings.get("speech_llama_proj_model"), self.settings["ckpt"]):
            if not given:
                continue
            file = self.beside(str(given)) or self.file.parent / str(given)
            if file.suffix == ".safetensors":
                weights.add_safetensors(file)
                continue
            state = state_dict(load_pickled(file))
            if not state:
                raise BadCheckpoint(f"{file} holds no state dict under `model`")
            weights.add_tensors(state)
        bare = weights.under("module.")
        return bare if bare.shapes else weights

    @cached_property
    def whisper_adapter(self) -> Adapter | None:
        """What the .pth holds of an adapter on Whisper.

        Raises:
            BadCheckpoint: `whisper_lora` and the weights contradict each other.
        """
        weights = self.trained.under("speech_encoder.")
        tensors = weights.take(n for n in weights.shapes if contract.is_adapter(n))
        pth = self.trained.where
        adapter = salmonn.read(tensors, self.settings, "whisper_", pth, self.file)
        wanted = self.settings.get("whisper_lora", bool(adapter))
        if bool(wanted) != bool(adapter):
            raise BadCheckpoint(
                f"{self.file} says whisper_lora: {wanted}, but {pth} "
                f"{'holds' if adapter else 'does not hold'} an adapter on speech_encoder"
            )
        return adapter

    @cached_property
    def whisper_plain(self) -> Weights:
        """Whisper's weights with those of the .pth in their place, without an adapter."""
        changed, trained = Weights(self.trained.where), self.trained.under("speech_encoder.")
        for name, shape in trained.shapes.items():
            if not contract.is_adapter(name) and not any(mark in name for mark in IGNORED):
                changed.add(base_name(name), shape, partial(trained.__getitem__, name))
        return self.whisper_folder.over(changed)

    @cached_property
    def whisper_weights(self) -> Weights:
        if not self.whisper_adapter:
            return self.whisper_plain
        skeleton = hollow(lambda: whisper.build(self.whisper_config))
        return merging.merged(skeleton, self.whisper_plain, self.whisper_adapter)

    @cached_property
    def beats_file(self) -> dict[str, Any] | None:
        """{'cfg', 'model'} of the BEATs checkpoint; None when the config names none."""
        if not self.settings.get("beats_path"):
            return None
        path = self.path("beats_path")
        plain = load_pickled(path)
        saved = plain if isinstance(plain, dict) else {}
        if not all(isinstance(saved.get(key), dict) for key in ("cfg", "model")):
            raise BadCheckpoint(f"{path} is no BEATs checkpoint: it lacks `cfg` or `model`")
        return {"cfg": {**beats.DEFAULTS, **saved["cfg"]}, "model": saved["model"]}

    @cached_property
    def llm_weights(self) -> Weights:
        """The LLM's own weights, with what the .pth changes of them; names as transformers'."""
        base = pruned.left(self.spec, named(self.llm_folder))
        changed = Weights(self.trained.where)
        for name, tensor in self._llm_trained().items():
            plain = base_name(name)
            # The head of a tied model is its table, here saved a second time.
            again = plain == HEAD and self.spec.tied
            if not (contract.is_adapter(name) or WHOLE in name or again):
                changed.add_tensors({plain: self._known_rows(plain, tensor)})
        return base.over(changed)

    def _known_rows(self, name: str, tensor: Tensor) -> Tensor:
        """A weight without the [PAD] row that follows what the LLM knows."""
        return tensor[: self.spec.vocab] if name in (TABLE, HEAD) and tensor.ndim else tensor

    def _llm_trained(self) -> dict[str, Tensor]:
        """What the .pth holds of the LLM: adapters, aliases and leftovers, all accounted for."""
        weights = self.trained.under("llama_model.")
        names = [n for n in weights.shapes if not any(mark in n for mark in IGNORED)]
        return weights.take(names)

    @cached_property
    def adapter(self) -> Adapter | None:
        """The LLM's adapter, of the .pth or of its folder; the config must want the first.

        Raises:
            BadCheckpoint: an unknown adapter, or `lora` and the weights contradict each other.
        """
        base_names = {f"model.{n}" for n in on_meta(self.spec).model.state_dict()}
        base_names |= {TABLE, HEAD}
        trained, pth = self._llm_trained(), self.trained.where
        tensors = {n: t for n, t in trained.items() if contract.is_adapter(n)}
        unknown = [n for n in trained if n not in tensors and base_name(n) not in base_names]
        if unknown:
            raise BadCheckpoint(
                f"{pth} holds an adapter that is not known here: "
                f"{', '.join(unknown[:3])}{' ...' if len(unknown) > 3 else ''}"
            )
        wanted = bool(self.settings.get("lora", True))
        if tensors and not wanted:
            raise BadCheckpoint(
                f"{self.file} says lora: False, but {pth} holds "
                f"{len(tensors)} adapter tensors; set lora: True"
            )
        if wanted and not tensors:
            raise BadCheckpoint(
                f"{self.file} says lora: True, but {pth} holds no adapter; "
                "set lora: False to export the LLM as it is"
            )
        adapter = salmonn.read(tensors, self.settings, "", pth, self.file)
        # Applied with the adapter: the head of a tied model may be trained whole, or its table.
        saved = {base_name(n): t for n, t in trained.items() if WHOLE in n}
        if saved and not adapter:
            raise BadCheckpoint(
                f"{pth} holds what peft trained beside an adapter ({contract.few(sorted(saved))}), "
                "but no adapter"
            )
        if adapter and saved:
            whole = {n: self._known_rows(n, tensor) for n, tensor in saved.items()}
            adapter = replace(adapter, replaced=whole)
        return self.one_adapter(adapter)

    @cached_property
    def qformer_shape(self) -> Shape:
        """Sizes of the Q-Former, from the config and from the shapes of its weights."""
        settings, shapes = self.settings, self.trained.shapes
        if not settings.get("use_speech_Qformer", True):
            raise BadCheckpoint(f"{self.file} says use_speech_Qformer: False; there is no bridge")
        if len(shapes.get("speech_query_tokens", ())) != 3:
            raise BadCheckpoint(
                f"{self.trained.where} lacks speech_query_tokens [1, queries, width]"
            )
        _, queries, hidden = shapes["speech_query_tokens"]
        layer = "speech_Qformer.bert.encoder.layer."
        numbers = {n[len(layer) :].split(".")[0] for n in shapes if n.startswith(layer)}
        wide = shapes.get(f"{layer}0.intermediate_query.dense.weight", (4 * hidden, hidden))
        frames = int(self.whisper_config["max_source_positions"])
        beats_file = self.beats_file
        kernel = stride = frames
        if settings.get("window_level_Qformer", True):
            # The constant is 1500 per 30 s whatever the encoder, and Python rounds to even.
            kernel = round(30 * FRAME_RATE * settings.get("second_per_window", 0.333333) / 30)
            stride = round(30 * FRAME_RATE * settings.get("second_stride", 0.333333) / 30)
        if not (0 < kernel <= frames and stride > 0):
            raise BadCheckpoint(
                f"{self.file} says windows of {kernel} frames every {stride}; there are {frames}"
            )
        return Shape(
            frames=frames,
            speech_width=int(self.whisper_config["d_model"]),
            audio_width=int(beats_file["cfg"]["encoder_embed_dim"]) if beats_file else 0,
            hidden=hidden,
            heads=self._bridge_heads(hidden),
            layers=max(1, len(numbers)),
            intermediate=wide[0] if wide else 0,
            queries=queries,
            kernel=kernel,
            stride=stride,
            out=self.spec.hidden,
        )

    def _bridge_heads(self, width: int) -> int:
        """Heads of the Q-Former. No file of a checkpoint holds it: the original takes BERT's."""
        usual = width // BERT_HEAD_DIM if width >= 8 * BERT_HEAD_DIM else SMALL_BERT_HEADS
        heads = self.settings.get("qformer_heads", usual)
        if width % heads:
            raise BadCheckpoint(
                f"{self.trained.where}: a Q-Former of width {width} cannot have {heads} heads; "
                f"say `qformer_heads` in the model section of {self.file}"
            )
        return heads


def base_name(name: str) -> str:
    """llama_model's name of a base weight -> transformers' name of it."""
    plain = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
    return re.sub(r"\.modules_to_save\.[^.]+\.", ".", plain)
