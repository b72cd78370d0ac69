"""ONNX Runtime's providers for a GPU: what they are told, what they refuse, and what is kept."""

from __future__ import annotations

import ast
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import alm
from alm import backends
from alm.artifacts import manifest
from alm.artifacts.manifest import File, Part
from alm.backends import ort
from alm.errors import BadArtifacts
from alm.ports import Port, Span
from alm.session import BackendOptions
from alm.tensorrt import api, ort_provider
from alm.tensorrt.profiles import Sizes, fit
from exporters import precisions
from tests import ROOT
from tests.conftest import run_export
from tests.runtime.cli.commands import Capture, refused

TRT, RTX = "ort-tensorrt", "ort-tensorrt-rtx"
HIDDEN, LAYERS = 64, 2
CACHE = Port("float16", ("batch", 2, "past", 32))
DECODER = Part(
    "decoder",
    "decoder",
    (File("decoder.onnx", 10, "ab"), File("decoder.onnx.data", 20, "cd")),
    inputs={
        "inputs_embeds": Port("float32", ("batch", "seq", HIDDEN)),
        "past_lengths": Port("int64", ("batch",), counts="past"),
        **{f"past_key_values.{i}.key": CACHE for i in range(LAYERS)},
    },
    spans={"batch": Span(1, 1, 4), "seq": Span(1, 90, 4096), "past": Span(0, 120, 4096)},
    precision="int8dq",
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Engines are kept beside the test."""
    monkeypatch.setenv("ALM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def told(part: Part, provider: str = TRT) -> dict[str, str]:
    return ort_provider.tensorrt(part, provider, ort_provider.profile(part, provider))


def shapes(said: str) -> dict[str, tuple[int, ...]]:
    """Read as ONNX Runtime reads it: name:1x2x3,name:4."""
    pairs = (each.rsplit(":", 1) for each in said.split(","))
    return {name: tuple(map(int, shape.split("x"))) for name, shape in pairs}


@pytest.mark.parametrize("provider, prefix", [(TRT, "trt_"), (RTX, "nv_")])
def test_one_profile_holds_the_prompt_and_the_single_token(provider: str, prefix: str) -> None:
    options = told(DECODER, provider)
    least, usual, most = (
        shapes(options[f"{prefix}profile_{kind}_shapes"]) for kind in ("min", "opt", "max")
    )
    assert list(least) == list(usual) == list(most) == list(DECODER.inputs)
    assert least["inputs_embeds"] == (1, 1, HIDDEN)
    assert usual["inputs_embeds"] == (1, 90, HIDDEN)
    assert most["inputs_embeds"] == (1, 512, HIDDEN)
    caches = (each["past_key_values.1.key"] for each in (least, usual, most))
    assert [shape[2] for shape in caches] == [0, 120, 2048]
    for each in fit(DECODER, Sizes()).profiles:  # it is not narrower than what `alm build` makes
        for name, (low, _, high) in each.items():
            pairs = zip(least[name], low, high, most[name], strict=True)
            assert all(a <= b <= c <= d for a, b, c, d in pairs)


def test_a_part_whose_axes_are_all_fixed_has_no_profile() -> None:
    fixed = replace(DECODER, role="encoder", inputs={"x": Port("float32", (1, 80, 3000))})
    assert not [name for name in told(fixed) if "profile" in name]


@pytest.mark.parametrize(
    "precision, allowed",
    [
        ("fp32", set()),
        ("fp16", {"trt_fp16_enable", "trt_layer_norm_fp32_fallback"}),
        ("int4dq", {"trt_fp16_enable", "trt_layer_norm_fp32_fallback"}),
        ("int8dq", {"trt_fp16_enable", "trt_layer_norm_fp32_fallback", "trt_int8_enable"}),
        ("bf16", {"trt_bf16_enable"}),
    ],
)
def test_tensorrt_is_allowed_the_precisions_that_the_graph_holds_and_no_other(
    precision: str, allowed: set[str]
) -> None:
    storage = precisions.pull(precision).storage(DECODER.role)
    part = replace(DECODER, precision=precision, storage=storage)
    switches = ("fp16", "bf16", "int8", "layer_norm")
    found = {n: v for n, v in told(part).items() if any(word in n for word in switches)}
    assert found == dict.fromkeys(allowed, "1")
    assert not any(word in name for name in told(part, RTX) for word in switches)


def test_engines_are_kept_in_a_folder_of_this_graph_and_these_shapes(cache: Path) -> None:
    options = told(DECODER)
    folder = Path(options["trt_engine_cache_path"])
    assert folder.is_dir() and folder.parent == cache / TRT
    assert options["trt_timing_cache_path"] == str(folder)  # both are sealed
    assert options["trt_engine_cache_enable"] == options["trt_timing_cache_enable"] == "1"
    assert told(DECODER) == options
    other = (File("decoder.onnx", 10, "ab"), File("decoder.onnx.data", 20, "ce"))
    longer = DECODER.spans | {"seq": Span(1, 91, 4096)}
    for change in (replace(DECODER, files=other), replace(DECODER, spans=longer)):
        assert told(change)["trt_engine_cache_path"] != str(folder)
    kept = Path(told(DECODER, RTX)["nv_runtime_cache_path"])
    assert kept.is_dir() and kept.parent == cache / RTX


def test_where_nothing_can_be_kept_engines_are_built_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ALM_CACHE", str(tmp_path / "file"))
    assert not any("cache" in name for provider in (TRT, RTX) for name in told(DECODER, provider))


def test_a_cache_in_place_is_refused_with_the_export_that_works(artifacts: Path) -> None:
    part = manifest.load(artifacts).with_role("decoder")[0]
    with pytest.raises(BadArtifacts, match=f"decoder keeps its cache in place, and {TRT} .*") as no:
        told(part)
    assert "--dialect decomposed" in str(no.value)


def test_what_a_provider_does_not_take_goes_to_the_next_one() -> None:
    names = {name: ort.PROVIDERS[name] for name in ("cpu", "cuda", TRT)}
    own = {"device_id": "0"}
    cuda, cpu = (ort.PROVIDERS["cuda"], ort_provider.CUDA), (ort.PROVIDERS["cpu"], {})
    first = ("TensorrtExecutionProvider", own)
    assert ort_provider.chain(TRT, names, own) == [first, cuda, cpu]
    del names["cuda"]
    assert ort_provider.chain(TRT, names, own) == [first, cpu]
    assert ort_provider.chain("cpu", names, {}) == [cpu]
    assert ort_provider.CUDA["use_tf32"] == "0"  # float32 in the graph is float32


def test_the_names_are_those_of_onnx_runtime() -> None:
    theirs = {name: ort.PROVIDERS[name] for name in ort.PROVIDERS if name != RTX}
    assert set(theirs.values()) <= set(onnxruntime.get_all_providers())
    # Older releases name it among their own; since then it is a plugin that is registered by hand.
    assert ort.PROVIDERS[RTX] == "NvTensorRTRTXExecutionProvider"
    preferred = list(ort.PROVIDERS)
    assert {TRT, RTX} <= set(backends.known()) and preferred.index("cpu") < preferred.index(TRT)


def test_a_build_for_gpus_runs_on_the_processor_where_there_is_no_gpu() -> None:
    installed = ["cuda", "cpu", TRT]
    assert ort.usable(installed, None) == ["cpu"]
    assert ort.usable(installed, api.Gpu("an H200", "9.0")) == installed


def test_what_the_page_says_of_comparing_parts_runs(artifacts: Path, capfd: Capture) -> None:
    page = (ROOT / "docs" / "gpu.md").read_text("utf-8")
    _, _, rest = page.partition("python - <<'PY'\n")
    script = textwrap.dedent(rest.partition("    PY\n")[0])
    assert '"artifacts"' in script and '"tensorrt"' in script
    here = script.replace('"artifacts"', repr(str(artifacts))).replace('"tensorrt"', '"cpu"')
    exec(compile(here, "gpu.md", "exec"), {})
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines][-1] == "decoder" and len(lines) == 6
    assert all(set(ast.literal_eval(line.partition(" ")[2]).values()) == {0.0} for line in lines)


@pytest.mark.parametrize("provider", [TRT, RTX, "cuda"])
def test_a_provider_that_is_not_installed_is_refused_in_one_sentence(
    provider: str, artifacts: Path, clip: Path, capfd: Capture
) -> None:
    if provider in ort.available():
        pytest.skip(f"{provider} is installed here")
    words = ("--engine", artifacts, clip, "transcribe", "--provider", provider)
    status, sentence = refused(capfd, *words)
    assert status == 1
    assert sentence.startswith(f"error: provider '{provider}' is not installed; there is: cpu")


def test_shapes_outside_of_the_profile_are_refused_before_an_engine_is_built(
    artifacts: Path,
) -> None:
    session = onnxruntime.InferenceSession(artifacts / "mel.onnx", providers=[ort.PROVIDERS["cpu"]])
    narrow = ort.OrtSession(session, "cpu", {"pcm": ((1, 400), (1, 16000), (1, 32000))})
    assert narrow.run({"pcm": np.zeros((1, 32000), np.float32)})
    with pytest.raises(BadArtifacts, match=r"pcm is \[2, 32000\] and .*--provider tensorrt"):
        narrow.run({"pcm": np.zeros((2, 32000), np.float32)})


@pytest.mark.gpu
@pytest.mark.parametrize("provider", [TRT, RTX, "cuda"])
def test_a_provider_answers_on_a_gpu_as_the_processor_does(
    provider: str, checkpoint: Path, clip: Path, tmp_path: Path, capfd: Capture
) -> None:
    if provider not in ort.available():
        pytest.skip(f"no GPU: ONNX Runtime has no {provider} here")
    out = tmp_path / "decomposed"
    run_export("--model", checkpoint, "--out", out, "--target", "portable", "--dynamic-batch")
    models = (alm.load(out, name) for name in (provider, "cpu"))
    ours, theirs = (m.generate(clip, "describe", max_new_tokens=6) for m in models)
    assert ours.token_ids == theirs.token_ids
    assert (
        backends.open_session(
            manifest.load(out).named("mel"), out, BackendOptions(provider)
        ).in_place
        is False
    )
