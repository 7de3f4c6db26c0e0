"""What a certificate says, against the singular values that NumPy finds in float64."""

import numpy as np

from tests.lib.stacks import reference

NEAR = 2  # a converged variance may be wrong by this many times `tol`: the estimates are no bounds


def check_bracket(pca, X):
    """Complaints about the certificate of an ImagePCA fitted to all of X: none if everything it says is true.

    Brackets have to be finite, in order, and to contain the truth, with no tolerance. `captured_variance` has to be
    exact where it claims to be. A fit that claims to have converged has to be within `tol`. It may report singular
    values below 30 eps of the largest as 0, and in float64 variances below n eps.
    """
    ref, n, k, said = reference(X), len(X), pca.n_components_, pca.certificate_
    truth, degrees = ref.explained_variance(k), max(n - 1, 1)
    lower, upper = said.explained_variance_bounds
    low, high = said.deficit_bounds
    missed = max(truth.sum() - said.captured_variance, 0.0)  # rounding can capture a little more than there is
    eps = np.finfo(pca.components_.dtype).eps
    rounding = 64 * eps * truth[0]
    centred = np.asarray(X, np.float64).reshape(n, -1) - ref.mean
    along = ((centred @ pca.components_.T.astype(np.float64)) ** 2).sum(axis=0) / degrees
    along = float(along[pca.singular_values_ > 0].sum())
    found, noise = pca.explained_variance_, max((30 * eps) ** 2, 2 * n * np.finfo(np.float64).eps)
    real = truth > noise * truth[0]
    claims = {
        "finite": np.isfinite([*lower, *upper, low, high]).all(),
        "in order": np.all(lower <= upper) and 0 <= low <= high,
        "lower bounds": np.all(lower <= truth),
        "upper bounds": np.all(truth <= upper),
        "lower bound of the deficit": low <= missed,
        "upper bound of the deficit": missed <= high,
        "total": abs(said.total_variance - ref.total / degrees) <= 64 * eps * ref.total / degrees,
        "captured": said.captured_variance <= along + rounding,
        "captured exactly": not said.is_exact or abs(said.captured_variance - along) <= rounding,
        "converged": not said.converged or np.all(np.abs(found - truth)[real] <= NEAR * pca.tol * truth[real]),
    }
    return [claim for claim, true in claims.items() if not true]


def check_exact(pca, X):
    """Complaints about an ImagePCA fitted to all of X by an exact solver.

    Singular values are right to 1e-5 or 1e-10 of themselves, and to what float64 leaves of the largest: 1e-12 of it, or
    sqrt(4 n eps) where the Gram solver squares them. The images vary along the components as much as is said.
    """
    ref, n, k = reference(X), len(X), pca.n_components_
    eps, double = np.finfo(pca.components_.dtype).eps, np.finfo(np.float64).eps
    found, truth = pca.singular_values_, np.pad(ref.singular_values, (0, k))[:k]
    near = (1e-5 if eps > 1e-10 else 1e-10) * truth
    floor = np.sqrt(4 * n * double) * truth[0]
    centred = np.asarray(X, np.float64).reshape(n, -1) - ref.mean
    along = np.linalg.norm(centred @ pca.components_.T.astype(np.float64), axis=0)
    claims = {
        "singular values": np.all(np.abs(found - truth) <= near + floor),
        "variances": np.allclose(pca.explained_variance_, found**2 / max(n - 1, 1), rtol=1e-12, atol=0),
        "variance along the components": np.all(np.abs(along - found) <= near + floor + 8 * eps * truth[0]),
    }
    return [claim for claim, true in claims.items() if not true]
