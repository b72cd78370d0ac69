"""Options of ONNX Runtime's providers for an NVIDIA GPU, made of what a part is.

An engine of ONNX Runtime's own TensorRT provider is built when a graph is first opened, and kept in
the user's cache folder. One engine has one profile: ONNX Runtime builds several and never leaves
the first (its pull request 31624). None of this has run on a GPU.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from alm.artifacts.engine_files import Profile, fingerprint
from alm.artifacts.part import Part
from alm.errors import BadArtifacts
from alm.host import user_cache
from alm.tensorrt.profiles import Sizes, fit, words

Options = dict[str, str]

CUDA = {
    "device_id": "0",
    # Precision is in the graph: with TF32, which is on by default, float32 would have 10 bits.
    "use_tf32": "0",
    # The default tries every algorithm again for each new length, and audio has many lengths.
    "cudnn_conv_algo_search": "HEURISTIC",
    # The default doubles the arena: a board shares this memory with everything else.
    "arena_extend_strategy": "kSameAsRequested",
}
# The prefix of a provider's options: it has engines, and wants to know shapes before it builds one.
CACHE = "trt_engine_cache_path"
BUILDERS = {"ort-tensorrt": "trt_", "ort-tensorrt-rtx": "nv_"}


def profile(part: Part, provider: str) -> Profile:
    """The one profile of a part: all that it may be given, its prompt the usual.

    A kernel for many rows reads the weights once for a single row too, so it loses little there;
    the other way round a prompt would take as long as its tokens one by one.

    Raises:
        BadArtifacts: a cache in place, which ONNX Runtime cannot promise TensorRT.
    """
    fitted = fit(part, Sizes())
    if fitted.fixed:
        raise BadArtifacts(
            f"part {part.name} keeps its cache in place, and {provider} takes a cache that grows; "
            "export it with: --dialect decomposed, or use --provider tensorrt"
        )
    return _joined(fitted.profiles)


def _joined(profiles: tuple[Profile, ...]) -> Profile:
    """One profile that holds all of them, with the usual shapes of the first."""
    if not profiles:
        return {}
    joined: Profile = {}
    for name, (_, usual, _) in profiles[0].items():
        least = zip(*(ranges[name][0] for ranges in profiles), strict=True)
        most = zip(*(ranges[name][2] for ranges in profiles), strict=True)
        joined[name] = (tuple(map(min, least)), usual, tuple(map(max, most)))
    return joined


def tensorrt(part: Part, provider: str, shapes: Profile) -> Options:
    """Options of a provider that builds engines: their shapes, and where they are kept."""
    prefix = BUILDERS[provider]
    options = {"device_id": "0"} | _shapes(prefix, shapes)
    folder = _folder(part, provider, shapes)
    if provider == "ort-tensorrt-rtx":  # always strongly typed: no option changes a precision
        return options | ({"nv_runtime_cache_path": str(folder)} if folder else {})
    return options | _precision(part) | (_cache_options(folder) if folder else {})


def _shapes(prefix: str, shapes: Profile) -> Options:
    if not shapes:
        return {}
    values = [word.partition("=")[2] for word in words(shapes)]
    names = (f"{prefix}profile_{kind}_shapes" for kind in ("min", "opt", "max"))
    return dict(zip(names, values, strict=True))


def _precision(part: Part) -> Options:
    """TensorRT before 11 must be allowed what the graph holds already; nothing more is.

    What it is allowed it may use elsewhere too, but norms stay float32.
    """
    weights = part.storage.layers.dtype
    held = {weights, *part.storage.computes}
    options: Options = {}
    if "float16" in held:
        options |= {"trt_fp16_enable": "1", "trt_layer_norm_fp32_fallback": "1"}
    if "bfloat16" in held:
        options["trt_bf16_enable"] = "1"
    if weights == "int8":
        options["trt_int8_enable"] = "1"
    return options


def _cache_options(folder: Path) -> Options:
    return {
        "trt_engine_cache_enable": "1",
        CACHE: str(folder),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder),
    }


def keep(options: Options) -> None:
    """Note what ONNX Runtime wrote when it built an engine: only that is loaded the next time.

    Its TensorRT-RTX provider writes kernels when the process ends, after our last call: there the
    folder's owner and mode are all that guards them.
    """
    if CACHE in options:
        user_cache.seal(Path(options[CACHE]))


def _folder(part: Part, provider: str, shapes: Profile) -> Path | None:
    """Where the engines of this part lie; None where no folder is the user's alone.

    ONNX Runtime finds an engine by the names in its graph, whatever the weights, the shapes or the
    versions are: all of these are in the folder's name.
    """
    known = [fingerprint(part.files), *words(shapes), *_versions()]
    key = hashlib.sha256("\n".join(known).encode()).hexdigest()[:20]
    folder = user_cache.private(provider, key)
    if folder is not None and provider != "ort-tensorrt-rtx":
        user_cache.sealed(folder)  # an engine is code: what is not as it was left is removed
    return folder


def _versions() -> list[str]:
    versions: list[str] = []
    for name in ("onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx"):
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return versions


def chain(provider: str, there: Mapping[str, str], options: Options) -> list[tuple[str, Options]]:
    """ONNX Runtime's providers in their order: what the first does not take the next one does.

    Args:
        provider: alm's name of the first.
        there: alm's names of what is installed -> ONNX Runtime's.
        options: of the first.
    """
    providers = [(there[provider], options)]
    if provider in BUILDERS and "cuda" in there:
        providers.append((there["cuda"], CUDA))
    return providers if provider == "cpu" else [*providers, (there["cpu"], {})]
