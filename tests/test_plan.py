"""`alm plan`: the formulas against published figures, what fits, and that a manifest is enough."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from commands import Capture
from conftest import SHARED

from alm import _counted, command, devices, manifest, tools
from alm._planned import WORKING, fits
from alm.errors import BadArtifacts, BadOption, UnknownName
from alm.manifest import File, Manifest, Part
from alm.plan import predict
from alm.ports import Port

Figure = tuple[str, str, float]
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

# TensorRT Edge-LLM 0.9.0, JetPack 7.2, one row, int4 with lm_head in float16
# (its published table; ../shared/spec/tensorrt.md, 1.4). Tokens a second after 61 tokens:
TOKENS_PER_SECOND: list[Figure] = [
    *[(AGX, "qwen3-0.6b", 186.4), (AGX, "qwen3-1.7b", 98.6)],
    *[(AGX, "qwen3-4b", 53.1), (AGX, "qwen3-8b", 32.5)],
    *[(NX, "qwen3-0.6b", 117.4), (NX, "qwen3-1.7b", 60.4)],
    *[(NX, "qwen3-4b", 31.6), (NX, "qwen3-8b", 19.0)],
    *[(NANO, "qwen3-0.6b", 72.8), (NANO, "qwen3-1.7b", 37.4)],
]
# The same decoders in Qwen3-VL, after 292 tokens:
TOKENS_PER_SECOND_VL: list[Figure] = [
    *[(AGX, "qwen3-1.7b", 98.4), (AGX, "qwen3-4b", 52.4)],
    *[(NX, "qwen3-1.7b", 60.1), (NX, "qwen3-4b", 31.2), (NANO, "qwen3-1.7b", 36.9)],
]
# Milliseconds of a prompt of 61 and of 292 tokens:
PROMPTS = [
    *[(AGX, "qwen3-0.6b", 61, 14.8), (AGX, "qwen3-1.7b", 61, 20.4), (AGX, "qwen3-4b", 61, 42.6)],
    *[(AGX, "qwen3-8b", 61, 65.7), (AGX, "qwen3-1.7b", 292, 50.0), (AGX, "qwen3-4b", 292, 123.7)],
    *[(NX, "qwen3-0.6b", 61, 18.9), (NX, "qwen3-1.7b", 61, 35.4), (NX, "qwen3-4b", 61, 74.9)],
    *[(NX, "qwen3-8b", 61, 127.2), (NX, "qwen3-1.7b", 292, 103.1), (NX, "qwen3-4b", 292, 244.6)],
    *[(NANO, "qwen3-0.6b", 61, 28.7), (NANO, "qwen3-1.7b", 61, 63.1)],
    (NANO, "qwen3-1.7b", 292, 190.9),
]
# Milliseconds of the image encoder of Qwen3-VL in float16.
IMAGES = {AGX: 39.0, NX: 82.1, NANO: 151.1}
# Megabytes while it runs, the embedding table resident.
MEMORY = [
    *[(AGX, "qwen3-0.6b", 1931), (AGX, "qwen3-1.7b", 3302), (AGX, "qwen3-4b", 4911)],
    *[(AGX, "qwen3-8b", 8221), (NX, "qwen3-0.6b", 1937), (NX, "qwen3-1.7b", 3250)],
    *[(NX, "qwen3-4b", 4921), (NX, "qwen3-8b", 7880)],
    *[(NANO, "qwen3-0.6b", 1889), (NANO, "qwen3-1.7b", 3234)],
]
# The same with the image encoder. The 8140 MB of Qwen3-VL-2B on AGX Orin are left out: it is the
# same model that takes 4344 and 4380 on the smaller boards.
MEMORY_VL = [(NX, "qwen3-1.7b", 4344), (NANO, "qwen3-1.7b", 4380), (NX, "qwen3-4b", 5903)]
# Of other software, with nothing fitted to them (../shared/spec/tensorrt.md, 1.4 and 5.2).
OTHERS = [
    *[(AGX, "llama-3b", "fp16", 25.6), (AGX, "llama-3b", "int4head16", 61.2)],  # vLLM
    (AGX, "llama-1b", "fp16", 65.0),
    *[(SUPER, "qwen3-1.7b", "int4head16", 60.0), (SUPER, "qwen3-1.7b", "int4head16", 56.0)],
    *[(SUPER, "llama-3b", "int4", 43.07), (SUPER, "llama-8b", "int4", 19.14)],  # MLC
    *[(SUPER, "qwen2.5-7b", "int4", 21.75), (SUPER, "phi-3.5", "int4", 38.1)],
    *[(THOR, "llama-1b", "fp16", 77.3), (THOR, "llama-1b", "int4head16", 162.5)],  # vLLM
    *[(THOR, "llama-3b", "fp16", 34.2), (THOR, "llama-3b", "int4head16", 73.6)],
    (THOR, "llama-8b", "int4head16", 50.8),  # Edge-LLM 0.4
]


def part(name: str, role: str, size: int, **more: Any) -> Part:
    return Part(name, role, (File(f"{name}.onnx", size, "0" * 64),), precision="fp16", **more)


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
    size = 2 * (llm.weights + llm.head)
    return Manifest(
        family="test",
        parts=(*front, part("decoder", "decoder", size, inputs={"inputs_embeds": embeds} | cache)),
        tokenizer=None,
        prompt={"template": "{}<A>", "placeholder": "<A>", "tasks": {}},
        tokens={"eos": [2]},
        generation={"max_new_tokens": 64},
        audio={"rate": 16000, "channel": "first", "least_samples": 400, "window_samples": 480000},
        dimensions={
            **{"hidden": llm.hidden, "vocab": llm.vocab, "layers": llm.layers},
            **{"heads": llm.heads, "kv_heads": llm.kv_heads, "head_dim": llm.head_dim},
            **{"context": 4096, "audio_tokens": tokens - 2},
        },
    )


def planned(folder: Path, said: Manifest, device: str, **more: Any) -> dict[str, Any]:
    """The plan for a folder that holds this manifest and nothing else."""
    said.save(folder)
    return predict(folder, device, **more)


def row(found: dict[str, Any], precision: str) -> dict[str, Any]:
    return next(each for each in found["choices"] if each["precision"] == precision)


def alm_plan(*words: str | Path) -> int:
    return command.run(tools.app, ["plan", *map(str, words)])


# --- against what was published


@pytest.mark.parametrize(
    ("device", "name", "published", "context"),
    [*((*f, 61) for f in TOKENS_PER_SECOND), *((*f, 292) for f in TOKENS_PER_SECOND_VL)],
)
def test_tokens_a_second_are_within_their_5_percent_of_the_published(
    tmp_path: Path, device: str, name: str, published: float, context: int
) -> None:
    found = planned(tmp_path, model(LLMS[name]), device, context=context)
    speed = row(found, "int4head16")["tokens_per_second"]
    assert speed["value"] == pytest.approx(published, rel=0.06)
    assert speed["least"] <= published <= speed["most"]
    assert speed["value"] / speed["least"] == pytest.approx(1.05)


@pytest.mark.parametrize(("device", "name", "tokens", "published"), PROMPTS)
def test_prompts_take_the_published_milliseconds_within_10_percent(
    tmp_path: Path, device: str, name: str, tokens: int, published: float
) -> None:
    found = planned(tmp_path, model(LLMS[name], tokens), device)
    assert found["model"]["prompt_tokens"] == tokens
    prompt = row(found, "int4head16")["clips"][0]["prompt"]
    assert prompt["least"] <= published <= prompt["most"]
    assert prompt["value"] == pytest.approx(published, rel=0.10)


@pytest.mark.parametrize(("device", "published"), IMAGES.items())
def test_an_encoder_takes_the_published_milliseconds_within_10_percent(
    tmp_path: Path, device: str, published: float
) -> None:
    said = model(LLMS["qwen3-1.7b"], 292, *image_encoder())
    took = row(planned(tmp_path, said, device), "int4head16")["clips"][0]["encoders"]
    assert took["value"] == pytest.approx(published, rel=0.10)
    assert took["least"] <= published <= took["most"]


@pytest.mark.parametrize(
    ("device", "name", "published", "front"),
    [*((*each, ()) for each in MEMORY), *((*each, image_encoder()) for each in MEMORY_VL)],
)
def test_a_running_model_takes_the_published_memory_within_5_percent(
    tmp_path: Path, device: str, name: str, published: int, front: tuple[Part, ...]
) -> None:
    llm = LLMS[name]
    found = planned(tmp_path, model(llm, 61, *front), device, context=1)
    took = row(found, "int4head16")["run"]
    table = WORKING * 2 * llm.head  # resident there, a file here
    assert took["value"] + table == pytest.approx(published * 1e6, rel=0.05)


@pytest.mark.parametrize(("device", "name", "precision", "published"), OTHERS)
def test_figures_that_nothing_was_fitted_to_are_within_the_error_bars(
    tmp_path: Path, device: str, name: str, precision: str, published: float
) -> None:
    found = planned(tmp_path, model(LLMS[name]), device, context=61)
    speed, known = row(found, precision)["tokens_per_second"], devices.device(device)
    widest = max(known.other_error, known.step_error)
    assert 1 / (1 + widest) <= published / speed["value"] <= 1 / (1 - widest)


def test_thor_reads_nvfp4_as_published() -> None:
    """Edge-LLM 0.9.0 after 2048 tokens, 4 bits and a scale of 8 a block of 16 in all products."""
    known = devices.device(THOR)
    for name, published in {
        "qwen3-0.6b": 245.4,
        "qwen3-1.7b": 135.5,
        "qwen3-4b": 73.7,
        "qwen3-8b": 44.4,
    }.items():
        llm = LLMS[name]
        cache = 2 * llm.layers * llm.kv_heads * llm.head_dim * 2 * 2048
        read = (llm.weights + llm.head) * (4 + 8 / 16) / 8 + cache
        assert 1e3 / known.step(read) == pytest.approx(published, rel=0.10), name


def test_bytes_a_token_are_those_of_the_calculation() -> None:
    """../shared/spec/tensorrt.md, 5.3: GB in fp16, int4 with lm_head in fp16, int8 and int4."""
    precisions = ("fp16", "int4head16", "int4head8", "int4")
    for name, said in {
        "llama-1b": (2.47, 1.03, 0.76, 0.64),
        "llama-3b": (6.43, 2.24, 1.85, 1.66),
        "llama-8b": (15.0, 4.65, 4.12, 3.87),
        "vicuna-7b": (13.2, 3.60, 3.47, 3.41),
    }.items():
        llm = LLMS[name]
        for precision, size in zip(precisions, said, strict=True):
            stored = _counted.DECODER[precision]
            bytes_ = llm.weights * stored.layers + llm.head * stored.head
            assert bytes_ / 1e9 == pytest.approx(size, rel=0.03), (name, precision)


@pytest.mark.parametrize(
    ("name", "kilobytes"), [("llama-1b", 32), ("llama-3b", 112), ("vicuna-7b", 512)]
)
def test_a_token_of_the_cache_has_the_bytes_of_the_calculation(
    tmp_path: Path, name: str, kilobytes: int
) -> None:
    found = planned(tmp_path, model(LLMS[name], 90), NANO)["model"]
    assert found["cache_per_token"] == kilobytes * 1024
    assert found["cache_per_second"] == pytest.approx(kilobytes * 1024 * 88 / 30)


# --- error bars


def test_devices_without_figures_have_wider_error_bars_and_say_so(tmp_path: Path) -> None:
    said = model(LLMS["llama-3b"])
    for name in set(devices.known()) - {NANO, NX, AGX}:
        found = planned(tmp_path, said, name)
        known = devices.device(name)
        assert known.step_error > 0.05 and known.encoder_error > 0.2
        assert any(
            words in found["notes"][0] for words in ("no figure", "not agree", "one figure each")
        )


def test_other_precisions_than_the_figures_have_wider_error_bars(tmp_path: Path) -> None:
    found = planned(tmp_path, model(LLMS["llama-3b"]), AGX)
    for each in found["choices"]:
        took = each["per_token"]
        error = 0.05 if each["precision"] == "int4head16" else 0.10
        assert took["most"] / took["value"] == pytest.approx(1 + error)


def test_every_device_has_numbers_that_can_be(tmp_path: Path) -> None:
    said = model(LLMS["llama-1b"])
    for name in devices.known():
        known = devices.device(name)
        assert known.title and known.source and 0 < known.usable < known.memory
        found = planned(tmp_path, said, name)
        speeds = [row(found, n)["tokens_per_second"]["value"] for n in ("fp16", "int8", "int4")]
        assert speeds == sorted(speeds) and speeds[0] > 1


# --- what fits


def test_what_does_not_fit_is_said(tmp_path: Path, capfd: Capture) -> None:
    said = model(LLMS["llama-8b"])
    verdicts = {
        device: [row(planned(tmp_path, said, device), name)["fits"] for name in ("fp16", "int4")]
        for device in ("orin-nano-4gb", NANO, NX, AGX)
    }
    assert verdicts["orin-nano-4gb"] == ["no", "no"]
    assert verdicts[NANO] == ["no", "tight"]
    assert verdicts[NX] == ["no", "yes"] and verdicts[AGX] == ["yes", "yes"]
    capfd.readouterr()
    assert alm_plan(tmp_path, "--device", NANO) == 0
    lines = capfd.readouterr().out.splitlines()
    (own,) = (line for line in lines if line.startswith("fp16 *") and "GB" in line)
    assert own.split()[-1] == "no"


def test_tight_is_what_hangs_on_loading_or_on_the_error_bar() -> None:
    assert fits(5.0, 6.0, 7.0) == "yes"
    assert fits(5.0, 6.8, 7.0) == fits(8.0, 6.0, 7.0) == "tight"
    assert fits(8.0, 7.1, 7.0) == "no"


def test_a_cache_that_matters_is_offered_in_int8(tmp_path: Path) -> None:
    said = model(LLMS["vicuna-7b"])
    short = planned(tmp_path, said, NANO, context=16)
    assert all("kv8" not in each["precision"] for each in short["choices"])
    long = planned(tmp_path, said, NANO, context=4096)
    small, whole = row(long, "int4head8+kv8"), row(long, "int4head8")
    assert small["cache_bytes"] * 2 == whole["cache_bytes"] == 4096 * 512 * 1024
    assert small["tokens_per_second"]["value"] > whole["tokens_per_second"]["value"]
    assert small["run"]["value"] < whole["run"]["value"]


def test_beams_are_counted_in_memory_and_told(tmp_path: Path) -> None:
    said = model(LLMS["llama-3b"])
    alone = planned(tmp_path, said, NANO)
    four = planned(tmp_path, replace(said, generation={"max_new_tokens": 64, "num_beams": 4}), NANO)
    own, other = alone["choices"][0], four["choices"][0]
    assert other["cache_bytes"] == 4 * own["cache_bytes"]
    assert other["tokens_per_second"] == own["tokens_per_second"]
    assert any("4 beams" in note for note in four["notes"])
    assert not any("beams" in note for note in alone["notes"])


# --- what the manifest tells


@pytest.mark.parametrize("precision", [*_counted.DECODER, "int4+kv8", "bf16+int4"])
def test_weights_are_counted_from_bytes_in_every_precision(precision: str) -> None:
    llm = LLMS["llama-3b"]
    stored = _counted.stored(precision)
    assert stored
    wide = llm.layers * 3 * llm.hidden * llm.wide
    size = (llm.weights - wide / 3) * stored.layers + llm.head * stored.head
    size += wide / 3 * (stored.down or stored.layers)
    decoder = replace(part("decoder", "decoder", round(size)), precision=precision)
    layers, head = _counted.decoder_weights(decoder, model(llm).dimensions)
    assert layers == pytest.approx(llm.weights, rel=1e-6) and head == llm.head


def test_every_lever_of_the_exporter_is_known() -> None:
    from alm.pick import names
    from exporters import levers

    assert all(_counted.stored(name) for name in names(levers))
    assert _counted.stored("int4new") == _counted.stored("int4")


def test_the_manifest_alone_is_enough(artifacts: Path, tmp_path: Path) -> None:
    shutil.copy(artifacts / manifest.NAME, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [manifest.NAME]
    found = predict(tmp_path, NANO)
    said = manifest.load(artifacts)
    own = found["choices"][0]
    assert own["own"] and own["precision"] == "fp32" and own["fits"] == "yes"
    heard = [each for each in said.parts if each.role not in ("table",)]
    assert own["weights"] == sum(each.bytes for each in heard)
    assert [each["part"] for each in found["parts"]] == [p.name for p in heard[:-1]]
    assert any("smaller than any" in note for note in found["notes"])


def test_longer_clips_cost_what_hears_all_of_them_and_no_more_than_a_window(
    artifacts: Path,
) -> None:
    found = predict(artifacts, AGX, (1.0, 2.0, 4.0, 40.0))  # the window is 4 s
    work = {p["part"]: [clip["operations"] for clip in p["clips"]] for p in found["parts"]}
    assert len(set(work["whisper"])) == 1  # always hears a whole window
    assert work["beats"][0] < work["beats"][1] < work["beats"][2] == work["beats"][3]
    clips = found["choices"][0]["clips"]
    assert [clip["windows"] for clip in clips] == [1, 1, 1, 10]
    for clip in clips:
        both = clip["encoders"]["value"] + clip["prompt"]["value"]
        assert clip["first_token"]["value"] == pytest.approx(both)
        assert clip["first_token"]["least"] < both < clip["first_token"]["most"]


def test_operations_are_near_those_that_the_graph_has(artifacts: Path) -> None:
    from alm import _work

    said = manifest.load(artifacts)
    sizes = _counted.sizes(said, 4.0)
    for name in ("whisper", "beats"):
        each = said.part(name)
        assert each
        graph = artifacts / each.files[0].name
        truth, _ = _work.operations(graph, sizes)
        told = _counted.operations(_counted.heard(each), sizes)
        assert 0.7 < told / truth < 1.7, name


def test_a_real_size_whisper_takes_what_was_calculated() -> None:
    """../shared/spec/tensorrt.md, 5.3: 0.12 s on AGX Orin, 0.25 on Orin NX, 0.5 on Orin Nano."""
    weights = 32 * 12 * 1280**2 + 1280 * 3 * (128 + 1280) + 1500 * 1280
    ports = {"log_mel": Port("float32", (1, 128, 3000))}, {"s": Port("float32", (1, 1500, 1280))}
    whisper = part("whisper", "encoder", 2 * weights, inputs=ports[0], outputs=ports[1])
    sizes = _counted.sizes(model(LLMS["llama-3b"]), 30)
    operations = _counted.operations(_counted.heard(whisper), sizes)
    assert operations == pytest.approx(2.27e12, rel=0.02)
    for name, seconds in {AGX: 0.12, NX: 0.25, NANO: 0.5}.items():
        known = devices.device(name)
        took = known.encode(whisper.bytes, operations) / 1e3
        assert took == pytest.approx(seconds, rel=known.encoder_error)


# --- the command


def test_the_json_file_holds_what_is_printed(
    artifacts: Path, tmp_path: Path, capfd: Capture
) -> None:
    path = tmp_path / "plan.json"
    words = ("--device", NX, "--seconds", "2,4", "--context", "64", "--json", path)
    assert alm_plan(artifacts, *words) == 0
    said = capfd.readouterr()
    found = json.loads(path.read_text("utf-8"))
    assert (found["format"], found["device"]["name"]) == ("alm-plan", NX)
    assert found["model"]["context"] == 64
    assert [clip["seconds"] for clip in found["choices"][0]["clips"]] == [2, 4]
    for word in ("MEMORY", "SPEED", "fp32 *", "int4head8", "first, 4 s", "whisper", "note: "):
        assert word in said.out
    assert said.err == "" and all(each["part"] in said.out for each in found["parts"])
    assert [note for note in found["notes"] if f"note: {note}" not in said.out] == []


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (("--device", "toaster"), 2, "unknown device 'toaster'; there is: agx-orin-32gb, "),
        (("--device", "_device"), 2, "unknown device '_device'"),
        ((), 2, "wanted --device; there is: agx-orin-32gb, agx-orin-64gb, agx-thor, orin-nano"),
        (("--device", NANO, "--seconds", "0"), 2, "--seconds wants numbers from 0.01"),
        (("--device", NANO, "--seconds", "1,nan"), 2, "--seconds wants numbers"),
        (("--device", NANO, "--context", "99999"), 2, "--context 99999 is beyond the model's"),
        (("--device", NANO, "--json", "no such folder/a"), 1, "there is no folder no such folder"),
    ],
    ids=str,
)
def test_what_cannot_be_planned_is_refused_in_one_sentence(
    artifacts: Path, capfd: Capture, words: tuple[str, ...], status: int, sentence: str
) -> None:
    assert alm_plan(artifacts, *words) == status
    said = capfd.readouterr()
    assert said.out == "" and said.err.startswith("error: ") and sentence in said.err
    assert said.err.count("\n") == 1


def test_the_errors_are_those_that_are_promised(tmp_path: Path) -> None:
    with pytest.raises(UnknownName):
        devices.device("toaster")
    with pytest.raises(BadOption):
        devices.device("")
    said = model(LLMS["llama-1b"])
    with pytest.raises(BadArtifacts, match="holds no decoder"):
        planned(tmp_path, replace(said, parts=()), NANO)
    odd = replace(said.parts[-1], precision="int2")
    with pytest.raises(BadArtifacts, match="'int2'.*known are: fp32"):
        planned(tmp_path, replace(said, parts=(odd,)), NANO)
    few = replace(said.parts[-1], files=(File("decoder.onnx", 100, ""),))
    with pytest.raises(BadArtifacts, match="too few for a head"):
        planned(tmp_path, replace(said, parts=(few,)), NANO)


def test_the_published_table_is_still_that_of_the_specification() -> None:
    path = SHARED / "spec" / "tensorrt.md"
    if not path.is_file():
        pytest.skip(f"no specification at {path}")
    text = path.read_text("utf-8")
    for _, _, speed in TOKENS_PER_SECOND + TOKENS_PER_SECOND_VL:
        assert str(speed) in text
    for *_, took in PROMPTS:
        assert str(took) in text
