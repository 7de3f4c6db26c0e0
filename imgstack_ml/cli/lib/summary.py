"""The text that a person reads at the end, made from the record of the run alone."""

from collections.abc import Iterable
from typing import Any

__all__ = ["summary"]

_MAX_SHOWN = 4  # components whose share of the variance is shown one by one, and classes that are named
_MAX_SIZES = 8  # of clusters
_FILES = {
    "report.html": "all of it on one page, with what to look at first",
    "eigenimages.png": "the mean image and the eigenimages on one sheet",
    "eigenimages/": "each eigenimage, and each channel, as a picture",
    "eigenimages.tif": "the eigenimages in full size, for open_stack",
    "mean.png": "the mean image",
    "scree.png": "variance explained by each component",
    "scores.csv": "one row for each image: file, label and frame if any, PC1, PC2, ...",
    "predictions.csv": "the label of each image, the one predicted, their chances",
    "clusters.csv": "the cluster of each image, and how near it is",
    "clusters.png": "images in the middle and on the border of each cluster",
    "features.npy": "the features of each image, a row each; names in run.json",
    "confusion.png": "labels against predicted labels",
    "skipped.csv": "the files left out, and why",
    "model.safetensors": "the fitted Pipeline, for imgstack_ml.load_model",
    "run.json": "how the results were made: parameters, versions, time",
}


def summary(record: dict[str, Any], folder: str, next_lines: str) -> str:
    """Write the summary of a run: lines of at most 80 columns, except for long names.

    Parameters
    ----------
    record : dict
        As in ``run.json``.
    folder : str
        The folder of the results, as the user named it.
    next_lines : str
        The last lines, which say what to type next.
    """
    files = {name.partition("/")[0] + "/" if "/" in name else name for name in record["outputs"]}
    parts = [
        _table(_findings(record)),
        f"\nResults in {folder}",
        _table((name, text) for name, text in _FILES.items() if name in files),
        f"\n{next_lines}",
    ]
    return "\n".join(parts)


def _findings(record: dict[str, Any]) -> list[tuple[str, str]]:
    source = record["input"]
    shape = " × ".join(map(str, source["image_shape"]))
    rows = [("images", f"{source['n_images']:,} of {shape}, {source['dtype']}")]
    if source["n_skipped"]:
        rows.append(("left out", _count(source["n_skipped"], "unreadable file")))
    if "fit" in record:
        rows += _decomposition(record["fit"])
    if "reload_difference" in record:
        rows.append(
            ("model", f"the saved one gives the same scores, to {record['reload_difference']:.0e} of the largest")
        )
    if "features" in record and "classifier" in record:
        rows.append(("features", f"{record['classifier']['n_features']:,}: {', '.join(record['features'])}"))
    if "clusters" in record:
        rows += _clusters(record["clusters"], len(record["feature_names"]), record["features"])
    if "classifier" in record:
        rows += _classification(record["classifier"])
    to_fit = f", of which {record['fit']['seconds']:.1f} s to fit" if "fit" in record else ""
    rows.append(("time", f"{record['seconds']:.1f} s{to_fit}"))
    return rows


def _decomposition(fit: dict[str, Any]) -> list[tuple[str, str]]:
    from dask.utils import format_bytes

    times = "once" if fit["n_passes"] == 1 else f"{fit['n_passes']:.3g} times"
    rows = [
        ("steps", ", ".join(fit["steps"])),
        (
            "solver",
            f"{fit['solver']}; images read {times} to fit; planned peak {format_bytes(fit['planned_peak_bytes'])}",
        ),
        ("variance", _variance(fit["explained_variance_ratio"])),
    ]
    if "estimated_error" in fit:
        known = f"variances to an estimated {fit['estimated_error']:.0e}"
        rows.append(("accuracy", f"{known}; at most {100 * fit['missed_at_most']:.2g} % of the variance missed"))
    return rows


def _variance(ratio: list[float]) -> str:
    first = ", ".join(f"PC{number} {100 * share:.1f} %" for number, share in enumerate(ratio[:_MAX_SHOWN], start=1))
    if len(ratio) <= 1:
        return first
    more = ", ..." if len(ratio) > _MAX_SHOWN else ""
    return f"{first}{more}; {len(ratio)} together {100 * sum(ratio):.1f} %"


def _classification(found: dict[str, Any]) -> list[tuple[str, str]]:
    mean, std, majority = (100 * found[key] for key in ("accuracy_mean", "accuracy_std", "majority_rate"))
    names = list(found["classes"])
    classes = " or ".join(names) if len(names) <= _MAX_SHOWN else f"{len(names)} classes"
    groups = f" of {found['n_groups']} groups" if "n_groups" in found else ""
    rows = [
        ("classifier", f"{classes}: {mean:.1f} ± {std:.1f} % right over {found['n_folds']} folds{groups}"),
        ("baseline", f"{majority:.1f} % right by always predicting the most frequent class"),
    ]
    if "balanced_accuracy" in found:
        rows.append(("balanced", f"{100 * found['balanced_accuracy']:.1f} % right where every class counts the same"))
    n_images = sum(found["classes"].values())
    without = "its group" if groups else "it"
    rows.append(("predicted", f"{found['n_right']} of {n_images} right, each by a model fitted without {without}"))
    if not found.get("saved", True):
        rows.append(("saved", "the features only; a file of this classifier would be code (a pickle)"))
    return rows


def _clusters(found: dict[str, Any], n_features: int, names: list[str]) -> list[tuple[str, str]]:
    sizes = [f"{size:,}" for size in found["sizes"]]
    shown = ", ".join(sizes[:_MAX_SIZES]) + (", ..." if len(sizes) > _MAX_SIZES else "")
    rows = [
        ("features", f"{n_features:,}: {', '.join(names)}"),
        ("clusters", f"{found['n_clusters']} of {shown} images"),
        ("variance", f"{100 * found['explained']:.1f} % of that of the features lies between the clusters"),
    ]
    if "rand_index" in found:
        rows.append(("labels", f"adjusted Rand index {found['rand_index']:.2f} (1: the same division; 0: by chance)"))
    return rows


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _table(rows: Iterable[tuple[str, str]]) -> str:
    rows = list(rows)
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {text}" for name, text in rows)
