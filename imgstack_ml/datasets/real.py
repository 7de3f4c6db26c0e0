"""Real images that scikit-image and scikit-learn ship."""

import numpy as np
import numpy.typing as npt
from skimage import data as skimage_data

__all__ = ["load_digits", "load_faces", "load_textures", "load_tissue"]


def load_faces() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.str_]]:
    """Load faces and other patches of photographs (``skimage.data.lfw_subset``).

    Returns
    -------
    stack : ndarray of shape (200, 25, 25), uint8
        Grey images; scikit-image's floats in [0, 1] are scaled to 0..255 and rounded.
    labels : ndarray of shape (200,)
        ``"face"`` for the first 100 images, ``"nonface"`` for the others.

    Examples
    --------
    >>> from imgstack_ml.datasets import load_faces
    >>> stack, labels = load_faces()
    >>> stack.shape, str(labels[0])
    ((200, 25, 25), 'face')
    """
    stack = np.rint(skimage_data.lfw_subset() * 255).astype(np.uint8)
    return stack, np.repeat(["face", "nonface"], 100)


def load_digits() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.str_]]:
    """Load handwritten digits (``sklearn.datasets.load_digits``).

    Returns
    -------
    stack : ndarray of shape (1797, 8, 8), uint8
        Grey images; scikit-learn's levels 0..16 are scaled to 0..255 and rounded.
    labels : ndarray of shape (1797,)
        ``"0"`` to ``"9"``.

    Examples
    --------
    >>> from imgstack_ml.datasets import load_digits
    >>> stack, labels = load_digits()
    >>> stack.shape, str(labels[0])
    ((1797, 8, 8), '0')
    """
    from sklearn.datasets import load_digits as sklearn_digits  # slow to import, and needed only here

    digits = sklearn_digits()
    return np.rint(digits.images * (255 / 16)).astype(np.uint8), digits.target.astype(str)


def load_textures(patch: int = 64) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.str_]]:
    """Load photographs of brick, grass and gravel, cut into patches that do not overlap.

    Parameters
    ----------
    patch : int, default=64
        Side of a patch in pixels, at most 512.

    Returns
    -------
    stack : ndarray of shape (n_images, patch, patch), uint8
        Grey images, 192 for the default patch.
    labels : ndarray of shape (n_images,)
        ``"brick"``, ``"grass"`` or ``"gravel"``.

    Examples
    --------
    >>> from imgstack_ml.datasets import load_textures
    >>> stack, labels = load_textures(patch=128)
    >>> stack.shape, str(labels[0])
    ((48, 128, 128), 'brick')
    """
    photographs = {
        "brick": skimage_data.brick(),
        "grass": skimage_data.grass(),
        "gravel": skimage_data.gravel(),
    }
    patches = [_patches(photograph, patch) for photograph in photographs.values()]
    return np.concatenate(patches), np.repeat(list(photographs), [len(part) for part in patches])


def load_tissue(patch: int = 64) -> npt.NDArray[np.uint8]:
    """Load a micrograph of stained colon tissue, cut into patches that do not overlap.

    Parameters
    ----------
    patch : int, default=64
        Side of a patch in pixels, at most 512.

    Returns
    -------
    stack : ndarray of shape (n_images, patch, patch, 3), uint8
        RGB images from ``skimage.data.immunohistochemistry``, 64 for the default patch.

    Examples
    --------
    >>> from imgstack_ml.datasets import load_tissue
    >>> load_tissue().shape
    (64, 64, 64, 3)
    """
    return _patches(skimage_data.immunohistochemistry(), patch)


def _patches(image: np.ndarray, patch: int) -> np.ndarray:
    """Cut an image into square patches, row by row; a remainder at the right and lower edge is left out."""
    if not 1 <= patch <= min(image.shape[:2]):
        raise ValueError(f"patch={patch!r} must lie between 1 and {min(image.shape[:2])}, e.g. patch=64")
    rows, cols = image.shape[0] // patch, image.shape[1] // patch
    whole = image[: rows * patch, : cols * patch]
    grid = whole.reshape(rows, patch, cols, patch, *image.shape[2:]).swapaxes(1, 2)
    return grid.reshape(rows * cols, patch, patch, *image.shape[2:])
