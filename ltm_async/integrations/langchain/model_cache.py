"""LTMModelCache: LangChain's cache of what models answered, on a backend."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from langchain_core.caches import RETURN_VAL_TYPE, BaseCache
from langchain_core.messages import message_to_dict, messages_from_dict
from langchain_core.outputs import (
    ChatGeneration,
    ChatGenerationChunk,
    Generation,
    GenerationChunk,
)

from ltm_async.backend import LTMBackend
from ltm_async.errors import CorruptError, InvalidEntryError, StoreError
from ltm_async.integrations.clearing import delete_below
from ltm_async.integrations.waiting import wait_for

logger = logging.getLogger(__name__)

ROOT = "langchain/models/"
KINDS: Mapping[str, type[Generation]] = {
    kind.__name__: kind
    for kind in (Generation, GenerationChunk, ChatGeneration, ChatGenerationChunk)
}


class LTMModelCache(BaseCache):
    """LangChain's LLM cache on *ltm*, for ``set_llm_cache`` or a model's ``cache=``.

    Its async methods never block the loop; the others wait, in any thread that runs no event loop.
    Answers are kept under ``langchain/models/``, by a hash of prompt and model. Only generations
    and LangChain's own messages are made from them, whatever an entry says.

    The cache never fails a model: what cannot be read is a miss, and what would not come back
    equal, or a store does not take, is not cached and logged as a warning.

    Args:
        ltm: Where the answers are kept; it stays yours to close.
        ttl: Seconds or a timedelta after which an answer is gone, or None.
    """

    def __init__(self, ltm: LTMBackend, *, ttl: float | timedelta | None = None) -> None:
        self._ltm = ltm
        self._ttl = ttl

    def lookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """:meth:`alookup`, waiting."""
        return wait_for(lambda: self.alookup(prompt, llm_string))

    def update(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        """:meth:`aupdate`, waiting."""
        wait_for(lambda: self.aupdate(prompt, llm_string, return_val))

    def clear(self, **kwargs: Any) -> None:
        """:meth:`aclear`, waiting."""
        wait_for(lambda: self.aclear(**kwargs))

    async def alookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """What the model answered, or None; while a store is down, what this process still has."""
        try:
            hit = await self._ltm.retrieve(_key(prompt, llm_string))
            return [_generation(kept) for kept in _list(hit.value)] if hit.found else None
        except StoreError as exc:
            logger.warning("a model is asked again: %s", exc)
            return None

    async def aupdate(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        """Keep what the model answered."""
        try:
            kept = [_plain(generation) for generation in return_val]
            await self._ltm.store(_key(prompt, llm_string), kept, ttl=self._ttl)
        except (InvalidEntryError, StoreError) as exc:
            logger.warning("an answer is not cached: %s", exc)

    async def aclear(self, **kwargs: Any) -> None:  # noqa: ARG002  # LangChain passes none
        """Delete all answers.

        Raises:
            StoreError: A store failed; some may be deleted.
        """
        await delete_below(self._ltm, ROOT)


def _key(prompt: str, llm_string: str) -> str:
    return ROOT + hashlib.sha256(json.dumps([llm_string, prompt]).encode()).hexdigest()


def _plain(generation: Generation) -> dict[str, Any]:
    """*generation* as JSON, if it will come back equal."""
    plain: dict[str, Any] = {
        "kind": type(generation).__name__,
        "generation_info": generation.generation_info,
    }
    if isinstance(generation, ChatGeneration):
        plain["message"] = message_to_dict(generation.message)
    else:
        plain["text"] = generation.text
    if _generation(plain) != generation:
        raise InvalidEntryError(f"a {type(generation).__name__} would come back changed")
    return plain


def _generation(kept: Any) -> Generation:
    try:
        fields = dict(kept)
        kind = KINDS[fields.pop("kind")]
        if "message" in fields:
            (fields["message"],) = messages_from_dict([fields["message"]])
        return kind(**fields)
    except (KeyError, TypeError, ValueError) as exc:
        raise CorruptError(f"an answer cannot be decoded: {type(exc).__name__}") from exc


def _list(kept: Any) -> Sequence[Any]:
    if not isinstance(kept, list):
        raise CorruptError("an answer is no list")
    return kept
