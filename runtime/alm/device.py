"""What is known of a device, and the formulas that make milliseconds of it."""

from __future__ import annotations

from dataclasses import dataclass

GB = 1e9
GIB = 2**30
TERA = 1e12

# Where nothing was published: shares of a datasheet's figures that the measured Orins reach.
BANDWIDTH_REACHED = 0.93  # 94 % on Orin NX 16, 92 % on Orin Nano 8
COMPUTE_REACHED = 0.5  # of dense fp16: 50, 51 and 51 % on AGX Orin 64, Orin NX 16, Orin Nano 8
NOT_HIDDEN = 0.65  # of reading the weights in a prompt: 56, 63 and 86 % on the same

VISIBLE = 0.93  # of the module's memory that Linux sees: 7.4 GiB of 8; the rest is carved out
SYSTEM = 1.0 * GB  # that the system keeps, without a desktop


@dataclass(frozen=True)
class Device:
    """A device as data. Formulas and where they come from: docs/plan.md."""

    title: str
    memory: int  # bytes of the module, which processor and GPU share
    step_ms: float  # of each token, beside reading: launches and the host
    step_rate: float  # bytes a second that decoding reads
    prompt_ms: float  # of each prompt, beside reading and computing
    prompt_ms_per_gb: float  # of weights: the part of reading that computing does not hide
    compute: float  # operations a second of large fp16 products: encoders and prompts
    source: str  # of these numbers, in a sentence
    compute_int4: float = 0.0  # the same of prompts whose weights are int4; 0: no different
    remark: str = ""  # what else its owner should know
    targets: tuple[str, ...] = ("trt-jetpack6", "trt-jetpack7")  # that engines are built for there
    # Error bars, as shares of the milliseconds.
    step_error: float = 0.10  # the fitted figures, all of one precision, lie within 0.05
    prompt_error: float = 0.10
    encoder_error: float = 0.20

    @property
    def usable(self) -> float:
        """Bytes that are left for a program."""
        return VISIBLE * self.memory - SYSTEM

    def step(self, read: float) -> float:
        """Milliseconds of a token for which `read` bytes of weights and cache are read."""
        return self.step_ms + read / self.step_rate * 1e3

    def prompt(self, read: float, operations: float, int4: bool = True) -> float:
        """Milliseconds of a prompt: weights of `read` bytes, so many operations in the layers."""
        rate = self.compute_int4 if int4 and self.compute_int4 else self.compute
        return self.prompt_ms + read / GB * self.prompt_ms_per_gb + operations / rate * 1e3

    def encode(self, read: float, operations: float) -> float:
        """Milliseconds of an encoder: computing or reading its weights, whichever is slower."""
        return max(operations / self.compute, read / self.step_rate) * 1e3
