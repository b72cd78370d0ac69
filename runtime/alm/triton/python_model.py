"""Answers about sound, by alm-edge: what Triton's python backend runs.

`alm pack --triton` copies this file as 1/model.py beside the folder that it opens, 1/model. The
Python of the server needs the package `alm`: pip install 'alm-edge[ort]'.
"""

from __future__ import annotations

from typing import Any


class TritonPythonModel:
    """One process of the answering model; Triton calls these methods and no others."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the folder; what is wrong with it becomes the model's state in the server."""
        import triton_python_backend_utils as utils  # pyright: ignore[reportMissingImports]

        try:
            from alm.errors import AlmError
            from alm.triton.answering import Answering
        except ImportError as error:
            raise utils.TritonModelException(
                f"the Python of this Triton lacks {error.name or 'alm-edge'}; "
                "type there: pip install 'alm-edge[ort]'"
            ) from error
        try:
            self.answering = Answering(utils, args)
        except AlmError as error:
            raise utils.TritonModelException(str(error)) from error

    def execute(self, requests: list[Any]) -> list[Any] | None:
        """A response for each request, or None where they are sent as they come."""
        return self.answering.execute(requests)

    def finalize(self) -> None:
        """Wait for the answers that are being computed."""
        self.answering.close()
