"""``imgstack-ml cluster``, against scikit-learn's KMeans."""

import json
import sys

import numpy as np
import pytest
from distributed import LocalCluster
from PIL import Image
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from sklearn.preprocessing import StandardScaler

from imgstack_ml import load_model, open_stack
from imgstack_ml.cli.lib import clustering
from imgstack_ml.cli.lib.clustering import RowsOnDisk, StoredRows, find_clusters
from tests.lib.commands import assert_refused, read_table, recorded_reads, run
from tests.lib.images import write_image


def write_kinds(folder, sizes=(9, 6, 4), side=12):
    """Images of different brightness, contrast and grain."""
    rng = np.random.default_rng(0)
    for kind, size in enumerate(sizes):
        for i in range(size):
            pixels = 60 * (kind + 1) + rng.normal(0, 4 * (1 + 2 * kind), (side, side)) + rng.normal(0, 2)
            write_image(folder / "abc"[kind] / f"{i}.png", pixels.clip(0, 255).astype("uint8"))


def test_clusters_are_those_of_scikit_learn(tmp_path, reads, monkeypatch):
    monkeypatch.setattr(clustering, "_N_STARTS", 2)
    write_kinds(tmp_path / "in")
    out = tmp_path / "out"
    result = run("cluster", tmp_path / "in", "-r", "-k", 3, "-f", "stats", "-o", out)
    assert result.exit_code == 0, result.output
    # Features take one read; the sheet has six and up to four images of each cluster.
    assert len(reads) == 19 + min(9, 10) + 6 + 4
    header, rows = read_table(out / "clusters.csv")
    assert header == ["file", "label", "cluster", "distance", "next_cluster", "next_distance"]
    number, distance, following, next_distance = np.array([row[2:] for row in rows], dtype=float).T
    scaled = StandardScaler().fit_transform(np.load(out / "features.npy"))
    expected = KMeans(3, n_init=10, random_state=0).fit(scaled)
    assert adjusted_rand_score(expected.labels_, number) == 1
    assert adjusted_rand_score([row[1] for row in rows], number) == 1
    to_centres = np.sort(expected.transform(scaled), axis=1)
    np.testing.assert_allclose(distance, to_centres[:, 0], rtol=1e-6)
    np.testing.assert_allclose(next_distance, to_centres[:, 1], rtol=1e-6)
    assert (following != number).all()
    record = json.loads((out / "run.json").read_text())
    assert record["clusters"]["sizes"] == [9, 6, 4]
    assert record["clusters"]["explained"] == pytest.approx(1 - expected.inertia_ / (scaled**2).sum(), rel=1e-9)
    assert record["clusters"]["rand_index"] == 1
    assert len(record["feature_names"]) == 9
    assert np.ptp(np.asarray(Image.open(out / "clusters.png").convert("L"))) > 100
    out_of_model = tmp_path / "again.csv"
    reads.clear()
    assert run("transform", out, tmp_path / "in", "-r", "-o", out_of_model).exit_code == 0
    assert len(reads) == 19
    header, again = read_table(out_of_model)
    assert header == ["file", "label", "cluster", "distance_1", "distance_2", "distance_3"]
    assert [row[2] for row in again] == [row[2] for row in rows]
    distances = np.array([row[3:] for row in again], dtype=float)
    np.testing.assert_allclose(np.sort(distances, axis=1)[:, :2], np.column_stack([distance, next_distance]))
    model, stack = load_model(out / "model.safetensors"), open_stack(tmp_path / "in", recursive=True)
    np.testing.assert_array_equal(model.predict(stack) + 1, number)
    again = run("report", out)
    assert again.exit_code == 0
    assert "3 of 9, 6, 4 images" in again.stdout
    assert "clusters.png" in again.stdout


def test_scores_take_one_read_and_a_cluster_gives_the_same(faces, tmp_path, monkeypatch):
    """The same clusters on threads and on a cluster, and by a model whose rows are float32."""
    monkeypatch.setattr(clustering, "_N_STARTS", 1)
    monkeypatch.setattr(sys.modules["imgstack_ml.cli.cluster"], "_draw", lambda *_: None)
    arguments = ("cluster", faces, "-r", "-k", 3, "-f", "pca", "-o")
    with recorded_reads() as reads:
        result = run(*arguments, tmp_path / "a")
    assert result.exit_code == 0, result.stderr
    assert len(reads) == 24
    with LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as workers:
        result = run(*arguments, tmp_path / "b", "--scheduler", workers.scheduler_address)
    assert result.exit_code == 0, result.stderr
    assert "computing on " in result.stderr
    one, other = (read_table(tmp_path / name / "clusters.csv")[1] for name in "ab")
    assert [row[:3] for row in one] == [row[:3] for row in other]
    assert run("transform", tmp_path / "a", faces, "-r", "-o", tmp_path / "t.csv").exit_code == 0
    assert [row[:3] for row in read_table(tmp_path / "t.csv")[1]] == [row[:3] for row in one]


def test_blocks_seed_and_scores(tmp_path, monkeypatch):
    """The same clusters in one block and in many; scores keep their proportions; a seed repeats the result."""
    monkeypatch.setattr(clustering, "_N_STARTS", 1)
    rng = np.random.default_rng(0)
    rows = np.vstack([rng.normal(centre, 1, (40, 3)) * [10, 1, 0.1] for centre in (0, 8, 20)]).astype("float32")
    stored = RowsOnDisk(str(tmp_path / "rows.npy"), rows.shape, rows.dtype)
    stored.write(np.array_split(rows, 7))
    np.testing.assert_array_equal(np.load(tmp_path / "rows.npy"), rows)
    read = StoredRows(str(tmp_path / "rows.npy"))
    whole = find_clusters(read, stored.scaler, 3, seed=1)
    again = find_clusters(read, stored.scaler, 3, seed=1)
    np.testing.assert_array_equal(whole.distance, again.distance)
    monkeypatch.setattr(clustering, "_BLOCK_BYTES", 8 * 31 * 25)
    blocks = find_clusters(read, stored.scaler, 3, seed=1)
    np.testing.assert_array_equal(whole.number, blocks.number)
    np.testing.assert_allclose(whole.distance, blocks.distance, rtol=1e-6)
    scores = find_clusters(read, stored.scaler, 3, seed=1, n_scores=3)
    in_proportion = rows / stored.scaler.scale_.max()
    expected = KMeans(3, n_init=10, random_state=0).fit(in_proportion).transform(in_proportion).min(axis=1)
    np.testing.assert_allclose(np.sort(scores.distance), np.sort(expected), rtol=1e-4)


def test_refuses(faces, tmp_path):
    result = run("cluster", faces, "-r", "-k", 25, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "there are 24 images; give -k 24 or less" in result.stderr
    options = ("-k", 2, "-f", "stats", "-o", tmp_path / "out")
    result = run("cluster", faces, "-r", *options, "--memory-limit", "1MB")
    assert_refused(result, "2 clusters of 24 images by 9 features", hints=["--memory-limit and -k"])
    for i in range(3):
        write_image(tmp_path / f"in/{i}.png", np.full((8, 8), 7, np.uint8))
    assert_refused(run("cluster", tmp_path / "in", *options), "all images have the same features")
