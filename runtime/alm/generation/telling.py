"""A turn whose answer is known: it is put into the conversation, and nothing is generated."""

from __future__ import annotations

from alm.decoding import steps
from alm.generation.past import Past
from alm.generation.turn import Question, Turn


def tell(turn: Turn, question: Question, answer: str, past: Past) -> None:
    """Let the conversation go on as if the question had been answered so.

    Raises:
        BadAudio, MissingFile, BadPrompt, UnknownName: see `Model.generate`; the turn does not fit
            the model's context.
    """
    prompter, parts = turn.parts.prompter, turn.parts
    prompt = turn.prompts([question], past)[0]
    clips = [turn.read(source) for source in question.sources]
    (row,) = turn.rows(0, prompt, clips, False, [])
    turn.encode([row])
    feed, ids = turn.fed(past, [row]), prompter.said(answer)
    whole = feed.whole[0] + len(ids)
    turn.fitted(whole, row)
    before = [*past.ids, *prompter.ids(prompt, row.embeds)] if prompter.by_ids else []
    decoder = past.open(feed, whole)
    try:
        decoder.feed(feed.embeds, feed.lengths)
    except BaseException:
        past.forget()
        raise
    past.keep_prefix(feed)
    ended = steps.Sequence([*ids, *sorted(parts.eos)[:1]], "eos")
    past.remember(feed, ended, prompt, before, parts.stops, followed=False)
