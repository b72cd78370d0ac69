"""The pure pieces of the browser runtime: by node's own runner, held against Python's answers."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import MISSING, fields
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import alm
from alm import facts
from alm.artifacts import manifest
from alm.audio import reader
from alm.audio.clips import Rules
from alm.decoding import logit_arrays
from alm.decoding.options import Options
from alm.decoding.processors import History, Processors, Prompt
from alm.errors import BadPrompt, UnknownName
from alm.fact_fields import plain_of
from alm.facts import AudioFacts, PromptFacts, TokenFacts
from alm.text.detokenizer import Joiner, Stops, TextStream, load_tokenizer
from alm.text.prompt import Prompter
from alm.text.reading import ReadingStream, read
from tests import ROOT

TOKENIZER = ROOT / "demo" / "checkpoint" / "llm" / "tokenizer.json"
KINDS = {
    "int": "whole",
    "int | None": "whole",
    "bool": "flag",
    "str": "text",
    "tuple[int, ...]": "ids",
    "tuple[str, ...]": "texts",
    "dict[str, str]": "names",
}
PLAIN: dict[str, Any] = {
    "turn": "USER: {clips}{}\nASSISTANT:",
    "clip": "<Speech><SpeechHere></Speech> ",
    "placeholder": "<SpeechHere>",
    "tasks": {"transcribe": "Write it down.", "translate_de": "Into German.", "describe": "What?"},
}
# What families state, each where it changes the ids of a prompt.
SHAPES: dict[str, dict[str, Any]] = {
    "words": {"trim": "words", "joined": ("Write it down.",)},
    "parts": {"trim": "parts", "clip": "[{n}]<SpeechHere>{k} ", "clip_last": "!", "start": "Hear."},
    "content": {"trim": "content", "turn": "{}\n {clips} go", "system": "<s>{}\n", "start": "S"},
    "apart": {"apart": True, "turn": "ask {clips}{} and\n", "turns": {"describe": "D{clips}{}:"}},
    "literal": {"literal": True, "joined": ("{}",), "system": "[{}]", "system_trimmed": True},
    "heading": {"heading": "language {}<asr>", "languages": {"de": "German", "en": "English"}},
    "thought": {"thought": "<think>{}</think>", "turn": "{clips}{}<think>\n"},
    "single": {"single": True},
    "first": {"clip_first": True, "one_clip": True},
}
ASKED = [
    *("transcribe", " describe\n", "translate", "transcrib", "What is said?", "  a  b  "),
    *(
        "",
        "<audio>",
        "one <audio> two <audio> three",
        " <audio> four ",
        "<SpeechHere>",
        "</s> five",
    ),
    *("music?", "Lampe", "日本語 ok", "\x1cwhite\u2003"),
]
HOW: list[dict[str, Any]] = [{}, {"verbatim": True}, {"language": "de"}, {"system": " Be brief. "}]


def declared(known: Any) -> dict[str, Any]:
    """A fact's declaration as the JavaScript has it."""
    kind = KINDS.get(str(known.type), "text")
    plain: dict[str, Any] = {"kind": kind, "words": list(known.metadata["words"])}
    plain["needed"] = known.metadata["needed"]
    if kind in ("whole", "ids"):
        plain |= {"least": known.metadata["least"], "most": known.metadata["most"]}
    value = {} if known.default is MISSING else known.default
    return plain | {"value": list(value) if isinstance(value, tuple) else value}


def shaped(name: str) -> tuple[Prompter, dict[str, Any]]:
    """A prompter of the shape, and its facts as a manifest has them."""
    prompt = PromptFacts(**{**PLAIN, **SHAPES[name]})
    tokens = TokenFacts(bos=1 if len(name) % 2 else None, eos=(2,))
    plain = {"name": name, "prompt": plain_of(prompt), "tokens": plain_of(tokens)}
    return Prompter(load_tokenizer(TOKENIZER), prompt, tokens), plain


def prompts() -> Iterator[dict[str, Any]]:
    for name in SHAPES:
        prompter, plain = shaped(name)
        for asked, clips, how in product(ASKED, (0, 1, 2), HOW):
            case = {"facts": plain, "asked": asked, "clips": clips, "how": how}
            try:
                made = prompter.build(asked, clips, **how)
            except (BadPrompt, UnknownName) as error:
                yield case | {"gave": type(error).__name__}
                continue
            kept = ("pieces", "joined", "language", "begun")
            yield case | {"gave": {key: getattr(made, key) for key in kept}}


def markers() -> Iterator[dict[str, Any]]:
    stated: dict[str, Any] = {"marker_seconds": 5, "marker_rows": 62, "marker_rate": 12_500}
    prompter = Prompter(load_tokenizer(TOKENIZER), PromptFacts(**PLAIN, **stated), TokenFacts())
    for rows in (0, 1, 61, 62, 63, 125, 700):
        ids = prompter.markers.ids(rows, [7])
        yield {"facts": PLAIN | stated, "rows": rows, "held": 7, "ids": ids}


def streams() -> Iterator[dict[str, Any]]:
    random = np.random.default_rng(0)
    tokenizer = load_tokenizer(TOKENIZER)
    texts = [
        "turn on the lamp",
        " <think> a lamp? </think>\n on",
        "language German<asr> Ja, 日本語",
    ]
    rows = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    rows += [random.integers(0, 640, 24).tolist() for _ in range(12)]  # bytes and controls too
    for name, ids, thinking in product(("words", "heading", "thought"), rows, (False, True)):
        prompter, plain = shaped(name)
        strings = ["lamp?", "\n", "xx"] if thinking else ["</s>"]
        prompt = prompter.build("What is said?")
        prompt.__dict__["begun"] = False
        stream = ReadingStream(TextStream(tokenizer, strings), prompter, prompt, thinking)
        joiner, stops = Joiner(" "), Stops(tokenizer, strings)
        pieces = [joiner.push(stream.push(token)) for token in ids]
        whole = read(stops.cut(ids), prompter, prompt)
        yield {
            **{"facts": plain, "ids": ids, "stops": strings, "thinking": thinking},
            "pieces": [*pieces, joiner.push(stream.finish())],
            "reading": [whole.thinking, whole.language, whole.words, stops.reached(ids)],
        }


def windows(folder: Path) -> Iterator[dict[str, Any]]:
    random = np.random.default_rng(1)
    audio = AudioFacts(rate=1000, channel="first", least_samples=300, window_samples=5000)
    for number, length in enumerate((10, 5000, 5001, 5020, 5290, 12_000, 15_000, 31_234)):
        pcm = random.standard_normal(length).astype(np.float32) * 0.1
        pcm[length // 3 : length // 2] *= 1e-5 if number % 2 else 1
        pcm[int(length * 0.8) :] *= 1e-5 if number % 3 == 0 else 1
        file = folder / f"{number}.f32"
        pcm.tofile(file)
        for truncate, reads_on in product((False, True), repeat=2):
            clip = reader.Clip(pcm, audio.rate, audio.rate)
            pieces, notes = Rules(audio).windows(clip, truncate, reads_on)
            yield {
                **{"audio": plain_of(audio), "file": str(file)},
                **{"truncate": truncate, "readsOn": reads_on, "notes": notes},
                "pieces": [[p.start, p.samples, len(p.pcm)] for p in pieces],
            }


def scores() -> Iterator[dict[str, Any]]:
    random = np.random.default_rng(2)
    options: tuple[dict[str, Any], ...] = (
        {},
        {"repetition_penalty": 1.7},
        {"repetition_penalty": 3.0, "repetition_window": 2},
        {"no_repeat_ngram_size": 2},
        {"min_new_tokens": 8, "suppress_tokens": [3, 4, 90]},
        {"min_length": 12, "begin_suppress_tokens": [5]},
    )
    for given in options:
        for length in (0, 1, 5):
            row = random.standard_normal(16).astype(np.float32)
            said, ids = random.integers(0, 6, length).tolist(), random.integers(0, 16, 4).tolist()
            past = History(Prompt(9, np.array(ids, np.int64)), said)
            made = Processors(Options(**given), (2,))(row[None], [past])
            yield {
                **{"scores": row.tolist(), "options": given, "eos": [2], "said": said},
                **{"prompt": {"length": 9, "ids": ids}, "token": logit_arrays.likeliest(made[0])},
            }


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of what Python gives for inputs that the JavaScript gets too."""
    folder = tmp_path_factory.mktemp("said")
    known = {n: {f.name: declared(f) for f in fields(k)} for n, k in facts.SECTIONS.items()}
    plain = {
        **{"tokenizer": str(TOKENIZER), "facts": known},
        **{"prompts": list(prompts()), "markers": list(markers()), "streams": list(streams())},
        **{"windows": list(windows(folder)), "scores": list(scores())},
    }
    path = folder / "said.json"
    path.write_text(json.dumps(plain), "utf-8")
    return path


def test_every_piece_gives_what_python_gives(web: Path, said: Path) -> None:
    node = shutil.which("node")
    assert node
    words = [node, "--test", "--test-reporter=tap", "test/"]
    there = {"PATH": str(Path(node).parent), "ALM_SAID": str(said)}
    done = subprocess.run(words, cwd=web, env=there, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr
    assert "# skipped 0" in done.stdout and "# fail 0" in done.stdout


def test_the_package_is_of_pythons_version_and_pins_what_it_brings(web: Path) -> None:
    stated = json.loads((web / "package.json").read_text("utf-8"))
    locked = json.loads((web / "package-lock.json").read_text("utf-8"))
    assert stated["version"] == locked["version"] == alm.__version__
    for name, version in stated["devDependencies"].items():
        assert locked["packages"][f"node_modules/{name}"]["version"] == version
    assert manifest.FORMAT_VERSION == 2  # of web/src/manifest.js


def test_the_package_holds_all_that_a_page_asks_for(web: Path) -> None:
    words = ["npm", "pack", "--dry-run", "--json", "--ignore-scripts"]
    done = subprocess.run(words, cwd=web, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    packed = {file["path"] for file in json.loads(done.stdout)[0]["files"]}
    for folder in ("src", "page", "vendor"):
        assert {p.relative_to(web).as_posix() for p in (web / folder).iterdir()} <= packed
    assert "index.html" in packed and not any("node_modules" in name for name in packed)


def test_the_files_are_short(web: Path) -> None:
    sources = [*(web / "src").iterdir(), *(web / "page").glob("*.js"), *(web / "test").iterdir()]
    lengths = {file.name: len(file.read_text("utf-8").splitlines()) for file in sources}
    assert {name: n for name, n in lengths.items() if n > 300} == {}
