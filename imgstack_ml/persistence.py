"""Model files: fitted estimators as safetensors, with one JSON header. Data, never code; no pickle."""

from __future__ import annotations

import json
import math
import os
import re
from importlib import import_module
from typing import Any, Literal, NamedTuple

import numpy as np
import sklearn
from safetensors import SafetensorError, safe_open

from . import __version__
from .errors import StoreError
from .files.tensors import map_tensors, save_tensors

__all__ = ["load_model", "save_model"]

FORMAT_VERSION = 1
HEADER_KEY = "imgstack_ml"  # the one entry of safetensors' own metadata that holds our header
MAPPED_BYTES = 2**20  # smaller arrays are read: all that mapping them would save is their check
MAX_HEADER_BYTES = 32 * 2**20  # the names of some 500,000 features; more is an attack

# What a file may name. A class is imported only when it is asked for.
SAVABLE = {
    "ChannelStatistics": "imgstack_ml.features:ChannelStatistics",
    "HOGFeatures": "imgstack_ml.features:HOGFeatures",
    "ImageFeatureUnion": "imgstack_ml.features:ImageFeatureUnion",
    "ImageFlattener": "imgstack_ml.preprocessing:ImageFlattener",
    "ImageHistogram": "imgstack_ml.features:ImageHistogram",
    "ImagePCA": "imgstack_ml.decomposition:ImagePCA",
    "IntensityRescaler": "imgstack_ml.preprocessing:IntensityRescaler",
    "LogisticRegression": "sklearn.linear_model:LogisticRegression",
    "Pipeline": "sklearn.pipeline:Pipeline",
    "StackCenterer": "imgstack_ml.preprocessing:StackCenterer",
    "StandardScaler": "sklearn.preprocessing:StandardScaler",
    "TextureFeatures": "imgstack_ml.features:TextureFeatures",
}
RENAMED = {"ImageFeatures": "ImageFeatureUnion"}  # class names in files written before 0.2
MEMBERS = {"ImageFeatureUnion": "transformer_list", "Pipeline": "steps"}  # where estimators are made of others
RECORDS = {"Certificate": "imgstack_ml.decomposition.certificate:Certificate"}  # fitted attributes of fields
PASSTHROUGH = "passthrough"
DROP = "drop"
# Places on the disk of whoever fits: folders that a file from a stranger must not choose.
PLACES = {"ImagePCA": {"checkpoint"}, "Pipeline": {"memory"}}

ARRAY_DTYPES = {"BOOL", "I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64", "F16", "F32", "F64"}
SCALAR_DTYPES = {
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
}  # fmt: skip
ATTRIBUTE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*_")


def save_model(model: Any, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Save an estimator, fitted or not, in a safetensors file.

    Saved are the parameters and the fitted attributes (public ones, ending in ``_``). Output settings made with
    ``set_output`` are not, nor is an ImagePCA's `checkpoint`, a folder of the machine it was fitted on.

    Parameters
    ----------
    model : estimator
        An estimator of this package; scikit-learn's StandardScaler or LogisticRegression, which are arrays once fitted;
        or a Pipeline of these. Other classifiers hold what only a pickle could, which would be code.
    path : path
        The file to write, e.g. ``"model.safetensors"``. It appears complete or not at all.
    overwrite : bool, default=False
        Replace a file that is there.

    Raises
    ------
    TypeError
        If the model, a parameter or an attribute is of a kind that is not saved, e.g. a RandomState.
    ValueError
        If a number in it is NaN or infinite, or its feature names are longer than a header may be.
    StoreError
        If the file exists and `overwrite` is False, or it cannot be written: where the disk is full, the bytes that it
        takes are named.

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
    arrays: dict[str, np.ndarray] = {}
    header = {
        "format_version": FORMAT_VERSION,
        "versions": {
            "imgstack_ml": __version__,
            "numpy": np.__version__,
            "scikit-learn": sklearn.__version__,
        },
        "model": _describe(model, arrays, prefix=""),
    }
    text = json.dumps(header)
    if len(text) > MAX_HEADER_BYTES // 2:  # half, as quoting it within safetensors' own JSON lengthens it
        raise ValueError(f"the names in this model take {len(text):,} bytes, above {MAX_HEADER_BYTES // 2:,}")
    save_tensors(path, arrays, {HEADER_KEY: text}, overwrite=overwrite)


def load_model(path: str | os.PathLike[str], *, mmap_mode: Literal["r"] | None = None) -> Any:
    """Load an estimator that `save_model` saved.

    The file is data: nothing in it is run, and it can name no class but those that `save_model` accepts, so a file
    from a stranger can do no more than give a wrong model.

    Parameters
    ----------
    path : path
        The file.
    mmap_mode : {None, "r"}, default=None
        With ``"r"``, arrays of 1 MiB or more stay in the file and are read where they are used, as `numpy.load` has it:
        for components larger than memory, or shared by many processes. They are read-only, and not searched for NaN;
        the file has to stay as it is, though `save_model` may replace it.

    Returns
    -------
    model : estimator
        With the parameters and fitted attributes that it had. Its arrays are in memory, unless mapped; the file may go.

    Raises
    ------
    StoreError
        If there is no such file, or it is damaged, not a model file, or made by a newer version.
    ValueError
        If `mmap_mode` is something else.
    """
    if mmap_mode not in (None, "r"):
        raise ValueError(f"mmap_mode={mmap_mode!r} must be None or 'r'")
    path = os.fspath(path)
    _check_header_size(path)
    try:
        with safe_open(path, framework="np") as file:
            header = _read_header(file.metadata())
            arrays = _Arrays(file, {} if mmap_mode is None else map_tensors(path), set())
            model = _rebuild(_get(header, "model", dict), arrays, prefix="")
            if unexpected := set(file.keys()) - arrays.taken:
                raise ValueError(f"the header does not mention the arrays {sorted(unexpected)}")
            return model
    except SafetensorError as error:
        raise StoreError(f"{path!r} is damaged or no model file: {error}") from error
    except (ValueError, OverflowError, RecursionError) as error:
        raise StoreError(f"{path!r} cannot be loaded as a model: {error}") from error


# Writing ----------------------------------------------------------------------------------------------


def _describe(model: Any, arrays: dict[str, np.ndarray], prefix: str) -> dict[str, Any]:
    """Describe an estimator in JSON's terms; its arrays go to `arrays`, their names led by `prefix`."""
    name = _class_name(model)
    params = model.get_params(deep=False)
    node: dict[str, Any] = {"class": name}
    if name == "Pipeline" and params.pop("memory") is not None:
        raise TypeError("a Pipeline's cache is not saved: call pipeline.set_params(memory=None) first")
    if name in MEMBERS:
        node["steps"] = [
            # Numbers, not names, lead the arrays' names: those of nested Pipelines then never collide.
            [step_name, _describe_step(step, arrays, f"{prefix}{position}.")]
            for position, (step_name, step) in enumerate(params.pop(MEMBERS[name]))
        ]
    places = PLACES.get(name, set())
    node["params"] = {key: _to_json(value, f"{name}.{key}") for key, value in params.items() if key not in places}
    fitted = {key: value for key, value in vars(model).items() if ATTRIBUTE_NAME.fullmatch(key)}
    node["arrays"] = [key for key, value in fitted.items() if _is_numeric_array(value)]
    node["fitted"] = {
        key: _to_json(value, f"{name}.{key}") for key, value in fitted.items() if key not in node["arrays"]
    }
    for key in node["arrays"]:
        arrays[prefix + key] = _finite_array(fitted[key], f"{name}.{key}")
    return node


def _describe_step(step: Any, arrays: dict[str, np.ndarray], prefix: str) -> Any:
    if step is None or (isinstance(step, str) and step in (PASSTHROUGH, DROP)):
        return step or PASSTHROUGH
    return _describe(step, arrays, prefix)


def _class_name(model: Any) -> str:
    # Only a class of a known name is imported, so that saving one estimator does not load them all.
    name = type(model).__name__
    if name not in SAVABLE or type(model) is not _import_class(name):
        others = [other for other in SAVABLE if other != "Pipeline"]
        raise TypeError(
            f"{type(model).__module__}.{type(model).__qualname__} cannot be saved; what can: "
            f"{', '.join(others)}, and a Pipeline of these. Leave other last steps out, "
            "e.g. save_model(pipeline[:-1], path)"
        )
    return name


def _import_class(name: str) -> type:
    return _import_from(SAVABLE[name])


def _import_from(place: str) -> type:
    module, _, attribute = place.partition(":")
    return getattr(import_module(module), attribute)


def _is_numeric_array(value: Any) -> bool:
    return type(value) is np.ndarray and value.dtype.name in SCALAR_DTYPES


def _finite_array(array: np.ndarray, where: str) -> np.ndarray:
    if not np.isfinite(array).all():
        raise ValueError(f"{where} holds NaN or infinity; such a model is not saved")
    return array


def _to_json(value: Any, where: str) -> Any:
    """Write a plain value in JSON; what JSON lacks becomes an object of one entry that names its kind."""
    if isinstance(value, np.generic) and value.dtype.name in SCALAR_DTYPES:
        return {value.dtype.name: _to_json(value.item(), where)}
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} is {value}; a model file holds finite numbers only")
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is list:
        return [_to_json(item, where) for item in value]
    if type(value) is tuple:
        return {"tuple": [_to_json(item, where) for item in value]}
    if type(value) is dict and all(type(key) is str for key in value):
        return {"dict": {key: _to_json(item, f"{where}[{key!r}]") for key, item in value.items()}}
    if _is_string_array(value):
        return {"strings": value.tolist()}
    if type(value) is np.ndarray and value.dtype.kind == "U" and value.ndim == 1:
        return {"labels": value.tolist()}
    if type(value).__name__ in RECORDS and type(value) is _import_from(RECORDS[type(value).__name__]):
        fields = {key: _listed(field) for key, field in vars(value).items()}
        return {"record": [type(value).__name__, _to_json(fields, where)]}
    raise TypeError(
        f"{where} is of type {type(value).__name__}, which cannot be saved; a model file holds numbers, strings, "
        "None, and tuples, lists or dicts of these. Set it to one of them first, e.g. an int for random_state"
    )


def _listed(field: Any) -> Any:
    return field.tolist() if _is_numeric_array(field) else field


def _is_string_array(value: Any) -> bool:
    """Tell whether this is a vector of names, as ``feature_names_in_``."""
    return type(value) is np.ndarray and value.dtype == object and all(type(item) is str for item in value)


# Reading ----------------------------------------------------------------------------------------------
# A file may hold anything. What is wrong with it is raised as ValueError, to which load_model adds the file's name.


def _check_header_size(path: str) -> None:
    """Refuse a header that would fill the memory, before anything parses it."""
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
            f"it has format version {version}, and this imgstack_ml ({__version__}) reads versions up to "
            f"{FORMAT_VERSION}. Upgrade it: pip install --upgrade imgstack_ml"
        )
    return header


def _get(node: dict[str, Any], key: str, kind: type) -> Any:
    value = node.get(key)
    if type(value) is not kind:
        raise ValueError(f"its header has no {kind.__name__} {key!r} where there should be one")
    return value


class _Arrays(NamedTuple):
    """Those of an open file, those of them that may stay in it, and the names of those taken so far."""

    file: Any
    mapped: dict[str, np.ndarray]
    taken: set[str]

    def take(self, key: str) -> np.ndarray:
        """Read one, or map it."""
        if key not in self.file.keys():  # noqa: SIM118 (the file is no dict)
            raise ValueError(f"its array {key!r} is missing")
        dtype = self.file.get_slice(key).get_dtype()
        if dtype not in ARRAY_DTYPES:
            raise ValueError(f"its array {key!r} has the dtype {dtype}, which no estimator uses")
        self.taken.add(key)
        if key in self.mapped and self.mapped[key].nbytes >= MAPPED_BYTES:
            return self.mapped[key]
        array = self.file.get_tensor(key)
        if not np.isfinite(array).all():
            raise ValueError(f"its array {key!r} holds NaN or infinity")
        return array


def _rebuild(node: dict[str, Any], arrays: _Arrays, prefix: str) -> Any:
    """Make the estimator that `_describe` described."""
    name = _get(node, "class", str)
    name = RENAMED.get(name, name)
    if name not in SAVABLE:
        raise ValueError(f"it names the class {name!r}; allowed are {', '.join(SAVABLE)}")
    cls = _import_class(name)
    params = {key: _from_json(value) for key, value in _get(node, "params", dict).items()}
    if name in MEMBERS:
        params[MEMBERS[name]] = _rebuild_steps(_get(node, "steps", list), arrays, prefix)
    _check_parameters(cls, params)
    model = cls(**params)

    fitted = {key: _from_json(value) for key, value in _get(node, "fitted", dict).items()}
    array_names = _get(node, "arrays", list)
    _check_attributes(cls, [*fitted, *array_names])
    for key in array_names:
        fitted[key] = arrays.take(prefix + key)
    vars(model).update(fitted)
    return model


def _rebuild_steps(steps: list[Any], arrays: _Arrays, prefix: str) -> list[tuple[str, Any]]:
    rebuilt = []
    for position, entry in enumerate(steps):
        match entry:
            case [str(name), dict(node)]:
                rebuilt.append((name, _rebuild(node, arrays, f"{prefix}{position}.")))
            case [str(name), str(word)] if word in (PASSTHROUGH, DROP):
                rebuilt.append((name, word))
            case _:
                raise ValueError(f"step {position} of its Pipeline is not a name and an estimator")
    return rebuilt


def _check_parameters(cls: type, params: dict[str, Any]) -> None:
    known = set(cls._get_param_names())  # type: ignore[attr-defined]  # every scikit-learn estimator has it
    known -= PLACES.get(cls.__name__, set())
    if unknown := set(params) - known:
        raise ValueError(f"it gives {cls.__name__} the unknown parameters {sorted(unknown)}")


def _check_attributes(cls: type, names: list[Any]) -> None:
    """Refuse what would stand in for something of the class, such as a method or a property."""
    for name in names:
        if type(name) is not str or not ATTRIBUTE_NAME.fullmatch(name) or hasattr(cls, name):
            raise ValueError(f"it gives {cls.__name__} an attribute {name!r}, which no fit learns")
    if len(set(names)) < len(names):
        raise ValueError(f"it gives {cls.__name__} an attribute twice")


def _from_json(value: Any) -> Any:
    """Read what `_to_json` wrote."""
    match value:
        case list():
            return [_from_json(item) for item in value]
        case float() if not math.isfinite(value):
            raise ValueError(f"its header holds the number {value}")
        case dict() if len(value) == 1:
            ((kind, content),) = value.items()
            return _from_tagged(kind, content)
        case dict():
            raise ValueError("its header holds a value of no known kind")
    return value


def _from_tagged(kind: str, content: Any) -> Any:
    match content:
        case list() if kind == "tuple":
            return tuple(_from_json(item) for item in content)
        case dict() if kind == "dict":
            return {key: _from_json(item) for key, item in content.items()}
        case list() if kind == "strings" and all(type(item) is str for item in content):
            return np.array(content, dtype=object)
        case list() if kind == "labels" and all(type(item) is str for item in content):
            return np.array(content, dtype=str)
        case bool() | int() | float() if kind in SCALAR_DTYPES:
            return _read_scalar(kind, content)
        case [str(name), fields] if kind == "record" and name in RECORDS:
            return _read_record(_import_from(RECORDS[name]), _from_json(fields))
    raise ValueError(f"its header holds a value of the unknown kind {kind!r}")


def _read_record(cls: type, fields: Any) -> Any:
    try:
        return cls(**fields)
    except TypeError as error:
        raise ValueError(f"its header holds a {cls.__name__} of other fields") from error


def _read_scalar(dtype: str, value: bool | int | float) -> Any:
    with np.errstate(all="ignore"):
        scalar = np.array(value).astype(dtype)[()]
    if scalar.item() != value:  # wrapped round, cut off, or infinite
        raise ValueError(f"its header holds {value!r}, which is no {dtype}")
    return scalar
