"""Values that stay as they were made, of classes that are cheap to define.

``dataclasses`` writes and compiles six methods for each frozen class, more than half a millisecond,
and a cold start would have it done for twenty. Classes from here are dataclasses as well, to be
asked for their fields and replaced, but share one set of methods.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar, dataclass_transform


class Frozen:
    """What the methods of a frozen dataclass do, for any fields."""

    __slots__ = ()
    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]
    _names: ClassVar[dict[str, None]]
    _compared: ClassVar[tuple[str, ...]]
    _shown: ClassVar[tuple[str, ...]]
    _defaults: ClassVar[dict[str, Any]]
    _makers: ClassVar[dict[str, Any]]

    def __init__(self, **given: Any) -> None:
        values = self._defaults | given
        for name, make in self._makers.items():
            if name not in given:
                values[name] = make()
        if values.keys() != self._names.keys():
            self._refuse(values)
        put = object.__setattr__
        for name, value in values.items():
            put(self, name, value)
        self.__post_init__()

    def __post_init__(self) -> None:
        """Check the fields, where a class has something to check."""

    def _refuse(self, values: dict[str, Any]) -> NoReturn:
        unknown = [name for name in values if name not in self._names]
        missing = [name for name in self._names if name not in values]
        what = f"has no field {unknown[0]!r}" if unknown else f"needs the field {missing[0]!r}"
        raise TypeError(f"{type(self).__name__} {what}")

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._shown)
        return f"{type(self).__qualname__}({fields})"

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self._compared)

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, name) for name in self._compared))

    if not TYPE_CHECKING:  # type checkers would take any name for one that can be assigned to

        def __setattr__(self, name: str, value: object) -> NoReturn:
            raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")

        def __delattr__(self, name: str) -> NoReturn:
            raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")

    def __getstate__(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self._names)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        for name, value in zip(self._names, state, strict=True):
            object.__setattr__(self, name, value)


T = TypeVar("T", bound=Frozen)


@dataclass_transform(
    kw_only_default=True, frozen_default=True, field_specifiers=(dataclasses.field,)
)
def frozen(cls: type[T]) -> type[T]:
    """Make *cls* a slotted dataclass that takes keywords, with the methods of ``Frozen``."""
    made = dataclasses.dataclass(init=False, repr=False, eq=False, slots=True, kw_only=True)(cls)
    fields = dataclasses.fields(made)
    made._names = dict.fromkeys(field.name for field in fields)
    made._compared = tuple(field.name for field in fields if field.compare)
    made._shown = tuple(field.name for field in fields if field.repr)
    missing = dataclasses.MISSING
    made._defaults = {f.name: f.default for f in fields if f.default is not missing}
    made._makers = {f.name: f.default_factory for f in fields if f.default_factory is not missing}
    return made
