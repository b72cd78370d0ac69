"""audio-llm against transformers' Whisper and Llama, the original's layers put on by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from alm import registry
from alm.artifacts.manifest import Part
from alm.decoder import decoder as running
from alm.facts import AudioFacts, TokenFacts
from alm.session import BackendOptions, Session
from alm.text.prompt import Prompter
from exporters import graph
from tests.wrappers.families import tiny_audio_llm
from tests.wrappers.families.tiny_audio_llm import TOKENS, WINDOW, Original
from wrappers import Checkpoint, Wrapper, dialects, open_checkpoint
from wrappers.checkpoint.weights.hollow import filled

TEXT = "What is said?"
NO_TABLE: Any = None  # embeddings are fed


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_audio_llm.make(tmp_path_factory.mktemp("audio_llm") / "tiny")


@pytest.fixture(scope="module")
def made(config: Path) -> Checkpoint:
    return open_checkpoint(config)


@pytest.fixture(scope="module")
def truth(config: Path) -> Original:
    with torch.no_grad():
        return Original(config.parent)


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


class Graphs:
    """Parts in a dialect, as graphs with a dynamic batch."""

    def __init__(self, made: Checkpoint, names: list[str], dialect: str, folder: Path) -> None:
        self.parts: dict[str, Wrapper] = {name: made.part(name, dialect) for name in names}
        self.sessions: dict[str, Session] = {}
        for name, part in self.parts.items():
            path = folder / f"{name}.onnx"
            graph.save(graph.trace(part, dynamic_batch=True), path, part.role)
            self.sessions[name] = graph.opened(path, part, BackendOptions("cpu", 1))

    def run(self, name: str, *feeds: Tensor | np.ndarray) -> np.ndarray:
        """The first output of a part."""
        inputs = (np.asarray(feed) for feed in feeds)
        part = self.parts[name]
        made = self.sessions[name].run(dict(zip(part.inputs, inputs, strict=True)))
        return made[next(iter(part.outputs))]

    def decoder(self, rows: int, most: int) -> running.Decoder:
        """The decoder behind an empty cache."""
        module, session = self.parts["decoder"], self.sessions["decoder"]
        part = Part("decoder", "decoder", (), module.inputs, module.outputs)
        runs = running.Decoder(session, part, NO_TABLE)
        runs.start(rows, most)
        return runs


@pytest.fixture(scope="module")
def alike(made: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Graphs:
    """The parts without attention, which are the same in every dialect."""
    return Graphs(made, ["mel", "projector"], "ort", tmp_path_factory.mktemp("graphs"))


@pytest.fixture(scope="module", params=registry.names(dialects))
def graphs(
    request: pytest.FixtureRequest, made: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> Graphs:
    folder = tmp_path_factory.mktemp(request.param)
    return Graphs(made, ["whisper", "decoder"], request.param, folder)


def near(got: np.ndarray | Tensor, want: np.ndarray | Tensor) -> None:
    """Within 1e-4, of the largest value where that is above 1."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape
    assert np.abs(got - want).max() < 1e-4 * max(1.0, float(np.abs(want).max()))


def chirps(count: int) -> list[np.ndarray]:
    """Clips of 1.5 s, each another."""
    time = np.arange(24000) / 16000
    noise = np.random.default_rng(0).standard_normal((count, len(time)))
    pitches = [0.3 * np.sin((700 + 200 * i) * time**2) for i in range(count)]
    return [
        (pitch + 0.02 * each).astype(np.float32) for pitch, each in zip(pitches, noise, strict=True)
    ]


# --- the parts


@pytest.mark.parametrize("batch", [1, 3])
def test_mel_and_projector_are_the_originals(alike: Graphs, truth: Original, batch: int) -> None:
    clips = chirps(batch)
    want = truth.heard(clips)
    near(alike.run("mel", np.stack(clips)), want["log_mel"])
    near(alike.run("projector", want["speech"]), want["audio_embeds"])


@pytest.mark.parametrize("batch", [1, 3])
def test_whisper_is_the_originals(graphs: Graphs, truth: Original, batch: int) -> None:
    want = truth.heard(chirps(batch))
    near(graphs.run("whisper", want["log_mel"]), want["speech"])


@pytest.mark.parametrize("batch", [1, 3])
def test_the_decoder_is_the_originals_with_its_lora(
    graphs: Graphs, truth: Original, made: Checkpoint, batch: int
) -> None:
    audio = truth.heard(chirps(batch))["audio_embeds"]
    ids = torch.tensor(truth.ids + truth.tokenizer(TEXT).input_ids)
    table, words = made.embedding(), truth.llm.get_input_embeddings()
    near(table[ids], words(ids))  # what is random in the original is random by little
    first, last, *rest = table[ids][:, None, None].expand(-1, batch, 1, -1)
    prompt = torch.cat((first, audio, last, *rest), 1)
    step = table[torch.arange(5, 5 + batch)][:, None]

    runs = graphs.decoder(batch, prompt.shape[1] + 1)
    vocab = made.facts.dimensions.vocab
    for new, so_far in ((prompt, prompt), (step, torch.cat((prompt, step), 1))):
        got = runs.feed(new.numpy(), np.full(batch, new.shape[1]))
        want = truth.llm(inputs_embeds=so_far).logits[:, -1]
        near(got, want[:, :vocab])


@pytest.mark.parametrize("rank", [1, 8])
def test_lora_weighs_sixteen_over_its_rank(rank: int, tmp_path: Path) -> None:
    config = tiny_audio_llm.make(tmp_path / "model", rank, tie_word_embeddings=False)
    truth, own = Original(config.parent), open_checkpoint(config)
    found = filled(own.part("decoder", "decomposed")).state_dict()
    wanted = truth.llm.state_dict() | {"lm_head.weight": truth.head}
    assert own.facts.source["adapter"] == "LoRA"
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, wanted[name], atol=1e-5, rtol=1e-5)


def test_without_lora_layers_the_llm_is_as_it_is(tmp_path: Path) -> None:
    own = open_checkpoint(tiny_audio_llm.make(tmp_path / "model", 0))
    state = load_file(tmp_path / "model" / "llm" / "model.safetensors")
    found = filled(own.part("decoder", "decomposed")).state_dict()
    name = "model.layers.1.mlp.up_proj.weight"
    assert torch.equal(found[name], state[name]) and own.facts.source["adapter"] == "none"


# --- the two tokens


def test_tokens_are_added_as_the_original_adds_them(made: Checkpoint, truth: Original) -> None:
    own = Tokenizer.from_str(made.tokenizer_json)
    assert [own.token_to_id(token) for token in TOKENS] == truth.ids == [320, 321]
    text = "<audio>a b</audio> c"
    assert own.encode(text).ids == truth.tokenizer(text).input_ids
    assert own.decode(own.encode(text).ids) == "a b c"


def test_their_rows_are_the_mean_of_the_table_whatever_the_seed(
    made: Checkpoint, config: Path
) -> None:
    table = load_file(config.parent / "llm" / "model.safetensors")["model.embed_tokens.weight"]
    for seed in (0, 1):
        torch.manual_seed(seed)
        ours = made.embedding()
        assert torch.equal(ours[:320], table) and ours.dtype == table.dtype
        torch.testing.assert_close(ours[320:], table.mean(0).expand(2, -1))
    assert made.facts.dimensions.table == len(made.embedding()) == 322


def test_transformers_draws_their_rows_around_the_same(made: Checkpoint, truth: Original) -> None:
    theirs = truth.llm.get_input_embeddings().weight
    spread = float(made.embedding()[:320].std())
    assert (made.embedding()[320:] - theirs[320:]).abs().max() < 1e-3 * spread


def test_no_answer_holds_them(made: Checkpoint) -> None:
    decoder = made.part("decoder", "ort")
    assert decoder.outputs["logits"].axes[-1] == made.facts.dimensions.vocab == 320


def test_a_note_warns_of_them(made: Checkpoint) -> None:
    (note,) = made.notes
    assert "<audio> and </audio> are in no file" in note and "never trained" in note


def test_an_llm_with_spare_rows_gives_them_its_own(tmp_path: Path) -> None:
    own = open_checkpoint(tiny_audio_llm.make(tmp_path / "model", vocab_size=330))
    assert own.facts.dimensions.vocab == own.facts.dimensions.table == len(own.embedding()) == 330
    assert own.notes == ()


# --- what the manifest says


def build(made: Checkpoint) -> Callable[..., Any]:
    tokenizer = Tokenizer.from_str(made.tokenizer_json)
    return Prompter(tokenizer, made.facts.prompt, made.facts.tokens).build


def test_the_audio_comes_first_and_the_text_as_the_tokenizer_gives_it(
    made: Checkpoint, truth: Original
) -> None:
    opened, closed = truth.ids
    words = truth.tokenizer(TEXT).input_ids
    assert words[0] == truth.tokenizer.bos_token_id
    assert build(made)(TEXT).pieces == [[opened], [closed, *words]]
    assert build(made)(TEXT, 2).pieces == [[opened], [closed, opened], [closed, *words]]


def test_a_turn_after_another_begins_where_the_answer_ends(
    made: Checkpoint, truth: Original
) -> None:
    words = truth.tokenizer(TEXT).input_ids
    end = truth.tokenizer.eos_token_id
    assert build(made)(TEXT, 0, 1, False).pieces == [[end, *words]]


def test_tasks_have_the_words_that_were_trained_with(made: Checkpoint, truth: Original) -> None:
    words = truth.tokenizer("Please transcribe this audio recording.").input_ids
    found = build(made)("transcribe")
    assert found.pieces[1][1:] == words and found.joined
    assert not build(made)("describe").joined


def test_audio_is_heard_as_the_original_hears_it(made: Checkpoint) -> None:
    assert made.facts.audio == AudioFacts(16000, "mean", 400, 16000 * WINDOW, "each")
    assert made.facts.dimensions.audio_tokens == 50 * WINDOW


def test_answers_are_drawn_as_the_original_draws_them(made: Checkpoint) -> None:
    wanted = dict(max_new_tokens=256, do_sample=True, temperature=0.7, top_p=0.9, top_k=50)
    assert wanted.items() <= made.facts.generation.items()
    assert made.facts.tokens == TokenFacts(eos=(2,))


def test_parts_come_in_the_order_of_a_run_with_their_roles(made: Checkpoint) -> None:
    assert list(made.roles.items()) == [
        ("mel", "frontend"),
        ("whisper", "encoder"),
        ("projector", "bridge"),
        ("decoder", "decoder"),
    ]
