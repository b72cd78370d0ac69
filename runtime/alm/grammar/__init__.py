"""Answers that follow a JSON schema, a grammar or a regular expression, token by token."""

from alm.grammar.forms import Form, openai_format

__all__ = ["Form", "openai_format"]
