"""`alm plan`: its error bars, what fits, and that a manifest is enough."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor, nn

from alm import devices, targets
from alm.artifacts import manifest
from alm.errors import BadArtifacts, BadOption, UnknownName
from alm.plan import estimate
from alm.plan.planner import fits
from alm.plan.predict import predict
from alm.ports import Port, Span
from alm.precision import PLAIN, PLAINEST, closest_first
from exporters import graph, precisions
from tests.conftest import run_export
from tests.runtime.cli.commands import Capture
from tests.runtime.plan.planning import AGX, LLMS, NANO, NX, alm_plan, model, part, planned, row
from wrappers import Wrapper

# --- error bars


def test_devices_without_figures_have_wider_error_bars_and_say_so(tmp_path: Path) -> None:
    said = model(LLMS["llama-3b"])
    for name in set(devices.known()) - {NANO, NX, AGX}:
        found = planned(tmp_path, said, name)
        known = devices.device(name)
        assert known.step_error > 0.1 and known.encoder_error > 0.2
        assert any(
            words in found["notes"][0] for words in ("no figure", "not agree", "one figure each")
        )


def test_what_is_offered_is_what_can_be_built_for_the_device(tmp_path: Path) -> None:
    said = model(LLMS["llama-3b"])
    for name in devices.known():
        goals = list(map(targets.find, devices.device(name).targets))
        takes = {
            lever
            for lever, roles in said.levers.items()
            if not (storage := roles.get("decoder", PLAINEST)).plain  # it stores otherwise
            and any(targets.takes(goal, storage) for goal in goals)
        }
        found = planned(tmp_path, said, name)
        assert {each["precision"] for each in found["choices"]} == {PLAIN, *takes} > {PLAIN}
        assert all(each["buildable"] for each in found["choices"])


def test_a_folder_that_no_target_of_the_device_takes_has_no_speed_there(
    tmp_path: Path, capfd: Capture
) -> None:
    said = model(LLMS["llama-3b"])
    storage = precisions.pull("int4+kv8").storage("decoder")
    part = replace(said.parts[-1], precision="int4+kv8", storage=storage)
    here = replace(said, parts=(part,))
    found = planned(tmp_path, here, NANO)
    own = found["choices"][0]
    assert own["own"] and not own["buildable"] and own["precision"] == "int4+kv8"
    assert any("not for TensorRT on this device" in note for note in found["notes"])
    capfd.readouterr()
    assert alm_plan(tmp_path, "--device", NANO) == 0
    (row_of_own,) = [
        line
        for line in capfd.readouterr().out.partition("PREDICTED SPEED")[2].splitlines()
        if line.startswith("int4+kv8 *")
    ]
    assert set(row_of_own.split()[2:]) == {"-"}


def test_speeds_are_said_to_be_predicted_and_from_what(tmp_path: Path) -> None:
    found = planned(tmp_path, model(LLMS["llama-3b"]), NANO)
    assert "Edge-LLM" in found["device"]["source"]
    assert any("predicted and none was measured" in note for note in found["notes"])


def test_the_error_bar_of_a_step_is_that_of_the_device(tmp_path: Path) -> None:
    for each in planned(tmp_path, model(LLMS["llama-3b"]), AGX)["choices"]:
        took = each["per_token"]
        assert took["most"] / took["value"] == pytest.approx(1.10)


def test_every_device_has_numbers_that_can_be(tmp_path: Path) -> None:
    said = model(LLMS["llama-1b"])
    for name in devices.known():
        known = devices.device(name)
        assert known.title and known.source and 0 < known.usable < known.memory
        found = planned(tmp_path, said, name)
        speeds = [row(found, n)["tokens_per_second"]["value"] for n in ("fp16", "int8dq", "int4dq")]
        assert speeds == sorted(speeds) and speeds[0] > 1


# --- what fits


def test_what_does_not_fit_is_said(tmp_path: Path, capfd: Capture) -> None:
    said = model(LLMS["llama-8b"])
    verdicts = {
        device: [row(planned(tmp_path, said, device), name)["fits"] for name in ("fp16", "int4dq")]
        for device in ("orin-nano-4gb", NANO, NX, AGX)
    }
    assert verdicts["orin-nano-4gb"] == ["no", "no"]
    assert verdicts[NANO] == ["no", "tight"]
    assert verdicts[NX] == ["no", "yes"] and verdicts[AGX] == ["yes", "yes"]
    capfd.readouterr()
    assert alm_plan(tmp_path, "--device", NANO) == 0
    lines = capfd.readouterr().out.splitlines()
    (own,) = (line for line in lines if line.startswith("fp16 *") and "GB" in line)
    assert own.split()[-1] == "no"


def test_tight_is_what_hangs_on_loading_or_on_the_error_bar() -> None:
    assert fits(5.0, 6.0, 7.0) == "yes"
    assert fits(5.0, 6.8, 7.0) == fits(8.0, 6.0, 7.0) == "tight"
    assert fits(8.0, 7.1, 7.0) == "no"


def test_beams_are_counted_in_memory_and_told(tmp_path: Path) -> None:
    said = model(LLMS["llama-3b"])
    alone = planned(tmp_path, said, NANO)
    four = planned(
        tmp_path,
        replace(said, facts=replace(said.facts, generation={"max_new_tokens": 64, "num_beams": 4})),
        NANO,
    )
    own, other = alone["choices"][0], four["choices"][0]
    assert other["cache_bytes"] == 4 * own["cache_bytes"]
    assert other["tokens_per_second"] == own["tokens_per_second"]
    assert any("4 beams" in note for note in four["notes"])
    assert not any("beams" in note for note in alone["notes"])


# --- what the manifest tells


def test_the_exporter_counts_the_weights_and_no_lever_changes_the_count(
    artifacts: Path, checkpoint: Path, tmp_path: Path
) -> None:
    words = ("--part", "decoder", "--precision", "int4", "--out", tmp_path / "int4")
    run_export("--model", checkpoint, *words)
    whole, few = manifest.load(artifacts), manifest.load(tmp_path / "int4")
    decoders = [said.part("decoder") for said in (whole, few)]
    assert decoders[0] and decoders[1] and decoders[1].bytes < decoders[0].bytes
    counts = [estimate.decoder_weights(each, whole.facts.dimensions) for each in decoders if each]
    assert counts[0] == counts[1]
    assert 4 * sum(counts[0]) == pytest.approx(decoders[0].bytes, rel=0.1)


class Layer(Wrapper):
    """A decoder of one product and a head, of widths that every block divides."""

    role = "decoder"

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(256, 256, bias=False)
        self.lm_head = nn.Linear(256, 1024, bias=False)
        self.inputs = {"x": Port("float32", ("batch", "time", 256))}
        self.outputs = {"y": Port("float32", ("batch", "time", 1024))}
        self.spans = {"time": Span(1, 6, 20)}

    def forward(self, x: Tensor) -> Tensor:
        return self.lm_head(self.layer(x))


def test_a_lever_says_how_many_bytes_it_stores() -> None:
    part = Layer()
    traced = graph.trace(part, dynamic_batch=True)
    every = closest_first(precisions.declared(), part.role)
    assert len(every) > 9
    for precision in every:
        stored = estimate.Stored.of(precisions.pull(precision).storage(part.role))
        leaner = precisions.pull(precision).rewrite(traced.clone(), part.role)
        told = part.layer.weight.numel() * stored.layers + part.lm_head.weight.numel() * stored.head
        assert graph.weight_bytes(leaner) == pytest.approx(told, rel=0.02), precision


def test_the_manifest_alone_is_enough(artifacts: Path, tmp_path: Path) -> None:
    shutil.copy(artifacts / manifest.NAME, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [manifest.NAME]
    found = predict(tmp_path, NANO)
    said = manifest.load(artifacts)
    own = found["choices"][0]
    assert own["own"] and own["precision"] == "fp32" and own["fits"] == "yes"
    heard = [each for each in said.parts if each.role not in ("table",)]
    assert own["weights"] == sum(each.bytes for each in heard)
    assert [each["part"] for each in found["parts"]] == [p.name for p in heard[:-1]]
    assert any("smaller than any" in note for note in found["notes"])


def test_longer_clips_cost_what_hears_all_of_them_and_no_more_than_a_window(
    artifacts: Path,
) -> None:
    found = predict(artifacts, AGX, (1.0, 2.0, 4.0, 40.0))  # the window is 4 s
    work = {p["part"]: [clip["operations"] for clip in p["clips"]] for p in found["parts"]}
    assert len(set(work["whisper"])) == 1  # always hears a whole window
    assert work["beats"][0] < work["beats"][1] < work["beats"][2] == work["beats"][3]
    clips = found["choices"][0]["clips"]
    assert [clip["windows"] for clip in clips] == [1, 1, 1, 10]
    for clip in clips:
        both = clip["encoders"]["value"] + clip["prompt"]["value"]
        assert clip["first_token"]["value"] == pytest.approx(both)
        assert clip["first_token"]["least"] < both < clip["first_token"]["most"]


def test_operations_are_near_those_that_the_graph_has(artifacts: Path) -> None:
    from alm.onnxfile import flops

    said = manifest.load(artifacts)
    sizes = estimate.sizes(said, 4.0)
    for name in ("whisper", "beats"):
        each = said.part(name)
        assert each
        path = artifacts / each.files[0].name
        truth, _ = flops.operations(path, sizes)
        told = estimate.operations(estimate.to_audio_part(each), sizes)
        assert 0.7 < told / truth < 1.7, name


def test_a_real_size_whisper_takes_what_was_calculated() -> None:
    """2 TFLOP at the rates of Edge-LLM's published prompts (test_plan_figures.py).

    That is 0.12 s on AGX Orin, 0.25 on Orin NX and 0.5 on Orin Nano.
    """
    weights = 32 * 12 * 1280**2 + 1280 * 3 * (128 + 1280) + 1500 * 1280
    ports = {"log_mel": Port("float32", (1, 128, 3000))}, {"s": Port("float32", (1, 1500, 1280))}
    whisper = part("whisper", "encoder", 2 * weights, inputs=ports[0], outputs=ports[1])
    sizes = estimate.sizes(model(LLMS["llama-3b"]), 30)
    operations = estimate.operations(estimate.to_audio_part(whisper), sizes)
    assert operations == pytest.approx(2.27e12, rel=0.02)
    for name, seconds in {AGX: 0.12, NX: 0.25, NANO: 0.5}.items():
        known = devices.device(name)
        took = known.encode(whisper.bytes, operations) / 1e3
        assert took == pytest.approx(seconds, rel=known.encoder_error)


# --- the command


def test_the_json_file_holds_what_is_printed(
    artifacts: Path, tmp_path: Path, capfd: Capture
) -> None:
    path = tmp_path / "plan.json"
    words = ("--device", NX, "--seconds", "2,4", "--context", "64", "--out", path)
    assert alm_plan(artifacts, *words) == 0
    said = capfd.readouterr()
    found = json.loads(path.read_text("utf-8"))
    assert (found["format"], found["device"]["name"]) == ("alm-plan", NX)
    assert found["model"]["context"] == 64
    assert [clip["seconds"] for clip in found["choices"][0]["clips"]] == [2, 4]
    for word in ("MEMORY", "SPEED", "fp32 *", "int4dq", "first, 4 s", "whisper", "note: "):
        assert word in said.out
    assert said.err == "" and all(each["part"] in said.out for each in found["parts"])
    assert [note for note in found["notes"] if f"note: {note}" not in said.out] == []
    assert alm_plan(artifacts, *words[:-2], "--json") == 0
    assert json.loads(capfd.readouterr().out) == found


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (("--device", "toaster"), 2, "unknown device 'toaster'; there is: agx-orin-32gb, "),
        (("--device", "_device"), 2, "unknown device '_device'"),
        ((), 2, "wanted --device; there is: agx-orin-32gb, agx-orin-64gb, agx-thor, orin-nano"),
        (("--device", NANO, "--seconds", "0"), 2, "--seconds wants numbers from 0.01"),
        (("--device", NANO, "--seconds", "1,nan"), 2, "--seconds wants numbers"),
        (("--device", NANO, "--context", "99999"), 2, "--context 99999 is beyond the model's"),
        (("--device", NANO, "--out", "no such folder/a"), 1, "there is no folder no such folder"),
    ],
    ids=str,
)
def test_what_cannot_be_planned_is_refused_in_one_sentence(
    artifacts: Path, capfd: Capture, words: tuple[str, ...], status: int, sentence: str
) -> None:
    assert alm_plan(artifacts, *words) == status
    said = capfd.readouterr()
    assert said.out == "" and said.err.startswith("error: ") and sentence in said.err
    assert said.err.count("\n") == 1


def test_the_errors_are_those_that_are_promised(tmp_path: Path) -> None:
    with pytest.raises(UnknownName):
        devices.device("toaster")
    with pytest.raises(BadOption):
        devices.device("")
    said = model(LLMS["llama-1b"])
    with pytest.raises(BadArtifacts, match="holds no decoder"):
        planned(tmp_path, replace(said, parts=()), NANO)
    odd = replace(said.parts[-1], measured={})
    with pytest.raises(BadArtifacts, match="how many weights part decoder has; export it again"):
        planned(tmp_path, replace(said, parts=(odd,)), NANO)
    few = replace(said.parts[-1], measured={"weights": 100})
    with pytest.raises(BadArtifacts, match="too few for a head"):
        planned(tmp_path, replace(said, parts=(few,)), NANO)
