"""Inputs of every kind: how one is made of the sound original, and what is done with it."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from pathlib import Path
from random import Random
from typing import Any, Protocol

import judge
import mutations
import numpy as np
import soundfile

from alm.artifacts import manifest
from alm.cli import alm_commands, run_command
from alm.onnxfile import summary
from alm.text import detokenizer

RATE = 16000


class Kind(Protocol):
    """A fuzzer."""

    def make(self, dice: Random) -> bytes:
        """An input: a file's content, or a command line."""
        ...

    def run(self, content: bytes) -> str | None:
        """Use it; may raise, or return what is wrong."""
        ...


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
            self._change(dice, model)
        return model.SerializeToString()

    def _change(self, dice: Random, model: Any) -> None:
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


class Audio:
    """Sound files of every format that is read."""

    FORMATS = (("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"),
               ("MP3", "MPEG_LAYER_III"), ("AIFF", "PCM_24"), ("OGG", "OPUS"))  # fmt: skip

    def __init__(self, sources: Path, scratch: Path) -> None:
        self.path = scratch / "clip"
        self.whole: list[bytes] = []
        sound = 0.1 * np.random.default_rng(0).standard_normal((8000, 2)).astype(np.float32)
        for container, subtype in self.FORMATS:
            soundfile.write(self.path, sound, RATE, format=container, subtype=subtype)
            self.whole.append(self.path.read_bytes())

    def make(self, dice: Random) -> bytes:
        return mutations.raw(dice, dice.choice(self.whole), near=200)

    def run(self, content: bytes) -> None:
        from alm.audio import reader

        self.path.write_bytes(content)
        reader.read(str(self.path), RATE, "first", max_seconds=60)


class Words:
    """Command lines; none of them serves, builds or writes outside of the scratch folder."""

    OPTIONS = (
        "--max-new-tokens", "--num-beams", "--repetition-penalty", "--length-penalty",
        "--min-length", "--temperature", "--top-p", "--top-k", "--seed", "--threads", "--provider",
        "--max-audio-seconds", "--engine",
    )  # fmt: skip
    FLAGS = ("--sample", "--greedy", "--json", "--truncate", "--list-tasks", "--chat", "-h", "--x")
    VALUES = ("0", "1", "-1", "2", "4", "0.5", "nan", "inf", "1e308", "100000", "9" * 30, "", "x",
              "cpu", "auto", "openvino", "tensorrt", "None", "\x1b[31m", "é", "\udcff")  # fmt: skip
    TOOLS = (
        ("inspect", ("--part", "--verify", "--no-verify", "--json")),
        ("lint", ("--target", "--part", "--json")),
        ("plan", ("--device", "--seconds", "--context")),
        ("build", ("--dry-run", "--backend", "--part", "--batch", "--context", "--prompt",
                   "--workspace", "--memory")),
    )  # fmt: skip
    NAMES = ("agx-orin-64gb", "cpu", "portable", "mel", "decoder", "10,30", "trt-rtx")

    def __init__(self, sources: Path, scratch: Path) -> None:
        self.folder, self.clip = str(sources / "artifacts"), str(sources / "clip.wav")

    def make(self, dice: Random) -> bytes:
        values = [*self.VALUES, *self.NAMES, self.folder, self.clip]
        if dice.random() < 0.4:
            tool, options = dice.choice(self.TOOLS)
            words = [tool, self.folder if dice.random() < 0.9 else dice.choice(values)]
            words += ["--dry-run"] if tool == "build" else []
            for option in dice.choices(options, k=dice.randint(0, 4)):
                bare = option in ("--verify", "--no-verify", "--json", "--dry-run")
                words += [option] if bare else [option, dice.choice(values)]
        else:
            words = ["--engine", self.folder]
            for _ in range(dice.randint(0, 4)):
                words += [dice.choice(self.OPTIONS), dice.choice(values)]
            words += dice.choices(self.FLAGS, k=dice.choice([0, 0, 1, 2]))
            prompts = ["transcribe", "transcibe", "say <audio> it", "", *self.VALUES]
            words += [self.clip] * dice.choice([0, 1, 1, 1, 2]) + dice.choices(prompts, k=1)
        if dice.random() < 0.2:
            dice.shuffle(words)
        return shlex.join(words).encode("utf-8", "surrogateescape")

    def run(self, content: bytes) -> str:
        words = shlex.split(content.decode("utf-8", "surrogateescape"))
        tool = bool({"inspect", "lint", "plan", "build"} & set(words[:1]))
        app = alm_commands.app if tool else run_command.running
        return judge.told(app, words, words[:1] in (["inspect"], ["lint"]) or "--chat" in words)


class Checkpoint:
    """One file of a checkpoint, which is then opened and whose parts are loaded."""

    NAME = "config.yaml"

    def __init__(self, sources: Path, scratch: Path) -> None:
        self.folder = Path(shutil.copytree(sources / "checkpoint", scratch / "checkpoint"))
        self.config, self.count = self.folder / "config.yaml", 0
        files = sorted(self.folder.rglob(self.NAME))
        self.whole = {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in files}

    def make(self, dice: Random) -> bytes:
        name = dice.choice(sorted(self.whole))
        return name.encode() + b"\n" + self.changed(dice, self.whole[name])

    def changed(self, dice: Random, whole: bytes) -> bytes:
        raise NotImplementedError

    def run(self, content: bytes) -> None:
        from wrappers import open_checkpoint

        name, _, content = content.partition(b"\n")
        path = self.folder / name.decode()
        self.count += 1
        try:
            path.write_bytes(content)
            opened = open_checkpoint(self.config)
            if self.count % 2:
                opened.embedding()
            names = list(opened.parts)
            opened.part(names[self.count % len(names)], "standard")
        finally:
            path.write_bytes(self.whole[name.decode()])


class Yaml(Checkpoint):
    """The original's config.yaml."""

    def changed(self, dice: Random, whole: bytes) -> bytes:
        import yaml

        plain = mutations.json_value(dice, yaml.safe_load(whole))
        way = dice.random()
        if way < 0.1:
            return dice.choice(
                [b"[" * 20000, b"a: " + b"9" * 5000, b"&a [*a]", b"a: &a\n  b: *a\n"]
            )
        try:
            content = yaml.safe_dump(plain, allow_unicode=True).encode("utf-8", "surrogatepass")
        except (yaml.YAMLError, RecursionError):
            content = whole
        return mutations.raw(dice, content) if way < 0.3 else content


class Configs(Checkpoint):
    """config.json of the LLM and of Whisper, and what else of JSON lies there."""

    NAME = "*.json"

    def changed(self, dice: Random, whole: bytes) -> bytes:
        if dice.random() < 0.03:
            return dice.choice([b"[" * 100000, b"{}", b"", b"null", b"\xff", b"9" * 5000])
        return mutations.json_bytes(dice, json.loads(whole))


class Safetensors(Checkpoint):
    """Headers of safetensors."""

    NAME = "*.safetensors"

    def changed(self, dice: Random, whole: bytes) -> bytes:
        size = int.from_bytes(whole[:8], "little")
        if dice.random() < 0.3:
            return mutations.raw(dice, whole, near=8 + size)
        header = mutations.json_bytes(dice, json.loads(whole[8 : 8 + size]))
        length = len(header) if dice.random() < 0.9 else dice.choice([0, 1, 2**40, 2**63])
        return length.to_bytes(8, "little") + header + whole[8 + size :]


class Pickles(Checkpoint):
    """The .pth of the trained parts."""

    NAME = "*.pth"

    def changed(self, dice: Random, whole: bytes) -> bytes:
        import io

        import torch

        if dice.random() < 0.4:
            return mutations.raw(dice, whole, near=3000)
        plain = torch.load(io.BytesIO(whole), weights_only=True)
        tensors = plain["model"] if "model" in plain else plain
        for _ in range(dice.choice([1, 1, 2, 4])):
            name = dice.choice(sorted(map(str, tensors)))
            way, old = dice.randrange(9), tensors.get(name)
            odd: list[Any] = [
                1, "x", None, [], {1: torch.zeros(2)}, torch.zeros(()), torch.zeros(0, 3),
                torch.zeros(2, 2, dtype=torch.complex64), torch.zeros(3).to_sparse(),
                torch.zeros(2, dtype=torch.bool), torch.full((2, 2), float("nan")),
                torch.zeros(1).expand(2**20, 2**10), torch.zeros(2, device="meta"),
                torch.quantize_per_tensor(torch.zeros(4), 0.1, 0, torch.qint8),
            ]  # fmt: skip
            if way == 0:
                tensors.pop(name, None)
            elif way == 1:
                tensors[dice.choice([1, None, "x", "", "\ud800", (1, 2), b"x"])] = old
            elif way == 2 and hasattr(old, "ndim"):
                tensors[name] = old.T.contiguous() if old.ndim == 2 else old[..., None]
            elif way == 3 and hasattr(old, "double"):
                tensors[name] = dice.choice(
                    [old.double(), old.half(), old.long(), old.flatten()[:1]]
                )
            elif way == 4:
                plain = dice.choice([tensors, [tensors], {"state_dict": tensors}, {"model": plain}])
            else:
                tensors[name] = dice.choice(odd)
        stream = io.BytesIO()
        torch.save(plain, stream)
        return stream.getvalue()


KINDS: dict[str, Any] = {
    "manifests": Manifests,
    "tokenizers": Tokenizers,
    "graphs": Graphs,
    "audio": Audio,
    "words": Words,
    "yaml": Yaml,
    "configs": Configs,
    "safetensors": Safetensors,
    "pickles": Pickles,
}
