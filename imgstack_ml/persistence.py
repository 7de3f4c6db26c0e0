"""Save and load models as safetensors files with a JSON header: data only, no pickle."""

from __future__ import annotations

import json
import os
import re
from typing import Any, Literal, get_type_hints

import numpy as np
import sklearn
from safetensors import SafetensorError, safe_open

from . import __version__
from .errors import StoreError
from .files.names import refuse_url
from .files.tensors import Tensors, map_tensors, save_tensors
from .files.values import RECORDS, from_json, import_type, is_numeric_array, to_json

__all__ = ["load_model", "save_model"]

FORMAT_VERSION = 2  # 1 has no states and masks, and is written where there is none, so that version 0.1 can load it
HEADER_KEY = "imgstack_ml"  # entry of the metadata of a safetensors file that holds our header
MAX_HEADER_BYTES = 32 * 2**20  # names of about 500,000 features; files with more are refused

# The classes that a file may name. Each is imported only when a model needs it.
SAVABLE = {
    "ChannelStatistics": "imgstack_ml.features:ChannelStatistics",
    "ComponentFilter": "imgstack_ml.decomposition:ComponentFilter",
    "FrozenEstimator": "sklearn.frozen:FrozenEstimator",
    "HOGFeatures": "imgstack_ml.features:HOGFeatures",
    "ImageFeatureUnion": "imgstack_ml.features:ImageFeatureUnion",
    "ImageFlattener": "imgstack_ml.preprocessing:ImageFlattener",
    "ImageHistogram": "imgstack_ml.features:ImageHistogram",
    "ImagePCA": "imgstack_ml.decomposition:ImagePCA",
    "IntensityRescaler": "imgstack_ml.preprocessing:IntensityRescaler",
    "KMeans": "sklearn.cluster:KMeans",
    "LogisticRegression": "sklearn.linear_model:LogisticRegression",
    "Pipeline": "sklearn.pipeline:Pipeline",
    "StackCenterer": "imgstack_ml.preprocessing:StackCenterer",
    "StandardScaler": "sklearn.preprocessing:StandardScaler",
    "TextureFeatures": "imgstack_ml.features:TextureFeatures",
}
RENAMED = {"ImageFeatures": "ImageFeatureUnion"}  # class names in files written before 0.2
RECORDS["Certificate"] = "imgstack_ml.decomposition.certificate:Certificate"
MEMBERS = {"ImageFeatureUnion": "transformer_list", "Pipeline": "steps"}  # parameters that hold estimators
NESTED = {"ComponentFilter", "FrozenEstimator"}  # whose parameter `estimator` is one; `estimator_` is the fitted copy
# What partial_fit learns on from: a private attribute, and its type, a NamedTuple of numbers and arrays.
STATES = {"ImagePCA": ("_summary", "imgstack_ml.linalg.incremental:Summary")}
PRIVATE = {"KMeans": {"_n_threads": 1}}  # what a fitted model has beside its attributes
PASSTHROUGH = "passthrough"
DROP = "drop"
# Parameters that version 0.1 does not have: defaults are not saved.
NEW = {"mask": None, "fill_value": 0, "missing": "raise", "missing_values": np.nan}
# Parameters that are folders. They are not saved, and a file from a stranger must not choose them.
FOLDERS = {"ImagePCA": {"checkpoint"}, "Pipeline": {"memory"}}

ATTRIBUTE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*_")


def save_model(model: Any, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Save an estimator, fitted or not, in a safetensors file.

    Parameters and fitted attributes (public ones, ending in ``_``) are saved, and what ``ImagePCA.partial_fit`` keeps
    of the images so far. Settings of ``set_output`` are not, nor is the parameter `checkpoint` of ImagePCA, a folder on
    the machine where it was fitted.

    Parameters
    ----------
    model : estimator
        An estimator of this package except ImageMap; scikit-learn's StandardScaler, LogisticRegression, KMeans
        or FrozenEstimator; or a Pipeline of these. Others need a pickle, and loading a pickle runs code.
    path : path
        The file to write, e.g. ``"model.safetensors"``. If saving fails, no file is left, or the old one is unchanged.
    overwrite : bool, default=False
        Replace an existing file.

    Raises
    ------
    TypeError
        If the model, a parameter or an attribute has a type that cannot be saved, e.g. a RandomState.
    ValueError
        If a number in it is NaN or infinite, or its feature names do not fit into a header.
    StoreError
        If `path` is a URL, the file exists and `overwrite` is False, or it cannot be written. If the disk is full, the
        error names the bytes needed.

    See Also
    --------
    load_model : Read the file.

    Examples
    --------
    >>> import os
    >>> import tempfile
    >>> import numpy as np
    >>> from imgstack_ml import StackCenterer, load_model, save_model
    >>> centerer = StackCenterer().fit(np.arange(24.0).reshape(4, 2, 3))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_model(centerer, os.path.join(folder, "model.safetensors"))
    ...     load_model(os.path.join(folder, "model.safetensors"))
    StackCenterer()
    """
    refuse_url(path)
    arrays: dict[str, np.ndarray] = {}
    node = _model_to_json(model, arrays, prefix="")
    header = {
        "format_version": FORMAT_VERSION if any(re.search(r"(^|\.)(_|mask)", name) for name in arrays) else 1,
        "versions": {"imgstack_ml": __version__, "numpy": np.__version__, "scikit-learn": sklearn.__version__},
        "model": node,
    }
    text = json.dumps(header)
    if len(text) > MAX_HEADER_BYTES // 2:  # half, because safetensors quotes it within JSON, which adds backslashes
        raise ValueError(
            f"the names in this model take {len(text):,} bytes; at most {MAX_HEADER_BYTES // 2:,} fit into a file"
        )
    save_tensors(path, arrays, {HEADER_KEY: text}, overwrite=overwrite)


def load_model(path: str | os.PathLike[str], *, mmap_mode: Literal["r"] | None = None) -> Any:
    """Load an estimator that `save_model` saved.

    The file is data: loading it runs no code, and it can name only classes that `save_model` accepts. The worst that
    a file from a stranger can do is to give a wrong model.

    Parameters
    ----------
    path : path
        The file.
    mmap_mode : {None, "r"}, default=None
        With ``"r"``, arrays of 1 MiB or more are memory-mapped, as by `numpy.load`: for components larger than memory,
        or shared by many processes. They are read-only and not checked for NaN. The file must not be changed while
        the model is in use, but `save_model` may replace it (on Windows, once the model is gone).

    Returns
    -------
    model : estimator
        With the parameters and fitted attributes that were saved. Unless arrays are mapped, the file is not needed
        any more.

    Raises
    ------
    StoreError
        If the file does not exist, is damaged, is not a model file, or was written by a newer version.
    ValueError
        If `mmap_mode` is neither None nor ``"r"``.

    Examples
    --------
    >>> import os
    >>> import tempfile
    >>> from imgstack_ml import ImagePCA, load_model, save_model
    >>> from imgstack_ml.datasets import load_faces
    >>> file = os.path.join(tempfile.mkdtemp(), "faces.safetensors")
    >>> save_model(ImagePCA(4).fit(load_faces()[0]), file)
    >>> load_model(file).eigenimages_.shape
    (4, 25, 25)
    """
    if mmap_mode not in (None, "r"):
        raise ValueError(f"mmap_mode={mmap_mode!r} must be None or 'r'")
    path = os.fspath(path)
    _check_header_size(path)
    try:
        with safe_open(path, framework="np") as file:
            header = _read_header(file.metadata())
            arrays = Tensors(file, {} if mmap_mode is None else map_tensors(path), set())
            model = _model_from_json(_get(header, "model", dict), arrays, prefix="")
            if unexpected := set(file.keys()) - arrays.taken:
                raise ValueError(f"the header does not mention the arrays {sorted(unexpected)}")
            return model
    except SafetensorError as error:
        raise StoreError(f"{path!r} is damaged or no model file: {error}") from error
    except (ValueError, OverflowError, RecursionError) as error:
        raise StoreError(f"{path!r} cannot be loaded as a model: {error}") from error


def _is_default(key: str, value: Any) -> bool:
    default: Any = NEW[key]
    if isinstance(default, float) and isinstance(value, float):
        return bool(np.isnan(default) and np.isnan(value))
    return value is default or (isinstance(value, str) and value == default)


# Writing ----------------------------------------------------------------------------------------------


def _model_to_json(model: Any, arrays: dict[str, np.ndarray], prefix: str) -> dict[str, Any]:
    """Return an estimator as a JSON object; add its arrays to `arrays`, under names that begin with `prefix`."""
    name = _class_name(model)
    params = model.get_params(deep=False)
    node: dict[str, Any] = {"class": name}
    if name == "Pipeline" and params.pop("memory") is not None:
        raise TypeError("the cache of a Pipeline cannot be saved: call pipeline.set_params(memory=None) first")
    if name in MEMBERS:
        node["steps"] = [
            # The names of arrays begin with positions, not with names of steps: so they are unique when nested.
            [step_name, _member_to_json(step, arrays, f"{prefix}{position}.")]
            for position, (step_name, step) in enumerate(params.pop(MEMBERS[name]))
        ]
    if name in NESTED:
        node["steps"] = _nested_to_json(params.pop("estimator"), vars(model).get("estimator_"), arrays, prefix)
    folders = FOLDERS.get(name, set())
    params = {
        key: value
        for key, value in params.items()
        if key not in folders and (key not in NEW or not _is_default(key, value))
    }
    # A mask is an array, of which the header has the name.
    arrays |= {prefix + key: value for key, value in params.items() if is_numeric_array(value)}
    node["params"] = {
        key: {"array": key} if is_numeric_array(value) else to_json(value, f"{name}.{key}")
        for key, value in params.items()
    }
    fitted = {key: value for key, value in vars(model).items() if ATTRIBUTE_NAME.fullmatch(key)}
    if name in NESTED:
        fitted.pop("estimator_", None)
    node["arrays"] = [key for key, value in fitted.items() if is_numeric_array(value)]
    node["fitted"] = {
        key: to_json(value, f"{name}.{key}") for key, value in fitted.items() if key not in node["arrays"]
    }
    for key in node["arrays"]:
        arrays[prefix + key] = _finite_array(fitted[key], f"{name}.{key}")
    attribute, _ = STATES.get(name, ("", ""))
    if state := vars(model).get(attribute):
        fields, numbers = state._asdict(), _numbers_of(type(state))
        node["state"] = {key: to_json(kind(fields.pop(key)), f"{name}.{key}") for key, kind in numbers.items()}
        arrays |= {f"{prefix}{attribute}.{key}": _finite_array(fields[key], f"{name}.{key}") for key in fields}
    return node


def _member_to_json(step: Any, arrays: dict[str, np.ndarray], prefix: str) -> Any:
    if step is None or (isinstance(step, str) and step in (PASSTHROUGH, DROP)):
        return step or PASSTHROUGH
    return _model_to_json(step, arrays, prefix)


def _nested_to_json(given: Any, fitted: Any, arrays: dict[str, np.ndarray], prefix: str) -> list[list[Any]]:
    """Return the estimator given and its fitted copy, if there is one. A frozen estimator is its own copy."""
    steps = [["estimator", _model_to_json(given, arrays, f"{prefix}0.")]]
    if fitted is not None:
        copy = PASSTHROUGH if fitted is given else _model_to_json(fitted, arrays, f"{prefix}1.")
        steps.append(["estimator_", copy])
    return steps


def _numbers_of(cls: Any) -> dict[str, type]:
    """Return the types of the fields of a state that are numbers. The others are arrays."""
    return {key: kind for key, kind in get_type_hints(cls).items() if kind in (int, float)}


def _class_name(model: Any) -> str:
    # Look the name up before importing a class: to save one estimator need not import all.
    name = type(model).__name__
    if name not in SAVABLE or type(model) is not import_type(SAVABLE[name]):
        others = [other for other in SAVABLE if other != "Pipeline"]
        raise TypeError(
            f"{type(model).__module__}.{type(model).__qualname__} cannot be saved; what can: "
            f"{', '.join(others)}, and a Pipeline of these. Save a Pipeline without its last step by "
            "save_model(pipeline[:-1], path)"
        )
    return name


def _finite_array(array: np.ndarray, where: str) -> np.ndarray:
    if not np.isfinite(array).all():
        raise ValueError(f"{where} holds NaN or infinity; a model file holds finite numbers only")
    return array


# Reading ----------------------------------------------------------------------------------------------
# A file may hold anything. These functions raise ValueError for whatever is wrong; load_model adds the file's name.


def _check_header_size(path: str) -> None:
    """Raise StoreError if there is no file, or its header is too large to be parsed safely."""
    if not os.path.isfile(path):
        inside = os.path.join(path, "model.safetensors")
        hint = f"; there is one in that folder: load_model({inside!r})" if os.path.isfile(inside) else ""
        raise StoreError(f"there is no model file {path!r}{hint}")
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
    if size > MAX_HEADER_BYTES:
        raise StoreError(f"{path!r} is no model file: its header claims {size:,} bytes")


def _read_header(metadata: dict[str, str] | None) -> dict[str, Any]:
    if not metadata or HEADER_KEY not in metadata:
        raise ValueError("this safetensors file was not written by imgstack_ml.save_model")
    header = json.loads(metadata[HEADER_KEY])
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    version = _get(header, "format_version", int)
    if version > FORMAT_VERSION:
        raise ValueError(
            f"it has format version {version}, and imgstack_ml {__version__} reads versions up to "
            f"{FORMAT_VERSION}. Upgrade: pip install --upgrade imgstack_ml"
        )
    return header


def _get(node: dict[str, Any], key: str, kind: type) -> Any:
    value = node.get(key)
    if type(value) is not kind:
        raise ValueError(f"its header has no {key!r} of type {kind.__name__}")
    return value


def _model_from_json(node: dict[str, Any], arrays: Tensors, prefix: str) -> Any:
    """Return the estimator of which `_model_to_json` wrote `node`."""
    name = _get(node, "class", str)
    name = RENAMED.get(name, name)
    if name not in SAVABLE:
        raise ValueError(f"it names the class {name!r}; allowed are {', '.join(SAVABLE)}")
    cls = import_type(SAVABLE[name])
    params = {
        key: arrays.take(prefix + key) if value == {"array": key} else from_json(value)
        for key, value in _get(node, "params", dict).items()
    }
    if name in MEMBERS:
        params[MEMBERS[name]] = _members_from_json(_get(node, "steps", list), arrays, prefix)
    nested: dict[str, Any] = {}
    if name in NESTED:
        nested = _nested_from_json(_get(node, "steps", list), arrays, prefix)
        params["estimator"] = nested.pop("estimator")
    _check_parameters(cls, params)
    model = cls(**params)

    fitted = {key: from_json(value) for key, value in _get(node, "fitted", dict).items()}
    array_names = _get(node, "arrays", list)
    _check_attributes(cls, [*fitted, *array_names])
    for key in array_names:
        fitted[key] = arrays.take(prefix + key)
    if fitted and name in ("ImageFlattener", "ImagePCA"):  # saved by version 0.1, without a mask
        fitted = {"mask_": None} | fitted
    vars(model).update(fitted | nested | (PRIVATE.get(name, {}) if fitted else {}))
    if "state" in node:
        _restore_state(model, name, _get(node, "state", dict), arrays, prefix)
    return model


def _restore_state(model: Any, name: str, numbers: dict[str, Any], arrays: Tensors, prefix: str) -> None:
    """Give a model the state that partial_fit learns on from."""
    if name not in STATES:
        raise ValueError(f"it gives {name} a state, which no fit learns")
    attribute, cls = STATES[name][0], import_type(STATES[name][1])
    if {key: type(from_json(value)) for key, value in numbers.items()} != _numbers_of(cls):
        raise ValueError(f"its header holds a state of {name} with wrong fields")
    names = [key for key in get_type_hints(cls) if key not in numbers]
    state: Any = cls(**numbers, **{key: arrays.take(f"{prefix}{attribute}.{key}") for key in names})
    shapes = {state.mean.shape, state.rest.shape, state.rows.shape[1:], state.draws.shape[1:]}
    mask, mean = vars(model).get("mask_"), vars(model).get("mean_", 0)
    if (
        shapes != {np.shape(mean) if mask is None else (np.count_nonzero(mask),)}
        or state.squares.shape not in ((0,), np.shape(state.mean))
        or state.weights.shape != state.draws.shape[:1]
    ):
        raise ValueError(f"its state of {name} has arrays of wrong shapes")
    vars(model)[attribute] = state


def _members_from_json(steps: list[Any], arrays: Tensors, prefix: str) -> list[tuple[str, Any]]:
    rebuilt = []
    for position, entry in enumerate(steps):
        match entry:
            case [str(name), dict(node)]:
                rebuilt.append((name, _model_from_json(node, arrays, f"{prefix}{position}.")))
            case [str(name), str(word)] if word in (PASSTHROUGH, DROP):
                rebuilt.append((name, word))
            case _:
                raise ValueError(f"step {position} of its Pipeline is not a name and an estimator")
    return rebuilt


def _nested_from_json(steps: list[Any], arrays: Tensors, prefix: str) -> dict[str, Any]:
    """Return the estimator given, and the fitted one if there is one, by the names of their attributes."""
    members = _members_from_json(steps, arrays, prefix)
    if [key for key, _ in members] not in (["estimator"], ["estimator", "estimator_"]) or type(members[0][1]) is str:
        raise ValueError("its header holds no estimator where one belongs")
    found = dict(members)
    if found.get("estimator_") in (PASSTHROUGH, DROP):
        found["estimator_"] = found["estimator"]
    return found


def _check_parameters(cls: type, params: dict[str, Any]) -> None:
    known = set(cls._get_param_names())  # type: ignore[attr-defined]  # every scikit-learn estimator has it
    known -= FOLDERS.get(cls.__name__, set())
    if unknown := set(params) - known:
        raise ValueError(f"it gives {cls.__name__} the unknown parameters {sorted(unknown)}")


def _check_attributes(cls: type, names: list[Any]) -> None:
    """Raise ValueError for names that are no fitted attributes, or would replace a method or property of the class."""
    for name in names:
        if type(name) is not str or not ATTRIBUTE_NAME.fullmatch(name) or hasattr(cls, name):
            raise ValueError(f"it gives {cls.__name__} an attribute {name!r}, which no fit learns")
    if len(set(names)) < len(names):
        raise ValueError(f"it gives {cls.__name__} an attribute twice")
