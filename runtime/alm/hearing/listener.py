"""Listening to somebody: sound goes in as it comes, what was said comes out as events."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import closing

import numpy as np

from alm.errors import BadAudio, BadOption
from alm.hearing.agreement import Agreement
from alm.hearing.ears import Ear
from alm.hearing.events import Event, Final, Partial, Said, Started, Stopped
from alm.hearing.tasks import Known, Task, done
from alm.hearing.utterances import Spoken, Utterances
from alm.live.live import checked
from alm.voice.activity import Settings, Utterance

EVERY = 0.3  # seconds of sound between two partials, at least
SOONEST = 0.6  # seconds of an utterance before its first partial: less is hardly a word
WAITING = 600.0  # seconds of speech that may wait for the model
MARK = 0.01  # seconds: as exact as latencies are


class Listener:
    """One stream and what is said in it; made by `Model.listen`.

    Alone in a thread: `feed` and `finish`, which give events. Where the sound must not wait for the
    model, one thread calls `hear`, and another takes what is due by `take` and runs it; `Follower`
    does that for a source of sound. Finals come in the order of the utterances, each is given once,
    and before any later utterance's partial. Partials are left out when there is no time for them.

    The same samples give the same finals, however they are cut into pieces. Memory holds what goes
    on, and the sound of utterances that wait.
    """

    def __init__(
        self,
        ear: Ear,
        rate: int,
        pauses: Settings | None,
        every: float = EVERY,
        waiting: float = WAITING,
    ) -> None:
        """`rate` is the model's; see `Model.listen`."""
        if not 0 < every < 1e6 or not 0 < waiting < 1e6:
            raise BadOption(f"every and waiting are seconds above 0, not {every!r}, {waiting!r}")
        self.rate, self.every, self.waiting = rate, every, waiting
        self.changed = threading.Condition()
        self.ended = False
        self._ear, self._utterances = ear, Utterances(rate, pauses)
        self._finals: deque[Task] = deque()
        self._number = 0  # of the utterance that goes on, or of the next
        self._started = False
        self._agreement = Agreement()
        self._known: Known | None = None
        self._marks: deque[tuple[int, float]] = deque()  # samples heard, and when
        self._running: Task | None = None  # the one that was taken last

    @property
    def seconds(self) -> float:
        """Heard so far."""
        return self._utterances.heard / self.rate

    @property
    def behind(self) -> float:
        """Seconds of speech that wait for the model."""
        with self.changed:
            waiting = sum(len(task.spoken.pcm) for task in self._finals)
            return (waiting + self._utterances.held) / self.rate

    @property
    def queued(self) -> int:
        """Utterances that have ended and wait for the model."""
        return len(self._finals)

    @property
    def speaking(self) -> bool:
        """Whether an utterance goes on."""
        with self.changed:
            return self._utterances.open is not None

    # --- one thread

    def feed(self, samples: np.ndarray | Sequence[float]) -> list[Event]:
        """Hear samples at the model's rate, float32 [n] between -1 and 1; what comes of them.

        Raises:
            BadAudio: they are no row of finite numbers.
            BadOption: the sound was ended.
            AlmError: as `Model.generate`.
        """
        pcm = checked(samples)
        events: list[Event] = []
        for at in range(0, len(pcm), self.rate):  # partials of a second each, were it an hour
            events += self.hear(pcm[at : at + self.rate])
            events += self._due()
        return events

    def finish(self) -> list[Event]:
        """The sound has ended; the last finals. A second time there is none."""
        return [*self.end(), *self._due()]

    def _due(self) -> list[Event]:
        events: list[Event] = []
        while task := self.take():
            if event := done(self.run(task)):
                events.append(event)
        return events

    # --- the thread that hears

    def hear(self, samples: np.ndarray | Sequence[float]) -> list[Event]:
        """Hear samples as `feed` does, and run nothing: who has begun to speak, and who ended.

        Raises:
            BadAudio: also where more speech would wait than may.
        """
        pcm = checked(samples)
        with self.changed:
            if self.ended:
                raise BadOption("the sound was ended; listen anew for more")
            if self.behind + len(pcm) / self.rate > self.waiting:
                raise BadAudio(
                    f"the model is {self.behind:.0f} s of speech behind the sound, and no more may "
                    "wait; use a smaller model or a faster machine"
                )
            spoken = self._utterances.feed(pcm)
            self._mark()
            return self._stopped(spoken)

    def commit(self) -> list[Event]:
        """End the utterance that goes on, as if nothing more were said; the sound goes on."""
        with self.changed:
            return self._stopped(self._utterances.commit())

    def clear(self) -> int | None:
        """Forget the utterance that goes on, and give its number if it had begun."""
        with self.changed:
            self._utterances.clear()
            self._ear.forget()
            if not self._started:
                return None
            self._next()
            return self._number - 1

    def end(self) -> list[Event]:
        """The sound has ended, and with it what goes on. What waits can still be taken."""
        with self.changed:
            if self.ended:
                return []
            events, self.ended = self.commit(), True
            self.changed.notify_all()
            return events

    def _stopped(self, spoken: list[Spoken]) -> list[Event]:
        """Queue what has ended; its events, and that of an utterance that has begun."""
        events: list[Event] = []
        for one in spoken:
            if not self._started:
                events.append(Started(self._number, one.start / self.rate))
            start, end = one.start / self.rate, one.end / self.rate
            events.append(Stopped(self._number, start, end))
            self._finals.append(Task(self._number, one, final=True))
            self._next()
        span = self._utterances.open
        if span and not self._started:
            self._started = True
            events.append(Started(self._number, span.start / self.rate))
        self.changed.notify_all()
        return events

    def _next(self) -> None:
        self._number += 1
        self._started = False

    def _mark(self) -> None:
        """Note when so much sound had come, as long as events may ask for it."""
        marks, heard = self._marks, self._utterances.heard
        if len(marks) > 1 and heard - marks[-2][0] < MARK * self.rate:
            marks.pop()
        marks.append((heard, time.monotonic()))
        needed = [task.spoken.start for task in (self._running, *self._finals) if task]
        oldest = min([*needed[:1], heard - self._utterances.held])
        while marks[0][0] < oldest:
            marks.popleft()

    # --- the thread that asks the model

    def take(self) -> Task | None:
        """What is due: the oldest utterance that has ended, else the one that goes on.

        None where nothing is; `changed` is notified when that may be otherwise.
        """
        with self.changed:
            if self._finals:
                self._running = self._finals.popleft()
                return self._running
            span, known = self._utterances.open, self._known
            if self.ended or not span or not self._utterances.pauses:
                return None
            least = span.end - SOONEST * self.rate
            last = known.span.end if known and known.number == self._number else span.start
            grown = span.end - last >= self.every * self.rate and span.start <= least
            # While nobody speaks the final is made, in case that nobody speaks on.
            if not grown and not (self._utterances.pausing and span.end > last):
                return None
            return Task(self._number, Spoken(*span, self._utterances.between(span)), final=False)

    def run(self, task: Task) -> Generator[str, None, Final | Partial | None]:
        """Ask the model: pieces of a final's text as they become certain, then the event.

        A partial gives nothing where a final came to wait meanwhile. A final that is interrupted or
        closed half-way is due again.
        """
        known, span = self._known, Utterance(task.spoken.start, task.spoken.end)
        same = known is not None and (known.number, known.span) == (task.number, span)
        same = same and (self._ear.repeats or not task.final)  # a stream is to be ended
        try:
            if known is not None and same:
                answer = known.answer
            else:
                answer = yield from self._asked(task)
        except (KeyboardInterrupt, GeneratorExit):
            self._ear.forget()
            if task.final:
                with self.changed:
                    self._finals.appendleft(task)
            raise
        if answer is None:
            return None
        if task.final:
            return self._final(task, answer)
        self._known = Known(task.number, span, answer)
        text = self._agreement.push(answer.text)
        return Partial(*self._times(task), text, self._certain(text), self._latency(task))

    def _asked(self, task: Task) -> Generator[str, None, Said | None]:
        known = self._known
        if known and known.number != task.number:
            self._agreement, self._known, known = Agreement(), None, None
        before = known.answer.text if known else ""
        turn = self._ear.hear(task.number, task.spoken.pcm, before, task.final)
        with closing(turn):
            while True:
                try:
                    piece = next(turn)
                except StopIteration as end:
                    return end.value
                if task.final:
                    yield piece
                elif self._ear.repeats and self._finals:
                    return None

    def _final(self, task: Task, answer: Said) -> Final:
        event = Final(*self._times(task), answer.text.strip(), self._latency(task), answer)
        self._agreement, self._known = Agreement(), None
        with self.changed:
            self._running = None
            self.changed.notify_all()
        return event

    def _certain(self, text: str) -> str:
        return self._agreement.certain if self._ear.repeats else text

    def _times(self, task: Task) -> tuple[int, float, float]:
        return task.number, task.spoken.start / self.rate, task.spoken.end / self.rate

    def _latency(self, task: Task) -> float:
        """Seconds since the sound at the utterance's end had come."""
        with self.changed:
            came = next((when for heard, when in self._marks if heard >= task.spoken.end), None)
        return 0.0 if came is None else time.monotonic() - came
