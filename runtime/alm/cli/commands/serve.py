"""`alm serve`: OpenAI's endpoints and a page over one model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from alm.cli import arguments as args
from alm.cli.arguments import more_options
from alm.errors import BadOption, MissingPackage
from alm.hub.names import title

Folder = Annotated[
    Path, typer.Argument(metavar="DIR", help="What export.py wrote, or hub:org/name.")
]
Host = Annotated[str, typer.Option(help="Where to listen; anything but loopback wants a key.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one, and prints it.")]
ApiKey = Annotated[
    str,
    typer.Option(
        metavar="KEY", envvar="ALM_API_KEY", help="Requests must send it: Authorization: Bearer KEY"
    ),
]
Names = Annotated[
    list[str] | None,
    typer.Option("--name", metavar="NAME", help="The model's, for clients; may be repeated."),
]
Origins = Annotated[
    list[str] | None,
    typer.Option("--origin", metavar="URL", help="Pages from there may ask; may be repeated."),
]
Rows = Annotated[int, typer.Option(min=1, max=256, help="Requests answered at once.")]
Waiting = Annotated[
    int, typer.Option(min=0, max=100_000, help="Requests that wait; more are refused (429).")
]
Upload = Annotated[int, typer.Option("--max-upload", min=1, metavar="MIB", help="Of a request.")]
Sockets = Annotated[
    int, typer.Option(min=0, max=1000, help="Live sockets (/v1/realtime) open at once.")
]
Timeout = Annotated[float, typer.Option(min=1, help="Seconds that a request may take.")]
Kept = Annotated[
    int, typer.Option(min=0, metavar="MIB", help="KV caches of conversations that may go on.")
]


def serve(
    folder: Folder,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    api_key: ApiKey = "",
    name: Names = None,
    rows: Rows = 4,
    waiting: Waiting = 32,
    timeout: Timeout = 600.0,
    upload: Upload = 64,
    kept: Kept = 512,
    sockets: Sockets = 16,
    origin: Origins = None,
    align: args.Align = None,
    more: args.More = None,
    threads: args.Threads = 0,
    provider: args.Provider = "auto",
    cache: args.Cache = None,
    max_audio_seconds: args.MaxAudioSeconds = 3600.0,
    debug: args.Debug = False,
) -> None:
    """Serve a model: OpenAI's endpoints under /v1, a page at /, metrics at /metrics."""
    try:
        from alm.serve import listening
    except ModuleNotFoundError as error:
        raise MissingPackage(
            f"alm serve wants {error.name}, which is not installed: pip install 'alm-edge[serve]'"
        ) from error
    import alm
    from alm.audio import reader
    from alm.serve.settings import MIB, Settings

    names = tuple(name or [title(folder) or "model"])
    if not all(text.strip() and text.isprintable() for text in names):
        raise BadOption("a model's name is a text that can be printed")
    settings = Settings(
        names=names,
        host=host,
        api_key=api_key,
        origins=tuple(text.rstrip("/") for text in origin or []),
        rows=rows,
        waiting=waiting,
        upload_bytes=upload * MIB,
        audio_seconds=max_audio_seconds,
        timeout=timeout,
        kept_bytes=kept * MIB,
        sockets=sockets,
        defaults=more_options(more or []),
    )
    listening.check(settings)
    with listening.listen(host, port) as opened:
        model = alm.load(folder, provider, threads, align=align, cache=cache, together=rows)
        reader.check_options(model.parts.rules.rate, "first", max_audio_seconds)
        model.options(**settings.defaults)
        listening.serve(model, settings, opened, _tell)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
