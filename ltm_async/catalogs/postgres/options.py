"""What may be said of a database and its pool before the driver is there to say it."""

from __future__ import annotations

import dataclasses

from ...dsn import Address
from ...entry import shown
from ...errors import ConfigError
from ...schema import check_schema


@dataclasses.dataclass(frozen=True, slots=True)
class PoolKey:
    """What makes two catalogs share a pool."""

    address: Address
    schema: str
    min_size: int
    max_size: int
    pooler: bool | None
    install: bool

    def __post_init__(self) -> None:
        check_schema(self.schema)
        _check_size("min_size", self.min_size, 0)
        _check_size("max_size", self.max_size, max(1, self.min_size))
        if self.pooler not in (True, False, None) or self.install not in (True, False):
            raise ConfigError("pooler must be true, false or None, and install true or false")


def _check_size(name: str, value: object, least: int) -> None:
    if type(value) is not int or not least <= value <= 1_000:
        raise ConfigError(f"{name} is {shown(value)}, it must be {least} to 1000")
