"""The basis of the streaming solver: a growing block Krylov space, and the projections of the images on it.

C is the scatter matrix of the centred images, W the basis in rows. Musco & Musco 2015 (block Krylov); Yu et al. 2017
and Bjarkason 2019 (one read for both products).
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg

from ..errors import ImagesChangedError
from ..linalg import krylov
from ..linalg.certificate import Residuals
from ..linalg.ranges import Run
from ..linalg.tiles import TERMS, times_roots
from ..passes.runner import PassRunner, no_result

__all__ = ["Centre", "KrylovBasis"]

_ROUNDS = 4
_ORTHONORMAL = 1e-3  # inner products of new rows may differ by as much from those of orthonormal ones: they are known
_CHANGED = 1e-2  # two reads that differ by this share, far more than by rounding, saw different images


class Centre(NamedTuple):
    """The mean image in two parts, for products in `dtype`.

    Attributes
    ----------
    shift : ndarray of shape (p,), float64
        Rounded, so that integers minus the shift are exact in `dtype`.
    drift : ndarray of shape (p,), float64
        Mean minus shift, in units of 2^exponent.
    dtype : dtype
    exponent : int
        Of the units of products, see `linalg.scaling`.
    """

    shift: np.ndarray
    drift: np.ndarray
    dtype: np.dtype
    exponent: int = 0

    @classmethod
    def of(
        cls, mean: np.ndarray, integers: bool, dtype: np.dtype, rest: np.ndarray | float = 0.0, exponent: int = 0
    ) -> Centre:
        """Split a mean image ``mean + rest``, (p,) each."""
        shift = np.rint(mean) if integers else mean.astype(dtype).astype(np.float64)
        return cls(shift, np.ldexp((mean - shift) + rest, -exponent), dtype, exponent)


class KrylovBasis:
    """A growing orthonormal basis W, projections of the centred images on it, and the inner products W C W'.

    Parameters
    ----------
    runner : PassRunner
        Reads the stack, or has it in memory.
    rows : ndarray of shape (m, p)
        Rows that span the first block, strongest first.
    scale : ndarray of shape (m,)
        Norms with which rows were computed. A row shorter than 30 eps times that is rounding.
    room : int
        Rows that may be stored: at least three blocks of the basis, and the products of one.
    centre : Centre
    batch_bytes : int
        Bytes of raw images that make a partial result worth merging.

    Attributes
    ----------
    size : int
        Rows of the basis.
    n_products : int
        Blocks multiplied so far.
    block : int
        Rows given for the first block.
    rounded : float
        Bound of B'B outside of the first block, B being the rows given: those that are rounding are left out.
    dropped : float
        Bound of C on the directions that restarts took out of the basis.
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
        self._inner = np.empty((0, 0))  # W W'
        self._products = np.empty((0, 0))  # W C W'
        # Inner products of the parts of C W that are neither in W nor in the last products.
        self._forgotten = np.empty((0, 0))
        self._scores = np.empty((runner.n_images, len(self._rows)), centre.dtype, order="F")
        inner = self._sweep(len(rows))
        turn = self._independent(inner, scale)
        self.rounded = (len(rows) - len(turn)) * (krylov.ROUNDING * self.stored_eps * float(scale.max())) ** 2
        self._append(len(rows), inner, turn)

    def multiply(self) -> None:
        """Multiply C by the last block: one read, or none if the images are in memory."""
        size, last = self.size, self._last
        Y = self._read()
        self.n_products += 1
        self._scores[:, size - last : size] = Y
        products = np.empty((size, size))
        products[: size - last, : size - last] = self._products
        for a in range(0, size, last):  # in strips, to avoid a float64 copy of all scores
            b = min(a + last, size)
            products[a:b, size - last :] = self._scores[:, a:b].T.astype(np.float64) @ Y
        products[size - last :] = products[:, size - last :].T
        coefficients = scipy.linalg.solve(self._inner, products[:, size - last :], assume_a="pos")
        # Products are as large as eigenvalues, and their squares can be beyond float32: they are in units of 2^e.
        self._exponent = e = int(np.frexp(products.diagonal()[-last:].max())[1])
        self._rows[size : size + last] *= np.ldexp(self._rows.dtype.type(1), -e)
        coefficients = np.ldexp(coefficients, -e)
        self._left = self._sweep(last, coefficients.T, offset=(np.ldexp(self._sums, -e), self._centre.drift))
        outside = self._left[-last:]
        self._norms = np.sqrt(np.einsum("ij,ij->j", coefficients, coefficients) + np.diag(outside))
        self._holds_left = True
        inside = np.ldexp(np.abs(self._left[:size]).max(initial=0), e)
        if inside > _CHANGED * (products.diagonal().max() + np.finfo(float).tiny):
            raise ImagesChangedError
        self._products = products
        self._ritz = krylov.ritz_pairs(self._inner, products)

    @property
    def run(self) -> Run:
        """What divides rows of the size of an image among threads."""
        return self._runner.run_pixels

    @property
    def eps(self) -> float:
        """Rounding of the products."""
        return float(np.finfo(self._centre.dtype).eps)

    @property
    def stored_eps(self) -> float:
        """Rounding of the stored rows."""
        return float(np.finfo(self._rows.dtype).eps)

    @property
    def restart_error(self) -> float:
        """Relative error of Ritz values after a restart: it rounds the vectors, but not their products."""
        return 8 * self.stored_eps if self.dropped else 0.0

    @property
    def noise(self) -> float:
        """Ritz value below which there is only rounding."""
        return max(len(self._scores) * float(np.finfo(np.float64).eps), (8 * self.eps) ** 2) * float(self.values[0])

    def rounding(self, k: int) -> np.ndarray:
        """Relative errors (k,) of the leading Ritz values that rounding can cause: of scores, eigh and stored rows."""
        values = np.maximum(self.values[:k], self.noise or 1.0)
        ratio = self.values[0] / values
        forgotten = self.forgotten_norms(k) / values
        return 8 * (self.eps * np.sqrt(ratio) + float(np.finfo(np.float64).eps) * ratio) + 2 * forgotten**2

    @property
    def values(self) -> np.ndarray:
        """Ritz values, descending."""
        return self._ritz.values

    def image_norms(self, k: int) -> np.ndarray:
        """Norms (k,) of C times the leading Ritz vectors, within the basis: their rounding is relative to these."""
        squares = np.einsum("ij,ij->j", self._products, self._products)
        return np.sqrt(squares @ self._ritz.coefficients[:, :k] ** 2)

    def forgotten_norms(self, k: int) -> np.ndarray:
        """Norms (k,) of the parts of residuals that were dropped as the basis grew, for the leading Ritz vectors."""
        coefficients = self._ritz.coefficients[:, :k]
        return np.sqrt(np.maximum(np.einsum("ij,ij->j", coefficients, self._forgotten @ coefficients), 0))

    def residuals(self) -> Residuals:
        """Residuals of the Ritz vectors: the parts of C times them outside of the basis."""
        last = self._last
        return Residuals(self.values, self._ritz.coefficients[-last:], np.ldexp(self._left[-last:], 2 * self._exponent))

    def along_residuals(self, vectors: np.ndarray) -> np.ndarray:
        """Sum (p,), over the leading Ritz vectors (k, p), of each times its residual, pixel by pixel.

        0 where what is outside of the basis is rounding, so that the basis could not grow.
        """
        p, last = vectors.shape[1], self._last
        found = np.zeros(p)
        if self._holds_left:
            weights = np.ldexp(self._ritz.coefficients[-last:, : len(vectors)].T, self._exponent)
            for a in range(0, p, TERMS):
                outside = self._rows[self.size : self.size + last, a : a + TERMS].astype(np.float64)
                found[a : a + TERMS] = np.einsum("ij,ij->j", weights @ outside, vectors[:, a : a + TERMS])
        return found

    def scores(self, k: int) -> np.ndarray:
        """Projections (n, k) of the centred images on the leading Ritz vectors."""
        coefficients = self._ritz.coefficients[:, :k].astype(self._scores.dtype)
        scores = self._scores[:, : len(coefficients)] @ coefficients
        return scores if self._runner.roots is None else scores / self._runner.roots[:, None]

    def vectors(self, k: int) -> np.ndarray:
        """Leading Ritz vectors in rows (k, p)."""
        out = np.empty((k, self._runner.n_pixels), self._rows.dtype)
        self._combine(self._ritz.coefficients[:, :k].T, out)
        return out

    def grow(self) -> bool:
        """Append the parts of the last products outside of the basis as its next block; False if there are none."""
        last, turn = self._last, self._independent(self._left, self._norms)
        if not len(turn):
            return False
        outside = self._left[self.size :]
        taken = turn @ outside
        self._forgotten[-last:, -last:] = np.ldexp(outside - taken.T @ taken, 2 * self._exponent)
        if self.size + max(last, 2 * len(turn)) > len(self._rows):
            self._restart(len(self._rows) - 2 * last)
        return self._append(last, self._left, turn)

    def _independent(self, inner: np.ndarray, scale: np.ndarray) -> np.ndarray:
        """Weights of the rows after the basis that make its next block, limited to the dimensions that are left."""
        return krylov.orthonormalising_weights(inner[self.size :], scale, self.stored_eps)[: self._most - self.size]

    def _append(self, n_new: int, inner: np.ndarray, turn: np.ndarray) -> bool:
        """Orthonormalise the rows after the basis and append them; return False if all are rounding.

        `inner` are their inner products with the basis and with each other, `turn` the weights that make the block.
        """
        size, self._holds_left = self.size, False
        inner = self._sweep(n_new, inner[:size].T, turn)
        # Twice is needed: rounding leaves parts of the old rows after the first time. Rows of which little else is
        # left need it once more, or are dropped.
        for _ in range(_ROUNDS):
            n, along = len(turn), inner[:size]
            turn = krylov.orthonormalising_weights(inner[size:] - along.T @ along, np.ones(n), self.stored_eps)
            inner = self._sweep(n, along.T, turn)
            if np.abs(inner - np.eye(size + len(turn), len(turn), k=-size)).max(initial=0) < _ORTHONORMAL:
                break
        n = len(turn)
        if not n:
            return False
        whole = np.empty((size + n, size + n))
        whole[:size, :size] = self._inner
        whole[:, size:] = inner
        whole[size:, :size] = inner[:size].T
        self._forgotten = np.pad(self._forgotten, (0, n))
        self._inner, self.size, self._last = whole, size + n, n
        return True

    def _restart(self, keep: int) -> None:
        """Shrink the basis to its `keep` leading Ritz vectors. Their residuals lie in the next block, which stays."""
        coefficients, last = self._ritz.coefficients[:, :keep], self._last
        keep = coefficients.shape[1]
        self.dropped += float(self.values[keep]) if keep < self.size else 0.0
        weights = np.zeros((keep + last, self.size + last))
        weights[:keep, : self.size] = coefficients.T
        weights[keep:, self.size :] = np.eye(last)
        self._combine(weights, self._rows)
        self._left = np.vstack([coefficients.T @ self._left[: self.size], self._left[self.size :]])
        turn = coefficients.astype(self._scores.dtype)
        for a in range(0, len(self._scores), TERMS):  # in strips, to avoid a copy of all scores
            strip = self._scores[a : a + TERMS]
            strip[:, :keep] = strip[:, : len(turn)] @ turn
        self._forgotten = coefficients.T @ self._forgotten @ coefficients
        self._products, self._inner = np.diag(self.values[:keep]), np.eye(keep)
        self.size = keep

    def _read(self) -> np.ndarray:
        """Project the images on the last block, (n, last); write C times the block into the rows after the basis."""
        runner, (shift, drift, dtype, exponent) = self._runner, self._centre
        V = self._rows[self.size - self._last : self.size]
        target = self._rows[self.size : self.size + self._last]
        along = np.einsum("ij,j->i", V, drift)
        if runner.blocks is None:
            image = runner.run(
                partial(krylov.both_products, dtype=dtype, exponent=exponent),
                krylov.merge_both_products,
                shared=(V, shift, along, runner.weights),
                partial_bytes=V.nbytes,
                batch_bytes=self._batch_bytes,
                label="components",
                divides=True,
            )
            target[:] = image.products
            Y = np.concatenate(image.scores).astype(np.float64)
        else:
            centred = dict[str, Any](shift=shift, dtype=dtype, exponent=exponent)
            Y = runner.run_pixels(partial(krylov.project, V=V, **centred), np.add) - along
            target[:] = 0
            times_roots(Y, runner.weights)
            weights = Y.copy()
            times_roots(weights, runner.weights)
            runner.run_pixels(partial(krylov.add_products, scores=weights, out=target, **centred), no_result)
        # Sums are 0 except for rounding, which the products contain as well.
        roots = runner.roots
        if roots is None:
            self._sums = Y.sum(axis=0)
            Y -= self._sums / len(Y)
        else:
            self._sums = roots @ Y
            Y -= np.multiply.outer(roots, self._sums / (roots @ roots))
        return Y

    def _sweep(self, n_new: int, along: Any = None, turn: Any = None, offset: Any = None) -> np.ndarray:
        along = np.zeros((n_new, self.size)) if along is None else along
        step = partial(
            krylov.orthogonalise_rows,
            n_old=self.size,
            n_new=n_new,
            along=along,
            turn=turn,
            offset=offset,
            dtype=self._centre.dtype,
        )
        return self._runner.run_pixels(step, np.add, [self._rows])

    def _combine(self, weights: np.ndarray, out: np.ndarray) -> None:
        step = partial(krylov.combine_rows, weights=weights, dtype=self._centre.dtype, out=out)
        self._runner.run_pixels(step, no_result, [self._rows])
