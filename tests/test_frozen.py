"""Frozen values do all that frozen dataclasses do, whatever their classes cost."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from ltm_async.errors import UnavailableError
from ltm_async.frozen import Frozen, frozen
from ltm_async.protocols import Row
from ltm_async.results import RetrieveResult, StoreResult

ROW = Row("k", 1, "sha256:0", 4, "null", None, "{}", None, 5, 6)


@frozen
class Fruit(Frozen):
    KINDS: ClassVar = ("apple", "pear")

    weight_g: int = 0
    name: str
    secret: str = dataclasses.field(default="", repr=False)
    note: str = dataclasses.field(default="", compare=False)
    tags: list[str] = dataclasses.field(default_factory=list)


@frozen
class Cherry(Fruit):
    stones: int = 1


def test_fields_have_their_defaults_in_every_order() -> None:
    fruit = Fruit(name="apple")
    assert (fruit.name, fruit.weight_g, fruit.tags) == ("apple", 0, [])
    assert Cherry(stones=2, name="cherry", weight_g=9).weight_g == 9
    assert Fruit(name="a").tags is not Fruit(name="b").tags


def test_a_field_too_few_or_too_many_is_named() -> None:
    with pytest.raises(TypeError, match="Fruit needs the field 'name'"):
        Fruit(weight_g=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="Fruit has no field 'colour'"):
        Fruit(name="a", colour="red")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="Fruit has no field 'KINDS'"):
        Fruit(name="a", KINDS=())  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Fruit("a")  # type: ignore[call-arg,arg-type]


def test_nothing_can_be_changed_or_added() -> None:
    fruit = Fruit(name="apple")
    with pytest.raises(dataclasses.FrozenInstanceError, match="name"):
        fruit.name = "pear"  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError, match="name"):
        del fruit.name
    with pytest.raises(dataclasses.FrozenInstanceError):
        fruit.colour = "red"  # type: ignore[attr-defined]
    assert not hasattr(fruit, "__dict__")


def test_equality_and_hash_are_of_the_fields_that_are_compared() -> None:
    fruit = Fruit(name="apple", note="here")
    assert fruit == Fruit(name="apple", note="there")
    assert fruit != Fruit(name="pear") and fruit != Fruit(name="apple", secret="x")
    assert Cherry(name="apple") != fruit and fruit != "apple"
    one, other = StoreResult(key="k", version=1), StoreResult(key="k", version=1)
    assert len({one, other, StoreResult(key="k", version=2)}) == 2
    with pytest.raises(TypeError, match="unhashable"):
        hash(fruit)


def test_what_it_shows_is_what_makes_it() -> None:
    fruit = Fruit(name="apple", secret="canary")
    assert repr(fruit) == "Fruit(weight_g=0, name='apple', note='', tags=[])"


@pytest.mark.parametrize(
    "again",
    [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one)), dataclasses.replace],
)
def test_a_copy_is_equal(again: Callable[[Any], Any]) -> None:
    cherry = Cherry(name="morello", tags=["sour"], note="kept")
    assert again(cherry) == cherry and again(cherry).note == "kept"
    assert type(again(cherry)) is Cherry


def test_it_is_a_dataclass_to_those_who_ask() -> None:
    assert [field.name for field in dataclasses.fields(Cherry)][-1] == "stones"
    assert dataclasses.asdict(Fruit(name="a", tags=["b"]))["tags"] == ["b"]


def test_a_class_may_check_its_fields() -> None:
    @frozen
    class Even(Frozen):
        number: int = 0

        def __post_init__(self) -> None:
            if self.number % 2:
                raise ValueError("it is odd")

    assert Even(number=2).number == 2
    with pytest.raises(ValueError, match="odd"):
        Even(number=3)


def test_a_result_made_for_a_batch_is_one_of_the_constructor() -> None:
    made = RetrieveResult.of("k", [1], {"a": 2}, ROW)
    assert type(made) is RetrieveResult
    assert made == RetrieveResult(key="k", value=[1], metadata={"a": 2}, row=ROW)
    for field in dataclasses.fields(RetrieveResult):
        same = RetrieveResult(key="k", value=[1], metadata={"a": 2}, row=ROW)
        assert getattr(made, field.name) == getattr(same, field.name), field.name
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.value = 3  # type: ignore[misc]
    failed = dataclasses.replace(made, exception=UnavailableError("down"))
    assert failed.degraded and failed.found


def test_importing_the_backend_compiles_no_methods_for_results() -> None:
    """And few classes are left that have it done; each takes half a millisecond."""
    code = """
import asyncio, dataclasses, sys
made = []
def audit(event, args):
    if event == "exec" and "__create_fn__" in args[0].co_names:
        made.append(args[0])
sys.addaudithook(audit)
from ltm_async import LTMBackend, results
ours = len(made)
dataclasses.make_dataclass("Compiled", ["field"])
print(ours, len(made) > ours)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    ours, seen = done.stdout.split()
    assert (int(ours) <= 10, seen) == (True, "True")
