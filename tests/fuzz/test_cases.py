"""Each input that once ended in something else than one of our errors, by its name."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
import yaml

from alm.artifacts import manifest, verify
from alm.cli import alm_commands, exit_status
from alm.errors import LONGEST, BadArtifacts, BadCheckpoint, BadOption, MissingFile
from alm.host import processor
from alm.parsing import CONTROL
from alm.session import BackendOptions
from alm.text import detokenizer
from tests.runtime.cli.commands import alm_run, refused
from wrappers import open_checkpoint
from wrappers.checkpoint.yaml_config import NUMBERS, Config

CASES = Path(__file__).resolve().parent / "cases"
RUN_ONLY = ("min-manifest-axis", "min-manifest-no-tasks")  # a part alone can be looked at
ALWAYS = [path for path in sorted(CASES.glob("*manifest-*.json")) if path.stem not in RUN_ONLY]


def names(paths: list[Path]) -> list[str]:
    return [path.stem for path in paths]


@pytest.mark.parametrize("case", ALWAYS, ids=names(ALWAYS))
@pytest.mark.parametrize(
    "words",
    [
        ("inspect", "--no-verify"),
        ("lint", "--target", "cpu"),
        ("plan", "--device", "agx-orin-64gb"),
        ("build", "--dry-run"),
    ],
    ids=lambda words: words[0],
)
def test_a_manifest_that_broke_a_command_is_refused_by_all_of_them(
    case: Path, words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(case, tmp_path / manifest.NAME)
    assert exit_status.run(alm_commands.app, [words[0], str(tmp_path), *words[1:]]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "is misshapen: " in said.err


@pytest.mark.parametrize("name", [*RUN_ONLY, *names(ALWAYS)])
def test_a_manifest_that_broke_a_run_is_refused_before_a_graph_is_opened(
    name: str, tmp_path: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(CASES / f"{name}.json", tmp_path / manifest.NAME)
    status, said = refused(capsys, "--engine", tmp_path, clip, "transcribe")
    assert status == 1 and "is misshapen: " in said and len(said) < 1000


def test_tasks_that_are_missing_are_named_by_the_list_of_tasks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(CASES / "min-manifest-no-tasks.json", tmp_path / manifest.NAME)
    status, said = refused(capsys, "--engine", tmp_path, "--list-tasks")
    assert status == 1 and "lacks 'tasks'" in said


@pytest.mark.parametrize("name", ["tokenizer-panic-load", "tokenizer-panic-encode"])
def test_a_panic_of_rust_is_one_sentence_and_prints_nothing(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BadArtifacts, match="its parts do not fit together") as caught:
        detokenizer.load_tokenizer(CASES / f"{name}.json")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def spoil(folder: Path, change: object) -> None:
    """Change the first part's graph, and let the manifest know its new hash."""
    plain = json.loads((folder / manifest.NAME).read_text("utf-8"))
    file = plain["parts"][0]["files"][0]
    model = onnx.load(folder / file["name"], load_external_data=False)
    content = change(model)  # pyright: ignore
    (folder / file["name"]).write_bytes(content)
    file.update(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    (folder / manifest.NAME).write_text(json.dumps(plain), "utf-8")


def test_a_tensor_name_that_is_no_text_is_one_sentence(
    own: Path, clip: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def change(model: onnx.ModelProto) -> bytes:
        model.graph.node[3].input[0] = "ZZZZZZZ"
        return model.SerializeToString().replace(b"ZZZZZZZ", b"\xff\xfe\xfdZZZZ")

    spoil(own, change)
    assert alm_run("--engine", own, clip, "transcribe", "--provider", "cpu") == 1
    said = capfd.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "is not UTF-8" in said.err


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / manifest.NAME
    plain = json.loads(path.read_text("utf-8"))
    change(plain)
    path.write_text(json.dumps(plain), "utf-8")


def test_a_dynamic_axis_without_a_name_has_no_span(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change_manifest(own, lambda m: m["parts"][0]["inputs"]["pcm"]["axes"].__setitem__(1, ""))
    assert exit_status.run(alm_commands.app, ["build", str(own), "--dry-run"]) == 1
    assert "has no span of ''" in capsys.readouterr().err


@pytest.mark.parametrize("least", ["5", {"a": 1}, [1]])
def test_a_default_of_another_kind_is_refused_by_name_beside_an_option(
    least: object, own: Path, clip: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    change_manifest(own, lambda m: m["generation"].update(min_new_tokens=least))
    assert alm_run("--engine", own, clip, "transcribe", "--max-new-tokens", "2") != 0
    said = capfd.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "min_new_tokens must be" in said.err


def test_no_control_character_of_a_manifest_reaches_the_terminal(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = "a\x7f\x9b\u202e"
    change_manifest(own, lambda m: m["licence"].update({odd: odd}))
    words = ["inspect", str(own), "--no-verify", "--json"]
    assert exit_status.run(alm_commands.app, words) == 0
    text = capsys.readouterr().out
    assert not CONTROL.search(text.replace("\n", "")) and json.loads(text)["licence"][odd] == odd


def test_a_path_with_a_line_break_makes_no_second_line(checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint.parent, tmp_path / "model")
    plain = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))
    plain["model"]["ckpt"] = "USER: {}\nASSISTANT:"
    (folder / "config.yaml").write_text(yaml.safe_dump(plain), "utf-8")
    with pytest.raises(MissingFile) as caught:
        open_checkpoint(folder / "config.yaml")
    assert "USER: {} ASSISTANT:" in str(caught.value)


@pytest.mark.parametrize("inside", ["graph", "subgraph", "function"])
@pytest.mark.parametrize(
    ("domain", "kind", "why"),
    [
        ("com.microsoft", "EPContext", "holds a compiled engine"),
        ("evil", "Op", "needs a library of operators"),
    ],
)
def test_operators_that_are_code_from_outside_are_refused_wherever_they_stand(
    own: Path, domain: str, kind: str, why: str, inside: str
) -> None:
    from alm.backends import open_session

    def change(model: onnx.ModelProto) -> bytes:
        node = onnx.helper.make_node(kind, [], ["strange"], domain=domain)
        if inside == "graph":
            model.graph.node.append(node)
        elif inside == "subgraph":
            graph = onnx.helper.make_graph([node], "g", [], [])
            model.graph.node.append(onnx.helper.make_node("If", ["c"], [], then_branch=graph))
        else:
            ids = [onnx.helper.make_opsetid(domain, 1)]
            made = onnx.helper.make_function("local", "f", [], ["strange"], [node], ids)
            model.functions.append(made)
        return model.SerializeToString()

    spoil(own, change)
    with pytest.raises(BadArtifacts, match=why):
        open_session(manifest.load(own).parts[0], own, BackendOptions())


def test_threads_beyond_any_use_are_refused() -> None:
    for threads in (100_000, -1):
        for refusing in (processor.check_threads, lambda n: BackendOptions(threads=n)):
            with pytest.raises(BadOption, match="on this machine"):
                refusing(threads)


@pytest.mark.parametrize("memory", ["inf", "nan", "1e308"])
def test_memory_without_end_is_refused(
    artifacts: Path, memory: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        exit_status.run(
            alm_commands.app, ["build", str(artifacts), "--dry-run", "--memory", memory]
        )
        == 2
    )
    said = capsys.readouterr().err
    assert "--memory" in said and "unexpected" not in said and said.count("\n") == 1


def test_a_long_sentence_keeps_its_beginning_and_what_to_do() -> None:
    made = str(MissingFile(f"/model is not there: {'a' * 9000}; download it"))
    assert len(made) == LONGEST and made.startswith("/model is ") and made.endswith("; download it")


@pytest.mark.parametrize("name", ["eos_token_id", "bos_token_id"])
@pytest.mark.parametrize("value", ["2", {"a": 1}, [1, "x"], 1.5, 2**64, True])
def test_a_token_that_is_no_id_is_refused_by_name(
    name: str, value: object, checkpoint: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(checkpoint.parent, tmp_path / "model")
    config = {name: value}
    (folder / "llm" / "generation_config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(BadCheckpoint, match=f"generation_config.json says {name} .*token's id"):
        open_checkpoint(folder / "config.yaml")


def test_half_a_surrogate_pair_in_a_checkpoint_is_refused_where_it_is_read(
    checkpoint: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(checkpoint.parent, tmp_path / "model")
    (folder / "llm" / "generation_config.json").write_text('{"eos_token_id": "\\ud800"}', "utf-8")
    with pytest.raises(BadCheckpoint, match=r"generation_config.json holds half a surrogate pair"):
        open_checkpoint(folder / "config.yaml")


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [2**63, 1e300, -1, "a" * 3000])
def test_a_number_of_config_yaml_beyond_any_use_is_refused(
    name: str, value: object, tmp_path: Path
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps({"model": {name: value}}), "utf-8")
    with pytest.raises(BadCheckpoint, match=f"says {name}: .*must be above zero") as caught:
        Config(file).settings  # noqa: B018
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("content", ["a: " + "[" * 20_000, "[" * 20_000, "&a [*a]"])
def test_yaml_that_is_nested_without_end_is_one_sentence(content: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(content, "utf-8")
    with pytest.raises(BadCheckpoint, match="nested too deeply|has no sections"):
        Config(file).settings  # noqa: B018


def test_a_path_of_config_yaml_that_no_system_has_is_a_missing_file(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps({"model": {"ckpt": "a" * 5000}}), "utf-8")
    with pytest.raises(MissingFile, match="says ckpt: a+, but there is no") as caught:
        Config(file).path("ckpt")
    assert len(str(caught.value)) <= LONGEST


@pytest.mark.parametrize("key", [1, None, (1, 2), b"x"], ids=str)
def test_a_tensor_under_a_key_that_is_no_text_is_refused(
    key: object, checkpoint: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(checkpoint.parent, tmp_path / "model")
    file = folder / "salmonn.pth"
    plain = torch.load(file, weights_only=True)
    (plain["model"] if "model" in plain else plain)[key] = torch.zeros(2)
    torch.save(plain, file)
    with pytest.raises(BadCheckpoint, match="salmonn.pth names a tensor by a value of type"):
        open_checkpoint(folder / "config.yaml")


def test_a_file_that_is_changed_while_an_engine_opens_it_is_not_used(own: Path) -> None:
    part = manifest.load(own).parts[0]
    with (
        pytest.raises(BadArtifacts, match="changed while it was opened"),
        verify.unchanged(own, part.files) as paths,
    ):
        aside = paths[0].with_name("aside")
        paths[0].rename(aside)
        aside.rename(paths[0])  # the same file is back: its time of change tells


@pytest.mark.skipif(not hasattr(__import__("os"), "geteuid"), reason="owners and modes of POSIX")
def test_a_cache_that_others_may_write_is_ignored_with_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from alm.host import user_cache

    for number, spoiled in enumerate((0o777, 0o770)):
        place = tmp_path / str(number)
        monkeypatch.setenv("ALM_CACHE", str(place))
        user_cache.remember("a.json", "key", 1, 9)
        assert place.stat().st_mode & 0o777 == 0o700 and user_cache.recall("a.json") == {"key": 1}
        place.chmod(spoiled)
        assert user_cache.recall("a.json") == {} and f"{place} is ignored" in caplog.text
    monkeypatch.setenv("ALM_CACHE", str(tmp_path / "link"))
    (tmp_path / "link").symlink_to(tmp_path)
    assert user_cache.private() is None and "it is a link" in caplog.text
