"""Codes that make up for each other's errors, as GPTQ chooses them (arXiv 2210.17323).

What a product loses is (W - Q) H (W - Q)' with H the mean of x x' over its inputs. Columns are
rounded one after another, and what a column loses is taken off the columns behind it, by as much as
the inputs hang together: with U'U the inverse of H, U upper triangular, an error e of column i is
e U[i, j] / U[i, i] of column j. Where inputs do not hang together, that is rounding to the nearest.
"""

from __future__ import annotations

import torch
from torch import Tensor

from exporters.levers import _nbits
from exporters.levers._nbits import Quantized, Scheme

DAMPING = 0.01  # of the mean of H's diagonal, added to it: GPTQ's
COLUMNS = 128  # whose errors reach the columns behind them in one product
ROWS = 1024  # rounded at a time


class Compensation:
    """How errors of the columns of one input are made up for."""

    def __init__(self, second: Tensor, loudest_first: bool = True) -> None:
        """`second` is H float64 [in, in].

        With `loudest_first` columns are rounded by falling size of their input, else in their
        order. Scales are of the blocks as they lie, so what is stored has the same form.
        """
        size = second.diagonal()
        self.idle = not bool(torch.isfinite(second).all()) or float(size.mean()) <= 0
        if self.idle:
            return
        order = torch.argsort(size, descending=True, stable=True)
        self.order = order if loudest_first else torch.arange(len(size))
        damped = second[self.order][:, self.order]
        damped.diagonal().add_(DAMPING * size.mean())
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
        self.upper = torch.linalg.cholesky(inverse, upper=True).float()


def quantize(matrix: Tensor, scheme: Scheme, compensation: Compensation) -> Quantized:
    """Codes of W' [out, in], of any float dtype, in the same form as `_nbits.quantize` has them.

    Scales and zero points are those of the matrix as it is, fixed beforehand.
    """
    if compensation.idle:  # nothing was heard: all inputs were zero, or not finite
        return _nbits.quantize(matrix, scheme)
    pieces = [
        _nbits.stored(*_rounded(piece.float(), scheme, compensation), scheme)
        for piece in matrix.split(ROWS)
    ]
    arrays = zip(*pieces, strict=True)
    return Quantized(*(torch.cat([torch.from_numpy(a) for a in each]).numpy() for each in arrays))


def _rounded(
    matrix: Tensor, scheme: Scheme, compensation: Compensation
) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, scales and zero points of some rows, as `_nbits.nearest` gives them."""
    blocks = _nbits.blocked(matrix, scheme.block)
    codes, scale, zero = _nbits.nearest(blocks, scheme)
    flat, order, upper = codes.flatten(1), compensation.order, compensation.upper
    of_block = order // scheme.block
    step, middle = scale[:, of_block, 0], zero[:, of_block, 0]  # [out, in], in that order
    safe, top = step.where(step != 0, 1.0), 2**scheme.bits - 1
    left = matrix[:, order]
    for first in range(0, len(order), COLUMNS):
        last = min(first + COLUMNS, len(order))
        errors = torch.empty(len(matrix), last - first)
        for i in range(first, last):
            q = (left[:, i] / safe[:, i] + middle[:, i]).round().clamp(0, top)
            flat[:, order[i]] = q
            lost = left[:, i] - (q - middle[:, i]) * step[:, i]
            errors[:, i - first] = error = lost / upper[i, i]
            left[:, i + 1 : last] -= error[:, None] * upper[i, i + 1 : last]
        left[:, last:] -= errors @ upper[first:last, last:]
    return flat.view_as(codes), scale, zero
