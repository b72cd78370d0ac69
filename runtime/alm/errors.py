"""What can go wrong, as a tree: each error is ours to catch and also the built-in it resembles.

AlmError
├── UnknownName     (ValueError)         a name nobody knows, answered with the right ones
├── BadOption       (ValueError)         options that contradict each other or are out of range
├── BadAudio        (ValueError)         not audio, no samples, too long, not finite
├── BadPrompt       (ValueError)         a prompt that does not fit the model
├── BadArtifacts    (ValueError)         a manifest, graph or file that is not what it should be
├── MissingFile     (FileNotFoundError)  a file or folder that is not there
├── MissingPackage   (ImportError)        the backend's package is not installed
├── HubFailed       (OSError)            a model hub that does not answer, or refuses
├── BadCheckpoint   (ValueError)         weights that are missing, misshapen or do not fit together
└── ExportFailed    (RuntimeError)       a graph that is not equal to its module
"""

from __future__ import annotations

LONGEST = 1_000  # characters of a sentence for a person
ENDING = 300  # of these, kept of the end of a longer one: what to do about it stands there


class AlmError(Exception):
    """Everything that `alm` raises on purpose; the message is one sentence for a person."""

    usage = False  # True: the command line was wrong, exit status 2

    def __str__(self) -> str:
        """The sentence on one line; a longer one (it may quote anyone's file) loses its middle."""
        text = super().__str__()
        text = " ".join(text.split("\n")) if "\n" in text else text
        if len(text) <= LONGEST:
            return text
        return f"{text[: LONGEST - ENDING - 5]} ... {text[-ENDING:]}"


class UnknownName(AlmError, ValueError):
    """A name nobody knows; the message lists the right ones."""

    usage = True


class BadOption(AlmError, ValueError):
    """An option out of range, or two that contradict each other."""

    usage = True


class BadAudio(AlmError, ValueError):
    """Not audio, no samples, too long, or samples that are not finite."""


class BadPrompt(AlmError, ValueError):
    """A prompt that is empty, too long for the context, or holds the audio placeholder."""


class BadArtifacts(AlmError, ValueError):
    """A manifest, graph or file that is not what the manifest says it is."""


class MissingFile(AlmError, FileNotFoundError):
    """A file or folder that is not there."""


class MissingPackage(AlmError, ImportError):
    """The backend's package is not installed."""


class HubFailed(AlmError, OSError):
    """A model hub that cannot be reached, fails, or refuses what was asked for."""


class BadCheckpoint(AlmError, ValueError):
    """Weights that are missing, misshapen, unknown, or pieces that do not fit together."""


class ExportFailed(AlmError, RuntimeError):
    """A graph that does not do what its module does."""
