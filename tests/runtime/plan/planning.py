"""What tests of `alm plan` share: decoders of published shapes, and manifests of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from alm import devices
from alm.artifacts.manifest import File, Manifest, Part
from alm.cli import alm_commands, exit_status
from alm.facts import AudioFacts, DimensionFacts, Facts, PromptFacts, TokenFacts
from alm.plan.estimate import Stored
from alm.plan.planner import Choice, Planned
from alm.plan.predict import predict
from alm.ports import Port
from exporters import precisions

# How the decoders of published figures are taken to be stored: 4 bits with 36 more a block of 256,
# `lm_head` in float16; and for MLC, 4 bits throughout.
FIGURES = Stored((4 + 36 / 256) / 8, 2)
FOUR_BITS = Stored(FIGURES.layers, FIGURES.layers)

NANO, NX, AGX = "orin-nano-8gb", "orin-nx-16gb", "agx-orin-64gb"
SUPER, THOR = "orin-nano-8gb-super", "agx-thor"


class Llm(NamedTuple):
    """The shape of a decoder, from its published config."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    wide: int
    vocab: int

    @property
    def weights(self) -> int:
        """Of the layers."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.wide)

    @property
    def head(self) -> int:
        return self.hidden * self.vocab


LLMS = {
    "qwen3-0.6b": Llm(1024, 28, 16, 8, 128, 3072, 151936),
    "qwen3-1.7b": Llm(2048, 28, 16, 8, 128, 6144, 151936),
    "qwen3-4b": Llm(2560, 36, 32, 8, 128, 9728, 151936),
    "qwen3-8b": Llm(4096, 36, 32, 8, 128, 12288, 151936),
    "llama-1b": Llm(2048, 16, 32, 8, 64, 8192, 128256),
    "llama-3b": Llm(3072, 28, 24, 8, 128, 8192, 128256),
    "llama-8b": Llm(4096, 32, 32, 8, 128, 14336, 128256),
    "qwen2.5-7b": Llm(3584, 28, 28, 4, 128, 18944, 152064),
    "phi-3.5": Llm(3072, 32, 32, 32, 96, 8192, 32064),
    "vicuna-7b": Llm(4096, 32, 32, 32, 128, 11008, 32000),
}


def part(name: str, role: str, size: int, **more: Any) -> Part:
    """In float16."""
    files = (File(f"{name}.onnx", size, "0" * 64),)
    return Part(
        name,
        role,
        files,
        precision="fp16",
        storage=precisions.pull("fp16").storage(role),
        measured={"weights": size // 2},
        **more,
    )


def image_encoder() -> tuple[Part, Part]:
    """That of Qwen3-VL-2B, about an image of 512 x 512.

    24 layers of width 1024 over 1024 patches (the 256 image tokens of a prompt of 292 are four
    patches each), then four mergers of 4096 to 4096 to 2048.
    """
    patches = {"x": Port("float32", (1, 1024, 1536))}, {"y": Port("float32", (1, 1024, 1024))}
    merged = {"y": Port("float32", (1, 256, 4096))}, {"z": Port("float32", (1, 256, 2048))}
    layers, mergers = 24 * 12 * 1024**2, 4 * (4096 * 4096 + 4096 * 2048)
    return (
        part("vit", "encoder", 2 * layers, inputs=patches[0], outputs=patches[1]),
        part("merger", "bridge", 2 * mergers, inputs=merged[0], outputs=merged[1]),
    )


def model(llm: Llm, tokens: int = 61, *front: Part) -> Manifest:
    """A manifest in fp16 whose prompts have so many tokens."""
    axes = ("batch", llm.kv_heads, "capacity", llm.head_dim)
    cache = {
        f"past_key_values.{i}.{kind}": Port("float16", axes)
        for i in range(llm.layers)
        for kind in ("key", "value")
    }
    embeds = Port("float32", ("batch", "seq", llm.hidden))
    logits = Port("float32", ("batch", 1, llm.vocab))
    present = {name.replace("past_key_values", "present"): port for name, port in cache.items()}
    outputs = {"logits": logits} | present
    size = 2 * (llm.weights + llm.head)
    return Manifest(
        family="test",
        parts=(
            *front,
            part(
                "decoder",
                "decoder",
                size,
                inputs={"inputs_embeds": embeds} | cache,
                outputs=outputs,
            ),
        ),
        tokenizer=None,
        # Letters of one token, whatever is counted of the places for clips and question.
        facts=Facts(
            prompt=PromptFacts(turn="Q:", clip="<A>", placeholder="<A>"),
            tokens=TokenFacts(eos=(2,)),
            generation={"max_new_tokens": 64},
            audio=AudioFacts(16000, "first", 400, 480000),
            dimensions=DimensionFacts(
                hidden=llm.hidden,
                vocab=llm.vocab,
                layers=llm.layers,
                heads=llm.heads,
                kv_heads=llm.kv_heads,
                head_dim=llm.head_dim,
                context=4096,
                audio_tokens=tokens - 2,
            ),
        ),
        levers=precisions.declared(),
    )


def planned(folder: Path, said: Manifest, device: str, **more: Any) -> dict[str, Any]:
    """The plan for a folder that holds this manifest and nothing else."""
    said.save(folder)
    return predict(folder, device, **more)


def row(found: dict[str, Any], precision: str) -> dict[str, Any]:
    return next(each for each in found["choices"] if each["precision"] == precision)


def in_figures(
    folder: Path, said: Manifest, device: str, stored: Stored = FIGURES, context: int = 0
) -> dict[str, Any]:
    """A row of the plan for a decoder stored otherwise than any target of ours has it."""
    made = Planned(said, folder, devices.device(device), (30.0,), context)
    return made.choice(Choice("figures", stored, "fp16", 2.0))


def alm_plan(*words: str | Path) -> int:
    return exit_status.run(alm_commands.app, ["plan", *map(str, words)])
