"""The basis of the streaming solver: a growing block Krylov space, and projections of the images on it."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg

from ..errors import ImagesChangedError
from ..linalg import krylov
from ..linalg.certificate import Residuals
from ..linalg.tiles import TERMS
from ..passes.runner import PassRunner, no_result

__all__ = ["Centre", "KrylovBasis"]

_CHANGED = 1e-2  # relative disagreement of two reads, far beyond what rounding makes


class Centre(NamedTuple):
    """A shift (p,) that leaves integers exact, the rest of the mean (p,), and the dtype of products; float64 both."""

    shift: np.ndarray
    drift: np.ndarray
    dtype: np.dtype

    @classmethod
    def of(cls, mean: np.ndarray, integers: bool, dtype: np.dtype) -> Centre:
        """Split a mean."""
        shift = np.rint(mean) if integers else mean.astype(dtype).astype(np.float64)
        return cls(shift, mean - shift, dtype)


class KrylovBasis:
    """A growing orthonormal basis W of images, the centred stack's projections on it, and their inner products.

    Parameters
    ----------
    runner : PassRunner
        Reads the stack, or has it in memory.
    rows : ndarray of shape (m, p)
        Span the first block, strongest first.
    scale : ndarray of shape (m,)
        RowCounts below which rows are rounding, over 30 eps.
    room : int
        Rows that may be stored: a basis of three blocks, at least, and the products of one.
    centre : Centre
    batch_bytes : int
        Of raw images that make a product worth its merging.

    Attributes
    ----------
    size : int
        Rows of the basis.
    n_products : int
        Blocks multiplied so far.
    block : int
        Rows that the first block was made of.
    dropped : float
        A bound of C within what restarts took out of the basis.
    """

    def __init__(
        self, runner: PassRunner, rows: np.ndarray, scale: np.ndarray, room: int, centre: Centre, batch_bytes: int = 0
    ):
        self._runner, self._batch_bytes = runner, batch_bytes
        self._centre = centre
        self._most = min(runner.n_images - 1, runner.n_pixels)
        self._rows = np.empty((max(room, len(rows)), runner.n_pixels), rows.dtype)
        self._rows[: len(rows)] = rows
        self.size = self._last = self.n_products = 0
        self.block, self.dropped = len(rows), 0.0
        self._inner = np.empty((0, 0))  # of the basis: W W'
        self._products = np.empty((0, 0))  # of its image: W C W'
        self._forgotten = np.empty((0, 0))  # of what C W has outside of W and of the last products
        self._scores = np.empty((runner.n_images, len(self._rows)), centre.dtype, order="F")  # a column a row
        inner = self._sweep(len(rows))
        self._append(len(rows), inner, self._independent(inner, scale))

    def multiply(self) -> None:
        """Project the images on the last block and form what C makes of it: one read, if they are not kept."""
        size, last = self.size, self._last
        Y = self._read()
        self.n_products += 1
        self._scores[:, size - last : size] = Y
        products = np.empty((size, size))
        products[: size - last, : size - last] = self._products
        for a in range(0, size, last):  # in strips: no float64 copy of all scores
            b = min(a + last, size)
            products[a:b, size - last :] = self._scores[:, a:b].T.astype(np.float64) @ Y
        products[size - last :] = products[:, size - last :].T
        coefficients = scipy.linalg.solve(self._inner, products[:, size - last :], assume_a="pos")
        self._left = self._sweep(last, coefficients.T, offset=(self._sums, self._centre.drift))
        outside = self._left[-last:]
        self._norms = np.sqrt(np.einsum("ij,ij->j", coefficients, coefficients) + np.diag(outside))
        inside = np.abs(self._left[:size]).max(initial=0)
        if inside > _CHANGED * (products.diagonal().max() + np.finfo(float).tiny):
            raise ImagesChangedError
        self._products = products
        self._ritz = krylov.ritz(self._inner, products)

    @property
    def eps(self) -> float:
        """Rounding of a product."""
        return float(np.finfo(self._centre.dtype).eps)

    @property
    def stored_eps(self) -> float:
        """Rounding of the rows."""
        return float(np.finfo(self._rows.dtype).eps)

    @property
    def restart_error(self) -> float:
        """Relative error of Ritz values after a restart: its vectors are rounded, and their products are not."""
        return 8 * self.stored_eps if self.dropped else 0.0

    @property
    def noise(self) -> float:
        """Ritz value up to which there is nothing but rounding."""
        return max(len(self._scores) * float(np.finfo(np.float64).eps), (8 * self.eps) ** 2) * float(self.values[0])

    @property
    def values(self) -> np.ndarray:
        """Ritz values, descending."""
        return self._ritz.values

    def image_norms(self, k: int) -> np.ndarray:
        """Norms (k,) of what images of the leading Ritz vectors are summed up from, for its rounding."""
        squares = np.einsum("ij,ij->j", self._products, self._products)
        return np.sqrt(squares @ self._ritz.coefficients[:, :k] ** 2)

    def forgotten_norms(self, k: int) -> np.ndarray:
        """Norms (k,) of what residuals of the leading Ritz vectors had in rows that did not come into the basis."""
        coefficients = self._ritz.coefficients[:, :k]
        return np.sqrt(np.maximum(np.einsum("ij,ij->j", coefficients, self._forgotten @ coefficients), 0))

    def residuals(self) -> Residuals:
        """Ritz values, and what C makes of Ritz vectors outside of the basis."""
        last = self._last
        return Residuals(self.values, self._ritz.coefficients[-last:], self._left[-last:])

    def scores(self, k: int) -> np.ndarray:
        """Projections (n, k) of the centred images on the leading Ritz vectors."""
        coefficients = self._ritz.coefficients[:, :k].astype(self._scores.dtype)
        return self._scores[:, : len(coefficients)] @ coefficients

    def vectors(self, k: int) -> np.ndarray:
        """Leading Ritz vectors in rows (k, p)."""
        out = np.empty((k, self._runner.n_pixels), self._rows.dtype)
        self._combine(self._ritz.coefficients[:, :k].T, out)
        return out

    def grow(self) -> bool:
        """Take what the last products have outside of the basis as its next block; False where there is nothing."""
        last, turn = self._last, self._independent(self._left, self._norms)
        if not len(turn):
            return False
        outside = self._left[self.size :]
        taken = turn @ outside
        self._forgotten[-last:, -last:] = outside - taken.T @ taken
        if self.size + max(last, 2 * len(turn)) > len(self._rows):
            self._restart(len(self._rows) - 2 * last)
        self._append(last, self._left, turn)
        return True

    def _independent(self, inner: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Weights of the rows after the basis that make its next block, which has no more rows than are dimensions."""
        return krylov.independent(inner[self.size :], scale, self.stored_eps)[: self._most - self.size]

    def _append(self, n_new: int, inner: np.ndarray, turn: np.ndarray) -> None:
        """Orthonormalise the rows after the basis, whose inner products with it and each other are `inner`."""
        n = len(turn)
        inner = self._sweep(n_new, inner[: self.size].T, turn)
        # Once is not enough: what rounding leaves of the old rows goes in a second round.
        factor = scipy.linalg.cholesky(inner[self.size :], lower=True)
        turn = scipy.linalg.solve_triangular(factor, np.eye(n), lower=True)
        inner = self._sweep(n, inner[: self.size].T, turn)
        size = self.size + n
        whole = np.empty((size, size))
        whole[: self.size, : self.size] = self._inner
        whole[:, self.size :] = inner
        whole[self.size :, : self.size] = inner[: self.size].T
        self._forgotten = np.pad(self._forgotten, (0, n))
        self._inner, self.size, self._last = whole, size, n

    def _restart(self, keep: int) -> None:
        """Shrink the basis to its leading Ritz vectors; their residuals stay in the span of the next block."""
        coefficients, last = self._ritz.coefficients[:, :keep], self._last
        keep = coefficients.shape[1]
        self.dropped += float(self.values[keep]) if keep < self.size else 0.0
        weights = np.zeros((keep + last, self.size + last))
        weights[:keep, : self.size] = coefficients.T
        weights[keep:, self.size :] = np.eye(last)
        self._combine(weights, self._rows)
        self._left = np.vstack([coefficients.T @ self._left[: self.size], self._left[self.size :]])
        turn = coefficients.astype(self._scores.dtype)
        for a in range(0, len(self._scores), TERMS):  # in strips: no copy of all scores
            strip = self._scores[a : a + TERMS]
            strip[:, :keep] = strip[:, : len(turn)] @ turn
        self._forgotten = coefficients.T @ self._forgotten @ coefficients
        self._products, self._inner = np.diag(self.values[:keep]), np.eye(keep)
        self.size = keep

    def _read(self) -> np.ndarray:
        """Projections (n, last); the products with them go after the basis."""
        runner, (shift, drift, dtype) = self._runner, self._centre
        V = self._rows[self.size - self._last : self.size]
        target = self._rows[self.size : self.size + self._last]
        along = np.einsum("ij,j->i", V, drift)
        if runner.blocks is None:
            image = runner.run(
                partial(krylov.stream, dtype=dtype),
                krylov.merge_images,
                shared=(V, shift, along),
                partial_bytes=V.nbytes,
                batch_bytes=self._batch_bytes,
                label="components",
            )
            target[:] = image.products
            Y = np.concatenate(image.scores).astype(np.float64)
        else:
            Y = runner.run_pixels(partial(krylov.project, V=V, shift=shift, dtype=dtype), np.add) - along
            target[:] = 0
            runner.run_pixels(partial(krylov.gather, scores=Y, shift=shift, dtype=dtype, out=target), no_result)
        self._sums = Y.sum(axis=0)  # 0 but for rounding; what is left stands in the products too
        Y -= self._sums / len(Y)
        return Y

    def _sweep(self, n_new: int, along: Any = None, turn: Any = None, offset: Any = None) -> np.ndarray:
        along = np.zeros((n_new, self.size)) if along is None else along
        step = partial(
            krylov.sweep,
            n_old=self.size,
            n_new=n_new,
            along=along,
            turn=turn,
            offset=offset,
            dtype=self._centre.dtype,
        )
        return self._runner.run_pixels(step, np.add, [self._rows])

    def _combine(self, weights: np.ndarray, out: np.ndarray) -> None:
        step = partial(krylov.combine, weights=weights, dtype=self._centre.dtype, out=out)
        self._runner.run_pixels(step, no_result, [self._rows])
