"""Features, their union and ImageMap on a cluster of two processes; in one module, so that they share the cluster."""

import threading

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from imgstack_ml import ImageFeatureUnion, ImageFunctionError, ImageMap, open_stack
from tests.lib.features import all_pairs
from tests.lib.images import write_folder, write_image


def test_features(client, tmp_path):
    stack = write_folder(tmp_path, 12, (12, 10, 3))
    pairs = list(all_pairs(stack))
    union = ImageFeatureUnion([(f"member{i}", features) for i, (features, _) in enumerate(pairs)])
    result = union.fit_transform(open_stack(tmp_path, chunks=5))
    assert_array_equal(result.compute(), np.hstack([expected for _, expected in pairs]))
    assert union.n_passes_ == 1


def refuses_13(image):
    if image.flat[0] == 13:
        raise KeyError("no thirteen")
    return image.mean()


def test_functions(client, tmp_path):
    pixels = write_folder(tmp_path, 20)
    stack = open_stack(tmp_path, chunks=4)
    offset = 3
    result = ImageMap(lambda image: int(image.max()) + offset, output_dtype="int64").fit_transform(stack)
    assert_array_equal(result.compute()[:, 0], pixels.max(axis=(1, 2, 3)).astype(int) + 3)
    lock = threading.Lock()
    with pytest.raises(TypeError, match=r"func=.*cannot be sent"):
        ImageMap(lambda image: lock.locked()).fit(stack)


def test_an_exception_crosses_the_cluster(client, tmp_path):
    for i, image in enumerate(np.arange(20, dtype=np.uint8).repeat(12).reshape(20, 4, 3)):
        write_image(tmp_path / f"img{i}.png", image)
    with pytest.raises(ImageFunctionError, match=r"image 13 \(.*img13\.png'\): refuses_13 raised KeyError"):
        ImageMap(refuses_13).fit_transform(open_stack(tmp_path, chunks=3)).compute()
