"""Texts and tables of the page."""

import numpy as np

import imgstack_ml as im
from imgstack_ml.report.alerts import Evidence
from imgstack_ml.report.survey import read_survey
from imgstack_ml.report.tables import certificate_table, images_table
from tests.lib.stacks import counted, photographs


def test_the_fingerprint_is_that_of_the_pixels(faces):
    pca = im.ImagePCA(2).fit(faces)

    def fingerprint(stack):
        evidence = Evidence(None, None, None, pca.explained_variance_ratio_, [])
        return dict(images_table(stack, read_survey(pca, stack), evidence, None))["fingerprint of the pixels"]

    other = faces.copy()
    other[7, 3, 3] ^= 1
    assert len(bytes.fromhex(fingerprint(faces))) == 8
    assert fingerprint(faces) == fingerprint(counted(faces, 7).data) != fingerprint(other)


def test_labels_are_counted():
    evidence = Evidence(None, None, None, np.ones(1), [], labels=np.repeat(list("abcdefghij"), 2))
    assert images_table(None, None, evidence, None) == [
        ("labels", ", ".join(f"{label} (2)" for label in "abcdefgh") + ", … 10 in all")
    ]


def test_certificates_are_told():
    pca = im.ImagePCA(4, svd_solver="randomized", random_state=0).fit(photographs(60, (16, 16)))
    certificate = pca.certificate_
    rows = dict(certificate_table(certificate))
    assert "missed, for certain" in rows
    share = f"{certificate.captured_variance / certificate.total_variance:.4%}".replace("%", " %")
    assert share in rows["captured"]
    assert certificate_table(None) == []
