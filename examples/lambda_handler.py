"""A function of AWS Lambda: what the init phase has opened serves every warm invocation."""

from __future__ import annotations

import os
from typing import Any

from ltm_async import LTMBackend, handler, preload

# DATABASE_URL=postgresql://…?min_size=0&max_size=2 and an s3:// bucket in production.
ltm = LTMBackend(
    os.environ.get("DATABASE_URL", "sqlite:///memory.db"),
    os.environ.get("BUCKET", "./blobs"),
    on_unavailable="raise",
)
preload(ltm)  # driver and connection: part of the init phase, not of the first invocation


@handler
async def lambda_handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    user = event["user"]
    await ltm.update(f"visits:{user}", lambda visits: visits + 1, default=0, ttl=3600)
    await ltm.cleanup_expired(limit=5)
    hit = await ltm.retrieve(f"visits:{user}")
    return {"user": user, "visits": hit.value}


if __name__ == "__main__":
    first, second = (lambda_handler({"user": "ann"}, None) for _ in range(2))
    print(first, second)
    print("counted on:", second["visits"] - first["visits"] == 1)
