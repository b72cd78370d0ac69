"""LoRA adapters that stay files: one export answers as the checkpoint with each of them merged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import alm
from alm.decoder.decoder import Decoder
from alm.errors import AlmError, BadOption, UnknownName
from alm.generation.model import Model
from alm.lint import lint
from tests.conftest import run_export
from tests.products import some
from tests.whole import adapter_files
from tests.wrappers.families import tiny_hf
from tests.wrappers.families.tiny_hf import noise

RATE = 16_000
WORDS = "What is said?"
GREEDY: dict[str, Any] = dict(max_new_tokens=12, do_sample=False, num_beams=1)
# Of different ranks, scales and targets; the second changes every part that has Linears.
LORAS: Mapping[str, Mapping[str, Any]] = {
    "medical": dict(
        r=3, lora_alpha=9, target_modules=r".*language_model.*\.(q_proj|v_proj|gate_proj)"
    ),
    "street": dict(
        r=5,
        lora_alpha=4,
        use_rslora=True,
        alpha_pattern={"down_proj": 7},
        rank_pattern={"down_proj": 2},
        target_modules=r".*(audio_tower.*(k_proj|fc1)|language_model.*(o_proj|down_proj)|linear)",
    ),
}


@dataclass(frozen=True)
class Exported:
    """A checkpoint's folder, its adapters', and exports of it: with slots, without, and merged."""

    checkpoint: Path
    loras: Mapping[str, Path]
    out: Path

    def model(self, name: str) -> Model:
        return alm.load(self.out / name, "cpu", threads=1)


def export(checkpoint: Path, out: Path, *words: str | Path) -> None:
    run_export("--model", checkpoint, "--out", out, "--precision", "fp32", "--no-simplify", *words)


@pytest.fixture(scope="module", params=some(["ort", "decomposed", "standard"], "ort"))
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    root = tmp_path_factory.mktemp(request.param)
    tiny = tiny_hf.qwen2_audio(root / "checkpoint", seconds=4)
    loras = {
        name: adapter_files.save(tiny.truth, root / name, seed, **said)
        for seed, (name, said) in enumerate(LORAS.items())
    }
    words = ["--dialect", request.param, "--dynamic-batch"]
    export(tiny.folder, root / "out" / "base", *words)
    for name, lora in loras.items():
        shutil.copytree(tiny.folder, root / f"merged {name}")
        adapter_files.merge(tiny.truth, lora, root / f"merged {name}")
        tiny = tiny_hf.qwen2_audio(root / "again", seconds=4)  # peft merged in place
        export(root / f"merged {name}", root / "out" / name, *words)
    every = [f"--adapter={name}={lora}" for name, lora in loras.items()]
    export(tiny.folder, root / "out" / "slots", *words, *every)
    return Exported(tiny.folder, loras, root / "out")


@contextmanager
def logits() -> Iterator[list[np.ndarray]]:
    """All that the decoder says meanwhile."""
    seen: list[np.ndarray] = []
    plain = Decoder._run

    def run(self: Decoder, *given: Any) -> np.ndarray:
        seen.append(plain(self, *given))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Decoder, "_run", run)
        yield seen


def said(model: Model, clip: np.ndarray, **options: Any) -> tuple[list[int], list[np.ndarray]]:
    with logits() as seen:
        answer = model.generate(clip, WORDS, **GREEDY, **options)
    return answer.token_ids, seen


def test_each_adapter_answers_as_if_it_were_merged(exported: Exported) -> None:
    slots, clip = exported.model("slots"), noise(2 * RATE)
    answers: list[list[int]] = []
    for name in ("medical", "street", "medical", "", "street", ""):  # back and forth
        ids, got = said(slots, clip, adapter=name)
        wanted, right = said(exported.model(name or "base"), clip)
        assert ids == wanted
        for a, b in zip(got, right, strict=True):
            if name:
                np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)
            else:  # the base, exactly
                np.testing.assert_array_equal(a, b)
        answers.append(ids)
    assert answers[0] != answers[1] != answers[3] != answers[0]
    by_path, _ = said(slots, clip, adapter=str(exported.loras["street"]))
    assert by_path == answers[1]


def test_memories_of_audio_and_of_beginnings_do_not_mix(exported: Exported) -> None:
    slots, clip = exported.model("slots"), noise(RATE)
    first = [slots.generate(clip, WORDS, **GREEDY, adapter=n) for n in ("", "medical", "street")]
    # The medical one leaves the encoder alone, so the clip is known to it.
    assert [answer.audio_cached for answer in first] == [0, 1, 0]
    assert [answer.prefix_tokens for answer in first] == [0, 0, 0]
    again = [slots.generate(clip, WORDS, **GREEDY, adapter=n) for n in ("street", "medical", "")]
    assert [answer.audio_cached for answer in again] == [1, 1, 1]
    assert all(answer.prefix_tokens for answer in again)
    assert [a.token_ids for a in again] == [a.token_ids for a in reversed(first)]


def test_a_conversation_keeps_its_adapter(exported: Exported) -> None:
    slots, merged = exported.model("slots"), exported.model("street")
    ours, theirs = slots.chat(adapter="street", **GREEDY), merged.chat(**GREEDY)
    for words, clips in ((WORDS, [noise(RATE)]), ("And then?", []), ("Here?", [noise(2 * RATE)])):
        assert ours.ask(words, *clips).token_ids == theirs.ask(words, *clips).token_ids
    with pytest.raises(BadOption, match="keeps the adapter"):
        ours.ask("And now?", adapter="medical")  # pyright: ignore


def test_rows_of_a_batch_share_one_adapter(exported: Exported) -> None:
    slots, merged = exported.model("slots"), exported.model("street")
    clips = [noise(2 * RATE), noise(3 * RATE), noise(9 * RATE)]
    got = slots.generate(clips, WORDS, adapter="street", **GREEDY)
    wanted = merged.generate(clips, WORDS, **GREEDY)
    assert [a.token_ids for a in got] == [a.token_ids for a in wanted]


# --- one dialect is enough for what follows


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """One adapter, one row at a time, in 4 and 8 bits as well."""
    root = tmp_path_factory.mktemp("small")
    tiny = tiny_hf.qwen2_audio(root / "checkpoint", seconds=4, hidden_size=64)
    lora = adapter_files.save(tiny.truth, root / "street", 1, **LORAS["street"])
    for precision in ("fp32", "int4", "int8"):
        words = ["--precision", precision, "--adapter", f"street={lora}"]
        run_export("--model", tiny.folder, "--out", root / "out" / precision, *words)
    return Exported(tiny.folder, {"street": lora}, root / "out")


@pytest.mark.parametrize("precision", some(["fp32", "int4", "int8"], "int4"))
def test_levers_leave_slots_as_they_are(small: Exported, precision: str) -> None:
    model, clips = small.model(precision), [noise(RATE), noise(2 * RATE)]
    ports = model.manifest.named("decoder").inputs
    assert {p.dtype for name, p in ports.items() if name.startswith("lora.")} == {"float32"}
    base, worn = (said(model, clips[0], adapter=name)[1][0] for name in ("", "street"))
    assert np.abs(base - worn).max() > 0.1
    rows = model.generate(clips, WORDS, adapter="street", **GREEDY)  # row by row
    alone = [model.generate(clip, WORDS, adapter="street", **GREEDY) for clip in clips]
    assert [row.token_ids for row in rows] == [answer.token_ids for answer in alone]


def test_inspection_shows_adapters(small: Exported, capsys: pytest.CaptureFixture[str]) -> None:
    from alm.cli.reports import inspection

    assert inspection.show(small.out / "fp32") == 0
    shown = capsys.readouterr().out
    assert "adapters/street/adapter_model.safetensors" in shown
    changed = small.out / "changed"
    shutil.copytree(small.out / "fp32", changed)
    (changed / "adapters" / "street" / "adapter_model.safetensors").write_bytes(b"x")
    assert inspection.show(changed) == 1
    with pytest.raises(AlmError, match="the manifest says"):
        alm.load(changed, "cpu").generate(noise(RATE), WORDS, adapter="street")


def test_wrong_names_are_refused(small: Exported, tmp_path: Path) -> None:
    model = small.model("fp32")
    with pytest.raises(UnknownName, match="unknown adapter 'stret'; there is: street"):
        model.chat(adapter="stret")
    with pytest.raises(AlmError, match="there is no adapter_config.json"):
        model.chat(adapter=tmp_path)
    with pytest.raises(BadOption, match="wanted as a name"):
        model.chat(adapter=7)  # pyright: ignore


Change = Any  # of a config, or of a file's bytes


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (dict(use_dora=True), "use_dora: True, which is no plain LoRA"),
        (dict(peft_type="LOHA"), "peft_type: 'LOHA'"),
        (dict(modules_to_save=["x"]), "modules_to_save"),
        (dict(bias="all"), "bias: 'all'"),
        (dict(init_lora_weights="pissa"), "changes the model's own weights"),
        (dict(alpha_pattern={"(a|a)*b": 1}), "alpha_pattern of expressions"),
        (dict(lora_alpha="x"), "lora_alpha: 'x', which is no number"),
    ],
)
def test_what_is_no_plain_lora_is_refused(
    small: Exported, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    folder = shutil.copytree(small.loras["street"], tmp_path / "lora")
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(AlmError, match="(?s)" + sentence.replace("(", r"\(")):
        small.model("fp32").chat(adapter=folder)


def header(change: Any) -> Any:
    """What changes the header of a safetensors file, as JSON."""

    def changed(data: bytes) -> bytes:
        size = int.from_bytes(data[:8], "little")
        plain = json.loads(data[8 : 8 + size])
        first = next(name for name in plain if name != "__metadata__")
        change(plain, first)
        text = json.dumps(plain).encode()
        return len(text).to_bytes(8, "little") + text + data[8 + size :]

    return changed


def _renamed(plain: dict[str, Any], first: str) -> None:
    plain["base_model.model.lm_head.lora_A.weight"] = plain.pop(first)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda data: data[:4], "header of"),
        (lambda data: b"\xff" * 8 + data[8:], "does not fit"),
        (lambda data: data[:-100], "lies from byte"),
        (lambda data: data[:8] + b"?" + data[9:], "is no JSON"),
        (header(lambda p, n: p[n].update(dtype="I64")), "is of 'I64'"),
        (header(lambda p, n: p[n].update(shape=[2**40, 2**40])), "lies from byte"),
        (header(lambda p, n: p[n].update(shape=[-1])), "has the shape"),
        (header(lambda p, n: p[n].update(data_offsets=[0])), "has the offsets"),
        (header(lambda p, n: p[n].update(shape=[*reversed(p[n]["shape"])])), "which takes"),
        (header(lambda p, n: p.pop(n)), "holds half of"),
        (header(_renamed), "lm_head, which has no slot|holds half of"),
        (lambda data: data[:-4] + b"\x00\x00\xc0\x7f", "not finite"),
    ],
)
def test_damaged_weights_are_refused(
    small: Exported, tmp_path: Path, change: Any, sentence: str
) -> None:
    folder = shutil.copytree(small.loras["street"], tmp_path / "lora")
    file = folder / "adapter_model.safetensors"
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(AlmError, match=sentence):
        small.model("fp32").chat(adapter=folder)


def test_an_adapter_of_other_modules_is_refused(small: Exported, tmp_path: Path) -> None:
    tiny = tiny_hf.qwen2_audio(tmp_path / "checkpoint", seconds=4, hidden_size=64)
    other = adapter_files.save(tiny.truth, tmp_path / "other", 2, r=2, target_modules=["q_proj"])
    with pytest.raises(AlmError, match="q_proj, which has no slot"):
        small.model("fp32").chat(adapter=other)


def test_a_model_without_slots_says_so(exported: Exported) -> None:
    with pytest.raises(BadOption, match="exported without slots"):
        exported.model("base").chat(adapter="street")


def test_targets_of_jetson_take_slots(small: Exported, tmp_path: Path) -> None:
    words = ["--precision", "fp32", "--dynamic-batch", "--no-simplify", "--target", "trt-jetpack7"]
    lora = small.loras["street"]
    run_export("--model", small.checkpoint, "--out", tmp_path, *words, f"--adapter=street={lora}")
    assert not lint(tmp_path, "trt-jetpack7").refused
