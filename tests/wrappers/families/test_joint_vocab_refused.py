"""What a config.yaml of a joint vocabulary may not say, and what does not fit together."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, processors

from alm.errors import AlmError, UnknownName
from tests.wrappers.families import tiny_joint_vocab
from tests.wrappers.families.tiny_joint_vocab import MADE, said_in, written
from wrappers import open_checkpoint

Change = Callable[[Path], dict[str, Any]]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("plain")
    return {name: tiny_joint_vocab.make(folder / name, made) for name, made in MADE.items()}


def _json(name: str, **changed: Any) -> Change:
    """A JSON file of the checkpoint changed; None takes a key out."""

    def change(folder: Path) -> dict[str, Any]:
        held = json.loads((folder / name).read_text()) | changed
        (folder / name).write_text(json.dumps({k: v for k, v in held.items() if v is not None}))
        return {}

    return change


def _tokenizer(change: Callable[[Tokenizer], Any]) -> Change:
    """The LLM's tokenizer changed."""

    def changed(folder: Path) -> dict[str, Any]:
        file = folder / "llm" / "tokenizer.json"
        known = Tokenizer.from_file(str(file))
        change(known)
        known.save(str(file))
        return {}

    return changed


def _ended(known: Tokenizer) -> None:
    template = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    known.post_processor = template  # pyright: ignore


def _renumbered(folder: Path) -> dict[str, Any]:
    file = folder / "llm" / "tokenizer.json"
    held = json.loads(file.read_text())
    by_name = {token["content"]: token for token in held["added_tokens"]}
    a, b = by_name["[Hu3]"], by_name["[Hu4]"]
    a["content"], b["content"] = "[Hu4]", "[Hu3]"
    file.write_text(json.dumps(held))
    return {}


def _special(folder: Path) -> dict[str, Any]:
    file = folder / "llm" / "tokenizer.json"
    held = json.loads(file.read_text())
    for token in held["added_tokens"]:
        token["special"] = True
    file.write_text(json.dumps(held))
    return {}


def _unigram(folder: Path) -> dict[str, Any]:
    file = folder / "llm" / "tokenizer.json"
    held = json.loads(file.read_text())
    held["model"] = {"type": "Unigram", "unk_id": 0, "vocab": [["<s>", 0.0], ["</s>", 0.0]]}
    file.write_text(json.dumps(held))
    return {"answer_end": None}


def _whole(folder: Path) -> dict[str, Any]:
    """A tokenizer that takes a whole text for a token where there is one of its name."""
    file = folder / "llm" / "tokenizer.json"
    held = json.loads(file.read_text())
    held["model"]["ignore_merges"] = True
    held["pre_tokenizer"] = {
        "type": "Split",
        "pattern": {"String": ">"},
        "behavior": "MergedWithPrevious",
        "invert": False,
    }
    file.write_text(json.dumps(held))
    return {}


def _centres(values: np.ndarray) -> Change:
    def change(folder: Path) -> dict[str, Any]:
        np.save(folder / "km.npy", values)
        return {}

    return change


CASES: dict[str, tuple[str, Any, str]] = {
    "a key nobody knows": ("audiopalm", dict(ofset=3), "`ofset` .meant is perhaps `offset`"),
    "another kind": ("audiopalm", dict(kind="wavlm"), "kind: 'wavlm'; known are hubert_kmeans"),
    "a kind that is no name": ("audiopalm", dict(kind=["mel_kmeans"]), "kind: .'mel_kmeans'.; kn"),
    "a key of another kind": ("audiopalm", dict(stack=2), "`stack`, which is of kind: mel_kmeans"),
    "a layer of no encoder": ("mel", dict(layer=2), "`layer`, which is of kind: hubert_kmeans"),
    "a path out of the folder": ("audiopalm", dict(km_path="../km.npy"), "in the config's folder"),
    "a path from the root": ("mel", dict(llama_path="/llm"), "llama_path: '/llm'; it must be"),
    "a path that is not there": ("audiopalm", dict(km_path="no.npy"), "km_path: no.npy, but there"),
    "a path that is none": ("audiopalm", dict(hubert_path=3), "hubert_path: 3; it must be a path"),
    "no encoder": ("audiopalm", dict(hubert_path=None), "does not say `hubert_path`"),
    "no adapter": ("audiopalm", dict(lora_path="llm"), "no adapter_config.json"),
    "a layer that is not there": ("audiopalm", dict(layer=9), "layer 9 of HuBERT is asked for"),
    "neither offset nor units": ("audiopalm", dict(offset=None), "neither `offset` nor `units`"),
    "both": ("audiopalm", dict(units="<{}>"), "both `offset` and `units`"),
    "no offset": ("audiopalm", dict(offset="290"), "offset: '290'; a whole number is wanted"),
    "below zero": ("audiopalm", dict(offset=-1), "offset: -1, with 23 units"),
    "more units than rows": ("audiopalm", dict(offset=291), "291, with 23 units .* has 313 rows"),
    "units among text": ("audiopalm", dict(offset=280), "has tokens there: 280 is"),
    "units that have names": (
        "audiopalm",
        _tokenizer(lambda known: known.add_tokens([AddedToken(f"<u{i}>") for i in range(9)])),
        "tokens there: 290 is '<u0>'; .* name them with `units`",
    ),
    "no place for a number": ("named", dict(units="[Hu]"), "units: '.Hu.'; one {} is wanted"),
    "a unit that is no token": ("named", dict(units="[HuB{}]"), "no token .HuB0."),
    "units apart": ("named", _renumbered, "units must follow each other"),
    "special units written": ("named", _special, "is a special token of"),
    "a mark that is no token": ("named", dict(begin="[Speek]"), "begin: '.Speek.', which is no"),
    "no yes or no": ("named", dict(dedup="yes"), "dedup: 'yes'; true or false is wanted"),
    "a start that is no token": ("mel", dict(bos="<bos>"), "bos: '<bos>', which is no token"),
    "a start by itself": ("mel", dict(bos=True), "bos: True; a token, or false, is wanted"),
    "a tokenizer that ends texts": ("mel", (_tokenizer(_ended), dict(bos=None)), "around a text"),
    "an end that is no token": ("mel", dict(eos="<end>"), "eos: '<end>', which is no token"),
    "an end that is a unit": ("audiopalm", _json("llm/generation_config.json", eos_token_id=300),
                              "ends at 300, which is a unit"),
    "no texts": ("mel", dict(stop=[3]), "stop: .3.; texts are wanted"),
    "an answer of another kind": ("mel", dict(audio_answers="spoken"), "known are masked and writ"),
    "a tokenizer without merges": ("mel", _unigram, "is a Unigram, and names"),
    "text that would be a unit": ("mel", _whole, "would read '<unit_0>.* as units"),
    "a name that is taken": (
        "mel",
        _tokenizer(lambda known: known.add_tokens([AddedToken(f"a{i}") for i in range(31)]
                                                  + [AddedToken("<unit_7>")])),
        "has tokens there",
    ),
    "a turn without a clip": ("mel", dict(turn="User: {}"), "one {} is wanted, .* and one <audio>"),
    "two places": ("mel", dict(tasks={"a": "<audio> <audio>"}), "a text with one <audio>"),
    "no task": ("mel", dict(tasks=["a"]), "a list of named texts is wanted"),
    "a task's number": ("mel", dict(tasks={"a": 3}), "tasks: 'a': 3; wanted is a name"),
    "the clip's own place": ("mel", dict(start="<UnitsHere>"), "<UnitsHere> in a text"),
    "a window of none": ("mel", dict(window_seconds=0), "window_seconds: 0; it must be 1 to 600"),
    "a window without a place": (
        "mel", dict(window_seconds=200), "which are 6666 units, .* say another window_seconds"),
    "no mel": ("mel", dict(mel_bins=0), "mel_bins: 0; it must be 1 to 256"),
    "no stack": ("mel", dict(stack=None), "stack: None; it must be 1 to 64"),
    "other centres": ("mel", dict(stack=2), "says mel_bins times stack, 42, but .* made of 63"),
    "centres of another width": ("audiopalm", _centres(np.zeros((23, 20), np.float32)), "24 wide"),
    "other rows": ("audiopalm", _json("llm/config.json", vocab_size=320), "is .313, 36"),
    "another encoder": (
        "audiopalm",
        _json("hubert/config.json", model_type="unispeech"),
        "'unispeech'",
    ),
    "another LLM": ("audiopalm", _json("llm/config.json", model_type="mamba"), "model_type"),
    "another rate": (
        "audiopalm", _json("hubert/preprocessor_config.json", sampling_rate=8000), "8000"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_does_not_fit_is_refused(case: str, plain: dict[str, Path], tmp_path: Path) -> None:
    name, changes, words = CASES[case]
    copy = Path(shutil.copytree(plain[name], tmp_path / "copy"))
    said = said_in(copy)
    for change in changes if isinstance(changes, tuple) else (changes,):
        changed: Any = change(copy) if callable(change) else change
        said |= changed
    written(copy, said)
    with pytest.raises(AlmError, match=words):
        open_checkpoint(copy)


@pytest.mark.parametrize(
    ("generate", "words"),
    [
        (dict(eos_token_id=3), "eos_token_id in generate; here it is `eos`"),
        (dict(stop_strings=["a"]), "stop_strings in generate; here it is `stop`"),
        (dict(guidance_scale=2), "guidance_scale"),
    ],
)
def test_settings_of_generate_that_are_not_followed_are_refused(
    generate: dict[str, Any], words: str, plain: dict[str, Path], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(plain["mel"], tmp_path / "copy"))
    written(copy, said_in(copy), generate=generate)
    with pytest.raises(AlmError, match=words):
        open_checkpoint(copy)


def test_all_faults_are_said_at_once(plain: dict[str, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(plain["mel"], tmp_path / "copy"))
    written(copy, said_in(copy) | dict(offset=400, tasks={"a": 3}, turn="x"))
    with pytest.raises(AlmError, match=r"offset: 400.*tasks: 'a': 3.*turn: 'x'"):
        open_checkpoint(copy)


def test_a_null_says_nothing(plain: dict[str, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(plain["audiopalm"], tmp_path / "copy"))
    before = open_checkpoint(copy).facts
    nothing = "".join(f"  {key}: null\n" for key in ("turn", "dedup", "audio_answers", "eos"))
    with (copy / "config.yaml").open("a") as file:
        file.write(nothing)
    after = open_checkpoint(copy).facts
    assert replace(after, source=before.source) == before


def test_a_damaged_config_is_this_familys(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("joint_vocab: {kind: [\n")
    with pytest.raises(AlmError, match="is no readable YAML") as error:
        open_checkpoint(tmp_path)
    assert not isinstance(error.value, UnknownName)


def test_the_token_in_front_may_be_the_tokenizers_own(
    plain: dict[str, Path], tmp_path: Path
) -> None:
    for bos, known, wanted in ((None, True, 0), (None, False, None), (False, True, None)):
        copy = Path(shutil.copytree(plain["mel"], tmp_path / f"{bos}{known}"))
        if known:
            template = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
            _tokenizer(lambda t, own=template: setattr(t, "post_processor", own))(copy)
        written(copy, said_in(copy) | dict(bos=bos))
        assert open_checkpoint(copy).facts.tokens.bos == wanted
