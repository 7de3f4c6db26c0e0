"""The survey: everything that a report needs, from one read."""

import pickle

import dask
import dask.array as da
import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline

import imgstack_ml as im
from imgstack_ml import ImagePCA, NonFiniteError
from imgstack_ml.inspection.pictures import shrink
from imgstack_ml.inspection.pipelines import find_route
from imgstack_ml.report.duplicates import near_duplicates
from imgstack_ml.report.survey import _survey_of_batch, read_survey
from tests.lib.stacks import counted


@pytest.fixture(scope="module")
def reference(faces):
    """Scores and reconstructions by scikit-learn."""
    rows = faces.reshape(50, -1).astype(float)
    pca = PCA(6, svd_solver="full").fit(rows)
    scores = pca.transform(rows)
    return scores, pca.inverse_transform(scores).reshape(50, 25, 25)


@pytest.fixture(scope="module")
def pipeline(faces):
    return make_pipeline(im.StackCenterer(), im.ImageFlattener(), im.ImagePCA(6)).fit(faces)


@pytest.mark.parametrize(("chunks", "scheduler"), [(1, "threads"), (7, "synchronous"), (7, "threads"), (50, "threads")])
def test_one_read_finds_scores_errors_and_the_best_and_worst(chunks, scheduler, faces, pipeline, reference):
    source = counted(faces, chunks)
    with dask.config.set(scheduler=scheduler):
        found = read_survey(pipeline, source.data)
    assert source.n_reads == 1
    scores, reconstructed = reference
    np.testing.assert_allclose(np.abs(found.scores), np.abs(scores), atol=1e-4 * np.abs(scores).max())
    errors = np.sqrt(((reconstructed - faces) ** 2).mean(axis=(1, 2)))
    np.testing.assert_allclose(found.errors, errors, rtol=1e-4)
    order = np.argsort(errors)
    assert [best.position for best in found.best] == order[:4].tolist()
    assert [worst.position for worst in found.worst] == order[:-5:-1].tolist()
    for worst in found.worst:
        np.testing.assert_array_equal(worst.image, faces[worst.position])
        np.testing.assert_allclose(worst.reconstruction, reconstructed[worst.position], atol=0.1)
    assert list(found.thumbnails) == list(range(50))
    np.testing.assert_array_equal(found.thumbnails[7], faces[7])


@pytest.mark.parametrize("whiten", [False, True])
def test_large_images_are_reconstructed_small(whiten):
    """Their small reconstructions are reduced reconstructions, and their errors those of all pixels."""
    images = np.random.default_rng(0).integers(0, 256, (9, 330, 170, 2)).astype(np.uint8)
    pca = im.ImagePCA(3, whiten=whiten).fit(images)
    found, whole = read_survey(pca, images), pca.inverse_transform(pca.transform(images))
    np.testing.assert_allclose(found.scores, pca.transform(images), rtol=1e-3, atol=1e-3 * np.abs(found.scores).max())
    np.testing.assert_allclose(found.errors, np.sqrt(np.square(images - whole).mean(axis=(1, 2, 3))), rtol=1e-4)
    for one in (*found.worst, *found.best):
        np.testing.assert_allclose(one.reconstruction, shrink(whole[one.position][None], 160)[0], atol=1e-3)


def test_thumbnails_are_small_and_few():
    source = counted(
        (lambda start, stop: np.ones((stop - start, 100, 90), np.uint8), (3000, 100, 90), np.dtype("u1")), 500
    )
    pca = im.ImagePCA(2).fit(np.random.default_rng(0).random((9, 100, 90)))
    found = read_survey(pca, source.data)
    assert 928 <= len(found.thumbnails) <= 1000
    assert {picture.shape for picture in found.thumbnails.values()} == {(33, 30)}


def test_what_a_worker_gets_and_returns_can_be_sent(faces, pipeline):
    work = (_survey_of_batch, [faces[:10]], 0, find_route(pipeline), np.ones(50, dtype=bool))
    step, *arguments = pickle.loads(pickle.dumps(work))
    here, there = _survey_of_batch(*work[1:]), pickle.loads(pickle.dumps(step(*arguments)))
    np.testing.assert_array_equal(there.rows[0][2], here.rows[0][2])
    assert [worst.position for worst in there.worst] == [worst.position for worst in here.worst]


@pytest.mark.slow
def test_the_survey_of_a_cluster_is_the_same(hostile_report, client):
    here = hostile_report
    there = read_survey(here.pca, here.stack)
    with dask.config.set(scheduler="synchronous"):
        here = read_survey(here.pca, here.stack)
    np.testing.assert_array_equal(there.statistics.digests, here.statistics.digests)
    np.testing.assert_allclose(there.errors, here.errors, rtol=1e-6)
    assert [worst.position for worst in there.worst] == [worst.position for worst in here.worst]


@pytest.mark.parametrize("channels", [(), (3,)])
def test_pixels_outside_the_mask_are_no_part_of_it(channels):
    X = np.random.default_rng(0).normal(100, 10, size=(40, 16, 18, *channels))
    X[20:] = X[:20] * 2 + 3  # look the same
    X[30] = X[10]
    mask = np.hypot(*np.mgrid[-8:8, -9:9]) < 7
    hidden = X.copy()
    hidden[:, ~mask] = np.nan
    pca = ImagePCA(3, mask=mask).fit(hidden)
    found = read_survey(pca, da.from_array(hidden, chunks=(9, *X.shape[1:])))
    inside = X[:, mask]
    np.testing.assert_allclose(found.statistics.means, inside.mean(axis=1).reshape(40, -1))
    np.testing.assert_array_equal(found.statistics.maxima, inside.max(axis=1).reshape(40, -1))
    np.testing.assert_array_equal(found.statistics.minima, inside.min(axis=1).reshape(40, -1))
    left = inside - pca.inverse_transform(pca.transform(hidden))[:, mask]
    np.testing.assert_allclose(found.errors, np.sqrt((left.reshape(40, -1) ** 2).mean(axis=1)))
    assert all(
        (np.ma.getmaskarray(one.image) == ~mask.reshape(16, 18, *channels and (1,))).all() for one in found.worst
    )
    assert near_duplicates(found.statistics) == sorted([[i, i + 20] for i in range(20) if i != 10] + [[10, 30]])
    hidden[17, 8, 8] = np.nan
    with pytest.raises(NonFiniteError, match="image 17 "):
        read_survey(pca, hidden)
