"""Answers of several threads as rows of one decoder, which each joins and leaves as it likes."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

import numpy as np

from alm.artifacts.embedding_table import Table
from alm.artifacts.manifest import Part
from alm.cache.kv_cache import Cache
from alm.decoder.decoder import Decoder
from alm.errors import BadOption
from alm.session import RowByRow, Session

MOST_ROWS = 256  # answers at once; a cache of each takes memory
PATIENCE = 0.05  # seconds that rows wait for one whose thread does something else


def check_together(rows: int) -> None:
    """Refuse, with BadOption, so many answers at once."""
    if not 1 <= rows <= MOST_ROWS:
        raise BadOption(f"together is 1 to {MOST_ROWS} answers at once, not {rows!r:.40}")


class Together:
    """Steps of several decoders run as one: it reads the weights once for all of them.

    A decoder that wants a step waits until all that are in the middle of an answer want one; the
    last of them runs it. One that does not come in time (whoever reads its text is slow) goes on
    alone and joins again with its next step.
    """

    def __init__(self, session: Session, part: Part, table: Table, most: int) -> None:
        """`most` rows at once; see `opened`."""
        self._rows = Decoder(session, part, table)
        self._most = most
        self._changed = threading.Condition()
        self._answering: list[Member] = []  # those between two steps of an answer
        self._members: list[Member] = []  # those whose rows are here, in the order of the rows
        self._asked: dict[Member, int] = {}  # the tokens of those that wait for a step
        self._given: dict[Member, np.ndarray | BaseException] = {}
        self._running = False

    @classmethod
    def opened(cls, session: Session, part: Part, table: Table, most: int) -> Together | None:
        """As made; None where rows cannot join.

        They can where the graph takes several and their caches lie in our memory.
        """
        made = cls(session, part, table, most)
        joins = most > 1 and made._rows.cache.shares and not isinstance(session, RowByRow)
        return made if joins else None

    def step(self, member: Member, token: int) -> np.ndarray | None:
        """Logits [vocab] after one more token of the member; None where it shall step alone."""
        with self._changed:
            if not self._joined(member):
                return None
            self._asked[member] = token
            self._changed.notify_all()
            leads = self._leads(member)
        if leads:
            self._run()
        with self._changed:
            given = self._given.pop(member)
        if isinstance(given, BaseException):
            raise given
        return given

    def _joined(self, member: Member) -> bool:
        """Whether the member's row is here now; it is where another is in the middle of one."""
        if member not in self._answering:
            self._answering.append(member)
        if member in self._members:
            return True
        while self._running:
            self._changed.wait()
        if len(self._members) >= self._most:
            self._answering.remove(member)
            return False
        if len(self._answering) < 2:
            return False
        self._rows.add(member)
        self._members.append(member)
        return True

    def _leads(self, member: Member) -> bool:
        """Wait until the member's step was run (False), or is the caller's to run."""
        until = time.monotonic() + PATIENCE
        while member not in self._given:
            late = [other for other in self._answering if other not in self._asked]
            if self._running:
                self._changed.wait()
                until = time.monotonic() + PATIENCE
                continue
            if late and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
                continue
            for other in late:
                self._take_out(other, keep=True)
                self._answering.remove(other)
            self._running = True
            return True
        return False

    def _run(self) -> None:
        """One step of all rows, each of which has asked for it."""
        members = list(self._members)
        given: dict[Member, np.ndarray | BaseException]
        try:
            ids = np.array([self._asked[member] for member in members], np.int64)
            given = dict(zip(members, self._rows.step(ids), strict=True))
        except BaseException as error:
            given = dict.fromkeys(members, error)
        with self._changed:
            for member in members:
                del self._asked[member]
                member.lengths = member.lengths + 1
            self._given |= given
            self._running = False
            self._changed.notify_all()

    def leave(self, member: Member, keep: bool) -> None:
        """The member's row is no longer here; `keep`: what it holds is the member's own again."""
        with self._changed:
            self._take_out(member, keep)
            if member in self._answering and not keep:
                self._answering.remove(member)
            self._changed.notify_all()

    def _take_out(self, member: Member, keep: bool) -> None:
        if member not in self._members:
            return
        row = self._members.index(member)
        if keep:
            self._rows.give(row, member)
        self._rows.remove(row)
        last = self._members.pop()
        if row < len(self._members):
            self._members[row] = last


class Member(Decoder):
    """A decoder of one row whose steps are run together with those of others."""

    def __init__(
        self,
        together: Together,
        session: Session,
        part: Part,
        table: Table,
        most_fed: int,
        switches: int | None,
    ) -> None:
        """See `Decoder`."""
        super().__init__(session, part, table, most_fed, switches)
        self._together = together

    @property
    def cache(self) -> Cache:
        """What it remembers, brought back from where the steps are run."""
        self._together.leave(self, keep=True)
        return self._own

    def done(self) -> None:
        """See `Decoder.done`."""
        self._together.leave(self, keep=False)

    def start(
        self, rows: int, most: int, held: int = 0, begun: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """See `Decoder.start`."""
        self.done()
        super().start(rows, most, held, begun)

    def step(self, token_ids: np.ndarray) -> np.ndarray:
        """See `Decoder.step`."""
        if len(token_ids) == 1:
            logits = self._together.step(self, int(token_ids[0]))
            if logits is not None:
                return logits[None]
        return super().step(token_ids)
