"""The command alm-run: it answers a prompt about clips, or many of them in a conversation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from alm.cli import exit_status
from alm.cli.terminal import STDIN, speak_utf8, tell
from alm.errors import BadOption
from alm.version import __version__

# Plain help: rich's boxes cut options short in a narrow terminal.
PLAIN: dict[str, Any] = {
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}

running = typer.Typer(**PLAIN)

SUBTITLES = ("srt", "vtt")
FORMATS = ("text", "json", *SUBTITLES)


def run() -> int:
    """The console script `alm-run`."""
    return exit_status.run(running, name="alm-run")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"alm-edge {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Whole = typer.Option  # the manifest's default holds where none is given


@running.command()
def answer(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="AUDIO... PROMPT",
            help="Clips (wav, flac, mp3 or ogg; - reads one from stdin), then what to do or a "
            "task's name: transcribe. A task is done for each clip. Each <audio> in a prompt is a "
            "clip's place.",
        ),
    ] = None,
    engine: Annotated[
        Path, typer.Option(metavar="DIR", help="The folder that export.py wrote.")
    ] = Path("artifacts"),
    chat: Annotated[
        bool,
        typer.Option("--chat", help="Read one prompt a line; AUDIO... belong to the first."),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON object an answer, with all that was measured."),
    ] = False,
    form: Annotated[
        str,
        typer.Option(
            "--format", metavar="FORMAT", help=f"Of the answer to one clip: {', '.join(FORMATS)}."
        ),
    ] = "text",
    live: Annotated[
        bool,
        typer.Option(
            "--live",
            help="Write down sound while it comes: of a clip, of raw 16-bit samples (-), or of a "
            "microphone.",
        ),
    ] = False,
    delay: Annotated[
        float | None, typer.Option(metavar="MS", help="By which a stream's words follow it.")
    ] = None,
    align: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="An aligner's folder: it times every word."),
    ] = None,
    each: Annotated[
        bool | None,
        typer.Option("--each/--together", help="One answer for each clip, or one about all."),
    ] = None,
    language: Annotated[
        str, typer.Option(metavar="CODE", help="To answer in: translate --language de.")
    ] = "",
    verbatim: Annotated[
        bool, typer.Option("--verbatim", help="Ask PROMPT as it is, though it be a task's name.")
    ] = False,
    show_thinking: Annotated[
        bool, typer.Option("--show-thinking", help="Print what a model thinks before it answers.")
    ] = False,
    merge_audio: Annotated[
        float,
        typer.Option(
            metavar="P", help="Give the decoder P percent of a clip, the likest averaged."
        ),
    ] = 100.0,
    adapter: Annotated[str, Whole(metavar="NAME", help="A LoRA: the export's, or a folder.")] = "",
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
    min_new_tokens: Annotated[int | None, Whole(min=0, help="The shortest answer.")] = None,
    no_repeat_ngram_size: Annotated[
        int | None, Whole(min=0, help="No run of so many tokens comes twice; 0 is off.")
    ] = None,
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
    min_p: Annotated[
        float | None,
        Whole(min=0, max=1, help="Of sampling: only tokens of so much of the likeliest's chance."),
    ] = None,
    seed: Annotated[int | None, Whole(min=0, help="Of sampling: the same gives the same.")] = None,
    more: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            metavar="NAME=VALUE",
            help="Any other of transformers' GenerationConfig, its value in JSON: "
            "early_stopping=true, 'suppress_tokens=[7, 9]'; may be repeated.",
        ),
    ] = None,
    threads: Annotated[
        int, typer.Option(min=0, help="Threads for the backend; 0 lets it choose.")
    ] = 0,
    provider: Annotated[
        str, typer.Option(help="auto, or what runs the graphs: cpu, cuda, openvino, tensorrt.")
    ] = "auto",
    cache: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep what encoders make of clips there, for later runs."),
    ] = None,
    draft: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="A smaller model guesses, this one checks; or ngrams, by its words."
        ),
    ] = None,
    build_first: Annotated[
        bool, typer.Option("--build", help="Build TensorRT's engines that do not fit this machine.")
    ] = False,
    truncate: Annotated[
        bool, typer.Option("--truncate", help="Hear only the first window, as the original does.")
    ] = False,
    max_audio_seconds: Annotated[float, typer.Option(help="Refuse longer audio.")] = 3600.0,
    debug: Debug = False,
    version: Version = False,
) -> int:
    """Answer a prompt about clips. The text goes to stdout as it comes, and nothing else does."""
    if list_tasks:
        from alm.cli.request import print_tasks

        print_tasks(engine, as_json)
        return 0
    clips, prompt = (words or [], "") if live else _split(words or [], chat, engine)
    as_json = as_json if live else _formatted(form, as_json, chat, clips)
    if chat and (each is not None or language or align):
        raise BadOption(
            "--chat is one conversation: --each, --together, --language and --align are not for it"
        )
    options = {
        "max_new_tokens": max_new_tokens,
        "num_beams": num_beams,
        "repetition_penalty": repetition_penalty,
        "length_penalty": length_penalty,
        "min_new_tokens": min_new_tokens,
        "no_repeat_ngram_size": no_repeat_ngram_size,
        "do_sample": sample,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "min_p": min_p,
        "seed": seed,
    } | _more(more or [])
    import alm
    from alm.artifacts.manifest import check_run
    from alm.artifacts.manifest import load as load_manifest
    from alm.audio import merging, reader
    from alm.cli import request
    from alm.generation import keywords
    from alm.host import processor

    # Words that contradict each other are refused before a model of gigabytes is loaded.
    manifest = load_manifest(engine)
    check_run(manifest, engine)
    keywords.choose(manifest.facts.generation, options)
    processor.check_threads(threads)
    merging.check(merge_audio)
    reader.check_options(manifest.facts.audio.rate, "first", max_audio_seconds)
    speak_utf8()
    groups = [clips]
    if live:
        from alm.cli.chat import check_live

        others = {"--chat": chat, "--json": as_json, "--align": align, "--language": language}
        others |= {"--format": form != "text", "--each": each is not None, "--truncate": truncate}
        others |= {"--draft": draft, "--adapter": adapter, "--show-thinking": show_thinking}
        others |= {"--merge-audio": merge_audio != merging.WHOLE}
        check_live(manifest.facts, clips, others)
    elif not chat:
        groups = request.meant(clips, prompt, manifest.facts.prompt, each, language, verbatim)
    if not live and not request.there(groups):
        return exit_status.FAILED
    if build_first:
        from alm.tensorrt import build as building

        building.build(engine, building.Settings(provider, sizes=None), tell, tell)
    bounds: dict[str, Any] = {
        "truncate": truncate,
        "max_audio_seconds": max_audio_seconds,
        "verbatim": verbatim,
        "language": language,
        "delay": delay,
        "show_thinking": show_thinking,
        "merge_audio": merge_audio,
        "adapter": adapter,
    }
    model = alm.load(engine, provider, threads, align=align, cache=cache, draft=draft)
    if live:
        from alm.cli.chat import listen

        listen(model, clips, max_audio_seconds, delay, options)
        return 0
    if chat:
        from alm.cli.chat import converse

        converse(model.chat(**bounds, **options), clips, as_json)
        return 0
    if form in SUBTITLES:
        return request.subtitles(model, groups[0], prompt, form, bounds | options)
    return request.answer(model, groups, prompt, as_json, bounds | options)


def _formatted(form: str, as_json: bool, chat: bool, clips: list[str]) -> bool:
    """Whether answers are printed as JSON."""
    if form not in FORMATS:
        raise BadOption(f"--format is one of {', '.join(FORMATS)}, not {form!r:.40}")
    if as_json and form in SUBTITLES:
        raise BadOption(f"--json and --format {form} are two forms of one answer")
    if form in SUBTITLES and (chat or len(clips) != 1):
        raise BadOption(f"--format {form} is one file of one clip: run alm-run for each")
    return as_json or form == "json"


def _more(pairs: list[str]) -> dict[str, Any]:
    """Options given as NAME=VALUE, the value in JSON or a plain word."""
    import json

    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise BadOption(f"wanted --option NAME=VALUE, not {pair!r:.80}")
        try:
            options[name.strip().replace("-", "_")] = json.loads(value)
        except (ValueError, RecursionError):
            options[name.strip().replace("-", "_")] = value
    return options


def _split(words: list[str], chat: bool, engine: Path) -> tuple[list[str], str]:
    """The clips and the prompt, which in a conversation comes later."""
    if chat:
        if STDIN in words:
            raise BadOption("--chat reads what you ask from stdin, so no clip can come from there")
        return words, ""
    if len(words) < 2:
        lacking = "PROMPT" if words else "AUDIO and PROMPT"
        raise BadOption(f"wanted {lacking}; try: alm-run --engine {engine} audio.wav transcribe")
    if words[:-1].count(STDIN) > 1:
        raise BadOption("only one clip can come from stdin")
    return words[:-1], words[-1]
