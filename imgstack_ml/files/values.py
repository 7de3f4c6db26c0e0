"""Values as JSON and back: parameters and fitted attributes of models, except arrays of numbers, which are tensors."""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any

import numpy as np

__all__ = ["RECORDS", "from_json", "import_type", "is_numeric_array", "to_json"]

RECORDS: dict[
    str, str
] = {}  # "module:name" of records that attributes may be, by their names; `persistence` knows them
SCALAR_DTYPES = {
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
}  # fmt: skip


def import_type(place: str) -> type:
    """Import a type from ``"module:name"``."""
    module, _, attribute = place.partition(":")
    found: type = getattr(import_module(module), attribute)
    return found


def is_numeric_array(value: Any) -> bool:
    """Return whether `value` is an array that becomes a tensor."""
    return type(value) is np.ndarray and value.dtype.name in SCALAR_DTYPES


def to_json(value: Any, where: str) -> Any:
    """Return a value as JSON; types that JSON lacks become an object with one entry, the type's name and content."""
    if isinstance(value, np.generic) and value.dtype.name in SCALAR_DTYPES:
        return {value.dtype.name: to_json(value.item(), where)}
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} is {value}; a model file holds finite numbers only")
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is list:
        return [to_json(item, where) for item in value]
    if type(value) is tuple:
        return {"tuple": [to_json(item, where) for item in value]}
    if type(value) is dict and all(type(key) is str for key in value):
        return {"dict": {key: to_json(item, f"{where}[{key!r}]") for key, item in value.items()}}
    if _is_string_array(value):
        return {"strings": value.tolist()}
    if type(value) is np.ndarray and value.dtype.kind == "U" and value.ndim == 1:
        return {"labels": value.tolist()}
    if type(value).__name__ in RECORDS and type(value) is import_type(RECORDS[type(value).__name__]):
        fields = {key: _list_of_array(field) for key, field in vars(value).items()}
        return {"record": [type(value).__name__, to_json(fields, where)]}
    raise TypeError(
        f"{where} is of type {type(value).__name__}, which cannot be saved; a model file holds numbers, strings, "
        "None, and tuples, lists or dicts of these. Set it to a value of these types, e.g. random_state to an int"
    )


def _list_of_array(field: Any) -> Any:
    """Return a numeric array as a list, anything else as it is."""
    return field.tolist() if is_numeric_array(field) else field


def _is_string_array(value: Any) -> bool:
    """Return whether `value` is an array of names, as ``feature_names_in_``."""
    return type(value) is np.ndarray and value.dtype == object and all(type(item) is str for item in value)


def from_json(value: Any) -> Any:
    """Return the value of which `to_json` wrote `value`."""
    match value:
        case list():
            return [from_json(item) for item in value]
        case float() if not math.isfinite(value):
            raise ValueError(f"its header holds the number {value}")
        case dict() if len(value) == 1:
            ((kind, content),) = value.items()
            return _from_object(kind, content)
        case dict():
            raise ValueError("its header holds a value of no known kind")
    return value


def _from_object(kind: str, content: Any) -> Any:
    """Return the value that an object of one entry, ``{kind: content}``, stands for."""
    match content:
        case list() if kind == "tuple":
            return tuple(from_json(item) for item in content)
        case dict() if kind == "dict":
            return {key: from_json(item) for key, item in content.items()}
        case list() if kind == "strings" and all(type(item) is str for item in content):
            return np.array(content, dtype=object)
        case list() if kind == "labels" and all(type(item) is str for item in content):
            return np.array(content, dtype=str)
        case bool() | int() | float() if kind in SCALAR_DTYPES:
            return _read_scalar(kind, content)
        case [str(name), fields] if kind == "record" and name in RECORDS:
            return _read_record(import_type(RECORDS[name]), from_json(fields))
    raise ValueError(f"its header holds a value of the unknown kind {kind!r}")


def _read_record(cls: type, fields: Any) -> Any:
    try:
        return cls(**fields)
    except TypeError as error:
        raise ValueError(f"its header holds a {cls.__name__} with wrong fields") from error


def _read_scalar(dtype: str, value: bool | int | float) -> Any:
    with np.errstate(all="ignore"):
        scalar = np.array(value).astype(dtype)[()]
    if scalar.item() != value:  # the dtype cannot hold the value: it wrapped around, was rounded, or became infinite
        raise ValueError(f"its header holds {value!r}, which is no {dtype}")
    return scalar
