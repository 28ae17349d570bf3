"""What may be said of a Firestore database before its driver is there to say it."""

from __future__ import annotations

import re

from ...errors import ConfigError

_PROJECT = re.compile(r"[a-z0-9][a-z0-9.:-]{0,62}")
_DATABASE = re.compile(r"\(default\)|[a-z][a-z0-9-]{2,61}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9_-]{0,100}")
TRANSPORTS = ("official", "light")


def check_options(
    project: object = None,
    database: object = None,
    collection_prefix: object = "",
    batch_bytes: object = 1 << 20,
    transport: object = TRANSPORTS[0],
) -> None:
    """Refuse what no project, database or collection is called, or what no commit can hold."""
    for name, value, form in (
        ("project", project, _PROJECT),
        ("database", database, _DATABASE),
        ("collection_prefix", collection_prefix, _PREFIX),
    ):
        if value is not None and not (isinstance(value, str) and form.fullmatch(value)):
            raise ConfigError(f"firestore: {name} has the form of none: {str(value)[:60]!r}")
    if isinstance(collection_prefix, str) and collection_prefix.startswith("__"):
        raise ConfigError("firestore: collection_prefix begins with __, which is reserved")
    if type(batch_bytes) is not int or not 64 * 1024 <= batch_bytes <= 9 * 1024 * 1024:
        raise ConfigError("firestore: batch_bytes must be 65536 to 9437184")
    if transport not in TRANSPORTS:
        raise ConfigError(f"firestore: transport must be {' or '.join(TRANSPORTS)}")
