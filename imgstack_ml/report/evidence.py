"""What alerts are, what they are looked for in, and how one is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..decomposition.residuals import OutlierStatistics
from ..inspection.pipelines import split_at_pca
from ..inspection.statistics import ImageStatistics
from .remedies import Run, remedy
from .sharpness import Sharpness

__all__ = ["Alert", "Evidence", "about_images", "count_of", "first_of", "make_alert", "percent"]

MAX_NAMED = 5  # images of an alert or of a group that are named; the others are counted
IMAGES_PER_FOLDER = 5  # on average; of fewer, folders are no groups


@dataclass(frozen=True, eq=False)
class Alert:
    """A finding about a stack that is worth a look before its results are believed.

    `generate_report` looks for alerts; they are the values of ``report.alerts``.

    Attributes
    ----------
    kind : str
        What was found:

        - ``"skipped"``: files that could not be read;
        - ``"constant"``: images of one value;
        - ``"blank"``: images that end before their last row, as half-written files do;
        - ``"clipped"``: overexposed images;
        - ``"range"``: images with a very different range of intensities, which the Pipeline does not rescale;
        - ``"sharpness"``: images out of focus, enlarged or strongly compressed among sharp ones;
        - ``"channels"``: images whose channels are in another order, or of which one has one value;
        - ``"turned"``: images that are upside down, mirrored or turned;
        - ``"empty"``: channels of next to no variance, which no component is about;
        - ``"duplicates"``: copies of other images; of a movie, frames of equal pixels only;
        - ``"outliers"``: images with large residuals, or far from most along the components;
        - ``"leverage"``: images that, alone or few together, make up most of a component;
        - ``"pixels"``: single pixels or lines that never change;
        - ``"illumination"``: light that falls off over all images;
        - ``"drift"``: a steady change along the order of the images, within a folder where there are folders; of a
          movie, a steady change of the light only;
        - ``"brightness"``: a first component that is the light, which flickers or differs much.
    title : str
        What was found, with the number of images.
    meaning : str
        What that means for the results.
    action : str
        What to type: a command, if ``imgstack-ml pca`` made the model and has an option that helps; otherwise lines of
        Python, where ``stack``, ``model`` and ``report`` are the stack, the fitted estimator and the report.
    images : ndarray of int
        Positions of the images in the stack; empty if the alert is about the stack as a whole.
    names : list of str
        Names of the images; one entry for each group of duplicates (five are named, the others counted), for each
        skipped file with the reason, or for each pixel.

    See Also
    --------
    generate_report : Makes the report, and looks for alerts in it.

    Examples
    --------
    >>> from imgstack_ml import ImagePCA, generate_report
    >>> from imgstack_ml.datasets import load_faces
    >>> stack = load_faces()[0][:100].copy()
    >>> stack[[7, 30]] = 0  # a shutter that stayed closed
    >>> report = generate_report(ImagePCA(8).fit(stack), stack)
    >>> alert = report.alerts["constant"]
    >>> alert.title, alert.names
    ('2 images of one value throughout', ['image 7', 'image 30'])
    >>> alert.images
    array([ 7, 30])
    """

    kind: str
    title: str
    meaning: str
    action: str
    images: np.ndarray
    names: list[str]

    def __repr__(self) -> str:
        named = [f"  {first_of(self.names)}"] if self.names else []
        lines = [f"Alert {self.kind!r}: {self.title}", f"  {self.meaning}", *named, *self.action.splitlines()]
        return "\n".join(lines)


class Evidence(NamedTuple):
    """The numbers in which alerts are looked for.

    Attributes
    ----------
    statistics : ImageStatistics or None
        None if the images were not read.
    scores : ndarray of shape (n, k), or None
    outliers : OutlierStatistics, or None
        As from `ImagePCA.outlier_statistics`.
    explained_variance_ratio : ndarray of shape (k,)
    names : sequence of str
        A name for each image.
    labels : ndarray of shape (n,), or None
        A label for each image. Without labels, the folders in the names are.
    problems : sequence of (str, str)
        Name and reason of each file that was skipped.
    prepared : ImageStatistics or None
        Statistics of the images as the PCA gets them; None if it gets no images.
    estimator : ImagePCA or Pipeline or None
        The fitted estimator.
    run : Run or None
        The run of the command line that made it.
    sharpness : Sharpness or None
        Of the images; None if they were not read.
    """

    statistics: ImageStatistics | None
    scores: np.ndarray | None
    outliers: OutlierStatistics | None
    explained_variance_ratio: np.ndarray
    names: Sequence[str]
    labels: np.ndarray | None = None
    problems: Sequence[tuple[str, str]] = ()
    prepared: ImageStatistics | None = None
    estimator: Any = None
    run: Run | None = None
    sharpness: Sharpness | None = None

    @property
    def n_fitted(self) -> int:
        """Number of images that the PCA was fitted on."""
        return int(split_at_pca(self.estimator)[1].n_samples_)

    @property
    def groups(self) -> np.ndarray:
        """Label of each image, or the folder in its name; the same for all where there are neither."""
        found = [name.rpartition("/")[0] for name in self.names] if self.labels is None else self.labels
        few = IMAGES_PER_FOLDER * len(np.unique(found)) <= len(found)
        return np.asarray(found) if few else np.full(len(found), "")


def about_images(
    kind: str, found: np.ndarray, evidence: Evidence, title: str, meaning: str, remedy_for: str = ""
) -> Alert | None:
    """Make an alert about the images of the mask `found`; None if there are none."""
    images = np.flatnonzero(found)
    if not len(images):
        return None
    title = title.format(count_of(len(images), "image"))
    names = [evidence.names[index] for index in images.tolist()]
    return make_alert(kind, title, meaning, evidence, images=images, names=names, remedy_for=remedy_for)


def make_alert(
    kind: str,
    title: str,
    meaning: str,
    evidence: Evidence,
    *,
    images: np.ndarray | None = None,
    names: list[str] | None = None,
    remedy_for: str = "",
    channels: Sequence[int] = (),
) -> Alert:
    """Make an alert, with what to type against it or, if that is another way, against `remedy_for`."""
    images = np.empty(0, dtype=int) if images is None else images
    left_out = [evidence.names[index] for index in images.tolist()]
    action = remedy(
        remedy_for or kind, evidence.estimator, left_out, evidence.run, n_images=len(evidence.names), channels=channels
    )
    return Alert(kind, title, meaning, action, images, names or [])


def first_of(names: Sequence[str], separator: str = ", ") -> str:
    """Join the first names, and count the others."""
    more = [f"{len(names) - MAX_NAMED:,} more"] if len(names) > MAX_NAMED else []
    return separator.join([*(name if name.isprintable() else repr(name) for name in names[:MAX_NAMED]), *more])


def count_of(number: int, noun: str) -> str:
    """Write a number and a noun."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def percent(share: float) -> str:
    """Write a share in percent."""
    return f"{100 * share:.0f} %"
