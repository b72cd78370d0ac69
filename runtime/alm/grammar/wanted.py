"""The forms of one turn's answers, made ready for a model before any sound is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from alm.decoding.options import Options
from alm.errors import BadOption
from alm.grammar import vocabulary
from alm.grammar.following import Following, Plain, State
from alm.grammar.forms import Form, asked
from alm.grammar.thinking import Marks, Thinking
from alm.text.detokenizer import Stops
from alm.text.thoughts import Thoughts


class Model(Protocol):
    """What is asked of a model, as `generation.parts.Parts` has it."""

    tokenizer: Any
    eos: frozenset[int]
    manifest: Any
    prompter: Any
    stepping: Any


class Wanted:
    """What each answer of a turn shall follow."""

    def __init__(self, given: Mapping[str, Any], count: int, model: Model) -> None:
        """`given` as `forms.asked` takes it, `count` questions.

        Raises:
            BadOption: a form that cannot be kept, or a model that can follow none.
            MissingPackage: llguidance is not installed.
        """
        self.forms = asked(given, count)
        self._begun: dict[Form, Plain] = {}
        if not any(self.forms):
            return
        if model.stepping:
            raise BadOption(
                "a schema or grammar is not for a model that writes a token for each step of sound"
            )
        self._stops = Stops(model.tokenizer, ())
        self._thoughts: Thoughts = model.prompter.thoughts
        size = model.manifest.facts.dimensions.vocab
        self._vocabulary = vocabulary.of(model.tokenizer, size, model.eos)
        for form in filter(None, self.forms):
            if form not in self._begun:
                self._begun[form] = Plain(form.matcher(self._vocabulary.llg), form, size)

    def check(self, rows: Sequence[int]) -> None:
        """Refuse, with BadOption, a clip of several windows: each would be answered on its own.

        Args:
            rows: the question of each window.
        """
        for question, windows in Counter(rows).items():
            if windows > 1 and (form := self.forms[question]):
                raise BadOption(
                    f"the clip is cut into {windows} windows, each of which would be answered with "
                    f"a {form.kind} of its own; --truncate hears the first alone, or give shorter "
                    "clips"
                )

    def stops(self, own: Stops) -> Stops:
        """The texts that end an answer: where a form ends it, none may cut it inside."""
        return self._stops if any(self.forms) else own

    def following(self, rows: Sequence[tuple[int, bool]], options: Options) -> Following | None:
        """What a search of these rows follows; None where none has a form.

        Args:
            rows: the question of each, and whether its prompt has begun what the model thinks.
            options: of the search.

        Raises:
            BadOption: an option by which an answer could not follow its form.
        """
        forms = [self.forms[question] for question, _ in rows]
        if not any(forms):
            return None
        if options.forced_ends:
            raise BadOption(
                "forced_eos_token_id ends an answer wherever it is, and a schema or grammar wants "
                "it whole; forced_eos_token_id=[] forces none"
            )
        states = [self._state(self.forms[question], begun) for question, begun in rows]
        return Following(forms, states, options.num_beams > 1)

    def _state(self, form: Form | None, begun: bool) -> State | None:
        if form is None:
            return None
        state = self._begun[form].copy()
        before, after = self._thoughts.before.encode(), self._thoughts.after.encode()
        if not after:
            return state
        return Thinking(state, Marks(before, after, begun), self._vocabulary)
