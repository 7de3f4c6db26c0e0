"""Eigenimages drawn as a sheet of pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ._drawing import array_of_shape, check_plot_options, choose_columns, draw_picture, picture_grid
from .channels import MAX_PICTURES, Panel, check_names, choose_panels, composite_key
from .pictures import (
    Picture,
    component_title,
    plain_limits,
    plain_picture,
    range_text,
    share_text,
    shrink,
    signed_limit,
    signed_picture,
)
from .pipelines import find_channel_names, find_eigenimages, split_at_pca
from .stacks import short_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class EigenimageDisplay:
    """Principal components as pictures, in a grid.

    A component has one picture for each of its channels, all on one scale; pictures in colour have one. Limits are
    symmetric about zero, and written below. Zero therefore looks the same everywhere: white for grey images in the
    default colours, mid-grey for pictures in colour. The limits are the 99th percentile of the absolute values of all
    channels that are shown, so that a few large pixels do not leave all others pale. Components do not share a scale:
    each has length one, so its largest value says only how far it spreads over the image. A component that explains
    none of the variance has an arbitrary direction, and is drawn flat. Pixels outside the mask of a PCA are
    transparent, as are those that a masked array hides.

    Parameters
    ----------
    eigenimages : array-like of shape (k, height, width) or (k, height, width, n_channels)
        Signed pictures, usually ``pca.eigenimages_``. Those larger than 512 to 2048 pixels a side, depending on their
        number, are drawn reduced, by means of squares of pixels.
    explained_variance_ratio : array-like of shape (k,), optional
        Share of the variance of each, for the titles.
    mean_image : array-like of shape (height, width) or (height, width, n_channels), optional
        The mean image, shown first, between the 0.5th and the 99.5th percentile of its intensities, which are written
        below it.
    channel_names : sequence of str, optional
        Names of the channels, by default ``c0``, ``c1``, …; those of ``("red", "green", "blue")``, with or without
        ``"alpha"``, are one picture in colour.

    Attributes
    ----------
    figure_ : matplotlib Figure
    axes_ : ndarray of matplotlib Axes
        One for each picture: the mean image first, then component by component, and of each the channels.
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
        *,
        channel_names: Sequence[str] | None = None,
    ):
        self.eigenimages = _check_eigenimages(np.asanyarray(eigenimages))
        k, *image_shape = self.eigenimages.shape
        self.explained_variance_ratio = array_of_shape(
            "explained_variance_ratio", explained_variance_ratio, (k,), f"{k} eigenimages"
        )
        self.mean_image = array_of_shape("mean_image", mean_image, tuple(image_shape), "the eigenimages")
        self.channel_names = check_names(channel_names, tuple(image_shape))

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
        check_plot_options(cls, plot_options)
        pictures, mean = find_eigenimages(estimator, n_components)
        _, pca = split_at_pca(estimator)
        ratio = pca.explained_variance_ratio_[:n_components]
        names = find_channel_names(estimator)
        return cls(pictures, ratio, mean if include_mean else None, channel_names=names).plot(ax=ax, **plot_options)

    def plot(
        self,
        *,
        ax: Axes | None = None,
        cmap: str = "RdBu_r",
        max_columns: int = 8,
        channels: Sequence[int | str] | None = None,
        composite: bool = False,
    ) -> EigenimageDisplay:
        """Draw the sheet.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Subplot whose place the sheet takes; a new figure of a fitting size if None.
        cmap : str, default="RdBu_r"
            Diverging colours for grey images: red above zero, blue below.
        max_columns : int, default=8
            Pictures in a row, at most.
        channels : sequence of int or str, optional
            Names or positions of the channels to show; all if None.
        composite : bool, default=False
            Show the channels of a component in one picture, each in its colour and on its own scale: red, green, blue,
            grey, cyan, magenta and yellow in this order. Zero is mid-grey.

        Returns
        -------
        self : EigenimageDisplay

        Raises
        ------
        ValueError
            If there is no such channel, or there are more than 256 pictures.
        """
        panels = choose_panels(self.eigenimages.shape[1:], self.channel_names, channels, composite=composite)
        n_pictures = (len(self.eigenimages) + (self.mean_image is not None)) * len(panels)
        if n_pictures > MAX_PICTURES:
            raise ValueError(
                f"{len(self.eigenimages)} eigenimages of {len(panels)} channels are {n_pictures} pictures, and at most "
                f"{MAX_PICTURES} are drawn. Choose some: channels={list(self.channel_names[:2])}, or n_components=8."
            )
        n_columns = choose_columns(n_pictures, max_columns)
        if len(panels) > 1:  # those of a component stay side by side
            n_columns = len(panels) * max(1, min(max_columns // len(panels), n_pictures // len(panels)))
        side = max(512, 2048 // n_columns)
        pictures = [] if self.mean_image is None else self._mean_pictures(panels, side)
        for number, image in enumerate(shrink(self.eigenimages, side), start=1):
            pictures += self._component_pictures(number, image, panels, cmap)
        height, width = self.eigenimages.shape[1:3]
        key = composite_key(panels[0], self.channel_names)
        self.figure_, grid = picture_grid(len(pictures), height / width, ax, n_columns=n_columns, key=key)
        self.axes_ = np.array(
            [self.figure_.add_subplot(grid[divmod(tile, grid.ncols)]) for tile in range(len(pictures))]
        )
        self.images_ = np.array(
            [draw_picture(axes, *picture) for axes, picture in zip(self.axes_, pictures, strict=True)]
        )
        return self

    def _mean_pictures(self, panels: list[Panel], side: int) -> list[tuple[str, Picture, str]]:
        """Draw the mean image; each channel has its own range, because what is compared is within it."""
        assert self.mean_image is not None
        (mean,) = shrink(self.mean_image[np.newaxis], side)
        pictures = []
        for panel in panels:
            image = panel.of(mean)
            limits = plain_limits(image, panel.colours)
            title = _titled("mean", panel)
            pictures.append((title, plain_picture(image, limits, panel.colours), _ranges(range_text, limits)))
        return pictures

    def _component_pictures(
        self, number: int, image: np.ndarray, panels: list[Panel], cmap: str
    ) -> list[tuple[str, Picture, str]]:
        """Draw a component; its share of the variance and the largest weight of a pixel are written beside it."""
        share = None if self.explained_variance_ratio is None else self.explained_variance_ratio[number - 1]
        image = image * 0 if share == 0 else image
        shown = [panel.of(image) for panel in panels]
        colours = panels[0].colours
        limit = signed_limit(shown[0] if len(shown) == 1 else np.ma.stack(shown), colours)
        captions = [] if share == 0 else [_ranges(lambda one: f"±{one:.2g}", (limit,))]
        title = component_title(number, share)
        if panels[0].name and colours is None:  # a title has no room for both the share and the name of a channel
            title = component_title(number)
            captions = captions if share is None else [share_text(share), *captions]
        return [
            (_titled(title, panel), signed_picture(pixels, cmap, limit, colours), ", ".join(captions))
            for panel, pixels in zip(panels, shown, strict=True)
        ]


def _ranges(text: Callable[..., str], limits: tuple[Any, ...]) -> str:
    """Write the limits of a picture; those of each channel of a composite, if there is room for them."""
    if np.ndim(limits[0]) == 0:
        return text(*limits)
    written = ", ".join(text(*channel) for channel in zip(*limits, strict=True))
    return written if len(written) <= 28 else ""


def _titled(title: str, panel: Panel) -> str:
    return f"{title} · {short_name(panel.name, 16)}" if panel.name and panel.colours is None else title


def _check_eigenimages(eigenimages: np.ndarray) -> np.ndarray:
    if eigenimages.ndim not in (3, 4) or eigenimages.size == 0:
        raise ValueError(
            f"eigenimages has shape {eigenimages.shape}; needed is (k, height, width[, n_channels]). "
            "Rows become images by eigenimages.reshape(-1, height, width)"
        )
    return eigenimages
