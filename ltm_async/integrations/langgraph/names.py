"""LangGraph's namespaces and keys as keys of entries.

``("users", "7")`` and ``"likes"`` become ``<root>users/7//likes``: each label ends with a slash,
and an empty one comes before the key. So the entries below a namespace are those whose keys begin
with its labels, and those of a namespace alone follow each other.
"""

from __future__ import annotations

from typing import NamedTuple

from ltm_async.entry import check_key

STORE_ROOT = "langgraph/store/"
CACHE_ROOT = "langgraph/cache/"


class Name(NamedTuple):
    """What LangGraph calls an entry."""

    namespace: tuple[str, ...]
    key: str


def below(root: str, namespace: tuple[str, ...]) -> str:
    """What the keys of all entries in *namespace* and beneath it begin with."""
    return root + "".join(f"{_escape(label)}/" for label in namespace)


def within(root: str, namespace: tuple[str, ...]) -> str:
    """What the keys of the entries in *namespace* itself begin with."""
    return below(root, namespace) + "/"


def after(prefix: str) -> str:
    """The first text after all that begin with *prefix*, which ends with a slash. No key is it."""
    return prefix[:-1] + chr(ord("/") + 1)


def entry_key(root: str, name: Name) -> str:
    """The key of an entry.

    Raises:
        InvalidEntryError: It would have more than 1,024 bytes, or what no key may have.
    """
    key = within(root, name.namespace) + name.key
    check_key(key, "namespace and key, as one key of an entry,")
    return key


def name_of(root: str, key: str) -> Name | None:
    """The name of the entry under *key*, or None for one that :func:`entry_key` did not make."""
    labels: list[str] = []
    rest = key[len(root) :]
    while True:
        label, slash, rest = rest.partition("/")
        if not slash:
            return None
        if not label:
            return Name(tuple(labels), rest)
        labels.append(_unescape(label))


def _escape(label: str) -> str:
    return label.replace("%", "%25").replace("/", "%2F") or "%"


def _unescape(text: str) -> str:
    return "" if text == "%" else text.replace("%2F", "/").replace("%25", "%")
