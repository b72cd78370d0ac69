"""The same over a cluster: Ray Data gives files to actors that hold the model, rows come back."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from alm import backends
from alm.batch import rows
from alm.batch.files import File
from alm.batch.job import Job
from alm.batch.ray_actors import Actor, Ledger
from alm.errors import AlmError, BadOption, MissingPackage
from alm.host import processor

LOCAL, RUNNING = "local", "auto"
ADDRESS = re.compile(r"(ray://)?[\w.\-\[\]:]+:\d{1,5}")
STORE = 100 * 2**20  # bytes of a local object store: rows are small
MOST_BLOCKS = 10_000  # of a dataset: each costs the driver some milliseconds


def check(address: str) -> None:
    """Refuse, before a model is looked at, an address that can be none, and a Ray that is not here.

    Raises:
        BadOption, MissingPackage: in a sentence.
    """
    if address not in (LOCAL, RUNNING) and not ADDRESS.fullmatch(address):
        raise BadOption(
            f"--ray is {LOCAL} (a Ray of this machine), {RUNNING} (the one that runs here) or "
            f"HOST:PORT of a cluster, not {address!r:.80}"
        )
    _ray()


class Cluster:
    """Actors on a Ray cluster, each with the model; a context manager that gives the cluster back.

    The artifacts and the files are at the same paths on every machine.
    """

    def __init__(self, job: Job, address: str, count: int, rows_at_once: int) -> None:
        """Connect; `count` actors, or one for each machine if it is 0.

        Raises:
            AlmError: Ray does not start, or there is no cluster at the address.
            BadOption: no machine has as many cores as an actor wants.
        """
        self.at_once = rows_at_once
        self._ray, self._data = _ray()
        self._connect(address, count, job.threads)
        try:
            self.count, threads = self._sizes(count, job.threads)
            self._gpus = self._devices(job.provider)
        except BaseException:
            self._ray.shutdown()
            raise
        self.job = replace(job.absolute(), threads=threads)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()

    def answer(self, files: Sequence[File]) -> Iterator[list[rows.Row]]:
        """Rows of the files as they come.

        What an actor was answering when it was lost is given to another one, each file alone; a
        file whose actor is lost again gets a row that says so.

        Raises:
            AlmError: a model cannot be opened on a machine, or Ray fails.
        """
        left = set(range(len(files)))
        items = [
            {"number": number, "given": os.fsencode(file.given), "path": os.fsencode(file.path)}
            for number, file in enumerate(files)
        ]
        blocks = -(-len(items) // max(self.at_once, len(items) // MOST_BLOCKS))
        ledger = self._ray.remote(num_cpus=0)(Ledger).remote()
        found = self._data.from_items(items, override_num_blocks=blocks).map_batches(
            Actor,
            fn_constructor_args=(self.job, ledger),
            batch_size=self.at_once,
            batch_format="numpy",
            compute=self._data.ActorPoolStrategy(size=min(self.count, blocks)),
            num_cpus=self.job.threads,
            num_gpus=self._gpus,
        )
        try:
            for item in found.iter_rows():
                if item["refused"]:
                    raise AlmError(f"an actor on Ray: {item['refused']}")
                if item["number"] in left:  # a task that was done twice gives its rows twice
                    left.remove(item["number"])
                    yield [json.loads(item["row"])]
        except self._ray.exceptions.RayError as error:
            raise _said(error) from error
        if left:
            raise AlmError(f"Ray has ended without {len(left)} rows; the same command goes on")

    def _connect(self, address: str, count: int, threads: int) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # past Python, to stderr
        quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if address == LOCAL:
            cores = max(processor.usable_cores(), count * max(1, threads))
            quiet |= {"num_cpus": cores, "include_dashboard": False, "object_store_memory": STORE}
            quiet["_node_ip_address"] = "127.0.0.1"  # nobody else is to reach it
        try:
            self._ray.init(address=address, **quiet)
        except (OSError, RuntimeError, ValueError, self._ray.exceptions.RayError) as error:
            raise _said(error, f"--ray {address}") from error
        context = self._data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)

    def _sizes(self, count: int, threads: int) -> tuple[int, int]:
        """How many actors, and the threads of each."""
        alive = [node for node in self._ray.nodes() if node["Alive"]]
        cores = [int(node["Resources"].get("CPU", 0)) for node in alive]
        cores = [number for number in cores if number] or [1]
        count = count or len(cores)
        if threads > max(cores):
            raise BadOption(
                f"--threads {threads} for each actor, and the largest machine of the cluster has "
                f"{max(cores)} cores"
            )
        return count, threads or max(1, min(min(cores), sum(cores) // count))

    def _devices(self, provider: str) -> int:
        """GPUs of an actor: one, where a provider for another device than the processor is meant.

        Raises:
            UnknownName: nobody knows the provider.
            BadOption: the cluster has no GPU.
        """
        if provider != "auto" and provider not in backends.known():
            backends.choose(provider)
        if provider == "auto" or backends.on_cpu(provider):
            return 0
        if not self._ray.cluster_resources().get("GPU"):
            raise BadOption(f"--provider {provider} wants a GPU, and no machine of Ray has one")
        return 1


def _ray() -> tuple[Any, Any]:
    """Ray and its Data."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingPackage(
            f"--ray wants the package ray ({error.name or error} is missing); "
            "pip install 'alm-edge[ray]'"
        ) from error
    return ray, ray.data


def _said(error: BaseException, where: str = "Ray") -> AlmError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = lines[-1] if lines else type(error).__name__
    with contextlib.suppress(ValueError):
        said = said[: said.index("\x1b")] or said
    return AlmError(f"{where}: {said}")
