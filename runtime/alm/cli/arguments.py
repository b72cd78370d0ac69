"""The words of alm-run, each with its help, and what all commands share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from alm.errors import BadOption
from alm.version import __version__

# Plain help: rich's boxes cut options short in a narrow terminal.
PLAIN: dict[str, Any] = {
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}

SUBTITLES = ("srt", "vtt")
FORMATS = ("text", "json", *SUBTITLES)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"alm-edge {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Whole = typer.Option  # the manifest's default holds where none is given

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="AUDIO... PROMPT",
        help="Clips (wav, flac, mp3, ogg; with the extra `av` m4a, webm, videos; - reads one from "
        "stdin), then what to do or a "
        "task's name: transcribe. A task is done for each clip. Each <audio> in a prompt is a "
        "clip's place.",
    ),
]
Engine = Annotated[Path, typer.Option(metavar="DIR", help="What export.py wrote, or hub:org/name.")]
Chat = Annotated[
    bool,
    typer.Option("--chat", help="Read one prompt a line; AUDIO... belong to the first."),
]
AsJson = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object an answer, with all that was measured."),
]
Form = Annotated[
    str,
    typer.Option(
        "--format", metavar="FORMAT", help=f"Of the answer to one clip: {', '.join(FORMATS)}."
    ),
]
Live = Annotated[
    bool,
    typer.Option(
        "--live",
        help="Write down sound while it comes: of a clip, of raw 16-bit samples (-), or of a "
        "microphone. Behind a clip or - may be another task or prompt than transcribe.",
    ),
]
Pace = Annotated[
    float | None,
    typer.Option(
        min=0, max=1000, help="Of a clip with --live: 1 as it was spoken, 0 as fast as can be."
    ),
]
Delay = Annotated[
    float | None, typer.Option(metavar="MS", help="By which a stream's words follow it.")
]
Align = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="An aligner's folder: it times every word."),
]
Each = Annotated[
    bool | None,
    typer.Option("--each/--together", help="One answer for each clip, or one about all."),
]
Language = Annotated[
    str, typer.Option(metavar="CODE", help="To answer in: translate --language de.")
]
Verbatim = Annotated[
    bool, typer.Option("--verbatim", help="Ask PROMPT as it is, though it be a task's name.")
]
ShowThinking = Annotated[
    bool, typer.Option("--show-thinking", help="Print what a model thinks before it answers.")
]
MergeAudio = Annotated[
    float,
    typer.Option(metavar="P", help="Give the decoder P percent of a clip, the likest averaged."),
]
Adapter = Annotated[str, Whole(metavar="NAME", help="A LoRA: the export's, or a folder.")]
Schema = Annotated[
    Path | None, typer.Option(metavar="FILE", help="A JSON schema: the answer is JSON of it.")
]
Grammar = Annotated[
    Path | None, typer.Option(metavar="FILE", help="The answer follows it: Lark or EBNF.")
]
Regex = Annotated[str, typer.Option(metavar="R", help="The answer is what it matches.")]
ListTasks = Annotated[
    bool, typer.Option("--list-tasks", help="Print the tasks' names and prompts.")
]
MaxNewTokens = Annotated[int | None, Whole(min=1, help="The longest answer.")]
NumBeams = Annotated[int | None, Whole(min=1, help="Hypotheses followed at once.")]
RepetitionPenalty = Annotated[float | None, Whole(help="Above 1 makes what was said less likely.")]
LengthPenalty = Annotated[float | None, Whole(help="Of beams: above 0 favours long answers.")]
MinNewTokens = Annotated[int | None, Whole(min=0, help="The shortest answer.")]
NoRepeatNgramSize = Annotated[
    int | None, Whole(min=0, help="No run of so many tokens comes twice; 0 is off.")
]
Sample = Annotated[
    bool | None, typer.Option("--sample/--greedy", help="Draw tokens, or take the likeliest.")
]
Temperature = Annotated[
    float | None, Whole(min=0, help="Of sampling: below 1 is bolder in what is likely.")
]
TopP = Annotated[
    float | None, Whole(min=0, max=1, help="Of sampling: only tokens that make up so much.")
]
TopK = Annotated[int | None, Whole(min=0, help="Of sampling: only so many tokens; 0 is all.")]
MinP = Annotated[
    float | None,
    Whole(min=0, max=1, help="Of sampling: only tokens of so much of the likeliest's chance."),
]
Seed = Annotated[int | None, Whole(min=0, help="Of sampling: the same gives the same.")]
More = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="NAME=VALUE",
        help="Any other of transformers' GenerationConfig, its value in JSON: "
        "early_stopping=true, 'suppress_tokens=[7, 9]'; may be repeated.",
    ),
]
Threads = Annotated[int, typer.Option(min=0, help="Threads for the backend; 0 lets it choose.")]
Provider = Annotated[
    str, typer.Option(help="auto, or what runs the graphs: cpu, cuda, openvino, tensorrt.")
]
Cache = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Keep what encoders make of clips there, for later runs."),
]
Draft = Annotated[
    str | None,
    typer.Option(
        metavar="DIR", help="A smaller model guesses, this one checks; or ngrams, by its words."
    ),
]
BuildFirst = Annotated[
    bool, typer.Option("--build", help="Build TensorRT's engines that do not fit this machine.")
]
Joins = Annotated[
    Literal["exact", "quiet"],
    typer.Option(
        metavar="HOW",
        help="How long clips are cut for a transcript: exact, into as few windows as will hold "
        "them; quiet, in pauses.",
    ),
]
Gate = Annotated[
    bool | None,
    typer.Option(
        "--gate/--no-gate",
        help="Do not ask about sound in which nobody speaks; without it, of transcripts alone.",
    ),
]
Truncate = Annotated[
    bool, typer.Option("--truncate", help="Hear only the first window, as the original does.")
]
System = Annotated[
    str, typer.Option(metavar="TEXT", help="A message to the model before the conversation.")
]
Stop = Annotated[
    list[str] | None,
    typer.Option(metavar="TEXT", help="Ends the answer, and is no part of it; may be repeated."),
]
MaxAudioSeconds = Annotated[float, typer.Option(help="Refuse longer audio.")]


# Of alm batch.
Folder = Annotated[
    str, typer.Argument(metavar="DIR", help="What export.py wrote, or hub:org/name.")
]
Files = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE",
        help="Audio files, folders (what is below them too) and patterns: 'calls/*.wav'.",
    ),
]
Prompt = Annotated[str, typer.Option(help="What is asked about each file, or a task's name.")]
Results = Annotated[
    Path,
    typer.Option(
        "--out", metavar="FILE", help="Add a line of JSON a file there; a next run goes on."
    ),
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Begin the results anew.")]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Try files again whose row is an error.")
]
Workers = Annotated[
    int,
    typer.Option(
        min=0,
        help="Processes, each with the model and its share of the cores; 0: this one. Of Ray "
        "actors, 0 is one a machine.",
    ),
]
Rows = Annotated[int, typer.Option(min=1, help="Files answered as one batch of the model.")]
Ray = Annotated[
    str,
    typer.Option(
        metavar="ADDRESS",
        help="Run on a Ray cluster: local, auto (the one that runs here) or HOST:PORT.",
    ),
]


# Words that are decoding options under the same name.
DECODING = (
    *("max_new_tokens", "num_beams", "repetition_penalty", "length_penalty", "min_new_tokens"),
    *("no_repeat_ngram_size", "temperature", "top_p", "top_k", "min_p", "seed"),
)


def decoding(given: Mapping[str, Any]) -> dict[str, Any]:
    """The decoding options among a command's words, those of `--option` too."""
    options = {name: given[name] for name in DECODING} | {"do_sample": given["sample"]}
    return options | more_options(given["more"] or [])


def more_options(pairs: list[str]) -> dict[str, Any]:
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
