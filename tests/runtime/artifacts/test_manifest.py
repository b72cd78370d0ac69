"""The manifest: what is saved is what is loaded, and whatever else lies there is one sentence."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alm.artifacts import manifest, older_levers
from alm.artifacts.engine_files import Engine, Maker
from alm.artifacts.manifest import File, Manifest, Part
from alm.errors import LONGEST, AlmError, BadArtifacts, MissingFile
from alm.facts import AudioFacts, DimensionFacts, Facts, PromptFacts, TokenFacts
from alm.ports import Port, Span
from alm.precision import PLAINEST, Codes, Storage
from exporters import precisions

STORAGE = Storage(
    layers=Codes("uint4", 32, "float32", zero_point=True),
    head=Codes("int8", scale="float16"),
    as_head=("down_proj",),
    computes=("float16",),
    cache="float16",
    operators=("com.microsoft::MatMulNBits",),
    opset=21,
    backends=("onnxruntime",),
    fitted=True,
    bound=0.25,
)
FULL = Manifest(
    family="any",
    parts=(
        Part(
            name="ear",
            role="frontend",
            files=(File("ear.onnx", 12, "a" * 64), File("ear.onnx.data", 0, "b" * 64)),
            inputs={
                "pcm": Port("float32", ("batch", "samples")),
                "lora.ear.q.down": Port("float32", (1, 8, "rank")),
                "lora.ear.q.up": Port("float32", (1, "rank", 4)),
            },
            slots={"q": (("layers.0.q_proj",),)},
            outputs={"n": Port("int64", ("batch",), "samples"), "x": Port("float16", (1, 0))},
            spans={"samples": Span(1, 20, 300)},
            precision="fp16",
            storage=STORAGE,
            opset=21,
            dialect="standard",
            nodes=7,
            chunk_rows=1,
            pieces="samples",
            simplified="no: it is not simple",
            measured={"parity": {"worst_abs": 1.5e-6, "output": "x"}, "list": [1, None, True]},
            golden=File("golden/ear.safetensors", 7, "3" * 64),
        ),
        Part(name="embed", role="table", files=(File("sub/embed.npy", 1, "c" * 64),)),
    ),
    tokenizer=File("tokenizer.json", 3, "d" * 64),
    facts=Facts(
        prompt=PromptFacts(
            turn="{clips}{}", clip="<a> ", placeholder="<a>", tasks={"übe": "练习 🙂"}
        ),
        tokens=TokenFacts(eos=(2,), stop_strings=("</s>",)),
        generation={"max_new_tokens": 5, "top_p": 0.9},
        audio=AudioFacts(rate=16000),
        dimensions=DimensionFacts(hidden=8),
        source={"config": "c.yaml"},
        licence={"model": "MIT"},
    ),
    tools={"torch": "2"},
    created="2026-01-01T00:00:00+00:00",
    levers={"some4": {"decoder": STORAGE, "table": Storage(bound=0.5)}},
    adapters={"birds": (File("adapters/b.json", 5, "1" * 64), File("adapters/b.st", 6, "2" * 64))},
    golden=(File("golden/runs.json", 8, "4" * 64), File("golden/lamp.wav", 9, "5" * 64)),
).with_engines(
    (
        Engine(
            part="ear",
            file=File("ear.engine", 4, "e" * 64),
            graph="f" * 64,
            maker=Maker("tensorrt", "10.3.0", "Linux aarch64", "Orin", "8.7"),
            profiles=({"pcm": ((1, 1), (1, 20), (2, 300))},),
            fixed={"room": 64},
            seconds=1.5,
        ),
    ),
)


def spoil(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """`folder` with FULL in it, changed."""
    plain = copy.deepcopy(FULL.to_json())
    change(plain)
    (folder / manifest.NAME).write_text(json.dumps(plain), "utf-8")
    return folder


def sentence(folder: Path, kind: type[AlmError] = BadArtifacts) -> str:
    with pytest.raises(kind) as caught:
        manifest.load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "said",
    [
        FULL,
        dataclasses.replace(FULL, tokenizer=None, parts=(), created=""),
        dataclasses.replace(FULL, parts=(dataclasses.replace(FULL.parts[0], precision=""),)),
    ],
    ids=["full", "bare", "no-precision"],
)
def test_what_is_saved_is_what_is_loaded(said: Manifest, tmp_path: Path) -> None:
    said.save(tmp_path)
    assert manifest.load(tmp_path) == said
    assert [path.name for path in tmp_path.iterdir()] == [manifest.NAME]


def test_every_field_of_the_round_trip_has_a_value_of_its_own() -> None:
    for thing in (FULL, FULL.parts[0], STORAGE, FULL.engines[0], FULL.engines[0].maker):
        for field in dataclasses.fields(thing):
            assert getattr(thing, field.name), field.name


def test_a_manifest_finds_its_parts_and_its_files() -> None:
    assert FULL.part("ear") is FULL.parts[0] and FULL.part("nose") is None
    assert [part.name for part in FULL.with_role("table", "bridge")] == ["embed"]
    names = ["ear.onnx", "ear.onnx.data", "sub/embed.npy", "tokenizer.json"]
    names += ["adapters/b.json", "adapters/b.st", "golden/ear.safetensors"]
    names += ["golden/runs.json", "golden/lamp.wav", "ear.engine"]
    assert [file.name for file in FULL.files()] == names
    assert FULL.parts[0].bytes == 12
    assert FULL.engine("ear", "tensorrt") is FULL.engines[0] and FULL.engine("ear", "x") is None
    newer = dataclasses.replace(FULL.parts[0], nodes=8)
    without = dataclasses.replace(newer, engines=())  # its engine is of another graph
    assert FULL.replacing(newer).parts == (FULL.parts[1], without)


@pytest.mark.parametrize("measured", [{"worst": float("nan")}, {"unknown": object()}])
def test_a_manifest_that_cannot_be_written_leaves_the_old_one(
    measured: dict[str, Any], tmp_path: Path
) -> None:
    FULL.save(tmp_path)
    odd = FULL.replacing(dataclasses.replace(FULL.parts[0], measured=measured))
    with pytest.raises((BadArtifacts, TypeError)):
        odd.save(tmp_path)
    assert manifest.load(tmp_path) == FULL


@pytest.mark.skipif(os.name == "nt", reason="Windows lets only some make links")
def test_a_prepared_folder_makes_nobody_overwrite_another_file(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("precious")
    folder = tmp_path / "artifacts"
    folder.mkdir()
    for name in (manifest.NAME, f".{manifest.NAME}.new"):
        (folder / name).symlink_to(own)
    FULL.save(folder)
    assert own.read_text() == "precious"
    assert manifest.load(folder) == FULL
    names = sorted(path.name for path in folder.iterdir())
    assert names == [f".{manifest.NAME}.new", manifest.NAME]


def test_a_newer_format_is_refused_with_both_versions_and_what_to_type(tmp_path: Path) -> None:
    said = sentence(spoil(tmp_path, lambda m: m.update(format_version=3)))
    assert "is of format 3" in said and "reads 2" in said
    assert "pip install -U alm-edge" in said
    assert len(sentence(spoil(tmp_path, lambda m: m.update(format_version=10**400)))) < 500


def test_an_older_format_is_refused_with_what_to_do(tmp_path: Path) -> None:
    said = sentence(spoil(tmp_path, lambda m: m.update(format_version=1)))
    assert "is of format 1" in said and said.endswith("export the model again")


@pytest.mark.parametrize("version", [0, -1, None, True, "1", 1.0, [1], "x" * 9999])
def test_a_version_that_is_none_is_refused(version: Any, tmp_path: Path) -> None:
    said = sentence(spoil(tmp_path, lambda m: m.update(format_version=version)))
    assert "which is none" in said and len(said) < 500


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe{}", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a":' * 100_000, "not JSON"),
        (b"9" * 10_000, "not JSON"),
        (b'{"a": NaN}', "NaN is no finite number"),
        (b'{"a": -Infinity}', "-Infinity is no finite number"),
        (b'{"a": 1e999}', "1e999 is no finite number"),
        (b"[]", "no manifest of alm-edge"),
        (b"null", "no manifest of alm-edge"),
        (b'"alm-edge"', "no manifest of alm-edge"),
        (b'{"format": "other", "format_version": 1}', "no manifest of alm-edge"),
        (b'{"format": ["alm-edge"], "format_version": 1}', "no manifest of alm-edge"),
    ],
    ids=lambda value: repr(value[:16]),
)
def test_what_is_no_manifest_is_refused(text: bytes, word: str, tmp_path: Path) -> None:
    (tmp_path / manifest.NAME).write_bytes(text)
    said = sentence(tmp_path)
    assert word in said and len(said) < 500


def test_a_manifest_cut_anywhere_is_refused(tmp_path: Path) -> None:
    FULL.save(tmp_path)
    whole = (tmp_path / manifest.NAME).read_bytes()
    for end in range(0, len(whole) - 2, 37):
        (tmp_path / manifest.NAME).write_bytes(whole[:end])
        assert "not JSON" in sentence(tmp_path)


def test_a_huge_manifest_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / manifest.NAME).open("wb") as file:
        file.truncate(manifest.MOST_BYTES + 1)
    assert "too many for a manifest" in sentence(tmp_path)


def test_links_to_a_manifest_are_refused(tmp_path: Path) -> None:
    FULL.save(tmp_path)
    for name, link in (("soft", Path.symlink_to), ("hard", Path.hardlink_to)):
        folder = tmp_path / name
        folder.mkdir()
        link(folder / manifest.NAME, tmp_path / manifest.NAME)
        assert "link" in sentence(folder)
    (tmp_path / "dangling").mkdir()
    (tmp_path / "dangling" / manifest.NAME).symlink_to(tmp_path / "nowhere")
    assert "link" in sentence(tmp_path / "dangling")


def test_a_folder_that_is_missing_or_holds_no_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = sentence(tmp_path / "none", MissingFile)
    assert f"no folder {tmp_path / 'none'}" in said and "alm-export" in said
    assert "no .alm file that alm pack wrote" in sentence(tmp_path / "file")
    long = sentence(tmp_path / ("x" * 5000), MissingFile)
    assert f"no folder {tmp_path}" in long and "alm-export" in long and len(long) <= LONGEST
    assert "no artifact folder: it holds no manifest.json" in sentence(tmp_path, MissingFile)
    (tmp_path / manifest.NAME).mkdir()
    assert "no artifact folder" in sentence(tmp_path, MissingFile)


REQUIRED = [
    *((name,) for name in ("family", "parts", "tokenizer", "prompt", "tokens", "generation")),
    *((name,) for name in ("audio", "dimensions")),
    *(("parts", 0, name) for name in ("name", "role", "files", "inputs", "outputs")),
    *(("parts", 0, "files", 0, name) for name in ("name", "bytes", "sha256")),
    *(("parts", 0, "inputs", "pcm", name) for name in ("dtype", "axes")),
    ("tokenizer", "sha256"),
]
TYPED = [
    *REQUIRED,
    *((name,) for name in ("source", "licence", "tools", "created")),
    *(("parts", 0, name) for name in ("precision", "opset", "dialect", "nodes", "simplified")),
    *(("parts", 0, name) for name in ("spans", "measured")),
    ("parts", 0, "spans", "samples"),
    ("parts", 0, "outputs", "n", "counts"),
    ("tools", "torch"),
]


def inner(plain: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        plain = plain[key]
    return plain


@pytest.mark.parametrize("path", REQUIRED, ids=str)
def test_a_key_that_is_missing_is_named(path: tuple[Any, ...], tmp_path: Path) -> None:
    said = sentence(spoil(tmp_path, lambda m: inner(m, path).pop(path[-1])))
    assert f"lacks {path[-1]!r}" in said
    assert path[0] != "parts" or len(path) == 1 or "part ear" in said or "part 0" in said


@pytest.mark.parametrize("path", TYPED, ids=str)
@pytest.mark.parametrize("value", [True, 1.5, ["x", {}, 2**70], {"y": 1}], ids=repr)
def test_a_value_of_the_wrong_kind_is_named(
    path: tuple[Any, ...], value: Any, tmp_path: Path
) -> None:
    if isinstance(value, dict) and not isinstance(inner(FULL.to_json(), path)[path[-1]], str | int):
        if path[-1] in ("prompt", "tokens", "generation", "audio", "dimensions", "source"):
            return  # objects with contents of their own
        if path[-1] in ("licence", "measured"):
            return
    said = sentence(spoil(tmp_path, lambda m: inner(m, path).update({path[-1]: value})))
    assert "misshapen" in said and len(said) < 600


def test_a_part_twice_or_without_files_is_refused(tmp_path: Path) -> None:
    said = sentence(spoil(tmp_path, lambda m: m["parts"].append(m["parts"][0])))
    assert "lists a part twice: ear, embed, ear" in said
    assert "part ear has no files" in sentence(
        spoil(tmp_path, lambda m: m["parts"][0].update(files=[]))
    )


@pytest.mark.parametrize("axes", [[True], [1.5], [None], [["a"]], [-1], [2**62], "batch"])
def test_axes_that_are_no_numbers_and_names_are_refused(axes: Any, tmp_path: Path) -> None:
    said = sentence(
        spoil(tmp_path, lambda m: m["parts"][0]["inputs"]["pcm"].update(axes=axes)),
    )
    assert "'axes' of input pcm of part ear" in said


def places(plain: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) below."""
    keys = list(plain) if isinstance(plain, dict) else range(len(plain))
    here = [(plain, key) for key in keys]
    deeper = [plain[key] for key in keys if isinstance(plain[key], dict | list)]
    return here + [place for each in deeper for place in places(each)]


def test_a_manifest_changed_anywhere_loads_or_is_refused_in_one_sentence(
    artifacts: Path, tmp_path: Path
) -> None:
    whole = json.loads((artifacts / manifest.NAME).read_text("utf-8"))
    dice = random.Random(0)
    odd = [None, True, -1, 0, 2**64, 1.5, "", "../x", "\0", "\ud800", [], {}, [[]], {"": None}]
    refused = 0
    for _ in range(400):
        plain = copy.deepcopy(whole)
        for _ in range(dice.randint(1, 2)):
            container, key = dice.choice(places(plain))
            if dice.random() < 0.25:
                del container[key]
            else:
                container[key] = copy.deepcopy(dice.choice(odd))
        (tmp_path / manifest.NAME).write_text(json.dumps(plain), "utf-8")
        try:
            manifest.check_run(manifest.load(tmp_path), tmp_path)
        except AlmError as error:
            refused += 1
            assert len(str(error)) < 800 and "\n" not in str(error)
    assert 200 < refused < 400


def test_a_manifest_that_names_levers_and_says_no_more_is_read_by_their_names(
    tmp_path: Path,
) -> None:
    def older(plain: dict[str, Any]) -> None:
        del plain["levers"]
        for part, precision in zip(plain["parts"], ("fp16", "int4head8+kv8"), strict=True):
            del part["storage"]
            part["precision"] = precision
        plain["parts"][0]["role"], plain["parts"][1]["role"] = "encoder", "decoder"

    said = manifest.load(spoil(tmp_path, older))
    whisper, decoder = (part.storage for part in said.parts)
    assert whisper.layers.dtype == "float16" and whisper.cache == "float32"
    assert decoder.layers.bits < 5 < 8 < decoder.of_head.bits < 9
    assert decoder.cache == "int8" and decoder.backends == ("onnxruntime",)
    assert said.levers == older_levers.LEVERS and "int4dq" in said.levers


def test_a_lever_that_an_older_export_does_not_know_stores_nothing_else() -> None:
    assert older_levers.storage("some9", "decoder") == older_levers.storage("", "decoder")
    assert older_levers.storage("fp32", "decoder") == PLAINEST


def test_older_exports_stored_what_the_levers_say_today() -> None:
    """Where a lever changes what it stores, its older entry stays and leaves this test."""
    declared = precisions.declared()

    def today(storage: Storage) -> Storage:
        products = "MatMulInteger" in storage.operators  # whose weights were uint8
        layers = Codes("int8", scale="float32")
        return dataclasses.replace(storage, layers=layers) if products else storage

    for name, roles in older_levers.LEVERS.items():
        assert declared[name] == {role: today(each) for role, each in roles.items()}, name


@pytest.mark.parametrize(
    ("storage", "sentence_of_it"),
    [
        ({"layers": {"dtype": "int5"}}, "'dtype' of the storage of part ear is 'int5'"),
        ({"layers": {"scale": "much"}}, "'scale' of the storage of part ear is 'much'"),
        ({"layers": {"block": -1}}, "'block' of the storage of part ear is out of range"),
        ({"layers": {"zero_point": 1}}, "neither true nor false"),
        ({"head": 4}, "'head' of the storage of part ear is 4, not dict"),
        ({"cache": "gold"}, "'cache' of the storage of part ear is 'gold'"),
        ({"fitted": 1}, "'fitted' of the storage of part ear is 1, neither true nor false"),
        ({"backends": "ort"}, "'backends' of the storage of part ear is 'ort', not list"),
        ({"backends": [1]}, "'backends' is [1], not all str"),
        ({"bound": -1}, "'bound' of the storage of part ear is -1.0"),
        ({"opset": 1.5}, "'opset' of the storage of part ear is 1.5"),
        ([], "the storage of part ear is list, not an object"),
    ],
)
def test_a_storage_that_is_none_is_one_sentence(
    storage: Any, sentence_of_it: str, tmp_path: Path
) -> None:
    folder = spoil(tmp_path, lambda plain: plain["parts"][0].update(storage=storage))
    assert sentence_of_it in sentence(folder)
    folder = spoil(tmp_path, lambda plain: plain["levers"].update(some4={"decoder": storage}))
    assert "decoder of lever some4" in sentence(folder) or "backends" in sentence(folder)
