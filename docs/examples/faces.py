"""Eigenfaces and a face detector: from a folder to a model that another program can load.

python docs/examples/faces.py          # 200 images that scikit-image ships, a few seconds
python docs/examples/faces.py DIR      # keep the pictures and the model in DIR
"""

import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline

from imgstack_ml import EigenimageDisplay, ImageFlattener, ImagePCA, load_model, open_stack, save_model
from imgstack_ml.datasets import write_sample


def main(folder: Path) -> None:
    """Find the modes of the images, learn to tell faces, and keep the model."""
    write_sample("faces", folder / "images")
    stack = open_stack(folder / "images", recursive=True)  # the sub-folders are the labels
    print(stack)

    # One Pipeline: scaling to unit variance (whiten) is what the penalty of the regression asks for.
    model = make_pipeline(ImageFlattener(), ImagePCA(16, whiten=True), LogisticRegression())
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    scores = cross_val_score(model, stack, stack.labels, cv=folds)  # each image is decoded once a fold
    print(f"16 eigenfaces tell {scores.mean():.1%} of the images right; always naming one class, 50.0%")

    # How many modes? The whole Pipeline is fitted anew for each choice and fold.
    search = GridSearchCV(model, {"imagepca__n_components": [4, 16, 64]}, cv=folds).fit(stack, stack.labels)
    print(f"best of three: {search.best_params_['imagepca__n_components']} modes, {search.best_score_:.1%}")

    # The model is data, not code; it holds the eigenfaces and the coefficients, and needs no images.
    save_model(search.best_estimator_, folder / "model.safetensors", overwrite=True)
    again = load_model(folder / "model.safetensors")
    print(f"the first image is a {again.predict(stack[:1])[0]}: {again.predict_proba(stack[:1]).max():.1%} sure")

    EigenimageDisplay.from_estimator(again[:-1]).figure_.savefig(folder / "eigenfaces.png")
    print(f"pictures: {', '.join(path.name for path in sorted(folder.glob('*.png')))}")


if __name__ == "__main__":
    plt.switch_backend("Agg")
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            main(Path(scratch))
