import matplotlib.pyplot as plt
import pytest
from sklearn.decomposition import PCA

from imgstack_ml.datasets import load_faces


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="session")
def faces():
    """60 images of 25 x 25, read-only."""
    images = load_faces()[0][:60].copy()
    images.flags.writeable = False
    return images


@pytest.fixture(scope="session")
def faces_pca(faces):
    """scikit-learn's PCA of the faces as rows."""
    return PCA(30, svd_solver="full").fit(faces.reshape(60, -1))
