"""All targets; importing this fills :data:`tests.fuzz.running.TARGETS`."""

from . import arguments, replies, stored

__all__ = ["arguments", "replies", "stored"]
