"""A model on a device, precision by precision: the sums behind `alm plan`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from alm import targets
from alm.artifacts.manifest import Manifest, Part
from alm.devices import Device
from alm.errors import BadArtifacts, BadOption
from alm.plan import estimate
from alm.plan.estimate import AudioPart, Stored
from alm.ports import SPARE
from alm.precision import PLAIN, PLAINEST, Storage, closest_first

PROGRAM = 0.95e9  # bytes of a process with CUDA and an engine, without weights
WORKING = 1.17  # bytes of a running engine for each byte of weights: work space, activations
MEMORY_ERROR = 0.05
SMALL = 0.25e9  # bytes a token; the smallest model with published figures reads twice that
SMALL_ERROR = 0.5
SLOWER = 2  # times as long as in float16: TF32, in which a GPU computes float32, has half the rate


@dataclass(frozen=True)
class Choice:
    """A precision of the decoder, and how it and the parts before it are stored."""

    precision: str  # as the exporter takes it
    stored: Stored  # the decoder
    encoders: str
    encoder_weight: float  # bytes
    cache: str = "float16"  # dtype of the KV cache
    storages: tuple[Storage, ...] = ()  # of all of these parts


def fits(load: float, run: float, usable: float) -> str:
    """Whether so many bytes fit: "yes", "no", or "tight" where it hangs on loading or the error."""
    if run > usable:
        return "no"
    return "yes" if max(load, run) * (1 + MEMORY_ERROR) <= usable else "tight"


class Planned:
    """A model on a device."""

    def __init__(
        self,
        manifest: Manifest,
        folder: Path,
        device: Device,
        seconds: tuple[float, ...],
        context: int = 0,
    ) -> None:
        """See `plan.predict`."""
        decoders = manifest.with_role("decoder")
        if not decoders:
            raise BadArtifacts(
                f"{folder} holds no decoder to plan for; export it with: "
                f"alm-export --model M --part all --out {folder}"
            )
        self.manifest, self.folder, self.device, self.seconds = manifest, folder, device, seconds
        self.decoder: Part = decoders[0]
        before = [part for part in manifest.parts if part.role not in ("decoder", "table")]
        self.audio_parts: list[AudioPart] = [estimate.to_audio_part(part) for part in before]
        self.layers, self.head = estimate.decoder_weights(self.decoder, manifest.facts.dimensions)
        self.idle = estimate.idle_weights(self.decoder)  # of the graph in the folder alone
        self.window = manifest.facts.audio.window_samples / manifest.facts.audio.rate  # seconds
        self.audio_tokens, self.prompt_tokens = estimate.prompt_tokens(manifest, max(seconds))
        most = manifest.facts.dimensions.context
        if context > most:
            raise BadOption(f"--context {context} is beyond the model's {most}")
        usual = min(self.prompt_tokens + self._default("max_new_tokens"), most)
        if window := manifest.facts.live.window:  # of a live run, which holds no more
            usual = min(usual, window + SPARE)
        self.context = context or usual

    def _default(self, name: str) -> int:
        value = self.manifest.facts.generation.get(name)
        return value if isinstance(value, int) and value > 0 else 1

    def about(self) -> dict[str, Any]:
        """The model, whatever its precision; of the cache, what it takes in float16."""
        cache = estimate.cache(self.decoder, 1, "float16")
        return {
            "folder": str(self.folder),
            "family": self.manifest.family,
            "decoder_weights": round(self.layers + self.head),
            "other_weights": round(sum(audio_part.weights for audio_part in self.audio_parts)),
            "window_seconds": self.window,
            "audio_tokens": self.audio_tokens,
            "prompt_tokens": self.prompt_tokens,
            "context": self.context,
            "cache_per_token": cache,
            "cache_per_second": cache * self.audio_tokens / self.window,
        }

    # --- by precision

    @cached_property
    def exported(self) -> Choice:
        """What lies in the folder."""
        others = [
            audio_part for audio_part in self.audio_parts if audio_part.part.role != "frontend"
        ]
        names = (
            "/".join(sorted({audio_part.part.precision or PLAIN for audio_part in others})) or "-"
        )
        total = sum(audio_part.weights for audio_part in others)
        stored = self.decoder.bytes / (self.layers + self.head)
        return Choice(
            self.decoder.precision or PLAIN,
            Stored(stored, stored),
            names,
            sum(audio_part.part.bytes for audio_part in others) / total if total else 0.0,
            estimate.cache_dtype(self.decoder),
            (self.decoder.storage, *(audio_part.part.storage for audio_part in others)),
        )

    @cached_property
    def offered(self) -> list[Choice]:
        """What can be exported and built for the device."""
        choices: dict[str, Choice] = {}
        levers = self.manifest.levers
        for goal in map(targets.find, self.device.targets):
            encoders = targets.automatic(goal, "encoder", levers)
            encoder_storage = levers.get(encoders, {}).get("encoder", PLAINEST)
            for name in closest_first(levers, "decoder", unasked=True):
                storage = levers.get(name, {}).get("decoder", PLAINEST)
                if targets.takes(goal, storage) and (name == PLAIN or not storage.plain):
                    stored, weight = Stored.of(storage), Stored.of(encoder_storage).layers
                    choice = Choice(
                        name, stored, encoders, weight, storage.cache, (storage, encoder_storage)
                    )
                    choices.setdefault(name, choice)
        return list(choices.values())

    def choices(self) -> list[Choice]:
        """What lies in the folder, then what else can be built for the device."""
        exported = (self.exported.precision, self.exported.encoders)
        return [self.exported, *(c for c in self.offered if (c.precision, c.encoders) != exported)]

    def buildable(self, choice: Choice) -> bool:
        """Whether a target of the device takes every part that is stored so."""
        goals = map(targets.find, self.device.targets)
        return any(
            all(targets.takes(goal, storage) for storage in choice.storages) for goal in goals
        )

    def choice(self, choice: Choice) -> dict[str, Any]:
        """A row of the plan: bytes, milliseconds, and whether it fits."""
        device, decoder = self.device, self._decoder_bytes(choice)
        parts = [self._bytes(audio_part, choice) for audio_part in self.audio_parts]
        row = estimate.cache(self.decoder, self.context, choice.cache)
        cache = row * self._default("num_beams")
        weights = decoder + sum(parts)
        load = PROGRAM + weights + max([decoder, *parts])
        run = PROGRAM + WORKING * weights + cache
        step = device.step(decoder - self._idle(choice) * choice.stored.layers + row)
        error = max(device.step_error, SMALL_ERROR) if decoder < SMALL else device.step_error
        return {
            "precision": choice.precision,
            "encoders": choice.encoders,
            "cache": choice.cache,
            "own": choice is self.exported,
            "buildable": self.buildable(choice),
            "weights": weights,
            "decoder_bytes": decoder,
            "cache_bytes": cache,
            "cache_per_second": row / self.context * self.audio_tokens / self.window,
            "load": load,
            "run": spread(run, MEMORY_ERROR),
            "fits": fits(load, run, device.usable),
            "per_token": spread(step, error),
            "tokens_per_second": {
                "value": 1e3 / step,
                "least": 1e3 / (step * (1 + error)),
                "most": 1e3 / (step * (1 - error)),
            },
            "clips": [self._clip(length, choice) for length in self.seconds],
        }

    def _decoder_bytes(self, choice: Choice) -> float:
        return self.layers * choice.stored.layers + self.head * choice.stored.head

    def _idle(self, choice: Choice) -> int:
        """Weights that a step does not read: graphs for TensorRT compute all experts."""
        return self.idle if choice is self.exported else 0

    def _bytes(self, audio_part: AudioPart, choice: Choice) -> float:
        exported = choice is self.exported
        return (
            float(audio_part.part.bytes) if exported else audio_part.bytes_as(choice.encoder_weight)
        )

    def _clip(self, seconds: float, choice: Choice) -> dict[str, Any]:
        """Until the first token of a clip, or of its first window if it has several."""
        device, decoder = self.device, self._decoder_bytes(choice)
        _, tokens = estimate.prompt_tokens(self.manifest, seconds)
        slower = SLOWER if choice.stored.layers > 3 else 1
        operations = 2 * (self.layers - self._idle(choice)) * tokens * slower
        prompt = device.prompt(decoder, operations, int4=choice.stored.layers < 2)
        encoders = sum(
            self._encoder(audio_part, seconds, choice) for audio_part in self.audio_parts
        )
        error = encoders * device.encoder_error + prompt * device.prompt_error
        return {
            "seconds": seconds,
            "windows": max(1, -int(-seconds // self.window)),
            "encoders": spread(encoders, device.encoder_error),
            "prompt": spread(prompt, device.prompt_error),
            "first_token": spread(encoders + prompt, error / (encoders + prompt)),
        }

    def _encoder(self, audio_part: AudioPart, seconds: float, choice: Choice) -> float:
        wide = choice is self.exported and audio_part.wide and audio_part.part.role != "frontend"
        operations = self._operations(audio_part, seconds) * (SLOWER if wide else 1)
        return self.device.encode(self._bytes(audio_part, choice), operations)

    def _operations(self, audio_part: AudioPart, seconds: float) -> float:
        return estimate.operations(audio_part, estimate.sizes(self.manifest, seconds))

    # --- for all of them

    def parts(self) -> list[dict[str, Any]]:
        """Every part before the decoder, as it is offered, for each clip."""

        def clip(audio_part: AudioPart, seconds: float) -> dict[str, Any]:
            ms = self._encoder(audio_part, seconds, self.offered[0])
            return {
                "seconds": seconds,
                "operations": self._operations(audio_part, seconds),
                "ms": spread(ms, self.device.encoder_error),
            }

        return [
            {
                "part": audio_part.part.name,
                "weights": round(audio_part.weights),
                "clips": [clip(audio_part, seconds) for seconds in self.seconds],
            }
            for audio_part in self.audio_parts
        ]

    def notes(self) -> list[str]:
        """What a reader must know."""
        return list(self._notes())

    def _notes(self) -> Iterator[str]:
        yield f"{self.device.title}: {self.device.source}"
        if self.device.remark:
            yield self.device.remark
        yield (
            "every time here is predicted and none was measured: an engine of alm build is taken "
            "to be as fast as the one of those figures; on the device, alm bench measures"
        )
        if not self.buildable(self.exported):
            exported = self.exported
            yield (
                f"what lies in the folder ({exported.precision}, encoders {exported.encoders}) is "
                f"not for TensorRT on this device; export it again with --target "
                f"{self.device.targets[-1]} --precision auto, or run it there with ONNX Runtime, "
                "whose speed is not predicted"
            )
        if min(self._decoder_bytes(choice) for choice in self.choices()) < SMALL:
            yield (
                "this model is smaller than any with published figures: launching, not reading, "
                "takes its time, and the encoders' milliseconds leave that out"
            )
        mixed = self.manifest.facts.dimensions
        if mixed.experts and mixed.active_experts:
            yield (
                f"a token passes {mixed.active_experts} of {mixed.experts} experts; what is built "
                "for TensorRT computes all of them and reads all weights for every token"
            )
        if not self.audio_parts:
            yield "the folder holds no encoders: their bytes and milliseconds are left out"
        beams = self._default("num_beams")
        if beams > 1:
            port = self.decoder.inputs.get("inputs_embeds")
            alone = port is not None and port.axes[:1] == (1,)
            way = "one by one, so that" if alone else "at once;"
            times = f"a token takes {beams} times as long" if alone else "memory counts them all"
            yield (
                f"the model's default is {beams} beams, which are run {way} {times}; "
                "tokens a second are those of --num-beams 1"
            )
        if max(self.seconds) > self.window:
            yield (
                f"clips beyond {self.window:g} s are heard window after window, each with its own "
                "answer: the first token is that of the first window"
            )


def spread(value: float, error: float) -> dict[str, float]:
    """A value with its error bar, a share of it."""
    return {"value": value, "least": value * (1 - error), "most": value * (1 + error)}
