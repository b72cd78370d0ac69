"""Inputs of a folder that runs: its manifest, its tokenizer, its graphs."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

import judge
import mutations

from alm.artifacts import manifest
from alm.cli import alm_commands, run_command
from alm.doctor import machine
from alm.hub import card, names
from alm.onnxfile import summary
from alm.packing import sbom
from alm.text import detokenizer


class Manifests:
    """manifest.json under every command."""

    def __init__(self, sources: Path, scratch: Path) -> None:
        self.folder = Path(shutil.copytree(sources / "artifacts", scratch / "artifacts"))
        self.clip, self.count = str(sources / "clip.wav"), 0
        self.plain = json.loads((self.folder / manifest.NAME).read_text("utf-8"))

    def make(self, dice: Random) -> bytes:
        return mutations.json_bytes(dice, self.plain)

    def run(self, content: bytes) -> str:
        (self.folder / manifest.NAME).write_bytes(content)
        self.count += 1
        folder = str(self.folder)
        ways: list[tuple[Any, list[str]]] = [
            (alm_commands.app, ["inspect", folder, "--no-verify"]),
            (alm_commands.app, ["inspect", folder, "--no-verify", "--json"]),
            (alm_commands.app, ["plan", folder, "--device", "agx-orin-64gb"]),
            (alm_commands.app, ["build", folder, "--dry-run"]),
            (run_command.running, ["--engine", folder, "--list-tasks"]),
        ]
        words = [self.clip, "transcribe", "--provider", "cpu", "--max-new-tokens", "2"]
        ways.append((alm_commands.app, ["lint", folder, "--target", "cpu"]))
        ways.append((run_command.running, ["--engine", folder, *words]))
        # Two of them for each input: another input tells more than the same once more.
        ways = [ways[self.count % len(ways)], ways[self.count * 3 // 7 % len(ways)]]
        for app, words in ways:
            if wrong := judge.told(app, words, words[0] in ("inspect", "lint")):
                return f"{' '.join(words[:1] + words[2:])}: {wrong}"
        said = manifest.load(self.folder)
        for finding in machine.check(said, 1):
            json.dumps(finding.to_json(), allow_nan=False)
        json.dumps(sbom.cyclonedx(said))
        sbom.licences(said)
        card.text(said, names.repo("org/name"), card.Said())
        return ""


class Tokenizers:
    """tokenizer.json, loaded and used."""

    TEXTS = ("", "USER: Hello,  wörld 12\n练习 🙂", "<s></s><unk>", "a" * 300, "\u0000\u200b é")
    PIECES = {
        "normalizer": [
            None, {"type": "NFC"}, {"type": "Lowercase"}, {"type": "Prepend", "prepend": "_"},
            {"type": "Replace", "pattern": {"String": ""}, "content": "aaaa"},
            {"type": "Replace", "pattern": {"Regex": "(a|b)*"}, "content": ""},
            {"type": "Precompiled", "precompiled_charsmap": ""},
            {"type": "Precompiled", "precompiled_charsmap": "ALQCAACEAAAAAACAAQ=="},
            {"type": "Sequence", "normalizers": [{"type": "NFKD"}, {"type": "StripAccents"}]},
            {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
             "strip_accents": None, "lowercase": True},
        ],
        "pre_tokenizer": [
            None, {"type": "Whitespace"}, {"type": "BertPreTokenizer"},
            {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
             "use_regex": True},
            {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
            {"type": "Split", "pattern": {"Regex": "\\s+"}, "behavior": "Isolated",
             "invert": False},
            {"type": "Split", "pattern": {"String": ""}, "behavior": "Removed", "invert": True},
            {"type": "Digits", "individual_digits": True},
            {"type": "FixedLength", "length": 0},
        ],
        "decoder": [
            None, {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "WordPiece",
            "prefix": "##", "cleanup": True},
            {"type": "Strip", "content": "a", "start": 1, "stop": 2**40},
            {"type": "CTC", "pad_token": "<s>", "word_delimiter_token": "|", "cleanup": True},
        ],
        "padding": [None, {"strategy": {"Fixed": 2**40}, "direction": "Right", "pad_id": 0,
                           "pad_to_multiple_of": None, "pad_type_id": 0, "pad_token": "x"}],
        "truncation": [None, {"direction": "Right", "max_length": 0, "strategy": "LongestFirst",
                              "stride": 0}],
        "model": [
            {"type": "Unigram", "unk_id": 0, "vocab": [["a", 0.0], ["", -1.0]],
             "byte_fallback": True},
            {"type": "WordLevel", "vocab": {"a": 2**32 - 1}, "unk_token": "<unk>"},
            {"type": "WordPiece", "vocab": {"a": 0}, "unk_token": "x",
             "continuing_subword_prefix": "", "max_input_chars_per_word": 0},
        ],
    }  # fmt: skip

    def __init__(self, sources: Path, scratch: Path) -> None:
        self.path = scratch / "tokenizer.json"
        self.plain = json.loads((sources / "artifacts" / "tokenizer.json").read_text("utf-8"))

    def make(self, dice: Random) -> bytes:
        plain = dict(self.plain)
        small = {name: plain[name] for name in plain if name != "model"}
        if dice.random() < 0.6:  # most of the file is the vocabulary
            plain |= mutations.json_value(dice, small) if dice.random() < 0.7 else {}
        for name, pieces in self.PIECES.items():
            if dice.random() < (0.1 if name == "model" else 0.2):
                piece = dice.choice(pieces)
                plain[name] = mutations.json_value(dice, piece) if dice.random() < 0.4 else piece
        return mutations.json_bytes(dice, plain)

    def run(self, content: bytes) -> None:
        made = detokenizer.load_tokenizer(self.path, content)
        ids = [made.encode(each, add_special_tokens=False).ids for each in self.TEXTS]
        stream = detokenizer.TextStream(made, ["</s>"])
        for token in [*ids[1][:20], 0, 5, 10**6]:
            stream.push(token)
        stream.finish()
        detokenizer.Stops(made, ["</s>", "\n"]).reached(ids[1][:5] or [0])


class Graphs:
    """A part's graph: read, linted and opened with ONNX Runtime."""

    def __init__(self, sources: Path, scratch: Path) -> None:
        import onnx

        self.onnx = onnx
        self.folder = Path(shutil.copytree(sources / "artifacts", scratch / "artifacts"))
        said = manifest.load(self.folder)
        self.part = said.with_role("decoder")[0]
        self.path = self.folder / self.part.files[0].name
        self.whole, self.count = self.path.read_bytes(), 0

    def make(self, dice: Random) -> bytes:
        if dice.random() < 0.4:
            return mutations.raw(dice, self.whole)
        model = self.onnx.ModelProto.FromString(self.whole)
        for _ in range(dice.choice([1, 1, 2])):
            self.change(dice, model)
        return model.SerializeToString()

    @staticmethod
    def change(dice: Random, model: Any) -> None:
        """One thing of a graph is another."""
        graph = model.graph
        node = dice.choice(graph.node)
        way = dice.randrange(9)
        if way == 0:
            node.op_type = dice.choice(["EPContext", "MatMul", "Nothing", "", "If", "Gather"])
        elif way == 1:
            node.domain = dice.choice(["com.microsoft", "custom", "ai.onnx.ml", ""])
        elif way == 2:
            graph.node.remove(node)
        elif way == 3 and node.input:
            node.input[dice.randrange(len(node.input))] = dice.choice(["", "x", "logits"])
        elif way == 4 and node.attribute:
            attribute = dice.choice(node.attribute)
            attribute.i = dice.choice([0, -1, 2**40, -(2**63), 7])
        elif way == 5 and graph.initializer:
            tensor = dice.choice(graph.initializer)
            tensor.dims[:] = [dice.choice([0, 1, -1, 2**40, 3]) for _ in tensor.dims]
        elif way == 6 and graph.initializer:
            dice.choice(graph.initializer).data_type = dice.randrange(30)
        elif way == 7:
            outside = [t for t in graph.initializer if t.external_data]
            for entry in dice.choice(outside).external_data if outside else ():
                entry.value = dice.choice(["0", "-1", str(2**62), "../x", "/etc/passwd", "", "7"])
        else:
            port = dice.choice([*graph.input, *graph.output])
            port.type.tensor_type.elem_type = dice.randrange(30)

    def run(self, content: bytes) -> None:
        from dataclasses import replace

        from alm.backends import open_session
        from alm.onnxfile import graph_nodes
        from alm.session import BackendOptions

        self.path.write_bytes(content)
        summary.read(self.path)
        graph_nodes.read(self.path)
        digest = hashlib.sha256(content).hexdigest()
        first = replace(self.part.files[0], bytes=len(content), sha256=digest)
        part = replace(self.part, files=(first, *self.part.files[1:]))
        open_session(part, self.folder, BackendOptions("cpu", 1))
