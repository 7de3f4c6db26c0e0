"""Small pictures of the page."""

import base64
import io

import numpy as np
from PIL import Image

import imgstack_ml as im
from imgstack_ml.report.evidence import Alert
from imgstack_ml.report.live import _panels
from imgstack_ml.report.survey import read_survey
from imgstack_ml.report.tiles import alert_tiles, eigenimage_tiles, reconstruction_tiles


def pixels_of(tile):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(tile.uri.partition(",")[2]))))


def test_images_of_an_alert_are_shown_in_the_limits_of_all(faces):
    survey = read_survey(im.ImagePCA(2).fit(faces), faces)
    alert = Alert("constant", "", "", "", np.array([4, 7, 30]), [])
    tiles = alert_tiles(alert, survey, 2)
    assert [tile.caption for tile in tiles] == ["4", "7"]
    for tile, index in zip(tiles, [4, 7], strict=True):
        grey = np.repeat(faces[index][..., np.newaxis], 3, axis=2)
        np.testing.assert_allclose(pixels_of(tile), grey, rtol=0, atol=1)  # colour maps round down
    assert alert_tiles(alert, None, 2) == []


def test_rows_have_no_pictures():
    rows = np.random.default_rng(0).random((30, 7))
    pca = im.ImagePCA(3).fit(rows)
    assert eigenimage_tiles(pca) == []
    survey = read_survey(pca, rows)
    assert (survey.thumbnails, survey.worst, survey.best) == ({}, [], [])


def test_channels_that_are_no_colours_have_a_picture_each(faces):
    stack = np.stack([faces, faces, faces, 255 - faces], axis=-1).astype(np.uint16)
    pca = im.ImagePCA(2).fit(stack)
    survey = read_survey(pca, stack)
    captions = [tile.caption for tile in eigenimage_tiles(pca)]
    assert captions[3].startswith("mean · c3 · ")
    captions = captions[4:8]
    assert [text.split(" · ")[2] for text in captions] == ["c0", "c1", "c2", "c3"]
    assert len({text.split(" · ")[3] for text in captions}) == 1  # one scale
    rows = reconstruction_tiles([(found, "a") for found in survey.worst], pca.channel_names_)
    assert len(rows) == 4 * len(survey.worst)
    assert len({row[2].caption.rpartition(" · ")[2] for row in rows[::4]}) == 1
    assert _panels((5, 5, 4), pca.channel_names_) == [[0], [1], [2], [3]]  # in the script, too
