"""Small pictures of the page."""

import base64
import io

import numpy as np
from PIL import Image

import imgstack_ml as im
from imgstack_ml.report.alerts import Alert
from imgstack_ml.report.survey import read_survey
from imgstack_ml.report.tiles import alert_tiles, eigenimage_tiles


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
