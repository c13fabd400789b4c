"""Records that are changed by making new ones, often: a decision makes some ten."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar

R = TypeVar("R")


class Derived:
    """Room for what is worked out from a record's fields and kept with it: no fields, not compared, not stored."""

    __slots__ = ("__dict__",)


@cache
def _layout(kind: type[Any]) -> tuple[Callable[[Any], tuple[object, ...]], dict[str, int]]:
    names = [field.name for field in fields(kind)]
    return attrgetter(*names), {name: place for place, name in enumerate(names)}


def changed(record: R, changes: Mapping[str, object]) -> R:
    """`dataclasses.replace` in a fifth of its time, which was a third of a decision's.

    The record itself if nothing changes. Raises KeyError for a name that is no field.
    """
    read, places = _layout(type(record))  # type: ignore[arg-type]  # a type is hashable
    values = list(read(record))
    is_same = True
    for name, value in changes.items():
        place = places[name]
        is_same = is_same and (values[place] is value or values[place] == value)
        values[place] = value
    return record if is_same else type(record)(*values)
