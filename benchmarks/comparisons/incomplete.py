"""What do masks, weights and missing pixels cost in ImagePCA beside a plain fit, and how exact are they?

Takes three minutes, 0.5 GB of disk, 3 GB of memory. Trial: --n 300 --size 32 --rounds 1

Costs: ten components of --n planted images of --size x --size, uint8, in one zarr; with missing pixels the same images
as float32, of which NaN hides 40 % at random. Each fit is a process of its own, in rounds; the run of median CPU time
is shown. Ratios are to the plain fit of the same dtype. Memory is over imports. Oracles are scikit-learn's PCA in
float64 (arpack): of the columns inside the mask, of repeated images, of columns filled in by SimpleImputer.

Missing pixels: 400 images of 32 x 32 of eight modes, where pixels are hidden at random (40 %) or in three squares
(about 28 %). The angle is the largest between the components found and those of the complete images. Beside
ImagePCA: least squares over what is observed, alternated in memory until they have converged, and the PCA of
statsmodels with missing="fill-em", by default and until it has converged (pip install statsmodels).
"""

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from scipy.linalg import subspace_angles

from ..lib.command import add_stack_options, command_parser, given_or_temporary
from ..lib.measure import Answer, Measurement, Workflow, add_workflow_options, measure, ran_workflow
from ..lib.pages import PAGE, machine_and_versions, markdown_table, replace_between_markers
from ..lib.stacks import Source, write_planted
from ..lib.threads import in_threads

MODULE = "benchmarks.comparisons.incomplete"
RESULTS = PAGE.parent / "incomplete.json"
K, SMALL_K = 10, 4
CHUNK = 50  # images
HIDDEN = 0.4  # share of the pixels
GREY = 128
SMALL_N, SMALL_SIZE, SMALL_MODES = 400, 32, 8


# What a fit gets ---------------------------------------------------------------------------------------


def disc(size: int) -> np.ndarray:
    """Return a mask of half of the pixels."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    return y**2 + x**2 < size**2 / (2 * np.pi)


def weights_of(n: int) -> np.ndarray:
    """Return weights of 1, 2 and 3."""
    return np.random.default_rng(0).integers(1, 4, n)


def hide(path: Path, target: Path) -> None:
    """Write a stack again as float32, with NaN in place of `HIDDEN` of the pixels, unless it is there already."""
    if target.exists():
        return
    source = zarr.open_array(path, mode="r")
    images = zarr.create_array(target, shape=source.shape, chunks=source.chunks, dtype="float32", compressors=None)

    def write(start: int) -> None:
        block = source[start : start + CHUNK].astype(np.float32)
        block[np.random.default_rng((2, start)).random(block.shape) < HIDDEN] = np.nan
        images[start : start + CHUNK] = block

    in_threads(write, range(0, source.shape[0], CHUNK))


# Fits --------------------------------------------------------------------------------------------------


def image_pca(mask: bool = False, weights: bool = False, grey: bool = False, **options: Any) -> Workflow:
    """Fit ImagePCA to the zarr, lazily; if `grey`, what is missing is grey."""
    import dask.array as da
    import distributed  # noqa: F401 - dask.compute imports it late

    from imgstack_ml import ImagePCA, open_stack

    def run(path: Path) -> Answer:
        stack = open_stack(path)
        n, size = stack.shape[:2]
        if grey:
            stack = da.where(da.isnan(stack.data), np.float32(GREY), stack.data)
        pca = ImagePCA(K, mask=disc(size) if mask else None, random_state=0, **options)
        planned = pca.plan(stack).peak_bytes
        pca.fit(stack, sample_weight=weights_of(n) if weights else None)
        return {
            "variance": pca.explained_variance_,
            "components": pca.components_,
            "reads": np.array(pca.n_passes_),
            "planned": np.array(planned),
        }

    return run


WHOLE: dict[str, Callable[[], Workflow]] = {
    "plain": image_pca,
    "a mask of half of the pixels": partial(image_pca, mask=True),
    "weights of 1, 2 and 3": partial(image_pca, weights=True),
}
HIDING: dict[str, Callable[[], Workflow]] = {
    "plain, float32": partial(image_pca, grey=True),
    'missing="mean"': partial(image_pca, missing="mean"),
    'missing="als"': partial(image_pca, missing="als"),
}
FITS = WHOLE | HIDING


def oracle(name: str, path: Path) -> np.ndarray | None:
    """Return the variances that scikit-learn finds in float64, or None where there is no such oracle."""
    from sklearn.decomposition import PCA
    from sklearn.impute import SimpleImputer

    if name == 'missing="als"':
        return None
    source = Source(path)
    rows = np.concatenate([block for _, block in source.blocks()]).astype(np.float64)
    if "mask" in name:
        rows = rows[:, disc(source.image_shape[0]).ravel()]
    elif "weights" in name:
        rows = np.repeat(rows, weights_of(len(rows)), axis=0)
    elif "mean" in name:
        rows = SimpleImputer(copy=False).fit_transform(rows)
    elif "float32" in name:
        rows[np.isnan(rows)] = GREY
    return PCA(K, svd_solver="arpack", copy=False, random_state=0).fit(rows).explained_variance_


def compare(folder: Path, n: int, size: int, rounds: int) -> list[dict[str, Any]]:
    """Measure all fits, round by round; return a row for each."""
    whole = folder / f"planted-grey-{n}-{size}.zarr"
    hidden = folder / f"planted-grey-{n}-{size}-hidden.zarr"
    write_planted(whole, n, (size, size), "uint8", CHUNK)
    hide(whole, hidden)
    paths = dict.fromkeys(WHOLE, whole) | dict.fromkeys(HIDING, hidden)
    runs: dict[str, list[Measurement]] = {name: [] for name in FITS}
    for _ in range(rounds):
        for name, done in runs.items():
            done.append(measure(MODULE, name, paths[name]))
    rows = []
    for name, done in runs.items():
        run = sorted(done, key=lambda run: run.cpu_seconds)[len(done) // 2]
        truth = oracle(name, paths[name])
        error = None if truth is None else float(np.abs(run.answer["variance"] / truth - 1).max())
        figures = {"seconds": run.seconds, "cpu": run.cpu_seconds, "peak": run.peak - run.baseline, "error": error}
        figures |= {"planned": float(run.answer["planned"]) / 1e6, "reads": float(run.answer["reads"])}
        rows.append({"name": name, **figures})
        print(rows[-1], flush=True)
    return rows


# Missing pixels ----------------------------------------------------------------------------------------


def small_stack(squares: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return complete rows of a few modes and noise, and the same rows with NaN at random or in squares."""
    rng = np.random.default_rng(0)
    p = SMALL_SIZE**2
    modes = np.linalg.qr(rng.standard_normal((p, SMALL_MODES)))[0].T
    rows = 100 + (rng.standard_normal((SMALL_N, SMALL_MODES)) * 30 * 0.75 ** np.arange(SMALL_MODES)) @ modes
    rows += 0.3 * rng.standard_normal((SMALL_N, p))
    hidden = rng.random((SMALL_N, p)) < HIDDEN
    if squares:
        hidden = np.zeros((SMALL_N, SMALL_SIZE, SMALL_SIZE), bool)
        for image in hidden:
            for y, x in rng.integers(0, SMALL_SIZE - 10, (3, 2)):
                image[y : y + 11, x : x + 11] = True
        hidden = hidden.reshape(SMALL_N, p)
    return rows, np.where(hidden, np.nan, rows)


def least_squares(rows: np.ndarray, rounds: int = 30) -> np.ndarray:
    """Alternate NumPy's least squares of images and of pixels; return the subspace in rows."""
    seen = ~np.isnan(rows)
    mean = np.nanmean(rows, axis=0)
    basis = np.linalg.svd(np.where(seen, rows - mean, 0), full_matrices=False)[2][:SMALL_K]
    for _ in range(rounds):
        scores = [np.linalg.lstsq(basis[:, s].T, (x - mean)[s])[0] for x, s in zip(rows, seen, strict=True)]
        ones = np.column_stack([scores, np.ones(len(rows))])
        solved = np.array([np.linalg.lstsq(ones[s], x[s])[0] for x, s in zip(rows.T, seen.T, strict=True)])
        basis, mean = solved[:, :-1].T, solved[:, -1]
    return basis


def statsmodels_pca(rows: np.ndarray, **options: Any) -> np.ndarray | None:
    """Return the components of statsmodels' PCA of images with missing pixels; None where it is not installed."""
    try:
        from statsmodels.multivariate.pca import PCA
    except ImportError:
        return None
    return PCA(rows, SMALL_K, standardize=False, missing="fill-em", **options).eigenvecs.T


def angles(squares: bool) -> dict[str, Any]:
    """Return the angles of all answers to the components of the complete images, in radians, and what is hidden."""
    from imgstack_ml import ImagePCA

    rows, hidden = small_stack(squares)
    truth = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)[2][:SMALL_K]
    found = {
        'ImagePCA(missing="als")': ImagePCA(SMALL_K, missing="als").fit(hidden).components_,
        "least squares, converged": least_squares(hidden),
        "statsmodels fill-em": statsmodels_pca(hidden),
        "statsmodels fill-em, converged": statsmodels_pca(hidden, max_em_iter=300, tol_em=1e-9),
        'ImagePCA(missing="mean")': ImagePCA(SMALL_K, missing="mean").fit(hidden).components_,
    }
    known = {name: float(subspace_angles(truth.T, V.T)[0]) for name, V in found.items() if V is not None}
    return {"how": "in squares" if squares else "at random", "hidden": float(np.isnan(hidden).mean()), **known}


# Tables ------------------------------------------------------------------------------------------------


def tables(results: dict[str, Any]) -> str:
    """Return both tables, and the machine."""
    rows = {row["name"]: row for row in results["rows"]}
    lines = []
    for name, row in rows.items():
        plain = rows["plain" if name in WHOLE else "plain, float32"]
        ratios = [f"{row[key] / plain[key]:.2f}" for key in ("seconds", "cpu")]
        error = "" if row["error"] is None else f"{row['error']:.0e}"
        lines.append([name, *ratios, f"{row['reads']:.0f}", f"{row['planned']:.0f}", f"{row['peak']:.0f}", error])
    columns = ("", "× time", "× CPU", "reads", "planned MB", "peak MB", "error of variances")
    cases = results["angles"]
    shares = [f"{case['hidden']:.0%} hidden {case['how']}" for case in cases]
    names = [name for name in cases[0] if name not in ("how", "hidden")]
    found = [[name, *(f"{case[name]:.4f}" for case in cases)] for name in names]
    return "\n\n".join(
        [
            f"**{results['title']}**",
            markdown_table(columns, lines),
            f"**Largest angle to the components of complete images, {SMALL_N} of {SMALL_SIZE} × {SMALL_SIZE}**",
            markdown_table(("", *shares), found),
            results["machine"],
        ]
    )


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser(MODULE, __doc__)
    add_stack_options(parser, 2000)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each fit (default: 3)")
    parser.add_argument("--docs", action="store_true", help="write into docs/benchmarks.md")
    add_workflow_options(parser, FITS)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure all fits, and the angles."""
    given = arguments(argv)
    if ran_workflow(given, FITS):
        return
    with given_or_temporary(given.folder) as folder:
        rows = compare(folder, given.n, given.size, given.rounds)
    title = f"{given.n:,} images of {given.size} × {given.size}, uint8 and float32, each in one zarr"
    results = {"title": title, "rows": rows, "angles": [angles(False), angles(True)], "machine": machine_and_versions()}
    if given.docs:
        RESULTS.write_text(json.dumps(results, indent=1))
    text = tables(results)
    print(f"\n{text}")
    if given.docs:
        replace_between_markers(PAGE, "incomplete", text)


if __name__ == "__main__":
    main()
