"""What a schema costs at every token: python bench/grammar.py --help

A vocabulary of 128k tokens is trained on the text of the Python packages that are installed, or a
`tokenizer.json` is given. Each schema has an answer; masks are timed along its tokens as a search
asks for them, and then whole greedy searches with and without the schema over logits of that size.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "runtime")]

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: E402

from alm.decoding import search  # noqa: E402
from alm.decoding.options import Options  # noqa: E402
from alm.grammar import forms  # noqa: E402
from alm.grammar.following import Following, Plain  # noqa: E402
from alm.grammar.vocabulary import Vocabulary  # noqa: E402
from alm.text.detokenizer import load_tokenizer  # noqa: E402

SIZE = 128_256
TEXT = {"type": "string"}
EXAMPLES: dict[str, tuple[dict[str, Any], Any]] = {
    "a choice": (
        {"type": "object", "properties": {"mood": {"enum": ["calm", "angry", "glad"]}},
         "required": ["mood"], "additionalProperties": False},
        {"mood": "angry"},
    ),
    "a transcript": (
        {"type": "object", "properties": {"text": TEXT, "language": TEXT}, "required": ["text"],
         "additionalProperties": False},
        {"text": "the quick brown fox jumps over the lazy dog and runs " * 3, "language": "en"},
    ),
    "events": (
        {"type": "object", "properties": {"events": {"type": "array", "items": {
            "type": "object",
            "properties": {"label": {**TEXT, "maxLength": 40}, "start": {"type": "number"},
                           "end": {"type": "number"}, "loud": {"type": "boolean"}},
            "required": ["label", "start", "end"], "additionalProperties": False}}},
         "required": ["events"], "additionalProperties": False},
        {"events": [{"label": "dog barking", "start": 0.5, "end": 2.25, "loud": True}] * 4},
    ),
    "any object": (
        {"type": "object"},
        {"a": [1, 2, {"b": None}], "name": "a longer name", "more": {"x": "y", "z": [True]}},
    ),
    "a pattern": (
        {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{4}( [a-z]+){1,9}$"}, "ABC-1234 for the gate",
    ),
}  # fmt: skip


def trained(size: int, megabytes: int) -> str:
    """A byte-level BPE in JSON, trained on files of installed packages."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore
    made.decoder = decoders.ByteLevel()  # pyright: ignore
    trainer = trainers.BpeTrainer(  # pyright: ignore
        vocab_size=size, special_tokens=["<s>", "</s>"], show_progress=False, min_frequency=1,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), max_token_length=24,
    )  # fmt: skip
    made.train_from_iterator(_texts(megabytes * 10**6), trainer)
    return made.to_str()


def _texts(most: int) -> Iterator[str]:
    for file in sorted(Path(sysconfig.get_path("purelib")).rglob("*.py")):
        text = file.read_text("utf-8", "replace")
        most -= len(text)
        if most < 0:
            return
        yield text


def along(vocabulary: Vocabulary, schema: dict[str, Any], answer: Any) -> dict[str, list[float]]:
    """Microseconds of each token of an answer: its mask, what it does to the scores, the token."""
    form = forms.schema(schema)
    state = Plain(form.matcher(vocabulary.llg), form, vocabulary.size)
    rows = Following([form], [state.copy()], beams=False)
    text = json.dumps(answer, ensure_ascii=False)
    ids, scores = vocabulary(text.encode()), np.zeros(vocabulary.size, np.float32)
    spent: dict[str, list[float]] = {"mask": [], "all": []}
    for place, token in enumerate(ids):
        start = time.thread_time()
        state.mask()
        spent["mask"].append((time.thread_time() - start) * 1e6)
        state.take(token)
        scores[:] = 0
        start = time.thread_time()
        rows.restrict(0, ids[:place], scores)  # takes the token before, asks and strikes out
        spent["all"].append((time.thread_time() - start) * 1e6)
        assert scores[token] == 0, (text, place)
    return spent


class Logits:
    """A decoder that computes nothing."""

    def __init__(self, size: int) -> None:
        self.logits = np.random.default_rng(0).standard_normal((1, size)).astype(np.float32)

    def step(self, token_ids: np.ndarray) -> np.ndarray:
        """The same logits after any token."""
        return self.logits

    def reorder(self, rows: np.ndarray) -> None:
        """There is one row."""


def searched(size: int, grammar: Following | None, steps: int, **options: Any) -> float:
    """Microseconds of a token in a whole search."""
    decoder = Logits(size)
    most = Options(max_new_tokens=steps, **options)
    start, count = time.thread_time(), 0
    for _ in search.decode(decoder.logits, decoder, most, eos_ids=set(), grammar=grammar):
        count += 1
    return (time.thread_time() - start) / count * 1e6


def compared(vocabulary: Vocabulary, repeats: int) -> list[tuple[str, list[float], list[float]]]:
    """Searches without a grammar and with one: greedy and sampled."""
    form = forms.schema({"type": "string"})
    begun = Plain(form.matcher(vocabulary.llg), form, vocabulary.size)
    sampled: dict[str, Any] = dict(do_sample=True, top_k=50, seed=0)
    ways: dict[str, dict[str, Any]] = {"greedy": {}, "sampled, top_k 50": sampled}
    found: list[tuple[str, list[float], list[float]]] = []
    for name, options in ways.items():
        plain, kept = list[float](), list[float]()
        for _ in range(repeats):
            plain.append(searched(vocabulary.size, None, 60, **options))
            rows = Following([form], [begun.copy()], beams=False)
            kept.append(searched(vocabulary.size, rows, 60, **options))
        found.append((name, plain, kept))
    return found


def spread(values: Sequence[float]) -> str:
    """Median, and the middle 90 %."""
    low, high = np.percentile(values, [5, 95])
    return f"{statistics.median(values):.0f} ({low:.0f}-{high:.0f})"


def main() -> None:
    """Measure and write bench/results/grammar.md."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--tokenizer", type=Path, help="a tokenizer.json instead of a trained one")
    asked.add_argument("--megabytes", type=int, default=40, help="of text that it is trained on")
    asked.add_argument("--repeats", type=int, default=20)
    asked.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "grammar.md")
    given = asked.parse_args()
    name = str(given.tokenizer or "trained")
    content = given.tokenizer.read_bytes() if given.tokenizer else None
    tokenizer = load_tokenizer(Path(name), content or trained(SIZE, given.megabytes).encode())
    size = tokenizer.get_vocab_size()
    start = time.thread_time()
    vocabulary = Vocabulary(tokenizer, size, {1})
    assert vocabulary.llg
    opened = time.thread_time() - start
    lines = [
        "# Schemas and grammars",
        "",
        f"`python bench/grammar.py --megabytes {given.megabytes}`, {date.today()}, "
        f"{platform.machine()} with {platform.system()}, one core. A byte-level vocabulary of "
        f"{size} tokens, made ready once for a model in {opened:.1f} s. Processor time in "
        f"microseconds: median (5 to 95 % of all tokens, {given.repeats} times).",
        "",
        "| schema | tokens | compiled, ms | llguidance's mask | a token in all | the slowest |",
        "|---|---|---|---|---|---|",
    ]
    for what, (schema, answer) in EXAMPLES.items():
        form = forms.schema(schema)
        begun = list[float]()
        spent: dict[str, list[float]] = {"mask": [], "all": []}
        count = 0
        for _ in range(given.repeats):
            start = time.process_time()  # of the thread that it is done in too
            form.matcher(vocabulary.llg)
            begun.append((time.process_time() - start) * 1e3)
            for part, values in along(vocabulary, schema, answer).items():
                spent[part] += values
                count = len(values)
        lines.append(
            f"| {what} | {count} | {statistics.median(begun):.1f} | {spread(spent['mask'])} | "
            f"{spread(spent['all'])} | {max(spent['all']):.0f} |"
        )
    lines += ["", "| a token of a search | without | with a schema of one string |",
              "|---|---|---|"]  # fmt: skip
    for way, plain, kept in compared(vocabulary, given.repeats):
        lines.append(f"| {way} | {spread(plain)} | {spread(kept)} |")
    given.out.write_text("\n".join([*lines, ""]), "utf-8")
    print(given.out.read_text("utf-8"))


if __name__ == "__main__":
    main()
