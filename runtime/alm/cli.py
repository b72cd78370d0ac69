"""The commands of the device: alm-run answers a prompt about a clip, alm looks at artifacts."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from alm import __version__, command
from alm.errors import BadAudio, BadOption, MissingFile

STDIN = "-"
# Plain help: rich's boxes cut options short in a narrow terminal.
PLAIN: dict[str, Any] = {
    "add_completion": False,
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}

running = typer.Typer(**PLAIN)
app = typer.Typer(**PLAIN)


def run() -> int:
    """The console script `alm-run`."""
    return command.run(running)


def main() -> int:
    """The console script `alm`."""
    return command.run(app)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"alm-edge {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Whole = typer.Option  # the manifest's default holds where nothing is said


@running.command()
def answer(
    audio: Annotated[
        str | None,
        typer.Argument(metavar="AUDIO", help="wav, flac, mp3 or ogg; - reads it from stdin."),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Argument(metavar="PROMPT", help="What to do, or a task's name: transcribe."),
    ] = None,
    engine: Annotated[Path, typer.Option(help="The folder that export.py wrote.")] = Path(
        "artifacts"
    ),
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object with all that was measured.")
    ] = False,
    list_tasks: Annotated[
        bool, typer.Option("--list-tasks", help="Print the tasks' names and prompts.")
    ] = False,
    max_new_tokens: Annotated[int | None, Whole(min=1, help="The longest answer.")] = None,
    num_beams: Annotated[int | None, Whole(min=1, help="Hypotheses followed at once.")] = None,
    repetition_penalty: Annotated[
        float | None, Whole(help="Above 1 makes what was said less likely.")
    ] = None,
    length_penalty: Annotated[
        float | None, Whole(help="Of beams: above 0 favours long answers.")
    ] = None,
    min_length: Annotated[int | None, Whole(min=0, help="The shortest answer.")] = None,
    sample: Annotated[
        bool | None, typer.Option("--sample/--greedy", help="Draw tokens, or take the likeliest.")
    ] = None,
    temperature: Annotated[
        float | None, Whole(min=0, help="Of sampling: below 1 is bolder in what is likely.")
    ] = None,
    top_p: Annotated[
        float | None, Whole(min=0, max=1, help="Of sampling: only tokens that make up so much.")
    ] = None,
    top_k: Annotated[
        int | None, Whole(min=0, help="Of sampling: only so many tokens; 0 is all.")
    ] = None,
    seed: Annotated[int | None, Whole(min=0, help="Of sampling: the same gives the same.")] = None,
    threads: Annotated[int, typer.Option(min=0, help="Of the engine; 0 leaves it the choice.")] = 0,
    provider: Annotated[
        str, typer.Option(help="auto, or what runs the graphs: cpu, cuda.")
    ] = "auto",
    truncate: Annotated[
        bool, typer.Option("--truncate", help="Hear only the first window, as the original does.")
    ] = False,
    max_audio_seconds: Annotated[float, typer.Option(help="Refuse longer audio.")] = 3600.0,
    debug: Debug = False,
    version: Version = False,
) -> None:
    """Answer a prompt about a clip. The text goes to stdout as it comes, and nothing else does."""
    if list_tasks:
        _print_tasks(engine, as_json)
        return
    if audio is None or prompt is None:
        lacking = "AUDIO and PROMPT" if audio is None else "PROMPT"
        raise BadOption(f"wanted {lacking}; try: alm-run --engine {engine} audio.wav transcribe")
    options = {
        "max_new_tokens": max_new_tokens,
        "num_beams": num_beams,
        "repetition_penalty": repetition_penalty,
        "length_penalty": length_penalty,
        "min_length": min_length,
        "do_sample": sample,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "seed": seed,
    }
    import alm
    from alm import decoding, manifest

    # Words that contradict each other are refused before a model of gigabytes is loaded.
    decoding.choose(manifest.load(engine).generation, options)
    _speak_utf8()
    with _file(audio) as path:
        said: Any = alm.load(engine, provider, threads).generate(
            path,
            prompt,
            truncate=truncate,
            max_audio_seconds=max_audio_seconds,
            on_text=None if as_json else _say,
            **options,
        )
    print(json.dumps(said.to_json(), ensure_ascii=False) if as_json else "", flush=True)
    for note in () if as_json else said.notes:
        print(f"note: {note}", file=sys.stderr)


@app.callback(invoke_without_command=True)
def _alm(context: typer.Context, version: Version = False) -> None:
    """alm-edge: audio language models on the device."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def inspect(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What export.py wrote.")],
    part: Annotated[str, typer.Option(help="Only this part.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Everything as data.")] = False,
    netron: Annotated[
        str, typer.Option(metavar="PART", help="Serve this part's graph in Netron on localhost.")
    ] = "",
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Where Netron is served.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Hold every file against its hash.")
    ] = True,
    debug: Debug = False,
) -> int:
    """Show what is in an artifact folder, and whether it is whole."""
    from alm import inspection

    _speak_utf8()
    where = inspection.PORT if port is None else port
    return inspection.show(
        folder, part=part, as_json=as_json, netron=netron, port=where, check=check
    )


@app.command()
def bench(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What export.py wrote.")],
    audio: Annotated[
        str | None, typer.Argument(metavar="AUDIO", help="What is heard; noise if none is given.")
    ] = None,
    seconds: Annotated[
        str, typer.Option(metavar="S,S", help="Lengths it is cut or repeated to.")
    ] = "1,5,10,30,60",
    contexts: Annotated[
        str, typer.Option(metavar="N,N", help="Tokens in the cache when steps are timed.")
    ] = "128,512,1024",
    new_tokens: Annotated[int, typer.Option(min=1, help="Of every answer, ends ignored.")] = 64,
    prompt: Annotated[str, typer.Option(help="What is asked; transcribe if unsaid.")] = "",
    warmup: Annotated[
        int | None, Whole(min=0, help="Runs before those that count: 1, or nota's 10.")
    ] = None,
    repeats: Annotated[int | None, Whole(min=1, help="Runs that count: 5, or nota's 100.")] = None,
    protocol: Annotated[
        str, typer.Option(help="nota: measure by the seed contest's protocol too.")
    ] = "",
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write everything there.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Draw the stages of each clip.")
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="Of the engine; 0 leaves it the choice.")] = 0,
    provider: Annotated[
        str, typer.Option(help="auto, or what runs the graphs: cpu, cuda.")
    ] = "auto",
    debug: Debug = False,
) -> None:
    """Measure time and memory of every stage, cold and warm, against what the machine can do."""
    from alm import _benchtables
    from alm import bench as measuring

    plan = measuring.read_plan(seconds, contexts, new_tokens, prompt, warmup, repeats, protocol)
    for path in filter(None, (json_file, picture)):  # before minutes of measuring
        if not path.resolve().parent.is_dir():
            raise MissingFile(f"there is no folder {path.parent} to write {path.name} to")
    _speak_utf8()
    with ExitStack() as stack:
        source = stack.enter_context(_file(audio)) if audio else None
        found = measuring.measure(
            folder, source, plan, provider=provider, threads=threads, say=_tell
        )
    if json_file:
        json_file.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", "utf-8")
    if picture:
        picture.write_text(_benchtables.picture(found), "utf-8")
    _benchtables.show(found)


def _print_tasks(engine: Path, as_json: bool) -> None:
    from alm import manifest

    tasks: dict[str, str] = manifest.load(engine).prompt["tasks"]
    _speak_utf8()
    if as_json:
        print(json.dumps(tasks, ensure_ascii=False))
        return
    widest = max(map(len, tasks), default=0)
    for name, prompt in tasks.items():
        print(f"{name:{widest}}  {prompt}")


def _say(piece: str) -> None:
    sys.stdout.write(piece)
    sys.stdout.flush()


def _tell(progress: str) -> None:
    print(progress, file=sys.stderr, flush=True)


def _speak_utf8() -> None:
    # A pipe or a file gets UTF-8 everywhere; Windows' own choice there cannot hold most languages.
    if not sys.stdout.isatty() and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8")  # pyright: ignore


@contextmanager
def _file(audio: str) -> Iterator[str]:
    """The path of the audio, there or refused before a model of gigabytes is loaded."""
    if audio != STDIN:
        if not Path(audio).exists():
            raise MissingFile(f"there is no file {audio}; wanted an audio file")
        yield audio
        return
    import tempfile

    from alm.audio import MOST_BYTES

    with tempfile.TemporaryDirectory(prefix="alm-") as folder:
        path = Path(folder) / "stdin"
        with path.open("wb") as file:
            while block := sys.stdin.buffer.read(2**20):
                file.write(block)
                if file.tell() > 2 * MOST_BYTES:  # float64 takes twice
                    raise BadAudio(f"stdin holds more than {2 * MOST_BYTES // 2**20} MiB; cut it")
        yield str(path)
