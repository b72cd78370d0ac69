"""Configurations are what Triton's own messages say, field by field, and the graphs' own."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format

from alm.artifacts import manifest
from alm.triton import pbtxt
from alm.triton.python_config import PCM
from tests.runtime.triton.conftest import packed
from tests.runtime.triton.stand_in import MESSAGES, Server, parsed


@pytest.mark.parametrize("name", ["plain", 'a "quoted" \\ one', "zwölf\n\t\0", "ein 音", "a'b"])
def test_text_of_any_kind_comes_back(name: str) -> None:
    message = {"name": name, "parameters": pbtxt.parameters({name: name})}
    read = text_format.Parse(pbtxt.text(message), MESSAGES.ModelConfig())
    assert read.name == name and read.parameters[name].string_value == name


def test_fields_of_every_kind_come_back() -> None:
    tensor = {"name": "x", "data_type": pbtxt.Word("TYPE_BF16"), "dims": [-1, 3], "reshape": {}}
    step = {"model_name": "b", "model_version": -1, "input_map": pbtxt.pairs({"x": "y"})}
    message = {"input": [tensor, tensor], "ensemble_scheduling": {"step": [step]}}
    message |= {"model_transaction_policy": {"decoupled": True}, "max_batch_size": 4, "output": []}
    read = text_format.Parse(pbtxt.text(message), MESSAGES.ModelConfig())
    assert [list(one.dims) for one in read.input] == [[-1, 3]] * 2
    assert read.input[0].HasField("reshape") and not read.output
    assert read.input[0].data_type == MESSAGES.DataType.Value("TYPE_BF16")
    assert read.ensemble_scheduling.step[0].input_map["x"] == "y"
    assert read.model_transaction_policy.decoupled and read.max_batch_size == 4


def test_every_model_is_loaded_as_its_backend_would(demo_repository: Path) -> None:
    server = Server(demo_repository)  # holds dims, types and maps against the graphs
    parts = {"alm_mel", "alm_whisper", "alm_fbank", "alm_beats", "alm_qformer"}
    assert set(server.configs) == parts | {"alm_audio", "alm"} and set(server.sessions) == parts
    for name in parts:
        config = server.configs[name]
        assert (config.platform, config.backend) == ("onnxruntime_onnx", "onnxruntime")
        assert config.max_batch_size == 8 and config.HasField("dynamic_batching")
        (group,) = config.instance_group
        assert group.kind == MESSAGES.ModelInstanceGroup.KIND_CPU
    lengths = {one.name: one for one in server.configs["alm_fbank"].input}["pcm_lengths"]
    # Triton knows no tensor of nothing but rows.
    assert list(lengths.dims) == [1] and lengths.HasField("reshape") and not lengths.reshape.shape


def test_the_answering_model_may_batch_clips_of_different_lengths(demo_repository: Path) -> None:
    config = parsed(demo_repository / "alm" / "config.pbtxt")
    assert config.backend == "python" and config.model_transaction_policy.decoupled
    inputs = {one.name: one for one in config.input}
    assert {name for name, one in inputs.items() if not one.optional} == {"prompt"}
    assert {name for name, one in inputs.items() if one.allow_ragged_batch} == {PCM}
    # The dynamic batcher would keep apart what is neither of one shape nor ragged.
    assert {name for name, one in inputs.items() if -1 in one.dims} == {PCM}


def test_options_reach_the_configurations(demo: Path, tmp_path: Path) -> None:
    settings = {"name": "lamp", "gpu": True, "batch": 1, "threads": 2, "stream": False}
    out = packed(demo, tmp_path / "models", **settings)
    whisper, answers = (parsed(out / name / "config.pbtxt") for name in ("lamp_whisper", "lamp"))
    assert whisper.instance_group[0].kind == MESSAGES.ModelInstanceGroup.KIND_GPU
    assert whisper.parameters["intra_op_thread_count"].string_value == "2"
    # Without a batch size above 0 Triton would put in its own, of a graph that takes any.
    assert whisper.max_batch_size == 1 and not whisper.HasField("dynamic_batching")
    assert not answers.model_transaction_policy.decoupled
    said = {name: answers.parameters[name].string_value for name in answers.parameters}
    assert said["provider"] == "cuda" and said["threads"] == "2" and said["front"] == "lamp_audio"
    Server(out)


def test_graphs_of_one_row_have_no_batch(family: Path, tmp_path: Path) -> None:
    server = Server(packed(family, tmp_path / "models"))
    one = {p.inputs["pcm"].axes[0] for p in manifest.load(family).parts if "pcm" in p.inputs} == {1}
    for name in (*server.sessions, "alm_audio"):
        assert server.configs[name].max_batch_size == (0 if one else 8)
