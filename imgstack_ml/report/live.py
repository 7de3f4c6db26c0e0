"""What the script of the page draws: scores, names and pictures of images, the mean and the components."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from math import isqrt
from os.path import commonprefix
from typing import Any, TypeAlias

import numpy as np

from ..inspection.channels import check_names, choose_panels
from ..inspection.pictures import common_limits, component_title, shrink, visible_channels
from ..inspection.pipelines import Route, find_channel_names, find_eigenimages, find_mask, find_route, hide_outside
from ..inspection.reduced import is_plain
from ..inspection.stacks import printable
from .evidence import Evidence
from .survey import Reconstruction, Survey

__all__ = ["MAX_SCORES", "as_json", "live_data"]

MAX_SCORES = 20_000  # images whose scores are on the page
_MAX_COMPONENTS = 24
_MAX_LABELS = 500  # with a name of their own
_MAX_LABEL_LENGTH = 60
# Bytes of names, components and pictures. In base64 they take a third more: with 20,000 scores, 6 MB together.
_NAME_BYTES = 800_000
_BASIS_BYTES = 800_000
_SHEET_BYTES = 1_500_000
_ALL_BYTES = 6_000_000
_SMALLEST_SHARE = 0.1
_SMALL_SHEET_BYTES = 300_000  # a sheet of pictures up to this size keeps every pixel
_SIDE = 96  # pixels of mean and components
_COLUMNS = 32  # of the sheet
_PERCENTILES = (0.5, 99.5)  # of the intensities that are drawn black and white
_MOST_PROBED = 2**27  # pixels
_TOLERANCE = 1e-3

# Channels of each picture that is drawn of an image: one for grey, or three for colours.
Panels: TypeAlias = list[list[int]]
# Of each of these pictures, the intensities that are drawn black and white.
Limits: TypeAlias = list[list[float]]


def live_data(
    estimator: Any, survey: Survey | None, evidence: Evidence, *, room: int = _ALL_BYTES
) -> dict[str, Any] | None:
    """Gather what the script of the page draws, as values that JSON can hold; None if there is nothing to draw.

    Arrays are in base64 and little-endian. Numbers are integers of 16 bits times a scale, finer than a screen shows.

    Parameters
    ----------
    estimator : ImagePCA or Pipeline
        Fitted.
    survey : Survey or None
        What the read of the stack found.
    evidence : Evidence
    room : int
        Bytes that the data and the script may take; with less than 6 MB there is less of everything.

    Returns
    -------
    dict or None
        ``titles``, ``sigma``: name and standard deviation of the first 24 components. ``basis``: mean and components
        as small pictures, or None if they are none. ``rows``: scores of the worst and best reconstructions, and
        their limits. ``plot``: scores, names and labels of at most 20,000 images, or None without scores.
        ``sheet``: pictures of at most 1000 of these, or None.
    """
    share = min(1.0, room / _ALL_BYTES)
    if share < _SMALLEST_SHARE:
        return None
    route = find_route(estimator)
    ratio = np.asarray(route.pca.explained_variance_ratio_)[:_MAX_COMPONENTS]
    sigma = _deviations(route.pca)[: len(ratio)]
    scores = None if evidence.scores is None else evidence.scores[:, : len(ratio)]
    thumbnails = {} if survey is None else survey.thumbnails
    shown = None if scores is None else _shown(scores, evidence.names, list(thumbnails), share)
    basis = _basis(estimator, route, sigma, share)
    some = list(thumbnails.values())[:: max(1, len(thumbnails) // 100)]
    names = find_channel_names(estimator)
    panels = _panels(some[0].shape, names) if some else []
    limits = _limits(some, panels)
    if basis is None and shown is None:
        return None
    found = [] if survey is None or basis is None else [*survey.worst, *survey.best]
    return {
        "titles": [component_title(number, share) for number, share in enumerate(ratio.tolist(), start=1)],
        "n_components": len(route.pca.components_),
        "sigma": sigma.tolist(),
        "basis": None if basis is None else _packed_basis(*basis, scores, sigma, [] if route.before else limits, names),
        "rows": [row for one in found for row in _rows(one, evidence.scores[one.position, : len(ratio)], names)],  # type: ignore[index]
        "plot": None if scores is None or shown is None else _plot(scores, shown, evidence),
        "sheet": _sheet(thumbnails, shown, panels, limits, share) if some and shown is not None else None,
    }


def as_json(data: dict[str, Any]) -> str:
    """Write data as JSON that may stand in a ``<script>``: no name in it can end the element, or begin a comment."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _deviations(pca: Any) -> np.ndarray:
    """Return the standard deviation of the scores on each component."""
    variance = np.asarray(pca.explained_variance_, dtype=np.float64)
    return np.sqrt(np.maximum((variance > 0) if getattr(pca, "whiten", False) else variance, 0.0))


def _rows(found: Reconstruction, scores: np.ndarray, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Describe the pictures of a reconstruction: its scores, and the panel and limits of each."""
    panels = _panels(found.image.shape, names)
    shown = [_with_channels(found.image)[np.newaxis, ..., panel] for panel in panels]
    limits = [list(map(float, common_limits(images))) for images in shown]
    return [{"scores": scores.tolist(), "panel": panel, "limits": limits[panel]} for panel in range(len(panels))]


def _panels(shape: tuple[int, ...], names: tuple[str, ...]) -> Panels:
    """Choose the pictures of an image of visible channels, as Displays do."""
    n_channels = shape[2] if len(shape) == 3 else 1
    known = check_names(names if len(names) == n_channels else None, shape)
    return [list(panel.positions or (0,)) for panel in choose_panels(shape, known)]


def _limits(pictures: Sequence[np.ndarray], panels: Panels) -> Limits:
    """Choose the intensities to be drawn black and white in each panel."""
    some = [_with_channels(picture) for picture in pictures]
    limits = []
    for panel in panels:
        values = np.concatenate([np.ma.compressed(one[..., panel]) for one in some])
        limits.append(np.percentile(values.astype(np.float64), _PERCENTILES).tolist())
    return limits


def _with_channels(picture: np.ndarray) -> np.ndarray:
    """Return a picture as (height, width, n_channels)."""
    return picture[..., np.newaxis] if picture.ndim == 2 else picture


def _basis(estimator: Any, route: Route, sigma: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray] | None:
    """Shrink the mean (h, w, c) and the components (k, h, w, c): their sums, by scores, are what `route` reconstructs.

    None if they are no images, or if their sums are something else.
    """
    try:
        components, mean = find_eigenimages(estimator, len(sigma))
    except ValueError:
        return None
    inside = find_mask(estimator)
    n_channels = visible_channels(np.empty((1, 1, 1, *mean.shape[2:]))).size
    side = min(_SIDE, isqrt(int(share * _BASIS_BYTES) // (2 * n_channels * (len(sigma) + 1))))

    def small(image: np.ndarray) -> np.ndarray:
        return _with_channels(shrink(visible_channels(image[np.newaxis]), side)[0]).astype(np.float64)

    def reconstructed(*weights: float) -> np.ndarray:
        whole = np.zeros((1, len(route.pca.components_)))
        whole[0, : len(weights)] = weights
        return small(hide_outside(np.asarray(route.reconstruct(whole)), inside)[0])

    # One by one: images can be large. A component of whitened scores is as long as their standard deviations were.
    lengths = np.sqrt(route.pca.explained_variance_) if getattr(route.pca, "whiten", False) else np.ones(len(sigma))
    mean_, parts = small(mean), [small(image) * length for image, length in zip(components, lengths, strict=False)]
    if is_plain(route):
        return mean_, np.ma.stack(parts)
    target = reconstructed(*sigma)
    if not _adds_up(mean_, parts, sigma, target) and mean.size * len(sigma) < _MOST_PROBED:  # as after a StandardScaler
        mean_ = reconstructed(0)
        unit = np.diag(np.where(sigma > 0, sigma, 1))
        parts = [(reconstructed(*row) - mean_) / row.max() for row in unit]
    return (mean_, np.ma.stack(parts)) if _adds_up(mean_, parts, sigma, target) else None


def _adds_up(mean: np.ndarray, parts: list[np.ndarray], weights: np.ndarray, target: np.ndarray) -> bool:
    """Whether the mean plus a weighted sum of components is the target, to a thousandth of that sum."""
    if mean.shape != target.shape:
        return False
    change = np.ma.filled(sum(weight * part for weight, part in zip(weights, parts, strict=True)), 0)
    error = np.abs(np.ma.filled(mean - target, 0) + change).max()
    return bool(error <= _TOLERANCE * np.abs(change).max() + 1e-5 * np.abs(mean).max())


def _packed_basis(
    mean: np.ndarray,
    components: np.ndarray,
    scores: np.ndarray | None,
    sigma: np.ndarray,
    limits: Limits,
    names: tuple[str, ...],
) -> dict[str, Any]:
    """Pack mean and components; `limits` are those of 64 reconstructions, where they are not given."""
    panels = _panels(mean.shape, names)
    some = np.vstack([sigma, -sigma]) if scores is None else scores[:: max(1, len(scores) // 64)][:64]
    rows = np.ma.filled(components, 0).reshape(len(components), -1)
    limits = limits or _limits([mean + (row @ rows).reshape(mean.shape) for row in some], panels)
    hidden = np.ma.getmaskarray(mean).all(axis=2)
    return {
        "shape": mean.shape,
        "panels": panels,
        "limits": limits,
        "mean": _packed(np.ma.filled(mean, 0).reshape(1, -1)),
        "components": _packed(rows),
        "hidden": _base64(hidden.astype("u1")) if hidden.any() else None,
    }


def _shown(scores: np.ndarray, names: Sequence[str], pictured: list[int], share: float) -> np.ndarray:
    """Choose the images of the plot: all, or those with pictures and a random sample of the others."""
    possible = np.isfinite(scores).all(axis=1)
    others = possible.copy()
    others[pictured] = False
    order = np.concatenate(
        [np.array(pictured, dtype=int), np.random.default_rng(0).permutation(np.flatnonzero(others))]
    )
    order = order[possible[order]][: int(share * MAX_SCORES)]
    most = share * _NAME_BYTES
    while len(order) and (size := len(as_json(_shared_names(names, np.sort(order))).encode())) > most:
        order = order[: int(0.9 * len(order) * most / size)]
    return np.sort(order)


def _shared_names(names: Sequence[str], shown: np.ndarray) -> dict[str, Any]:
    """Write each name as the number of letters that it shares with the one before, and the rest: files are alike."""
    shared, rests, before = [], [], ""
    for index in shown.tolist():
        name = names[index]
        prefix = commonprefix([before, name])  # noqa: RUF071 (letters, not folders)
        shared.append(len(prefix.encode("utf-16-le")) // 2)  # as JavaScript counts
        rests.append(name[len(prefix) :])
        before = name
    return {"shared": shared, "rests": rests}


def _plot(scores: np.ndarray, shown: np.ndarray, evidence: Evidence) -> dict[str, Any]:
    labels, numbers = _numbered_labels(evidence.labels, shown)
    return {
        "n_images": len(scores),
        "n_shown": len(shown),
        "positions": _base64(shown.astype("<u4")),
        "scores": _packed(scores[shown].T),
        "names": _shared_names(evidence.names, shown),
        "labels": labels,
        "label_of": numbers,
    }


def _numbered_labels(labels: np.ndarray | None, shown: np.ndarray) -> tuple[list[str], str | None]:
    """Give each label a number, the most frequent first; those beyond 500 share the last number."""
    if labels is None:
        return [], None
    names, of_image, counts = np.unique(np.asarray(labels)[shown], return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    numbers = np.empty(len(names), dtype="<u2")
    numbers[order] = np.minimum(np.arange(len(names)), _MAX_LABELS)
    texts = [printable(str(names[index]))[:_MAX_LABEL_LENGTH] for index in order[:_MAX_LABELS].tolist()]
    return texts + ["other labels"] * (len(names) > _MAX_LABELS), _base64(numbers[of_image])


def _sheet(
    thumbnails: dict[int, np.ndarray], shown: np.ndarray, panels: Panels, limits: Limits, share: float
) -> dict[str, Any] | None:
    """Lay thumbnails side by side in one picture, in the order of the images; ``at`` are their rows in the plot."""
    positions = [position for position in shown.tolist() if position in thumbnails]
    if not positions:
        return None
    height, width, n_colours = _drawn(thumbnails[positions[0]], panels, limits).shape
    # Cells are whole blocks of a JPEG, so that no picture shines into its neighbours.
    cell = [-(-size // 8) * 8 for size in (height, width)]
    n_rows = -(-len(positions) // _COLUMNS)
    sheet = np.zeros((n_rows, cell[0], _COLUMNS, cell[1], n_colours), np.uint8)
    padding = ((0, cell[0] - height), (0, cell[1] - width), (0, 0))
    for place, position in enumerate(positions):
        row, column = divmod(place, _COLUMNS)
        sheet[row, :, column] = np.pad(_drawn(thumbnails[position], panels, limits), padding, mode="edge")
    uri = _sheet_uri(sheet.reshape(n_rows * cell[0], _COLUMNS * cell[1], n_colours), int(share * _SHEET_BYTES))
    return (
        None
        if uri is None
        else {
            "uri": uri,
            "size": [height, width],
            "cell": cell,
            "columns": _COLUMNS,
            "at": _base64(np.searchsorted(shown, positions).astype("<u2")),
        }
    )


def _drawn(picture: np.ndarray, panels: Panels, limits: Limits) -> np.ndarray:
    """Draw the panels of a picture side by side: (height, width, 1 or 3), uint8."""
    picture, drawn = _with_channels(picture), []
    for panel, (low, high) in zip(panels, limits, strict=True):
        pixels = (np.ma.filled(picture[..., panel].astype(np.float64), low) - low) / (high - low or 1)
        drawn.append(np.rint(255 * pixels.clip(0, 1)).astype(np.uint8))
    return np.concatenate(drawn, axis=1)


def _sheet_uri(pixels: np.ndarray, n_bytes: int) -> str | None:
    """Encode the sheet: as PNG where it is small, else as the best JPEG that is small enough; None if none is."""
    from PIL import Image

    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    for quality in (100, 90, 75, 50, 25, 5):
        kind = "png" if quality == 100 else "jpeg"
        if kind == "png" and pixels.size > _SMALL_SHEET_BYTES:
            continue
        data = io.BytesIO()
        image.save(data, format=kind, quality=quality, subsampling=0)
        if data.tell() <= n_bytes:
            return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode('ascii')}"
    return None


def _packed(rows: np.ndarray) -> dict[str, Any]:
    """Write rows of numbers as integers of 16 bits, each row with its own scale."""
    scales = np.abs(rows).max(axis=1, initial=0) / 32767
    scales[scales == 0] = 1
    return {"scales": scales.tolist(), "data": _base64(np.rint(rows / scales[:, np.newaxis]).astype("<i2"))}


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")
