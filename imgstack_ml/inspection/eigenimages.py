"""Eigenimages drawn as a sheet of pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ._drawing import array_of_shape, draw_picture, picture_grid
from .pictures import component_picture, component_title, mean_title, plain_picture
from .pipelines import find_eigenimages, split_at_pca

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class EigenimageDisplay:
    """Principal components as pictures, in a grid.

    Each picture has its own colour limits, symmetric about zero. Zero therefore looks the same everywhere: white for
    grey images in the default colours, mid-grey for RGB images. The limits are the 99th percentile of the absolute
    values, so that a few large pixels do not leave all others pale. Pictures do not share a scale: every component has
    length one, so its largest value says only how far it spreads over the image. A component that explains none of the
    variance has an arbitrary direction, and is drawn flat. Pixels outside the mask of a PCA are transparent, as are
    those that a masked array hides.

    Parameters
    ----------
    eigenimages : array-like of shape (k, height, width) or (k, height, width, n_channels)
        Signed pictures, usually ``pca.eigenimages_``; 1, 3 or 4 channels, where the fourth is not shown.
    explained_variance_ratio : array-like of shape (k,), optional
        Share of the variance of each, for the titles.
    mean_image : array-like of shape (height, width) or (height, width, n_channels), optional
        The mean image, shown first. Black is zero (or its smallest value, if that is negative), white its largest
        value. The title names both, because the mean usually looks brighter in this way than the images do.

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
        self.eigenimages = _check_eigenimages(np.asanyarray(eigenimages))
        k, *image_shape = self.eigenimages.shape
        self.explained_variance_ratio = array_of_shape(
            "explained_variance_ratio", explained_variance_ratio, (k,), f"{k} eigenimages"
        )
        self.mean_image = array_of_shape("mean_image", mean_image, tuple(image_shape), "the eigenimages")

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
            Number of eigenimages to draw; all if None.
        include_mean : bool, default=False
            Show the mean image first: that of the first StackCenterer, if there is one before the PCA.
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
        ratio = self.explained_variance_ratio
        shares = [None] * len(self.eigenimages) if ratio is None else ratio
        pictures = [
            (component_title(number, share), component_picture(image, share, cmap))
            for number, (image, share) in enumerate(zip(self.eigenimages, shares, strict=True), start=1)
        ]
        if self.mean_image is not None:
            pictures.insert(0, (mean_title(self.mean_image), plain_picture(self.mean_image)))
        height, width = self.eigenimages.shape[1:3]
        self.figure_, grid = picture_grid(len(pictures), height / width, ax, max_columns=max_columns)
        self.axes_ = np.array(
            [self.figure_.add_subplot(grid[divmod(tile, grid.ncols)]) for tile in range(len(pictures))]
        )
        self.images_ = np.array(
            [draw_picture(axes, *picture) for axes, picture in zip(self.axes_, pictures, strict=True)]
        )
        return self


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
