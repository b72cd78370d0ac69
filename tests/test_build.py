"""alm build: what is printed, refused, built and believed; and a session on a pretended GPU."""

from __future__ import annotations

import ctypes
import hashlib
import json
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import typer
from commands import Capture

import alm
import export
from alm import _trt, build, cli, command, manifest, targets, tools
from alm._engines import Engine, Maker, Profile
from alm._profiles import Sizes, fit
from alm._trtgraph import fitted
from alm.backends import tensorrt
from alm.backends._session import EngineOptions
from alm.errors import BadArtifacts, MissingEngine
from alm.manifest import File

RTX = "tensorrt-rtx"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes and timings are remembered beside the test."""
    monkeypatch.setenv("ALM_CACHE", str(tmp_path / "cache"))


def alm_build(*words: str | Path) -> int:
    return command.run(tools.app, ["build", *map(str, words)])


def decoder(folder: Path) -> manifest.Part:
    return manifest.load(folder).with_role("decoder")[0]


# --- what would be done


def test_a_dry_run_prints_a_command_for_every_part_and_writes_nothing(
    own: Path, capfd: Capture
) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in own.iterdir())
    assert alm_build(own, "--dry-run", "--workspace", "512") == 0
    assert sorted((path, path.stat().st_mtime_ns) for path in own.iterdir()) == before
    said = capfd.readouterr()
    out = said.out.replace("\\\n", " ")  # which a shell reads so, and shlex does not
    commands = [shlex.split(line) for line in out.splitlines() if line.startswith("trtexec ")]
    parts = [part.name for part in manifest.load(own).parts if part.role != "table"]
    changed = ("whisper", "beats", "decoder")  # they hold Attention
    names = [f"{n}.tensorrt.onnx" if n in changed else f"{n}.onnx" for n in parts]
    assert [words[1] for words in commands] == [f"--onnx={own / name}" for name in names]
    assert said.out.count(f"is written by: alm build {own} --graphs") == len(changed)
    for words in commands:
        assert {"--stronglyTyped", "--skipInference", "--memPoolSize=workspace:512M"} <= set(words)
        assert all(re.fullmatch(r"--[A-Za-z]+(=\S+)?", word) for word in words[1:])
    assert said.err == ""


def test_the_decoders_command_has_a_prompt_and_a_single_token(own: Path, capfd: Capture) -> None:
    words = ("--part", "decoder", "--context", "200", "--prompt", "100", "--backend", RTX)
    assert alm_build(own, "--dry-run", *words) == 0
    said = shlex.split(capfd.readouterr().out)
    assert said[0] == "tensorrt_rtx" and "--stronglyTyped" not in said
    assert [word for word in said if word.startswith("--profile")] == ["--profile=0", "--profile=1"]
    most = [word for word in said if word.startswith("--maxShapes")]
    hidden = manifest.load(own).dimensions["hidden"]
    assert f"inputs_embeds:1x100x{hidden}," in most[0]
    assert f"inputs_embeds:1x1x{hidden}," in most[1]
    assert all("x256x" in each for each in most)  # the cache comes in steps of 64


def test_the_graphs_that_trtexec_takes_differ_in_two_things_alone(
    own: Path, capfd: Capture
) -> None:
    before = {path.name: path.read_bytes() for path in own.iterdir()}
    assert alm_build(own, "--graphs", "--context", "100") == 0
    assert all((own / name).read_bytes() == content for name, content in before.items())
    capfd.readouterr()
    ours, theirs = onnx.load(own / "decoder.tensorrt.onnx"), onnx.load(own / "decoder.onnx")
    for value in (*theirs.graph.input, *theirs.graph.output, *theirs.graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param == "capacity":
                axis.dim_value = 128
    attentions = [node for node in theirs.graph.node if node.op_type == "Attention"]
    for node in attentions:
        node.attribute.append(onnx.helper.make_attribute("TRT_decomposable", 1))
    assert attentions and ours == theirs


def test_a_graph_that_is_none_is_refused() -> None:
    with pytest.raises(BadArtifacts, match="the graph: "):
        fitted(b"\xff" * 40, {})


def test_profiles_hold_what_the_ports_say(own: Path) -> None:
    parts = {part.name: part for part in manifest.load(own).parts}
    ((mel,), _) = fit(parts["mel"], Sizes(batch=3))
    span = parts["mel"].spans["samples"]
    assert mel == {"pcm": ((1, span.least), (3, span.usual), (3, span.most))}
    whisper = parts["whisper"]
    fixed = replace(whisper, inputs={n: p.fix(batch=1) for n, p in whisper.inputs.items()})
    assert fit(fixed, Sizes()) == ((), {})
    both, sizes = fit(parts["decoder"], Sizes(context=70))
    assert sizes == {"capacity": 128} and len(both) == 2
    assert {r[i][2] for p in both for n, r in p.items() for i in range(3) if "key" in n} == {128}


@pytest.mark.parametrize(
    "words, sentence",
    [
        (("--backend", "npu"), "unknown backend 'npu'; there is: tensorrt, tensorrt-rtx"),
        (("--part", "ears"), "unknown part 'ears'; there is: mel, "),
        (("--context", "8", "--prompt", "9"), "a prompt of 9 and a context of 8 were wanted"),
    ],
)
def test_wrong_words_are_answered_with_the_right_ones(
    artifacts: Path, words: tuple[str, ...], sentence: str, capfd: Capture
) -> None:
    assert alm_build(artifacts, "--dry-run", *words) == 2
    assert capfd.readouterr().err.startswith(f"error: {sentence}")


def test_onnx_runtimes_own_operators_are_refused_with_the_export_that_works(
    own: Path, capfd: Capture
) -> None:
    model = onnx.load(own / "mel.onnx")
    model.graph.node[0].domain = "com.microsoft"
    onnx.save(model, own / "mel.onnx")
    assert alm_build(own, "--dry-run") == 1
    said = capfd.readouterr().err
    assert said.startswith("error: part mel holds com.microsoft::")
    assert "--dialect standard --precision fp16" in said


def test_tensorrt_that_is_not_there_is_answered_with_where_to_get_it(
    artifacts: Path, capfd: Capture
) -> None:
    try:
        _trt.load("tensorrt")
    except MissingEngine as error:
        assert "docs/jetson.md" in str(error)
        assert alm_build(artifacts) == 1
        assert capfd.readouterr().err == f"error: {error}\n"
    else:
        pytest.skip("TensorRT is installed here")


DOCS = Path(__file__).resolve().parents[1] / "docs"
WITH_OPTIONS = re.compile(r"(alm-run|alm build|alm bench|export\.py) (.*)")


def known(tool: str) -> set[str]:
    """The options of a command."""
    app, _, name = tool.partition(" ")
    group = typer.main.get_command({"alm-run": cli.running, "alm": tools.app}.get(app, export.app))
    found: Any = group.commands[name] if name else group  # pyright: ignore
    return {word for each in found.params for word in (*each.opts, *each.secondary_opts)}


@pytest.mark.parametrize("name", ["jetson.md", "gpu.md"])
def test_every_command_in_the_documentation_has_options_that_there_are(name: str) -> None:
    lines = [x.strip() for x in (DOCS / name).read_text("utf-8").splitlines() if x[:4] == "    "]
    commands = [found.groups() for line in lines if (found := WITH_OPTIONS.search(line))]
    assert len(commands) > 5
    for tool, rest in commands:
        words = shlex.split(rest, comments=True)
        assert {word for word in words if word.startswith("-")} <= known(tool), (tool, rest)
        if "--target" in words:
            assert words[words.index("--target") + 1] in targets.names()


# --- what the manifest says of engines


def some_engine(part: str = "decoder", **other: Any) -> Engine:
    maker = Maker("tensorrt", "10.3.0", "Linux aarch64", "Orin", "8.7")
    ranges: Profile = {"x": ((1, 1), (1, 8), (1, 64))}
    return replace(
        Engine(part, File("a.engine", 3, "ab"), "cd", maker, (ranges,), seconds=1.5), **other
    )


def test_engines_come_back_from_the_manifest_as_they_went(own: Path) -> None:
    said = replace(manifest.load(own), engines=(some_engine(), some_engine("mel")))
    said.save(own)
    again = manifest.load(own)
    assert again == said and again.engine("mel", "tensorrt") == some_engine("mel")
    assert again.engine("mel", RTX) is None and again.files()[-1].name == "a.engine"


@pytest.mark.parametrize(
    "spoil, sentence",
    [
        ({"graph": None}, "'graph' of the engine of part decoder is None, not str"),
        ({"file": {"name": "a"}}, "the engine of part decoder lacks 'bytes'"),
        ({"profiles": [[1]]}, "a profile of the engine of part decoder is [1]"),
        ({"profiles": [{"x": [[1], [1]]}]}, "a range of the engine of part decoder is"),
        ({"profiles": [{"x": [[1], [1, 2], [1]]}]}, "a range of the engine of part decoder is"),
    ],
)
def test_a_misshapen_engine_is_named(own: Path, spoil: dict[str, Any], sentence: str) -> None:
    replace(manifest.load(own), engines=(some_engine(),)).save(own)
    plain = json.loads((own / manifest.NAME).read_text("utf-8"))
    plain["engines"][0] |= spoil
    (own / manifest.NAME).write_text(json.dumps(plain), "utf-8")
    with pytest.raises(BadArtifacts, match=re.escape(sentence)):
        manifest.load(own)


def test_an_engine_of_another_gpu_version_or_graph_is_told_apart(own: Path) -> None:
    part = decoder(own)
    fitting = some_engine(graph=build.fingerprint(part.files))
    maker = fitting.maker
    assert build.check(fitting, part, maker) == ""
    for other in (replace(maker, version="10.16"), replace(maker, compute_capability="11.0")):
        wrong = build.check(fitting, part, other)
        assert str(maker) in wrong and str(other) in wrong
    assert "exported anew" in build.check(replace(fitting, graph="0"), part, maker)


# --- built by TensorRT-RTX, which needs no GPU


@pytest.fixture(scope="module")
def rtx() -> None:
    pytest.importorskip("tensorrt_rtx", reason="it is optional: pip install tensorrt-rtx")


@pytest.fixture(scope="module")
def built(rtx: None, artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with an engine for every part. Never to be changed."""
    folder = Path(shutil.copytree(artifacts, tmp_path_factory.mktemp("built") / "tiny"))
    assert alm_build(folder, "--backend", RTX, "--debug") == 0
    return folder


@pytest.fixture
def engines(built: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(built, tmp_path / "engines"))


@pytest.mark.tensorrt
def test_every_part_has_an_engine_and_the_manifest_says_what_made_it(built: Path) -> None:
    said = manifest.load(built)
    parts = [part.name for part in said.parts if part.role != "table"]
    assert [engine.part for engine in said.engines] == parts
    for engine in said.engines:
        assert engine.maker == _trt.maker(RTX) and engine.maker.version[0].isdigit()
        assert (built / engine.file.name).stat().st_size == engine.file.bytes > 1000
        found, plan = tensorrt.read(built, said, said.part(engine.part), RTX)  # pyright: ignore
        assert found == engine and len(plan) == engine.file.bytes
    assert not list(built.glob(".*"))
    assert len(said.engine("decoder", RTX).profiles) == 2  # pyright: ignore


@pytest.mark.tensorrt
def test_what_is_up_to_date_is_not_built_again(engines: Path, capfd: Capture) -> None:
    before = {path: path.stat().st_mtime_ns for path in engines.glob("*.engine")}
    assert alm_build(engines, "--backend", RTX) == 0
    assert {path: path.stat().st_mtime_ns for path in engines.glob("*.engine")} == before
    assert capfd.readouterr().out.count("up to date") == len(before)
    assert alm_build(engines, "--backend", RTX, "--part", "mel", "--force") == 0
    newer = [path.name for path, time in before.items() if path.stat().st_mtime_ns > time]
    assert newer == [f"mel.{RTX}.engine"]


@pytest.mark.tensorrt
def test_too_little_memory_is_refused_with_numbers_before_anything_is_built(
    rtx: None, own: Path, capfd: Capture
) -> None:
    assert alm_build(own, "--backend", RTX, "--memory", "0.25") == 2
    said = capfd.readouterr()
    assert re.match(r"error: building part \w+ takes about 0\.\d\d GiB of memory and 0\.", said.err)
    assert not list(own.glob("*.engine")) and said.out == ""


@pytest.mark.tensorrt
def test_a_changed_engine_is_refused_before_tensorrt_sees_it(engines: Path) -> None:
    said = manifest.load(engines)
    part = decoder(engines)
    path = engines / f"decoder.{RTX}.engine"
    plan = bytearray(path.read_bytes())
    plan[len(plan) // 2] ^= 1
    path.write_bytes(plan)
    with pytest.raises(BadArtifacts, match=r"has sha256 .*it was not loaded.*alm build .*--force"):
        tensorrt.read(engines, said, part, RTX)
    path.unlink()
    path.symlink_to(engines / f"mel.{RTX}.engine")
    with pytest.raises(BadArtifacts, match="symbolic link"):
        tensorrt.read(engines, said, part, RTX)


@pytest.mark.tensorrt
def test_an_engine_of_another_version_is_refused_and_then_built_as_large_as_it_was(
    engines: Path,
) -> None:
    assert alm_build(engines, "--backend", RTX, "--part", "decoder", "--context", "100") == 0
    said = manifest.load(engines)
    part, old = decoder(engines), said.engine("decoder", RTX)
    assert old is not None
    older = replace(old, maker=replace(old.maker, version="1.0.0"))
    replace(said, engines=tuple(older if e is old else e for e in said.engines)).save(engines)
    remedy = re.escape(f"build it here with: alm build {engines} --backend {RTX}")
    with pytest.raises(BadArtifacts, match=rf"is of tensorrt-rtx 1\.0\.0 on .*{remedy}"):
        tensorrt.read(engines, manifest.load(engines), part, RTX)
    again = build.build(engines, build.Settings(RTX, ("decoder",), None), no, no)
    assert again[0].maker == old.maker and again[0].profiles == old.profiles
    tensorrt.read(engines, manifest.load(engines), part, RTX)


def no(_: str) -> None:
    pass


@pytest.mark.tensorrt
def test_a_graph_that_tensorrt_cannot_read_is_answered_in_its_words(
    rtx: None, own: Path, capfd: Capture
) -> None:
    model = onnx.load(own / "mel.onnx")
    model.graph.node[0].op_type = "Nonsense"
    onnx.save(model, own / "mel.onnx")
    said = manifest.load(own)
    part = said.part("mel")
    assert part is not None
    content = (own / "mel.onnx").read_bytes()
    file = File("mel.onnx", len(content), hashlib.sha256(content).hexdigest())
    changed = replace(part, files=(file,))
    replace(said, parts=tuple(changed if p is part else p for p in said.parts)).save(own)
    assert alm_build(own, "--backend", RTX, "--part", "mel") == 1
    sentence = capfd.readouterr().err.splitlines()[-1]
    assert sentence.startswith("error: tensorrt-rtx") and "Nonsense" in sentence


@pytest.mark.gpu
@pytest.mark.tensorrt
def test_the_engines_answer_on_a_gpu(engines: Path, clip: Path) -> None:
    if _trt.gpu() is None:
        pytest.skip("there is no NVIDIA GPU")
    models = (alm.load(engines, name) for name in (RTX, "cpu"))
    ours, theirs = (m.generate(clip, "describe", max_new_tokens=6) for m in models)
    assert ours.token_ids == theirs.token_ids


@pytest.mark.tensorrt
def test_without_a_gpu_a_session_is_refused(built: Path) -> None:
    if _trt.gpu() is not None:
        pytest.skip("there is a GPU")
    assert tensorrt.available() == []
    with pytest.raises(MissingEngine, match="needs an NVIDIA GPU"):
        tensorrt.open_session(built / "mel.onnx", EngineOptions(RTX))


# --- a session on a pretended GPU


class Memory:
    """A GPU whose memory is the processor's."""

    stream = 7

    def __init__(self) -> None:
        self.blocks: dict[int, np.ndarray] = {}
        self.recorded = self.replayed = 0

    def allocate(self, size: int) -> int:
        block = np.full(size, 0xAB, np.uint8)
        self.blocks[block.ctypes.data] = block
        return block.ctypes.data

    def free(self, address: int) -> None:
        del self.blocks[address]

    def upload(self, address: int, array: np.ndarray) -> None:
        assert self.blocks[address].nbytes >= array.nbytes and array.flags.c_contiguous
        ctypes.memmove(address, array.ctypes.data, array.nbytes)

    def download(self, array: np.ndarray, address: int) -> None:
        ctypes.memmove(array.ctypes.data, address, array.nbytes)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        self.recorded += 1

        def replay() -> None:
            self.replayed += 1
            work()

        return replay


KEY_IN, KEY_OUT = "past_key_values.0.key", "present.0.key"
ROOM = 16
CACHE = (-1, ROOM, 1)
SHAPES = {"x": (-1, -1), "past_lengths": (-1,), KEY_IN: CACHE, "y": (-1, 1), KEY_OUT: CACHE}


class Steps:
    """An engine and its context: x goes behind the past in the cache, y is the cache's sum."""

    num_io_tensors = len(SHAPES)

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.chosen: list[int] = []

    def get_tensor_name(self, i: int) -> str:
        return list(SHAPES)[i]

    def get_tensor_mode(self, name: str) -> str:
        return "TensorIOMode.OUTPUT" if name in ("y", KEY_OUT) else "TensorIOMode.INPUT"

    def get_tensor_dtype(self, name: str) -> str:
        return "DataType.INT64" if name == "past_lengths" else "DataType.FLOAT"

    def create_execution_context(self) -> Steps:
        return self

    def set_optimization_profile_async(self, number: int, stream: int) -> bool:
        self.chosen.append(number)
        return stream == Memory.stream

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if not self.shapes:
            return SHAPES[name]
        key = self.shapes[KEY_IN]
        return {"y": (key[0], 1), KEY_OUT: key}.get(name) or self.shapes[name]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def _view(self, name: str, kind: Any) -> np.ndarray:
        shape = self.get_tensor_shape(name)
        place = ctypes.cast(self.addresses[name], ctypes.POINTER(kind))
        return np.ctypeslib.as_array(place, shape)

    def execute_async_v3(self, stream: int) -> bool:
        assert self.addresses[KEY_IN] == self.addresses[KEY_OUT]  # in place, as TensorRT demands
        x, cache = self._view("x", ctypes.c_float), self._view(KEY_IN, ctypes.c_float)
        for row, past in enumerate(self._view("past_lengths", ctypes.c_int64)):
            cache[row, past : past + x.shape[1], 0] = x[row]
        self._view("y", ctypes.c_float)[:] = cache.sum(1)
        return True


def ranges(batch: int, seq: int) -> Profile:
    return {
        "x": ((1, 1), (batch, seq), (batch, seq)),
        "past_lengths": ((1,), (batch,), (batch,)),
        KEY_IN: ((1, ROOM, 1), (batch, ROOM, 1), (batch, ROOM, 1)),
    }


def steps(batch: int = 1, graphs: bool = False) -> tuple[tensorrt.TensorrtSession, Steps, Memory]:
    engine, memory = Steps(), Memory()
    both = (ranges(batch, 8), ranges(batch, 1))
    said = some_engine(profiles=both, fixed={"capacity": ROOM})
    return tensorrt.TensorrtSession(engine, said, memory, graphs), engine, memory


def say(session: tensorrt.TensorrtSession, kept: Any, past: int, *x: float) -> tuple[float, Any]:
    fed = {"x": np.array([x], np.float32), "past_lengths": np.array([past]), KEY_IN: kept}
    made = session.run(fed, {KEY_OUT: kept})
    return float(made["y"][0, 0]), made[KEY_OUT]


def test_the_cache_stays_where_it_is_and_the_single_token_has_its_own_profile() -> None:
    session, engine, memory = steps()
    assert session.inputs["x"].axes == ("", "") and session.inputs["x"].dtype == "float32"
    assert session.inputs[KEY_IN].axes == ("", "capacity", 1)
    assert list(session.outputs) == ["y", KEY_OUT] and session.one_row
    kept = session.hold(np.zeros((1, ROOM, 1), np.float32))
    total, same = say(session, kept, 0, 1, 2, 3)
    assert total == 6 and same is kept
    assert say(session, kept, 3, 4)[0] == 10 and say(session, kept, 4, 5)[0] == 15
    assert engine.chosen == [0, 1]
    assert session.fetch(kept)[0, :6, 0].tolist() == [1, 2, 3, 4, 5, 0]
    count = len(memory.blocks)
    say(session, kept, 5, 6)
    assert len(memory.blocks) == count  # nothing is allocated for a step


def test_a_cache_given_as_an_array_comes_back_as_one() -> None:
    session, _, _ = steps()
    past = np.zeros((1, ROOM, 1), np.float32)
    made = session.run({"x": np.ones((1, 2), "f"), "past_lengths": np.array([0]), KEY_IN: past})
    assert made[KEY_OUT][0, :3, 0].tolist() == [1, 1, 0] and made["y"].tolist() == [[2]]


def test_a_cache_with_less_room_than_the_engine_has_is_made_as_long() -> None:
    session, _, _ = steps()
    kept = session.hold(np.full((1, 4, 1), 5, np.float32))
    total, longer = say(session, kept, 1, 7)
    assert total == 22 and longer is not kept
    assert session.fetch(longer)[0, :5, 0].tolist() == [5, 7, 5, 5, 0]
    assert say(session, longer, 4, 1)[1] is longer
    with pytest.raises(BadArtifacts, match=r"20 positions .* built for 16; .*--context N"):
        say(session, session.hold(np.zeros((1, 20, 1), np.float32)), 0, 1)


def test_buffers_are_given_back_with_their_handles() -> None:
    session, _, memory = steps()
    kept = session.hold(np.zeros((1, ROOM, 1), np.float32))
    before = len(memory.blocks)
    del kept
    assert len(memory.blocks) == before - 1


def test_a_step_is_recorded_at_its_second_run_and_replayed_from_then_on() -> None:
    session, _, memory = steps(graphs=True)
    for _ in range(2):  # another answer has another cache, and is recorded anew
        kept = session.hold(np.zeros((1, ROOM, 1), np.float32))
        say(session, kept, 0, 1, 2)
        totals = [say(session, kept, 2 + i, 10)[0] for i in range(4)]
        assert totals == [13, 23, 33, 43]
    assert memory.recorded == 2 and memory.replayed == 6


def test_what_an_engine_was_not_built_for_is_answered_with_what_to_type() -> None:
    session, _, _ = steps()
    kept = session.hold(np.zeros((1, ROOM, 1), np.float32))
    with pytest.raises(BadArtifacts, match=r"x is \[1, 9\] and was built for .*--prompt N"):
        say(session, kept, 0, *range(9))
    wide, _, _ = steps(batch=2)
    assert not wide.one_row
