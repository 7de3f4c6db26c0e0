"""Texts and tables of the page."""

import numpy as np

import imgstack_ml as im
from imgstack_ml.report.evidence import Evidence
from imgstack_ml.report.survey import read_survey
from imgstack_ml.report.tables import certificate_table, command_line, fit_table, images_table, versions_table
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


def test_a_run_of_the_command_line_is_described(faces):
    run = {
        "command": "pca",
        "command_line": "imgstack-ml pca 'my faces' -o o -k 4 -r --shape 2x3",
        "parameters": {
            "source": "my faces",
            "out": "o",
            "n_components": 4,
            "recursive": True,
            "shape": (2, 3),
            "mask": None,
        },
        "versions": {"numpy": "2.0"},
        "input": {"source": "my faces", "n_images": 5000, "image_shape": [25, 25], "dtype": "uint8"},
        "fit": {"seconds": 1.25, "planned_peak_bytes": 2**20},
        "seconds": 3.5,
    }
    assert command_line(run) == "imgstack-ml pca 'my faces' -o o -k 4 -r --shape 2x3"
    assert command_line(None) == ""
    assert versions_table(run) == [("numpy", "2.0")]
    pca = im.ImagePCA(4).fit(faces)
    rows = dict(fit_table(pca, pca, run))
    assert (rows["time"], rows["memory"]) == ("1.2 s to fit, 3.5 s in all", "planned peak 1.00 MiB")
    evidence = Evidence(None, None, None, np.ones(1), [], problems=[("a.png", "empty")])
    assert images_table(None, None, evidence, run) == [
        ("source", "my faces"), ("images", "5,000 of 25 × 25, uint8"), ("left out", "1 files")
    ]  # fmt: skip
