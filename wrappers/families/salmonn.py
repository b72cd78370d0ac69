"""SALMONN (Tang et al. 2024): Whisper and BEATs, a window Q-Former, Vicuna or Llama with LoRA.

A checkpoint is the original's `config.yaml`, which names a Whisper folder, a BEATs `.pt`, an LLM
folder and the `.pth` of what was trained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from alm.errors import BadCheckpoint
from alm.facts import AudioFacts, Facts, PromptFacts, TokenFacts
from wrappers import Checkpoint, Wrapper
from wrappers.bridges.qformer import QFormer
from wrappers.checkpoint import llm_files, salmonn_keys
from wrappers.checkpoint.adapters import adapter_faults, at_run_time, contract, salmonn
from wrappers.checkpoint.llm_files import TABLE
from wrappers.checkpoint.plain_files import read_json
from wrappers.checkpoint.salmonn_files import BERT_HEAD_DIM, UNUSED, Files, base_name
from wrappers.checkpoint.text import generation_fields, prompts, thoughts, tokenizer_files
from wrappers.checkpoint.weights import nf4
from wrappers.checkpoint.weights.fit import faults, fill, unknown
from wrappers.checkpoint.weights.hollow import hollow
from wrappers.checkpoint.yaml_config import config_file, recognised
from wrappers.encoders import beats, whisper
from wrappers.frontends import fbank
from wrappers.frontends.mel import RATE

LOOKS_LIKE = "the original's config.yaml with a `model` section (llama_path, whisper_path, ckpt)"

LEAST_SAMPLES = RATE  # shorter clips are padded to one second, as the original does
# What the original gives to `generate` unless its config sets it otherwise.
ORIGINAL = {
    "max_new_tokens": 200,
    "num_beams": 4,
    "do_sample": False,
    "min_new_tokens": 1,
    "temperature": 1.0,
    "top_p": 0.9,
    "repetition_penalty": 1.0,
    "length_penalty": 1.0,
}
OWN_KEYS = {"llama_path", "whisper_path", "beats_path", "use_speech_Qformer"}


def recognises(path: Path) -> bool:
    """Whether `path` is, or holds, a SALMONN config."""
    return recognised(path, _is_ours, ["model:", "llama_path"])


def _is_ours(plain: Any) -> bool:
    model = plain.get("model") if isinstance(plain, dict) else None
    return isinstance(model, dict) and bool(OWN_KEYS & set(model))


def load(path: Path) -> Checkpoint:
    """Take the checkpoint apart; nothing large is read before its part is loaded.

    Raises:
        MissingFile: a file or folder that the config names.
        BadCheckpoint: weights missing, misshapen or unknown (all named at once), or parts whose
            widths do not fit each other.
    """
    return Salmonn(config_file(path)).checkpoint()


class Salmonn(Files):
    """The checkpoint taken apart."""

    def fbank(self) -> Wrapper:
        return fbank.Fbank(most_samples=max(self.window_samples, LEAST_SAMPLES))

    def beats(self) -> Wrapper:
        assert self.beats_file is not None
        changed = self.trained.under("beats.").take()
        most = 1 + (self.window_samples - 400) // 160
        return beats.load_beats(
            self.beats_file["model"] | changed,
            self.beats_file["cfg"],
            where=str(self.path("beats_path")),
            most_frames=most,
        )

    def qformer(self) -> Wrapper:
        part = hollow(lambda: QFormer(self.qformer_shape))
        trained = self.trained
        state = trained.take(n for n in part.state_dict() if n in trained)
        for name in (n for n in state if n.startswith("speech_llama_proj.")):
            state[name] = state[name].float() * self.audio_scale
        fill(part, state, trained.where)
        return part

    def decoder(self) -> Wrapper:
        return llm_files.decoder(self.spec, self.llm_weights, self.adapter)

    def embedding(self) -> Tensor:
        """The table [vocab, hidden] as the LLM uses it, without the [PAD] row."""
        weights = llm_files.adapted(self.spec, self.llm_weights, self.adapter)
        return llm_files.scaled(weights[TABLE], self.spec)

    @property
    def audio_scale(self) -> float:
        """What the LLM multiplies the audio's embeddings with.

        Up to its version 4, with which the original trains, transformers scales all that goes into
        a Gemma 2, not the words alone as since version 5, and as every version does in a Gemma 3.
        """
        scaled = self.settings.get("scaled_audio", self.spec.scaled_audio)
        return self.spec.embedding_scale if scaled else 1.0

    # --- the whole

    def check(self) -> None:
        """Name everything that is missing, misshapen or does not fit, at once."""
        with torch.device("meta"):
            speech, bridge = whisper.build(self.whisper_config), QFormer(self.qformer_shape)
        plain = self.whisper_plain
        wrong = faults(speech, plain.shapes, plain.where)
        misfits = self._misfits()
        shapes = self.trained.shapes
        if misfits:  # they say why weights are misshapen; what is missing is still to be named
            shapes = {n: tuple(v.shape) for n, v in bridge.state_dict().items() if n in shapes}
        wrong += misfits + faults(bridge, shapes, self.trained.where)
        wrong += llm_files.faults(self.spec, self.llm_weights)
        if self.beats_file:
            wrong += self._complaints(self.beats)
        wrong += self._complaints(lambda: self.adapter)
        wrong += self._complaints(lambda: self.whisper_adapter)
        wrong += self._unknown(bridge, speech)
        if not wrong and self.adapter:
            wrong += adapter_faults.faults(llm_files.with_table(self.spec), self.adapter)
        if not wrong and self.whisper_adapter:
            wrong += adapter_faults.faults(speech, self.whisper_adapter)
        if wrong:
            raise BadCheckpoint("; ".join(wrong))

    @staticmethod
    def _complaints(attempt: Callable[[], Any]) -> list[str]:
        """The message of an attempt that fails, or none."""
        try:
            attempt()
        except BadCheckpoint as error:
            return [str(error)]
        return []

    def _unknown(self, bridge: nn.Module, speech: nn.Module) -> list[str]:
        """What no part takes; tensors of the LLM and of BEATs are looked at where they are read."""
        elsewhere = ("llama_model.", "beats." if self.beats_file else "llama_model.")
        ours, whispers = set(bridge.state_dict()), set(speech.state_dict())
        taken = {n for n in self.trained.shapes if n in ours or n.startswith(elsewhere)}
        for name in self.trained.under("speech_encoder.").shapes:
            if contract.is_adapter(name) or base_name(name) in whispers:
                taken.add(f"speech_encoder.{name}")
        folder = self.whisper_folder
        return [
            *unknown(self.trained, taken, UNUSED),
            *unknown(folder, whispers, (), "Whisper encoder"),
        ]

    def _misfits(self) -> list[str]:
        """Widths on which two pieces must agree, in words a person can act on."""
        shape, shapes, wrong = self.qformer_shape, self.trained.shapes, []

        def differ(name: str, want: int, path: str, what: str) -> None:
            was = shapes.get(name)
            if was and was[0] != want:
                wrong.append(
                    f"{self.path(path)} is {want} wide, but {self.trained.where} was trained "
                    f"with {what} of {was[0]}"
                )

        differ("ln_speech.weight", shape.speech_width, "whisper_path", "a Whisper")
        if shape.audio_width:
            differ("ln_audio.weight", shape.audio_width, "beats_path", "a BEATs")
        elif "ln_audio.weight" in shapes:
            wrong.append(f"{self.trained.where} was trained with a BEATs, but beats_path is empty")
        differ("speech_llama_proj.weight", shape.out, "llama_path", "an LLM")
        queries = self.settings.get("num_speech_query_token", shape.queries)
        if queries != shape.queries:
            wrong.append(
                f"{self.file} says num_speech_query_token: {queries}, but {self.trained.where} "
                f"was trained with {shape.queries}"
            )
        return wrong

    def checkpoint(self) -> Checkpoint:
        salmonn_keys.check(self.file, self.config, self.section("model"))
        self.check()
        parts: dict[str, Callable[[], Wrapper]] = {"mel": self.mel, "whisper": self.whisper}
        if self.beats_file:
            parts |= {"fbank": self.fbank, "beats": self.beats}
        parts |= {"qformer": self.qformer, "decoder": self.decoder}
        prompt = self._prompt()
        whole, queries = prompt.turn.replace("{clips}", prompt.clip), prompt.tasks.values()
        halves = [
            half for q in queries for half in whole.replace("{}", q).split(prompts.PLACEHOLDER)
        ]
        tokenizer = tokenizer_files.tokenizer_json(self.path("llama_path"), halves)
        known = Tokenizer.from_str(tokenizer)
        prompt = replace(prompt, thought=thoughts.in_tokenizer(tokenizer))
        tokens = self._tokens(known)
        end = prompt.end or known.id_to_token(tokens.eos[0]) or ""
        spec, shape = self.spec, self.qformer_shape
        return Checkpoint(
            family="salmonn",
            parts=parts,
            embedding=self.embedding,
            tokenizer_json=thoughts.spelled(tokenizer, prompt.thought),
            facts=Facts(
                prompt=replace(prompt, end=end),
                tokens=tokens,
                generation=self._generation(),
                audio=AudioFacts(RATE, "first", LEAST_SAMPLES, self.window_samples),
                dimensions=llm_files.dimensions(spec, audio_tokens=shape.tokens),
                source={
                    "config": self.file.name,
                    "llm": spec.config.model_type,
                    "adapter": self.adapter.kind.name if self.adapter else "none",
                    "fingerprint": self.fingerprint,
                },
                licence=self.section("licence"),
            ),
            notes=self._notes(),
            shares=self.shares,
        )

    def shares(self, folder: Path) -> at_run_time.Shares:
        def build() -> dict[str, nn.Module]:
            bridge = hollow(lambda: QFormer(self.qformer_shape))
            speech = hollow(lambda: whisper.build(self.whisper_config))
            llm = llm_files.with_table(self.spec)
            return {"llama_model": llm, "speech_encoder": speech, **dict(bridge.named_children())}

        return salmonn.shares(folder, build, scaled=self.audio_scale != 1.0)

    def _prompt(self) -> PromptFacts:
        outer = str(self.settings.get("prompt_template") or "{}")
        if outer.count("{}") != 1 or prompts.PLACEHOLDER in outer:
            raise BadCheckpoint(
                f"{self.file} says prompt_template: {outer!r}; it must hold one {{}}, where the "
                "audio and the prompt go"
            )
        named = self.settings.get("test_prompt_path")
        test_prompts = read_json(self.path("test_prompt_path")) if named else {}
        return prompts.prompt(outer, test_prompts, str(self.settings.get("end_sym") or ""))

    def _tokens(self, tokenizer: Tokenizer) -> TokenFacts:
        folder, config = self.path("llama_path"), self.spec.config
        bos = tokenizer_files.special_id(folder, tokenizer, "bos_token")
        file, plain = generation_fields.in_folder(folder)
        eos = plain.get("eos_token_id")
        eos = config.eos_token_id if eos is None else eos
        ends = [int(i) for i in (eos if isinstance(eos, list) else [eos]) if i is not None]
        if not ends:
            raise BadCheckpoint(f"{folder} does not say eos_token_id")
        stops = [self.settings.get("end_sym"), self.section("generate").get("end_sym")]
        stops = [str(end) for end in stops if end] + generation_fields.stop_strings(plain, file)
        bos = config.bos_token_id if bos is None else bos
        return TokenFacts(bos, tuple(ends), tuple(dict.fromkeys(stops)))

    def _generation(self) -> dict[str, Any]:
        """What the original gives to `generate`; the rest comes from its LLM's folder.

        Its `min_length` counts new tokens: the original runs with transformers 4.28, which does
        not count a prompt of embeddings.
        """
        given = dict(self.section("generate"))
        given.pop("end_sym", None)
        if "min_length" in given:
            given.setdefault("min_new_tokens", given.pop("min_length"))
        return self.generation(ORIGINAL, given, 200)

    def _notes(self) -> tuple[str, ...]:
        """What was found and left out, for the person who exports."""
        notes: list[str] = [*self.spec.found]
        for adapter, what in ((self.adapter, "LLM"), (self.whisper_adapter, "Whisper")):
            if adapter:
                notes.append(
                    f"the {adapter.kind.name} adapter in {adapter.where} is merged ({what})"
                )
        width = self.qformer_shape.hidden
        if "qformer_heads" not in self.settings and width != 12 * BERT_HEAD_DIM:
            notes.append(
                f"the Q-Former is {width} wide and no file says its heads: taken to be "
                f"{self.qformer_shape.heads}; `qformer_heads` in {self.file.name} overrides"
            )
        if kinds := nf4.kinds(self.llm_folder):
            counts = " and ".join(f"{count} weights in {kind}" for kind, count in kinds.items())
            notes.append(
                f"the LLM in {self.path('llama_path')} is quantized by bitsandbytes ({counts}): "
                "they are dequantized as they are read, and exported in the precision asked for"
            )
        return tuple(notes)
