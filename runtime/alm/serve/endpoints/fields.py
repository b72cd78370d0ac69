"""A request's fields: each is checked as it is taken, and what nobody takes is refused by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from alm.serve.refused import Refused

WHOLE = re.compile("-?[0-9]{1,30}")


class Fields:
    """Fields of a form, all of them text, or of a JSON object. null is as good as not given."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._left = {name: value for name, value in given.items() if value is not None}

    def take(self, name: str) -> Any:
        """The value as it came; None where it was not given."""
        return self._left.pop(name, None)

    def text(self, name: str, default: str = "") -> str:
        """A text."""
        value = self.take(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise wrong(name, "a text", value)
        return value

    def one_of(self, name: str, default: str, *others: str) -> str:
        """One of these texts."""
        value = self.text(name, default)
        if value not in (default, *others):
            raise wrong(name, f"one of {', '.join((default, *others))}", value)
        return value

    def texts(self, name: str, bracketed: bool = False) -> list[str]:
        """Texts, one or many; forms have their names with brackets behind."""
        value = self.take(f"{name}[]") if bracketed and f"{name}[]" in self._left else None
        value = self.take(name) if value is None else value
        if value is None:
            return []
        many = [value] if isinstance(value, str) else value
        if not isinstance(many, list) or not all(isinstance(item, str) for item in many):
            raise wrong(name, "a text, or a list of texts", value)
        return many

    def flag(self, name: str) -> bool:
        """true or false; false where it was not given."""
        return bool(self.maybe(name))

    def maybe(self, name: str) -> bool | None:
        """true or false; None where it was not given."""
        value = self.take(name)
        value = (
            {"true": True, "false": False, "": None}.get(value, value)
            if isinstance(value, str)
            else value
        )
        if value is None or isinstance(value, bool):
            return value
        raise wrong(name, "true or false", value)

    def number(self, name: str, least: float, most: float) -> float | None:
        """A number in a range."""
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                raise wrong(name, f"a number from {least:g} to {most:g}", value) from None
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        if not fits or not least <= value <= most:  # neither is what is no number
            raise wrong(name, f"a number from {least:g} to {most:g}", value)
        return float(value)

    def whole(self, name: str, least: int, most: int) -> int | None:
        """A whole number in a range."""
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, str):
            value = int(value) if WHOLE.fullmatch(value) else value
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise wrong(name, f"a whole number from {least} to {most}", value)
        return value

    def only(self, name: str, *harmless: Any) -> None:
        """Refuse a field that cannot be honoured, unless it asks for what is done anyway."""
        value = self.take(name)
        if value is not None and value not in harmless:
            raise Refused(400, f"{name}={_short(value)} is not done here; leave it out", param=name)

    def end(self) -> None:
        """Refuse what was not taken.

        Raises:
            Refused: for the first such field, which it names.
        """
        for name in self._left:
            raise Refused(400, f"unknown field {name!r:.80}", param=name[:80])


def wrong(name: str, wanted: str, value: Any) -> Refused:
    """The refusal of a field's value."""
    return Refused(400, f"{name} is wanted as {wanted}, not {_short(value)}", param=name)


def _short(value: Any) -> str:
    return f"{value!r:.60}"
