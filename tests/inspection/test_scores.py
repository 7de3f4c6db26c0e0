"""Scores as points: the components asked for, colours by label, thumbnails, density; and what is read for them."""

import os

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from imgstack_ml import ImageFlattener, ImagePCA, ScoresDisplay, open_stack
from imgstack_ml.inspection.scores import spread_out
from tests.lib.images import write_folder
from tests.lib.stacks import counted


def offsets(points):
    return np.asarray(points.get_offsets())


def assert_drawn_within(figure, artists):
    figure.canvas.draw()
    for artist in artists:
        box = artist.get_window_extent()
        assert box.x0 >= -1, artist
        assert box.y0 >= -1, artist
        assert box.x1 <= figure.bbox.width + 1, artist
        assert box.y1 <= figure.bbox.height + 1, artist


def test_points_are_the_scores_asked_for():
    scores = np.random.default_rng(0).normal(size=(50, 4))
    display = ScoresDisplay(scores, components=(3, 1), explained_variance_ratio=[0.5, 0.3, 1e-5, 0]).plot()
    (points,) = display.points_
    np.testing.assert_array_equal(offsets(points), scores[:, [2, 0]])
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == (
        "score on PC 3 · <0.1 % of variance",
        "score on PC 1 · 50.0 % of variance",
    )
    assert display.ax_.get_legend() is None


def test_scores_against_the_order_of_the_images():
    scores = np.random.default_rng(0).normal(size=(50, 4))
    display = ScoresDisplay(scores, components=(None, 2)).plot()
    np.testing.assert_array_equal(offsets(display.points_[0]), np.column_stack([np.arange(50), scores[:, 1]]))
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == (
        "position of the image in the stack",
        "score on PC 2",
    )


def test_each_frequent_label_has_a_style_and_the_others_share_grey():
    labels = np.repeat([f"plate {i}" for i in range(90)], [2] * 80 + [1] * 10)
    scores = np.random.default_rng(0).normal(size=(len(labels), 2))
    display = ScoresDisplay(scores, labels=labels).plot()
    legend = display.ax_.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["others", *(f"plate {i}" for i in range(80))]
    styles = {(*points.get_facecolor()[0], points.get_paths()[0].vertices.tobytes()) for points in display.points_[1:]}
    assert len(styles) == 80
    np.testing.assert_array_equal(offsets(display.points_[1]), scores[labels == "plate 0"])
    np.testing.assert_array_equal(offsets(display.points_[0]), scores[160:])
    assert all(handle.get_sizes()[0] >= 36 and handle.get_alpha() == 1 for handle in legend.legend_handles)
    assert_drawn_within(display.figure_, [legend])


@pytest.mark.parametrize("n_thumbnails", [9, 100])
def test_thumbnails_cover_no_point_and_no_other_thumbnail(n_thumbnails):
    scores = np.random.default_rng(0).normal(size=(150, 2))
    thumbnails = {index: np.zeros((40, 30)) for index in range(n_thumbnails)}
    display = ScoresDisplay(scores, labels=np.arange(150) % 3, thumbnails=thumbnails).plot()
    assert_drawn_within(display.figure_, display.thumbnails_)
    boxes = [box.offsetbox.get_window_extent() for box in display.thumbnails_]
    points = display.ax_.transData.transform(scores)
    assert len(boxes) >= min(n_thumbnails, 60)
    for i, box in enumerate(boxes):
        assert box.count_overlaps(boxes[i + 1 :]) == 0
        assert not box.count_contains(points)


def test_labels_are_shown_as_they_are():
    labels = ["_hidden", "$x^2", "a" * 80, "<b>"]
    display = ScoresDisplay(np.eye(4), labels=labels).plot()
    display.figure_.canvas.draw()
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert sorted(text[:4] for text in texts) == sorted(label[:4] for label in labels)


@pytest.mark.parametrize(("n", "kind"), [(20_000, "PathCollection"), (20_001, "PolyCollection")])
def test_many_points_are_a_density(n, kind):
    scores = np.random.default_rng(0).normal(size=(n, 2))
    display = ScoresDisplay(scores).plot()
    points = display.points_[0] if isinstance(display.points_, list) else display.points_
    assert type(points).__name__ == kind
    if kind == "PolyCollection":
        assert points.get_array().sum() == n


def test_scores_of_a_pipeline_in_one_read_with_a_step_after_the_pca(faces):
    source = counted(faces, 10)
    labels = np.repeat(["a", "b"], 30)
    pipeline = make_pipeline(ImageFlattener(), ImagePCA(4), LogisticRegression(max_iter=5000)).fit(faces, labels)
    display = ScoresDisplay.from_estimator(pipeline, source.data, labels=labels)
    np.testing.assert_allclose(display.scores, pipeline[:2].transform(faces), rtol=1e-5, atol=1e-3)
    assert source.n_reads == 1
    assert len(display.points_) == 2


def test_known_scores_are_not_read_again_and_thumbnails_read_their_images_only(tmp_path):
    pixels = write_folder(tmp_path, 20, (12, 10, 3))
    stack = open_stack(tmp_path)
    pca = ImagePCA(3)
    scores = pca.fit_transform(stack).compute()
    chosen = spread_out(scores[:, :2], 4)
    for index in set(range(20)) - set(chosen):
        os.remove(stack.files[index])
    display = ScoresDisplay.from_estimator(pca, stack, scores=scores, n_thumbnails=4)
    assert sorted(display.thumbnails) == sorted(chosen)
    for index, picture in display.thumbnails.items():
        np.testing.assert_array_equal(picture, pixels[index])
    assert sorted(box.xy for box in display.thumbnails_) == sorted(tuple(scores[index, :2]) for index in chosen)
    assert_drawn_within(display.figure_, display.thumbnails_)


def test_labels_of_sub_folders_are_used(tmp_path):
    for name in ("cat", "dog"):
        write_folder(tmp_path / name, 6, (8, 8))
    stack = open_stack(tmp_path, recursive=True)
    display = ScoresDisplay.from_estimator(ImagePCA(2).fit(stack), stack)
    assert [text.get_text() for text in display.ax_.get_legend().get_texts()] == ["cat", "dog"]


def test_spread_out_points_are_far_apart():
    points = np.random.default_rng(0).normal(size=(500, 2))
    chosen = spread_out(points, 12)
    assert len(set(chosen)) == 12
    apart = np.linalg.norm(points[chosen, None] - points[None, chosen], axis=2)[~np.eye(12, dtype=bool)].min()
    at_random = [points[np.random.default_rng(i).choice(500, 12, replace=False)] for i in range(50)]
    best = max(np.linalg.norm(p[:, None] - p[None], axis=2)[~np.eye(12, dtype=bool)].min() for p in at_random)
    assert apart > best
    assert spread_out(np.zeros((5, 2)), 3) == [0]
    assert set(spread_out(points, 3, [4, 9, 2, 7])) < {4, 9, 2, 7}


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((np.zeros(5),), {}, r"shape \(5,\); needed is \(n_images, n_components\)"),
        ((np.zeros((5, 2)),), {"components": (1, 3)}, "two numbers from 1 to 2"),
        ((np.zeros((5, 2)),), {"components": (0, 1)}, "two numbers from 1 to 2"),
        ((np.zeros((5, 2)),), {"components": (None, None)}, "two numbers from 1 to 2"),
        ((np.zeros((5, 2)),), {"labels": ["a"]}, r"labels has shape \(1,\); 5 images"),
    ],
)
def test_scores_that_cannot_be_drawn_are_refused(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        ScoresDisplay(*arguments, **options)
