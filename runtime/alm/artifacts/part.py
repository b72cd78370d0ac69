"""A part of the model as the manifest has it: files, ports, and how it is stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from alm.artifacts import older_levers, storages
from alm.artifacts.engine_files import Engine
from alm.artifacts.port_checks import MOST_AXIS, check_port, check_slots
from alm.parsing import File, Misshapen, all_of, count, file, is_a, need
from alm.ports import Port, Span
from alm.precision import PLAIN, PLAINEST, Storage


@dataclass(frozen=True)
class Part:
    """One module of the model: a graph with its ports, or the embedding table.

    The first of `files` is the graph (or the table), the others hold its external data.
    """

    name: str
    role: str  # frontend, encoder, bridge, decoder or table
    files: tuple[File, ...]
    inputs: dict[str, Port] = field(default_factory=dict)
    outputs: dict[str, Port] = field(default_factory=dict)
    spans: dict[str, Span] = field(default_factory=dict)
    precision: str = PLAIN  # as it was asked for
    storage: Storage = PLAINEST  # what that stores and needs
    opset: int = 0
    dialect: str = ""
    nodes: int = 0
    chunk_rows: int = 0  # rows at once when several tokens meet a past; 0: any number
    pieces: str = ""  # the axis that is cut into pieces as long as its span, each run alone
    simplified: str = ""  # "yes", or the reason why not
    measured: dict[str, Any] = field(default_factory=dict)
    # What an adapter may change: group -> each layer's module, by all names that files have.
    slots: dict[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    golden: File | None = None  # what the original gave for a small input; see alm.golden
    engines: tuple[Engine, ...] = ()  # what `alm build` made of the graph; a list of the manifest's

    def engine(self, backend: str) -> Engine | None:
        """What `backend` built of it."""
        return next((e for e in self.engines if e.maker.backend == backend), None)

    @property
    def bytes(self) -> int:
        """Of all its files."""
        return sum(file.bytes for file in self.files)

    @property
    def parity(self) -> dict[str, Any]:
        """The errors against the original; empty where nothing was measured."""
        parity = self.measured.get("parity")
        return parity if isinstance(parity, dict) else {}

    @property
    def verdict(self) -> str:
        """ "exact", "within 0.3", or "-" where the manifest has none."""
        verdict, bound = self.parity.get("verdict"), self.parity.get("bound")
        if not isinstance(verdict, str):
            return "-"
        bounded = verdict.startswith("within") and is_a(bound, (int, float))
        return f"within {bound:g}" if bounded else verdict

    def to_json(self) -> dict[str, Any]:
        """The part as plain data; what is empty is left out."""
        plain: dict[str, Any] = {"name": self.name, "role": self.role}
        stated = ("precision", "opset", "dialect", "nodes", "chunk_rows", "pieces", "simplified")
        for name in stated:
            if getattr(self, name):
                plain[name] = getattr(self, name)
        plain["storage"] = storages.to_json(self.storage)
        plain["files"] = [vars(file) for file in self.files]
        plain["inputs"] = {n: port.to_json() for n, port in self.inputs.items()}
        plain["outputs"] = {n: port.to_json() for n, port in self.outputs.items()}
        plain["spans"] = {n: [s.least, s.usual, s.most] for n, s in self.spans.items()}
        plain["measured"] = self.measured
        if self.golden:
            plain["golden"] = vars(self.golden)
        if self.slots:
            plain["slots"] = {n: [list(names) for names in s] for n, s in self.slots.items()}
        return plain


def part_from_json(plain: Any, number: int) -> Part:
    """The part that `to_json` made plain data of, the `number`th of its manifest.

    Raises:
        Misshapen: a field is missing, or of another kind or size than it may have.
    """
    name = need(plain, "name", str, where=f"part {number}")
    where = f"part {name:.80}"

    def side(key: str) -> dict[str, Port]:
        ports = need(plain, key, dict, where=where)
        return {n: _port(port, f"{key[:-1]} {n:.80} of {where}") for n, port in ports.items()}

    files = need(plain, "files", list, where=where)
    if not files:
        raise Misshapen(f"{where} has no files")
    spans = need(plain, "spans", dict, {}, where)
    role, precision = (
        need(plain, "role", str, where=where),
        need(plain, "precision", str, "", where),
    )
    pieces, inputs = need(plain, "pieces", str, "", where), side("inputs")
    if pieces and (
        pieces not in spans or not any(pieces in port.axes[1:] for port in inputs.values())
    ):
        raise Misshapen(
            f"'pieces' of {where} is {pieces!r:.80}, no axis of its inputs' with a span"
        )
    slots = _slots(need(plain, "slots", dict, {}, where), where)
    golden = plain.get("golden")
    check_slots(name, slots, inputs, where)
    return Part(
        name=name,
        role=role,
        files=tuple(file(entry, f"a file of {where}") for entry in files),
        inputs=inputs,
        outputs=side("outputs"),
        spans={n: _span(span, f"span {n:.80} of {where}") for n, span in spans.items()},
        precision=precision,
        storage=storages.from_json(plain["storage"], f"the storage of {where}")
        if "storage" in plain
        else older_levers.storage(precision, role),
        opset=count(plain, "opset", 0, 0, where),
        dialect=need(plain, "dialect", str, "", where),
        nodes=count(plain, "nodes", 0, 0, where),
        chunk_rows=count(plain, "chunk_rows", 0, 0, where),
        pieces=pieces,
        simplified=need(plain, "simplified", str, "", where),
        measured=need(plain, "measured", dict, {}, where),
        slots=slots,
        golden=None if golden is None else file(golden, f"the golden vectors of {where}"),
    )


def _slots(plain: dict[str, Any], where: str) -> dict[str, tuple[tuple[str, ...], ...]]:
    made: dict[str, tuple[tuple[str, ...], ...]] = {}
    for group, modules in plain.items():
        all_of(modules, list, f"slots {group:.80} of {where}")
        for names in modules:
            all_of(names, str, f"slots {group:.80} of {where}")
        made[group] = tuple(map(tuple, modules))
    return made


def _port(plain: Any, where: str) -> Port:
    axes = tuple(need(plain, "axes", list, where=where))
    dtype, counts = need(plain, "dtype", str, where=where), need(plain, "counts", str, "", where)
    check_port(dtype, axes, where)
    return Port(dtype, axes, counts, count(plain, "below", 0, 0, where))


def _span(plain: Any, where: str) -> Span:
    if not isinstance(plain, list) or len(plain) != 3 or not all(is_a(n, int) for n in plain):
        raise Misshapen(f"{where} is {plain!r:.80}, not three whole numbers")
    if not 0 <= plain[0] <= plain[1] <= plain[2] <= MOST_AXIS:
        raise Misshapen(f"{where} is {plain!r:.80}, not least, usual and most of a length")
    return Span(*plain)
