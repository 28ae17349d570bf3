"""A deliberate break: what it replaces by what, and which test has to notice."""

from __future__ import annotations

import dataclasses
import pathlib
import tomllib

PATCHES = pathlib.Path(__file__).parent / "patches"


class StalePatchError(Exception):
    """The code that a mutant replaces is not there once, or what it becomes is no Python."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """In *file*, the one place that reads *find* shall read *put*."""

    file: str
    find: str
    put: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    name: str
    title: str
    breaks: str
    """The invariant of the commit protocol, "I1" to "I10", or the promise that no longer holds."""
    test: str
    """The one test that has to fail, as pytest names it."""
    edits: tuple[Edit, ...]

    def of(self, tree: pathlib.Path) -> dict[pathlib.Path, str]:
        """The files of *tree* that change, as they read then.

        Raises:
            StalePatchError: It does not fit the code any more.
        """
        texts: dict[pathlib.Path, str] = {}
        for edit in self.edits:
            file = tree / edit.file
            text = texts.get(file) or file.read_text()
            if (times := text.count(edit.find)) != 1:
                raise StalePatchError(
                    f"{self.name}: {edit.file} has its text {times} times, not once"
                )
            texts[file] = text.replace(edit.find, edit.put)
        for file, text in texts.items():
            if file.suffix == ".py":
                try:
                    compile(text, str(file), "exec")
                except SyntaxError as exc:
                    raise StalePatchError(f"{self.name}: {file.name} is no Python: {exc}") from exc
        return texts


def read_mutants(folder: pathlib.Path = PATCHES) -> list[Mutant]:
    return [_read(file) for file in sorted(folder.glob("*.toml"))]


def _read(file: pathlib.Path) -> Mutant:
    data = tomllib.loads(file.read_text())
    edits = tuple(Edit(**edit) for edit in data.pop("edits"))
    return Mutant(name=file.stem, edits=edits, **data)
