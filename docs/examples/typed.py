"""Type-checked from end to end: a program that ``mypy --strict`` accepts, with steps and a report of its own.

mypy --strict docs/examples/typed.py
python docs/examples/typed.py
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from imgstack_ml import (
    Alert,
    ImageMap,
    ImagePCA,
    ImageStack,
    ImgstackError,
    Plan,
    ScreeDisplay,
    datasets,
    fit_together,
    generate_report,
    load_model,
    open_stack,
    save_model,
    save_stack,
)

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Analysis:
    """What a folder of images is found to hold."""

    names: list[str]
    scores: npt.NDArray[np.floating]
    shares: npt.NDArray[np.floating]
    alerts: dict[str, Alert]


def inverted(image: Image) -> Image:
    """Make dark what is bright."""
    return 255 - image


def analyse(folder: Path, n_components: int = 5) -> Analysis:
    """Find components of a folder, and store images, model and report beside it."""
    stack: ImageStack = open_stack(folder, recursive=True)
    negatives = save_stack(ImageMap(inverted).fit_transform(stack), folder / "negatives.zarr")
    images = open_stack(negatives)
    pca = ImagePCA(n_components)
    plan: Plan = pca.plan(images)
    print(f"{plan.solver}: {plan.n_passes} read, at most {plan.peak_bytes:,} bytes")
    fit_together([pca], images)
    scores = np.asarray(pca.transform(images))
    report = generate_report(pca, images)
    report.save_as_html(folder / "report.html")
    ScreeDisplay.from_estimator(pca).figure_.savefig(folder / "scree.png")
    save_model(pca, folder / "model.safetensors")
    return Analysis(list(stack.files), scores, pca.explained_variance_ratio_, report.alerts)


def main() -> None:
    """Analyse sample images, and load the model again."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        datasets.write_sample("faces", folder / "faces", n=40)
        found = analyse(folder / "faces")
        print(f"{len(found.names)} images, {found.shares.sum():.0%} of the variance, alerts: {sorted(found.alerts)}")
        again: ImagePCA = load_model(folder / "faces" / "model.safetensors")
        assert again.n_components == found.scores.shape[1]
        try:
            open_stack(folder / "nowhere")
        except (ImgstackError, FileNotFoundError) as error:
            print(error)


if __name__ == "__main__":
    main()
