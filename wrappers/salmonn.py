"""SALMONN (Tang et al. 2024): Whisper and BEATs, a window Q-Former, Vicuna or Llama with LoRA.

A checkpoint is the original's `config.yaml`, which names a Whisper folder, a BEATs `.pt`, an LLM
folder and the `.pth` of what was trained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoConfig

import wrappers
from alm.errors import BadCheckpoint, MissingFile, UnknownName
from wrappers import Checkpoint, Wrapper, _adapters, _prompts, _tokenizer, beats, fbank, mel, whisper
from wrappers._decoder import Decoder, Spec
from wrappers._weights import Weights, load_pickled, open_folder, read_json
from wrappers._weights_check import faults, fill
from wrappers.qformer import QFormer, Shape

ROLE = "family"
LOOKS_LIKE = "the original's config.yaml with a `model` section (llama_path, whisper_path, ckpt)"

RATE = 16000  # Hz
FRAME_RATE = 50  # encoder frames a second; the original hard-codes 1500 per 30 s
LEAST_SAMPLES = RATE  # shorter clips are padded to one second, as the original does
PLACEHOLDER = "<SpeechHere>"
BERT_HEAD_DIM = 64  # of bert-base-uncased, which the original's Q-Former always is
SMALL_BERT_HEADS = 4  # of the reduced Q-Formers that are made for tests

# Buffers that old training runs left in the .pth and that carry nothing trained.
IGNORED = ("rotary_emb.inv_freq", ".absmax", ".quant_map", ".nested_", ".quant_state.")


def recognises(path: Path) -> bool:
    """Whether `path` is, or holds, a SALMONN config."""
    file = _config_file(path)
    if not file.is_file() or file.suffix not in (".yaml", ".yml"):
        return False
    try:
        plain = yaml.safe_load(file.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return False
    return isinstance(plain, dict) and "llama_path" in (plain.get("model") or {})


def load(path: Path) -> Checkpoint:
    """Take the checkpoint apart; nothing large is read before its part is asked for.

    Raises:
        MissingFile: a file or folder that the config names.
        BadCheckpoint: weights missing, misshapen or unknown (all named at once), or parts whose
            widths do not fit each other.
    """
    return Salmonn(_config_file(path)).checkpoint()


def _config_file(path: Path) -> Path:
    return path / "config.yaml" if path.is_dir() else path


@dataclass(frozen=True)
class Salmonn:
    """One SALMONN checkpoint on disk."""

    file: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        return yaml.safe_load(self.file.read_text("utf-8"))

    @cached_property
    def settings(self) -> dict[str, Any]:
        return self.config["model"]

    def path(self, key: str) -> Path:
        """A path of the config: absolute, or relative to the config's own folder."""
        said = self.settings.get(key)
        if not said:
            raise BadCheckpoint(f"{self.file} does not say `{key}`")
        path = self.file.parent / Path(str(said)).expanduser()
        if not path.exists():
            raise MissingFile(f"{self.file} says {key}: {said}, but there is no {path}")
        return path

    # --- what is on disk

    @cached_property
    def trained(self) -> Weights:
        """The tensors of the .pth, `module.` cut off."""
        path = self.path("ckpt")
        weights = Weights(str(path))
        for each in (self.settings.get("speech_llama_proj_model"), self.settings["ckpt"]):
            if not each:
                continue
            file = self.file.parent / str(each)
            if file.suffix == ".safetensors":
                weights.add_safetensors(file)
                continue
            plain = load_pickled(file)
            state = plain.get("model", plain) if isinstance(plain, dict) else None
            if not isinstance(state, dict) or not any(
                isinstance(value, Tensor) for value in state.values()
            ):
                raise BadCheckpoint(f"{file} holds no state dict under `model`")
            weights.add_tensors({k: v for k, v in state.items() if isinstance(v, Tensor)})
        bare = weights.under("module.")
        return bare if bare.shapes else weights

    @cached_property
    def whisper_config(self) -> dict[str, Any]:
        return read_json(self.path("whisper_path") / "config.json")

    @cached_property
    def whisper_weights(self) -> Weights:
        folder = open_folder(self.path("whisper_path"))
        return folder.under("model.encoder.", "encoder.").over(
            self.trained.under("speech_encoder.")
        )

    @cached_property
    def beats_file(self) -> dict[str, Any] | None:
        """{'cfg', 'model'} of the BEATs checkpoint; None when the config names none."""
        if not self.settings.get("beats_path"):
            return None
        path = self.path("beats_path")
        plain = load_pickled(path)
        if not isinstance(plain, dict) or not {"cfg", "model"} <= set(plain):
            raise BadCheckpoint(f"{path} is no BEATs checkpoint: it lacks `cfg` or `model`")
        return plain

    @cached_property
    def spec(self) -> Spec:
        folder = self.path("llama_path")
        kind = str(read_json(folder / "config.json").get("model_type", ""))
        try:
            family = wrappers.pick_role("llm", kind)
        except UnknownName as error:
            raise BadCheckpoint(f"{folder}/config.json says model_type: {error}") from error
        return family.spec(AutoConfig.from_pretrained(folder, local_files_only=True))

    @cached_property
    def llm_weights(self) -> Weights:
        """The LLM's own weights, with what the .pth changes of them; names as transformers'."""
        own = open_folder(self.path("llama_path"))
        if not any(name.startswith("model.") for name in own.shapes):
            bare = Weights(own.where)  # saved from the bare model, without its head
            bare.shapes = {f"model.{n}": s for n, s in own.shapes.items()}
            bare._read = {f"model.{n}": own._read[n] for n in own.shapes}
            own = bare
        changed = Weights(self.trained.where)
        for name, tensor in self._llm_trained().items():
            if not _adapters.is_adapter(name) and (plain := _base_name(name)) in own:
                changed.add_tensors({plain: tensor[: own.shapes[plain][0]]})
        return own.over(changed)

    def _llm_trained(self) -> dict[str, Tensor]:
        """What the .pth says of the LLM: adapters, aliases and leftovers, all accounted for."""
        found = self.trained.under("llama_model.")
        names = [n for n in found.shapes if not any(mark in n for mark in IGNORED)]
        return found.take(names)

    @cached_property
    def adapter(self) -> dict[str, Tensor]:
        """The adapter's tensors; the config must want them.

        Raises:
            BadCheckpoint: an unknown adapter, or `lora` and the weights say different things.
        """
        own = {f"model.{n}" for n in self._decoder_on_meta().model.state_dict()}
        own |= {"model.embed_tokens.weight", "lm_head.weight"}
        trained = self._llm_trained()
        found = {n: t for n, t in trained.items() if _adapters.is_adapter(n)}
        unknown = [n for n in trained if n not in found and _base_name(n) not in own]
        if unknown:
            raise BadCheckpoint(
                f"{self.trained.where} holds an adapter that is not known here: "
                f"{', '.join(unknown[:3])}{' ...' if len(unknown) > 3 else ''}"
            )
        wanted = bool(self.settings.get("lora", True))
        if found and not wanted:
            raise BadCheckpoint(
                f"{self.file} says lora: False, but {self.trained.where} holds "
                f"{len(found)} adapter tensors; set lora: True"
            )
        if wanted and not found:
            raise BadCheckpoint(
                f"{self.file} says lora: True, but {self.trained.where} holds no adapter; "
                "set lora: False to export the LLM as it is"
            )
        _adapters.kind(found)
        return found

    # --- the parts

    @cached_property
    def window_samples(self) -> int:
        """Samples of the Whisper window: 30 s, or what its preprocessor says."""
        file = self.path("whisper_path") / "preprocessor_config.json"
        seconds = read_json(file).get("chunk_length", 30) if file.is_file() else 30
        samples = int(seconds) * RATE
        frames = int(self.whisper_config["max_source_positions"])
        if samples // 320 != frames:
            raise BadCheckpoint(
                f"{file} says windows of {seconds} s, which are {samples // 320} frames, but "
                f"Whisper's config says max_source_positions {frames}"
            )
        return samples

    @cached_property
    def qformer_shape(self) -> Shape:
        """Sizes of the Q-Former, from the config and from the shapes of its weights."""
        said, shapes = self.settings, self.trained.shapes
        if not said.get("use_speech_Qformer", True):
            raise BadCheckpoint(f"{self.file} says use_speech_Qformer: False; there is no bridge")
        if "speech_query_tokens" not in shapes:
            raise BadCheckpoint(f"{self.trained.where} lacks speech_query_tokens")
        _, queries, hidden = shapes["speech_query_tokens"]
        layer = "speech_Qformer.bert.encoder.layer."
        numbers = {n[len(layer) :].split(".")[0] for n in shapes if n.startswith(layer)}
        wide = shapes.get(f"{layer}0.intermediate_query.dense.weight", (4 * hidden, hidden))
        frames = int(self.whisper_config["max_source_positions"])
        beats_file = self.beats_file
        kernel = stride = frames
        if said.get("window_level_Qformer", True):
            # The constant is 1500 per 30 s whatever the encoder, and Python rounds to even.
            kernel = round(30 * FRAME_RATE * float(said.get("second_per_window", 0.333333)) / 30)
            stride = round(30 * FRAME_RATE * float(said.get("second_stride", 0.333333)) / 30)
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
            layers=len(numbers),
            intermediate=wide[0],
            queries=queries,
            kernel=kernel,
            stride=stride,
            out=self.spec.hidden,
        )

    def _bridge_heads(self, width: int) -> int:
        """Heads of the Q-Former. No file of a checkpoint says it: the original takes BERT's."""
        usual = width // BERT_HEAD_DIM if width >= 8 * BERT_HEAD_DIM else SMALL_BERT_HEADS
        heads = int(self.settings.get("qformer_heads", usual))
        if width % heads:
            raise BadCheckpoint(
                f"{self.trained.where}: a Q-Former of width {width} cannot have {heads} heads; "
                f"say `qformer_heads` in the model section of {self.file}"
            )
        return heads

    def _decoder_on_meta(self) -> Decoder:
        with torch.device("meta"):
            return Decoder(self.spec, "decomposed")

    def mel(self, dialect: str) -> Wrapper:
        return mel.Mel(int(self.whisper_config["num_mel_bins"]), self.window_samples)

    def fbank(self, dialect: str) -> Wrapper:
        return fbank.Fbank(most_samples=max(self.window_samples, LEAST_SAMPLES))

    def whisper(self, dialect: str) -> Wrapper:
        part = whisper.build(self.whisper_config)
        weights = self.whisper_weights
        fill(part, weights.take(n for n in part.state_dict() if n in weights), weights.where)
        return part

    def beats(self, dialect: str) -> Wrapper:
        assert self.beats_file is not None
        changed = self.trained.under("beats.").take()
        most = 1 + (self.window_samples - 400) // 160
        return beats.load_beats(
            self.beats_file["model"] | changed,
            self.beats_file["cfg"],
            
            where=str(self.path("beats_path")),
        )

    def qformer(self, dialect: str) -> Wrapper:
        part = QFormer(self.qformer_shape)
        trained = self.trained
        fill(part, trained.take(n for n in part.state_dict() if n in trained), trained.where)
        return part

    def decoder(self, dialect: str) -> Wrapper:
        part = Decoder(self.spec, dialect)
        weights = self.llm_weights
        names = set(part.state_dict()) & set(weights.shapes)
        state = weights.take(names)
        if self._tied:
            state["lm_head.weight"] = weights["model.embed_tokens.weight"]
        fill(part, state, weights.where)
        part.eval()
        if self.adapter:
            part.merge_error = _adapters.merge(part, self.adapter, self.settings)
        return part

    @property
    def _tied(self) -> bool:
        return self.spec.tied or "lm_head.weight" not in self.llm_weights

    def embedding(self) -> Tensor:
        """The table [vocab, hidden] as the LLM uses it, without the [PAD] row."""
        table = self.llm_weights["model.embed_tokens.weight"]
        scale = self.spec.embedding_scale
        return table if scale == 1.0 else table.float() * scale

    # --- the whole

    def check(self) -> None:
        """Name everything that is missing, misshapen or does not fit, at once."""
        wrong: list[str] = []
        with torch.device("meta"):
            speech, bridge = whisper.build(self.whisper_config), QFormer(self.qformer_shape)
        wrong += faults(speech, self.whisper_weights.shapes, self.whisper_weights.where)
        wrong += self._misfits()
        wrong += faults(bridge, self.trained.shapes, self.trained.where) if not wrong else []
        shapes = dict(self.llm_weights.shapes)
        if self._tied and "model.embed_tokens.weight" in shapes:
            shapes["lm_head.weight"] = shapes["model.embed_tokens.weight"]
        wrong += faults(self._decoder_on_meta(), shapes, self.llm_weights.where)
        table, want = shapes.get("model.embed_tokens.weight"), (self.spec.vocab, self.spec.hidden)
        if table != want:
            is_now = "missing" if table is None else f"{list(table)} and not {list(want)}"
            wrong.append(f"{self.llm_weights.where}: model.embed_tokens.weight is {is_now}")
        if self.beats_file:
            try:
                self.beats("decomposed")
            except BadCheckpoint as error:
                wrong.append(str(error))
        if wrong:
            raise BadCheckpoint("; ".join(wrong))
        assert self.adapter is not None  # raises for what nobody knows

    def _misfits(self) -> list[str]:
        """Widths on which two pieces must agree, in words a person can act on."""
        shape, found, wrong = self.qformer_shape, self.trained.shapes, []

        def differ(name: str, axis: int, want: int, left: str, right: str) -> None:
            if name in found and found[name][axis] != want:
                wrong.append(
                    f"{left} is {want} wide, but {self.trained.where} was trained with "
                    f"{right} of {found[name][axis]}"
                )

        differ("ln_speech.weight", 0, shape.speech_width, str(self.path("whisper_path")), "a Whisper")
        if shape.audio_width:
            differ("ln_audio.weight", 0, shape.audio_width, str(self.path("beats_path")), "a BEATs")
        elif "ln_audio.weight" in found:
            wrong.append(f"{self.trained.where} was trained with a BEATs, but beats_path is empty")
        differ("speech_llama_proj.weight", 0, shape.out, str(self.path("llama_path")), "an LLM")
        return wrong

    def checkpoint(self) -> Checkpoint:
        self.check()
        parts: dict[str, Callable[[str], Wrapper]] = {"mel": self.mel, "whisper": self.whisper}
        if self.beats_file:
            parts |= {"fbank": self.fbank, "beats": self.beats}
        parts |= {"qformer": self.qformer, "decoder": self.decoder}
        prompt = self._prompt()
        template, queries = prompt["template"], prompt["tasks"].values()
        halves = [
            half for q in queries for half in template.replace("{}", q).split(PLACEHOLDER)
        ]
        tokenizer = _tokenizer.tokenizer_json(self.path("llama_path"), halves)
        spec, shape = self.spec, self.qformer_shape
        return Checkpoint(
            family="salmonn",
            parts=parts,
            embedding=self.embedding,
            tokenizer_json=tokenizer,
            prompt=prompt,
            tokens=self._tokens(Tokenizer.from_str(tokenizer)),
            generation=self._generation(),
            audio={
                "rate": RATE,
                "channel": "first",
                "least_samples": LEAST_SAMPLES,
                "window_samples": self.window_samples,
            },
            dimensions={
                "hidden": spec.hidden,
                "vocab": spec.vocab,
                "layers": spec.layers,
                "heads": spec.heads,
                "kv_heads": spec.kv_heads,
                "head_dim": spec.head_dim,
                "context": spec.context,
                "audio_tokens": shape.tokens,
            },
            source={
                "config": self.file.name,
                "llm": spec.config.model_type,
                "adapter": _adapters.kind(self.adapter) or "none",
            },
            licence=dict(self.config.get("licence") or {}),
            notes=self._notes(),
        )

    def _prompt(self) -> dict[str, Any]:
        tasks = dict(_prompts.SALMONN_TASKS)
        if self.settings.get("test_prompt_path"):
            said = read_json(self.path("test_prompt_path"))
            tasks |= {k: v.replace("<Speech><SpeechHere></Speech>", "").strip() for k, v in said.items()}
            tasks = {k: v for k, v in tasks.items() if "{}" not in v}
        named = {short: tasks[full] for short, full in _prompts.SHORT_NAMES.items()}
        outer = str(self.settings.get("prompt_template") or "{}")
        return {
            "template": outer.replace("{}", f"<Speech>{PLACEHOLDER}</Speech> {{}}"),
            "placeholder": PLACEHOLDER,
            "tasks": named | tasks,
            "joined": sorted({tasks[name] for name in _prompts.JOINED_TASKS}),
        }

    def _tokens(self, tokenizer: Tokenizer) -> dict[str, Any]:
        folder, config = self.path("llama_path"), self.spec.config
        bos = _tokenizer.special_id(folder, tokenizer, "bos_token")
        file = folder / "generation_config.json"
        eos = read_json(file).get("eos_token_id") if file.is_file() else None
        eos = config.eos_token_id if eos is None else eos
        ends = [int(i) for i in (eos if isinstance(eos, list) else [eos]) if i is not None]
        if not ends:
            raise BadCheckpoint(f"{folder} does not say eos_token_id")
        end = str(self.settings.get("end_sym") or "")
        return {
            "bos": config.bos_token_id if bos is None else bos,
            "eos": ends,
            "stop_strings": [end] if end else [],
        }

    def _generation(self) -> dict[str, Any]:
        said = self.config.get("generate") or {}
        known = {
            "max_new_tokens": 200,
            "num_beams": 4,
            "do_sample": False,
            "min_length": 1,
            "temperature": 1.0,
            "top_p": 0.9,
            "repetition_penalty": 1.0,
            "length_penalty": 1.0,
        }
        return {name: said.get(name, default) for name, default in known.items()}

    def _notes(self) -> tuple[str, ...]:
        """What was found and left out, for the person who exports."""
        mine = ("speech_encoder.", "beats.", "speech_Qformer.", "llama_model.", "ln_", "speech_")
        extra = [n for n in self.trained.shapes if not n.startswith(mine)]
        notes = [f"unused in {self.trained.where}: {', '.join(extra)}"] if extra else []
        width = self.qformer_shape.hidden
        if "qformer_heads" not in self.settings and width != 12 * BERT_HEAD_DIM:
            notes.append(
                f"the Q-Former is {width} wide and no file says its heads: taken to be "
                f"{self.qformer_shape.heads}; `qformer_heads` in {self.file.name} overrides"
            )
        return tuple(notes)


def _base_name(name: str) -> str:
    """llama_model's name of a base weight -> transformers' name of it."""
    plain = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
    return plain.replace("modules_to_save.default.", "")
