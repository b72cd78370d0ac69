"""The Python model in Triton's place: words, pieces, batches, errors, several requests at once."""

from __future__ import annotations

import base64
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import alm
from alm.artifacts import manifest
from alm.audio import reader
from alm.host.containment import HARD_LINKS
from demo.clips import EXAMPLES, FOLDER
from tests.runtime.triton.conftest import packed
from tests.runtime.triton.stand_in import (
    Request,
    Server,
    TritonError,
    TritonModelException,
    python_model,
)

LAMP, DIGITS, SIREN = (FOLDER / example.file for example in EXAMPLES)
SAYS = {FOLDER / example.file: example.right for example in EXAMPLES}
PATIENCE = 60  # seconds


def text(value: str | bytes) -> np.ndarray:
    """A tensor of one text, as a client sends it in a batch of one."""
    return np.array([[value.encode() if isinstance(value, str) else value]], np.object_)


def request(path: Path, prompt: str = "transcribe", **options: Any) -> Request:
    more: dict[str, Any] = {"options": text(json.dumps(options))} if options else {}
    return Request(file=text(path.read_bytes()), prompt=text(prompt), **more)


def streaming(path: Path, prompt: str = "transcribe", **more: Any) -> Request:
    inputs = {"file": text(path.read_bytes()), "prompt": text(prompt)}
    return Request(**inputs, stream=np.array([[True]]), **more)


def said(response: Any) -> tuple[str, dict[str, Any]]:
    """The text and the answer of a response that is no error."""
    assert not response.has_error(), response.error().message()
    given = {one.name(): one.as_numpy() for one in response.output_tensors()}
    assert set(given) == {"text", "answer"} and given["text"].shape == (1, 1)
    plain = given["answer"][0, 0].decode()
    return given["text"][0, 0].decode(), json.loads(plain) if plain else {}


def sent(asked: Request) -> list[Any]:
    """All responses to a request, the last of which said that it was the last."""
    assert asked.sender.closed.wait(PATIENCE)
    return asked.sender.sent


def failure(response: Any) -> tuple[str, int]:
    assert response.has_error()
    return response.error().message(), response.error().code()


@pytest.fixture(scope="module")
def server(demo_repository: Path) -> Server:
    return Server(demo_repository, on_gpu=True)


@pytest.fixture(scope="module")
def model(demo_repository: Path, server: Server) -> Any:
    with python_model(demo_repository, server=server, threads="1") as opened:
        yield opened


@pytest.fixture(scope="module")
def whole(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo in one piece an answer, and without an ensemble: as if BEATs heard in pieces."""
    folder = Path(shutil.copytree(demo, tmp_path_factory.mktemp("whole") / "demo"))
    plain = json.loads((folder / "manifest.json").read_text())
    (beats,) = (part for part in plain["parts"] if part["name"] == "beats")
    beats["pieces"] = "frames"
    beats["spans"]["frames"] = [16, 2000, 2000]
    (folder / "manifest.json").write_text(json.dumps(plain))
    return packed(folder, folder.parent / "models", stream=False)


def test_the_demo_says_its_words(model: Any, server: Server) -> None:
    asked = [request(path, "describe" if path == SIREN else "transcribe") for path in SAYS]
    assert model.execute(asked) is None
    for path, one in zip(SAYS, asked, strict=True):
        (response,) = sent(one)
        words, answer = said(response)
        assert words == answer["text"] == SAYS[path]
        assert answer["timings_ms"]["alm_audio"] >= 0  # its encoders are the server's
    assert ("alm_audio", 1) in server.asked or ("alm_audio", 3) in server.asked


def test_pieces_come_before_the_answer_and_are_its_text(model: Any) -> None:
    asked = streaming(LAMP)
    assert model.execute([asked]) is None
    *pieces, last = [said(response) for response in sent(asked)]
    assert len(pieces) > 3 and not any(answer for _, answer in pieces)
    assert "".join(piece for piece, _ in pieces) == SAYS[LAMP]
    assert last[0] == "" and last[1]["text"] == SAYS[LAMP]


def test_samples_are_heard_as_the_file_is(model: Any) -> None:
    clip = reader.read(DIGITS, 16_000)
    again = np.repeat(clip.pcm, 2)[None]  # at twice the rate
    asked = [
        Request(pcm=clip.pcm[None], prompt=text("transcribe")),
        Request(pcm=again, rate=np.array([[32_000]], np.int32), prompt=text("transcribe")),
        Request(
            file=text(b"data:audio/wav;base64," + base64.b64encode(DIGITS.read_bytes())),
            prompt=text("transcribe"),
        ),
    ]
    model.execute(asked)
    assert [said(sent(one)[0])[0] for one in asked] == [SAYS[DIGITS]] * 3


def test_requests_with_the_same_options_are_one_batch(
    demo_repository: Path, server: Server
) -> None:
    with python_model(demo_repository, server=server, threads="1") as model:
        asked = [request(LAMP), request(DIGITS), request(SIREN, max_new_tokens=2)]
        server.asked.clear()
        model.execute(asked)
        answers = [said(sent(one)[0])[1] for one in asked]
    assert [rows for name, rows in server.asked if name == "alm_audio"].count(2) == 1
    assert [answer["text"] for answer in answers[:2]] == [SAYS[LAMP], SAYS[DIGITS]]
    assert len(answers[2]["token_ids"]) == 2


def test_one_that_cannot_be_answered_leaves_the_others(model: Any) -> None:
    good = [request(LAMP), request(DIGITS)]
    bad = Request(file=text(b"no audio at all"), prompt=text("transcribe"))
    model.execute([good[0], bad, good[1]])
    assert [said(sent(one)[0])[0] for one in good] == [SAYS[LAMP], SAYS[DIGITS]]
    sentence, code = failure(sent(bad)[0])
    assert "not audio that can be read" in sentence and code == TritonError.INVALID_ARG


PCM = np.zeros((1, 16_000), np.float32)
WRONG = {
    "neither of 'pcm' and 'file'": {},
    "both of 'pcm' and 'file'": {"pcm": PCM, "file": text("x")},
    "'rate' belongs to 'pcm'": {"file": text("x"), "rate": np.array([[16_000]], np.int32)},
    "[2, 16000], wanted [1, samples]": {"pcm": np.tile(PCM, (2, 1))},
    "a sample rate of 3 Hz": {"pcm": PCM, "rate": np.array([[3]], np.int32)},
    "base64 is broken": {"file": text("data:audio/wav;base64,%%%")},
    "without ';base64,'": {"file": text("data:audio/wav,abc")},
    "no 'prompt'": {"pcm": PCM, "prompt": None},
    "'prompt' is no text in UTF-8": {"pcm": PCM, "prompt": text(b"\xff\xfe")},
    "'prompt' is [1, 2]": {"pcm": PCM, "prompt": np.array([[b"a", b"b"]], np.object_)},
    "did you mean transcribe?": {"pcm": PCM, "prompt": text("transcibe")},
    "it is no JSON": {"pcm": PCM, "options": text("num_beams=2")},
    "wanted a JSON object": {"pcm": PCM, "options": text("[1]")},
    "did you mean num_beams?": {"pcm": PCM, "options": text('{"num_bems": 2}')},
    "unknown option 'source'": {"pcm": PCM, "options": text('{"source": "/etc/passwd"}')},
    "num_beams is at most 256": {"pcm": PCM, "options": text('{"num_beams": 1000}')},
    "at most 3600 here": {"pcm": PCM, "options": text('{"max_audio_seconds": 4000}')},
    "max_audio_seconds is 'long'": {"pcm": PCM, "options": text('{"max_audio_seconds": "long"}')},
    "language is 5, wanted text": {"pcm": PCM, "options": text('{"language": 5}')},
    "truncate is 'no', wanted true": {"pcm": PCM, "options": text('{"truncate": "no"}')},
    "unknown adapter '/etc'": {"pcm": PCM, "options": text('{"adapter": "/etc"}')},
    "unknown adapter ['a']": {"pcm": PCM, "options": text('{"adapter": ["a"]}')},
}


@pytest.mark.parametrize("sentence", WRONG)
def test_what_is_wrong_is_one_sentence(model: Any, sentence: str) -> None:
    inputs = {"prompt": text("transcribe")} | WRONG[sentence]
    asked = Request(**{n: array for n, array in inputs.items() if array is not None})
    model.execute([asked])
    (response,) = sent(asked)
    message, code = failure(response)
    assert sentence in message and "\n" not in message and code == TritonError.INVALID_ARG


def test_a_client_that_goes_away_ends_its_answer(model: Any) -> None:
    def leave(asked: Request) -> None:
        asked.cancelled = True

    leaving, gone = streaming(LAMP, after_each=leave), request(LAMP)
    gone.cancelled = True
    model.execute([leaving])
    model.execute([gone])
    first, last = sent(leaving)
    assert said(first)[0] and failure(last)[1] == TritonError.CANCELLED
    assert failure(sent(gone)[0])[1] == TritonError.CANCELLED
    model.execute([again := request(LAMP)])
    assert said(sent(again)[0])[0] == SAYS[LAMP]


def test_many_are_answered_side_by_side(model: Any) -> None:
    asked = [streaming(path) for path in (LAMP, DIGITS) * 6]
    for one in asked:
        model.execute([one])
    texts = ["".join(said(response)[0] for response in sent(one)) for one in asked]
    assert texts == [SAYS[LAMP], SAYS[DIGITS]] * 6


def test_what_a_server_cannot_do_is_said_and_not_a_crash(
    demo_repository: Path, server: Server
) -> None:
    with python_model(demo_repository, server=server, front="nothing") as model:
        model.execute([asked := request(LAMP)])
        message, _ = failure(sent(asked)[0])
        assert "Triton's model nothing" in message


def test_what_nobody_foresaw_ends_its_own_request_alone(model: Any) -> None:
    asked = [request(LAMP), request(DIGITS)]
    vars(asked[0])["_inputs"][0].as_numpy = lambda: 1 / 0
    model.execute(asked)
    message, code = failure(sent(asked[0])[0])
    assert message == "unexpected ZeroDivisionError: division by zero"
    assert code == TritonError.INTERNAL
    assert said(sent(asked[1])[0])[0] == SAYS[DIGITS]


def test_drawn_answers_do_not_depend_on_their_company(model: Any, demo: Path) -> None:
    options = {"do_sample": True, "seed": 3, "temperature": 3.0}
    alone = alm.load(demo, "cpu", 1).generate(LAMP, "transcribe", **options)
    asked = [request(LAMP, **options) for _ in range(2)]
    model.execute(asked)
    assert [said(sent(one)[0])[1]["token_ids"] for one in asked] == [alone.token_ids] * 2


def test_without_an_ensemble_it_runs_all_parts_and_answers_in_one_piece(whole: Path) -> None:
    assert sorted(path.name for path in whole.iterdir()) == ["alm", "alm-triton.json"]
    with python_model(whole, threads="1") as model:
        pieces = Request(file=text(b"x"), prompt=text("a b"), stream=np.array([[True]]))
        first, second, third = model.execute([request(LAMP), request(DIGITS), pieces])
    assert (said(first)[0], said(second)[0]) == (SAYS[LAMP], SAYS[DIGITS])
    assert "answers in one piece" in failure(third)[0]


def test_a_folder_that_is_damaged_is_the_models_state(whole: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(whole, tmp_path / "broken"))
    (broken / "alm" / "1" / "model" / "mel.onnx").write_bytes(b"")
    with (
        pytest.raises(TritonModelException, match="'mel.onnx' in .* has 0 bytes"),
        python_model(broken),
    ):
        pass


def test_a_server_without_the_package_is_told_what_to_type(
    demo_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "alm.triton.answering", None)
    with (
        pytest.raises(TritonModelException, match="pip install 'alm-edge.ort.'"),
        python_model(demo_repository),
    ):
        pass


def test_hard_links_of_ours_are_opened(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(HARD_LINKS, "0")
    folder = Path(shutil.copytree(demo, tmp_path / "demo"))
    linked = packed(folder, tmp_path / "models", link=True)
    assert os.stat(linked / "alm" / "1" / "model" / "decoder.onnx").st_nlink == 2
    with python_model(linked, threads="1") as model:
        model.execute([asked := request(LAMP)])
        assert said(sent(asked)[0])[0] == SAYS[LAMP]
    whole = manifest.load(folder)
    assert whole.without_golden() == manifest.load(linked / "alm" / "1" / "model")
