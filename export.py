"""Take an audio language model apart and export every part: python export.py --help"""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import typer

from alm import targets
from alm.artifacts.engine_files import fingerprint
from alm.artifacts.manifest import Manifest
from alm.cli import arguments, exit_status
from alm.cli.reports import inspection
from alm.errors import BadArtifacts, BadOption, MissingFile, MissingPackage, UnknownName
from alm.precision import PLAIN, PLAINEST, Levers, closest_first

ROOT = Path(__file__).parent
CLIPS = (ROOT / "demo" / "lamp.wav", ROOT / "demo" / "siren.wav")  # that whole runs are kept of
LEVERS = sorted(p.stem for p in (ROOT / "exporters" / "levers").glob("[!_]*.py"))  # for the help

PRECISION = re.compile(r"(?:([^=:]*)=)?(.*)", re.DOTALL)  # of a part, or of all: part=A:setting=B
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")  # Qwen/Qwen2-Audio-7B-Instruct

# Of the two commands, alm-export and `python export.py`, a shell knows the first.
app = typer.Typer(**arguments.PLAIN, add_completion="alm_export" in sys.modules)


@app.command()
def export(
    model: Annotated[
        str,
        typer.Option(
            help="A config.yaml of SALMONN or audio-llm, another family's Hugging Face folder, or "
            "`demo`."
        ),
    ] = "demo",
    part: Annotated[
        list[str], typer.Option(help="A part to export, or `all`; may be repeated.")
    ] = ["all"],  # noqa: B006 (typer copies it)
    out: Annotated[Path, typer.Option(help="The folder for the artifacts.")] = Path("artifacts"),
    dynamic_batch: Annotated[
        bool, typer.Option("--dynamic-batch", help="Any number of clips at a time; without it one.")
    ] = False,
    precision: Annotated[
        str,
        typer.Option(
            help=f"{PLAIN}, auto or levers, for all or by part: A or decoder=A+B,mel={PLAIN}. "
            f"Levers: {', '.join(LEVERS)}; LEVER:SETTING=VALUE where one has settings."
        ),
    ] = "",
    target: Annotated[str, typer.Option(help="Where it will run.")] = "cpu",
    dialect: Annotated[
        str, typer.Option(help="The form of the decoder's attention; the target's if not said.")
    ] = "",
    calibrate: Annotated[
        Path | None,
        typer.Option(help="A folder of clips, for levers that are fitted to what is heard."),
    ] = None,
    adapter: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=DIR",
            help="A LoRA of peft that stays a file and is chosen by name at run time; may be "
            "repeated. Merging is done without: lay it beside the model's weights.",
        ),
    ] = [],  # noqa: B006
    layout: Annotated[
        list[str],
        typer.Option(help="Another runtime's files too: genai, transformers.js; may be repeated."),
    ] = [],  # noqa: B006
    simplify: Annotated[bool, typer.Option(help="Simplify graphs where parity allows.")] = True,
    golden: Annotated[
        bool,
        typer.Option(
            help="Keep small inputs and what the original gives, with which `alm doctor` proves a "
            "device."
        ),
    ] = True,
    inspect: Annotated[
        bool, typer.Option("--inspect", help="Show what is in --out and export nothing.")
    ] = False,
    netron: Annotated[
        str, typer.Option(metavar="PART", help="Serve this part of --out in Netron on localhost.")
    ] = "",
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Export the parts of an audio language model, and compare each with its torch module.

    In float32 a part must be exact. With a lever it must be within the lever's bound, and the
    table says what was lost. Otherwise the export stops.
    """
    if inspect or netron:
        raise typer.Exit(inspection.show(out, netron=netron))
    # The workshop is heavy: help, inspection and wrong words do without it.
    try:
        from exporters import adapters, layouts, precisions
        from exporters import golden as proofs
        from exporters import part as parts
        from exporters.bundle import Bundle, tools
        from exporters.report import Report
        from wrappers import dialect as dialects
        from wrappers import open_checkpoint
    except ModuleNotFoundError as error:
        raise MissingPackage(
            f"exporting wants {error.name}, which is not installed: pip install 'alm-edge[export]'"
        ) from error

    goal = targets.find(target)
    dialects.find(dialect or goal.DIALECT)
    report = Report()
    source = _demo(report) if model == "demo" else _path(model)
    checkpoint = open_checkpoint(source)
    layouts.check(layout, checkpoint.family, dialect or goal.DIALECT)
    known = [*checkpoint.parts, parts.TABLE]
    chosen = _chosen(part, known)
    precise = _precisions(precision, checkpoint, goal)
    worn = adapters.read(adapter, checkpoint, chosen)
    settings = parts.Settings(
        dialect=dialect or goal.DIALECT,
        precision=precise,
        clips=_clips(calibrate, {name: precise[name] for name in chosen}, checkpoint, report),
        dynamic_batch=dynamic_batch,
        slots=worn.slots,
        golden=golden,
        **({} if simplify else {"simplify": None}),
    )
    with Bundle(out) as bundle:
        for note in checkpoint.notes:
            report.note(note)
        results = []
        for number, name in enumerate(chosen, 1):
            with report.part(name, number, len(chosen)) as say:
                results.append(parts.export(name, checkpoint, settings, bundle, say))
            report.done(name, results[-1])
        (bundle.folder / "tokenizer.json").write_text(checkpoint.tokenizer_json, "utf-8")
        manifest = Manifest(
            family=checkpoint.family,
            parts=tuple(result.part for result in results),
            tokenizer=bundle.file(bundle.folder / "tokenizer.json"),
            facts=checkpoint.facts,
            tools=tools(),
            levers=precisions.declared(),
            adapters=adapters.place(worn, bundle),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )
        adapters.check(manifest, bundle, [*worn.folders])
        whole = _sized(_joined(bundle.old, manifest, known, report))
        whole = adapters.with_old(whole, bundle.old)
        said = proofs.kept(bundle) if golden and chosen != known else proofs.NOTHING
        if golden and chosen == known:
            said = proofs.asked(checkpoint, settings.dialect, CLIPS, bundle, report.note)
        bundle.publish(whole)
        proofs.finish(bundle.out, said, whole, report.note)
        layouts.write(layout, bundle.out, source)
    report.table(results)
    if not _builds(out, target, chosen, report):
        raise typer.Exit(1)


def _builds(out: Path, target: str, chosen: list[str], report: Any) -> bool:
    """Whether the target's backend takes what was exported; if not, or not quite, it is printed."""
    from alm.cli.reports.lint_report import summary, table
    from alm.lint import lint

    verdict = lint(out, target, chosen)
    if verdict.findings:
        table(verdict)
    elif targets.find(target).BUILD:
        report.note(summary(verdict))
    return not verdict.refused


def _path(model: str) -> Path:
    """Where the checkpoint is.

    Raises:
        MissingFile: it is not there but looks like a name of the hub; how to download it, too.
    """
    path = Path(model)
    if not path.exists() and HUB_NAME.fullmatch(model):
        name = model.partition("/")[2]
        raise MissingFile(
            f"there is no folder {model}; if that is a model of the Hugging Face hub, download it "
            f"with: hf download {model} --local-dir {name}, and then say --model {name}"
        )
    return path


def _demo(report: Any) -> Path:
    """The trained demo checkpoint; where there is none, a small random one is made.

    Raises:
        MissingFile: this is an installed package, which brings no model.
    """
    if not (ROOT / "demo" / "random_checkpoint.py").is_file():
        raise MissingFile("the demo model comes with a checkout of alm-edge; give --model PATH")
    from demo import random_checkpoint

    trained = ROOT / "demo" / "checkpoint" / "config.yaml"
    if trained.is_file():
        return trained
    folder = ROOT / "demo" / "random"
    if not (folder / "config.yaml").is_file():
        report.note("making the demo checkpoint: it is real in form, its weights are random")
        random_checkpoint.make(folder)
    return folder / "config.yaml"


def _chosen(given: list[str], known: list[str]) -> list[str]:
    """The parts to export, in the order of a run."""
    for name in given:
        if name not in known and name != "all":
            raise UnknownName(f"unknown part {name!r}; there is: all, {', '.join(known)}")
    return [name for name in known if name in given or "all" in given]


def _precisions(given: str, checkpoint: Any, goal: Any) -> dict[str, str]:
    """Part -> precision, from `A` or `decoder=A+B,whisper=C` or both; "" is the target's own.

    Raises:
        UnknownName: no such part or lever.
        BadOption: a lever whose graphs the target's backend does not run.
    """
    from exporters import part, precisions

    roles = {name: checkpoint.roles.get(name, "") for name in checkpoint.parts}
    roles[part.TABLE] = "table"
    chosen = dict.fromkeys(roles, precisions.PLAIN)
    levers = precisions.declared()
    usual = targets.find_lever(goal, "decoder", levers, goal.PRECISION) or precisions.PLAIN
    for word in (given or usual).split(","):
        name, value = PRECISION.fullmatch(word.strip()).groups()  # pyright: ignore
        if name and name not in roles:
            raise UnknownName(f"unknown part {name!r}; there is: {', '.join(roles)}")
        for part_name in [name] if name else roles:
            auto = value == precisions.AUTO
            chosen[part_name] = targets.automatic(goal, roles[part_name], levers) if auto else value
    for name, value in chosen.items():
        _refuse_foreign(name, value, roles[name], levers, goal)
    return chosen


def _refuse_foreign(part: str, precision: str, role: str, levers: Levers, goal: Any) -> None:
    """Refuse, with BadOption, a precision whose graphs the target's backend does not run."""
    from exporters import precisions

    def runs(name: str) -> bool:
        alone = precisions.pull(name).backends <= set(goal.BACKENDS)
        storage = levers.get(precisions.lever_of(name), {}).get(role, PLAINEST)
        return alone and targets.reads(goal, storage)

    if all(map(runs, precision.split("+"))):
        return
    backends = ", ".join(sorted(precisions.pull(precision).backends - set(goal.BACKENDS)))
    why = "has operators that the target lacks"
    if backends:
        why = f"runs in {backends} alone, and the target is not that"
    known = ", ".join(filter(runs, closest_first(levers, role)))
    raise BadOption(
        f"precision {precision} of part {part} {why}; take {known}, or another --target"
    )


def _clips(
    folder: Path | None, precision: dict[str, str], checkpoint: Any, report: Any
) -> Any | None:
    """The clips to calibrate with, where a lever of a part wants them.

    Raises:
        MissingFile, BadOption: they are not there, or are wanted and not given, or the reverse.
    """
    from exporters import calibration, precisions

    def listens(name: str, value: str) -> bool:
        return precisions.pull(value).listens(checkpoint.roles.get(name, ""))

    def hears(name: str, value: str) -> bool:
        return precisions.pull(value).hears(checkpoint.roles.get(name, ""))

    wanted = [name for name, value in precision.items() if listens(name, value)]
    useful = [name for name, value in precision.items() if hears(name, value)]
    if folder is None and wanted:
        raise calibration.wanted(wanted[0], precision[wanted[0]])
    if folder is None:
        return None
    if not useful:
        raise BadOption(
            f"--calibrate {folder} is for no part: no precision given is fitted to clips"
        )
    clips = calibration.find(folder, checkpoint.facts)
    for note in clips.notes:
        report.note(note)
    report.note(f"calibrating with {len(clips.paths)} clips, {clips.seconds:.0f} s")
    return clips


def _sized(manifest: Manifest) -> Manifest:
    """The manifest with the LLM's heads as they are where some were pruned."""
    facts, sizes = manifest.facts, dict[str, int]()
    for part in manifest.parts:
        sizes |= part.measured.get("dimensions", {})
    return replace(manifest, facts=replace(facts, dimensions=replace(facts.dimensions, **sizes)))


def _joined(old: Manifest | None, new: Manifest, known: list[str], report: Any) -> Manifest:
    """The new parts, and those of the same model that were there before, in the order of a run."""
    kept = [p for p in old.parts if new.part(p.name) is None] if old else []
    if kept and old and old.facts.source != new.facts.source:
        there = ", ".join(p.name for p in kept)
        raise BadArtifacts(
            f"the folder holds parts of another model ({there}); give another --out, or --part all"
        )
    if kept:
        report.note(f"kept from before: {', '.join(p.name for p in kept)}")
    order = {name: i for i, name in enumerate(known)}
    parts = sorted([*kept, *new.parts], key=lambda p: order.get(p.name, len(order)))
    graphs = {part.name: fingerprint(part.files) for part in parts}
    built = [e for e in old.engines if graphs.get(e.part) == e.graph] if old else []
    return replace(new, parts=tuple(parts)).with_engines(built)


if __name__ == "__main__":
    sys.exit(exit_status.run(app))
