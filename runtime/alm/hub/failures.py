"""What goes wrong between here and a hub, as one sentence each.

huggingface_hub raises its own errors and those of the library by which it speaks HTTP, which has
been requests, httpx and httpx2: they are told apart by the names of their classes.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from alm.errors import AlmError, BadOption, HubFailed, MissingFile
from alm.hub.names import Repo
from alm.parsing import printable

HTTP = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
TOKEN = "a token is taken from HF_TOKEN or from: hf auth login"


class Unreachable(HubFailed):
    """No answer, or none of use: what was cached before may do."""


@contextmanager
def told(repo: Repo, endpoint: str) -> Iterator[None]:
    """Turn what huggingface_hub raises within the block into an AlmError of one sentence."""
    try:
        yield
    except AlmError:
        raise
    except Exception as error:
        sentence = _sentence(error, repo, endpoint)
        if sentence is None:
            raise
        raise sentence from error


def _sentence(error: Exception, repo: Repo, endpoint: str) -> AlmError | None:
    """The same as ours; None for what is no hub's doing."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "GatedRepoError" in kinds:
        return HubFailed(
            f"{repo.id} is gated: accept its terms on {endpoint}/{repo.id}, then give a token that "
            f"may read it; {TOKEN}"
        )
    if "DisabledRepoError" in kinds:
        return HubFailed(f"{repo.id} was disabled by {endpoint}")
    if "RevisionNotFoundError" in kinds:
        return MissingFile(f"{repo.id} has no revision {repo.revision!r}")
    if "OfflineModeIsEnabled" in kinds:
        return Unreachable(
            f"{repo} is not cached here whole, and HF_HUB_OFFLINE forbids to fetch it; once with a "
            f"network: alm pull {repo}"
        )
    if "RepositoryNotFoundError" in kinds:
        return MissingFile(
            f"there is no model {repo.id} on {endpoint}, or it is private and the token may not "
            f"read it; {TOKEN}"
        )
    if "EntryNotFoundError" in kinds and "LocalEntryNotFoundError" not in kinds:
        # The manifest: other files are asked about first.
        return MissingFile(
            f"{repo} is no model that alm-edge exported: it holds no manifest.json; push one with: "
            f"alm push DIR {repo.id}"
        )
    if "HFValidationError" in kinds:
        return BadOption(f"{repo.id!r} is no name of a model on a hub: {printable(error, 200)}")
    status = getattr(getattr(error, "response", None), "status_code", 0)
    if status:
        return _refused(status, repo, endpoint)
    if isinstance(error, OSError) and error.errno in FULL:
        return HubFailed(f"there is no room for {repo}: {error.strerror}")
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        return HubFailed(f"{error.filename} cannot be written: {error.strerror}")
    if _is_http(error) or isinstance(error, OSError):
        why = printable(str(error).strip().split("\n")[0], 200) or type(error).__name__
        return Unreachable(
            f"{endpoint} does not answer about {repo.id} ({why}); what was fetched is kept: "
            "the same command goes on"
        )
    if isinstance(error, (ValueError, KeyError, TypeError)):  # of an answer that is no hub's
        why = printable(" ".join(str(error).split()), 200)
        return HubFailed(
            f"{endpoint} does not answer as a hub does about {repo.id} "
            f"({type(error).__name__}: {why}); is it one, or does a proxy answer?"
        )
    return None


def _refused(status: int, repo: Repo, endpoint: str) -> AlmError:
    if status == 401:
        return HubFailed(f"{endpoint} does not know the token that was sent for {repo.id}; {TOKEN}")
    if status == 403:
        return HubFailed(f"{endpoint} does not allow that for {repo.id} (403); {TOKEN}")
    if status == 429:
        return Unreachable(f"{endpoint} wants fewer requests (429); try again in some minutes")
    if status >= 500:
        return Unreachable(
            f"{endpoint} fails ({status}) for {repo.id}; try again later: the same command goes on"
        )
    return HubFailed(f"{endpoint} refuses the request for {repo.id} ({status})")


def _is_http(error: Exception) -> bool:
    return any(kind.__module__.partition(".")[0] in HTTP for kind in type(error).__mro__)
