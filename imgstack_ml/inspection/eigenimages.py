"""Eigenimages drawn as a sheet of pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ._drawing import component_picture, draw_picture, make_grid, mean_title, plain_picture, share_text
from ._steps import rows_to_images, split_at_pca

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class EigenimageDisplay:
    """Principal components as pictures, in a grid.

    Each picture has limits of its own, symmetric about zero, so that zero looks the same everywhere: white
    for grey images in the default colours, mid-grey for RGB images. They lie at the 99th percentile of its
    absolute values, lest a few pixels at the edge leave all others pale. The scale is not shared: every
    component has length one, so its size says only how far it is spread over the image. One that explains none of the
    variance has an arbitrary direction, and is drawn flat.

    Parameters
    ----------
    eigenimages : array-like of shape (k, height, width) or (k, height, width, n_channels)
        Signed pictures, usually ``pca.eigenimages_``; 1, 3 or 4 channels, where the fourth is not shown.
    explained_variance_ratio : array-like of shape (k,), optional
        Share of the variance of each, for the titles.
    mean_image : array-like of shape (height, width) or (height, width, n_channels), optional
        The mean image, shown first, from black at zero (at its smallest value, if that is negative) to white at its
        largest value; the title names both ends, since that is brighter than the images as a rule.

    Attributes
    ----------
    figure_ : matplotlib Figure
    axes_ : ndarray of matplotlib Axes
        One for each picture, the mean image first.
    images_ : ndarray of matplotlib AxesImage
        The pictures, in the order of ``axes_``.

    Examples
    --------
    >>> import numpy as np
    >>> from imgstack_ml import EigenimageDisplay
    >>> eigenimages = np.linspace(-1, 1, 2 * 8 * 8).reshape(2, 8, 8)
    >>> display = EigenimageDisplay(eigenimages, [0.6, 0.25]).plot()
    >>> display.axes_[0].get_title()
    'PC 1 · 60.0 %'
    """

    def __init__(
        self,
        eigenimages: npt.ArrayLike,
        explained_variance_ratio: npt.ArrayLike | None = None,
        mean_image: npt.ArrayLike | None = None,
    ):
        self.eigenimages = _check_eigenimages(np.asarray(eigenimages))
        self.explained_variance_ratio = _check_ratio(explained_variance_ratio, len(self.eigenimages))
        self.mean_image = _check_mean(mean_image, self.eigenimages.shape[1:])

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        n_components: int | None = None,
        include_mean: bool = False,
        ax: Axes | None = None,
        **plot_options: Any,
    ) -> EigenimageDisplay:
        """Draw the eigenimages of a fitted PCA, or of a Pipeline that has one.

        Parameters
        ----------
        estimator : ImagePCA or Pipeline
            A PCA fitted on flattened rows needs the ImageFlattener before it in the Pipeline.
        n_components : int, optional
            Draw the first so many only.
        include_mean : bool, default=False
            Show the mean image first: the one that was taken off first where a StackCenterer goes before.
        ax : matplotlib Axes, optional
            Subplot to fill; a new figure if None.
        **plot_options
            For `plot`.

        Returns
        -------
        EigenimageDisplay

        Raises
        ------
        NotFittedError
            If there is no fitted PCA.
        ValueError
            If the shape of an image is not known.
        """
        pictures, mean = find_eigenimages(estimator, n_components)
        _, pca = split_at_pca(estimator)
        ratio = pca.explained_variance_ratio_[:n_components]
        return cls(pictures, ratio, mean if include_mean else None).plot(ax=ax, **plot_options)

    def plot(self, *, ax: Axes | None = None, cmap: str = "RdBu_r", max_columns: int = 8) -> EigenimageDisplay:
        """Draw the sheet.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Subplot whose place the sheet takes; a new figure of a fitting size if None.
        cmap : str, default="RdBu_r"
            Diverging colours for grey images: red above zero, blue below.
        max_columns : int, default=8
            Pictures in a row, at most.

        Returns
        -------
        self : EigenimageDisplay
        """
        shares = (
            [None] * len(self.eigenimages) if self.explained_variance_ratio is None else self.explained_variance_ratio
        )
        pictures = [
            (self._title(component), *component_picture(image, share, cmap))
            for component, (image, share) in enumerate(zip(self.eigenimages, shares, strict=True))
        ]
        if self.mean_image is not None:
            pictures.insert(0, (mean_title(self.mean_image), *plain_picture(self.mean_image)))
        height, width = self.eigenimages.shape[1:3]
        self.figure_, grid = make_grid(len(pictures), height / width, ax, max_columns=max_columns)
        self.axes_ = np.array(
            [self.figure_.add_subplot(grid[divmod(tile, grid.ncols)]) for tile in range(len(pictures))]
        )
        self.images_ = np.array(
            [draw_picture(axes, *picture) for axes, picture in zip(self.axes_, pictures, strict=True)]
        )
        return self

    def _title(self, component: int) -> str:
        name = f"PC {component + 1}"
        if self.explained_variance_ratio is None:
            return name
        return f"{name} · {share_text(self.explained_variance_ratio[component])}"


def find_eigenimages(estimator: Any, n_components: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Find the eigenimages of a fitted estimator, the first so many, and the mean image.

    Raises
    ------
    NotFittedError
        If there is no fitted PCA.
    ValueError
        If the shape of an image is not known.
    """
    steps, pca = split_at_pca(estimator)
    eigenimages = getattr(pca, "eigenimages_", pca.components_)[:n_components]
    return _as_images(eigenimages, steps), _find_mean(steps, pca)


def _check_eigenimages(eigenimages: np.ndarray) -> np.ndarray:
    if eigenimages.ndim not in (3, 4) or eigenimages.size == 0:
        raise ValueError(
            f"eigenimages has shape {eigenimages.shape}; needed is (k, height, width[, n_channels]). "
            "Rows become images by eigenimages.reshape(-1, height, width)"
        )
    if eigenimages.ndim == 4 and eigenimages.shape[-1] not in (1, 3, 4):
        raise ValueError(
            f"{eigenimages.shape[-1]} channels cannot be shown as colours; choose one, e.g. eigenimages[..., 0]"
        )
    return eigenimages


def _check_ratio(ratio: npt.ArrayLike | None, k: int) -> np.ndarray | None:
    if ratio is None:
        return None
    ratio = np.asarray(ratio)
    if ratio.shape != (k,):
        raise ValueError(f"explained_variance_ratio has shape {ratio.shape}; {k} eigenimages need ({k},)")
    return ratio


def _check_mean(mean_image: npt.ArrayLike | None, image_shape: tuple[int, ...]) -> np.ndarray | None:
    if mean_image is None:
        return None
    mean_image = np.asarray(mean_image)
    if mean_image.shape != image_shape:
        raise ValueError(f"mean_image has shape {mean_image.shape}; the eigenimages need {image_shape}")
    return mean_image


def _as_images(pictures: np.ndarray, steps: list[Any]) -> np.ndarray:
    return pictures if pictures.ndim > 2 else rows_to_images(pictures, steps)


def _find_mean(steps: list[Any], pca: Any) -> np.ndarray:
    """Find the mean image: after a StackCenterer the PCA's own is zero but for rounding, so ask that first."""
    own = getattr(pca, "mean_image_", pca.mean_)
    mean = next((step.mean_ for step in steps if hasattr(step, "mean_")), own)
    return mean if mean.ndim > 1 else rows_to_images(mean[np.newaxis], steps)[0]
