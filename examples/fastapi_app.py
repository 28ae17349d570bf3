"""A FastAPI app: a cached endpoint, and cleanup behind the answer. uvicorn fastapi_app:app"""

import asyncio
import os
from typing import Any

import uvicorn
from fastapi import FastAPI, Request

from ltm_async import Cache, LTMBackend
from ltm_async.integrations.asgi import LTMMiddleware, defer, lifespan

ltm = LTMBackend(os.environ.get("DATABASE_URL", "sqlite:///memory.db"), "./blobs")
cache = Cache(ltm, ttl=60, fresh_for=10, stale_for=50, cleanup_probability=0.05, defer=defer)

app = FastAPI(lifespan=lifespan(ltm))
app.add_middleware(LTMMiddleware, ltm=ltm)


@cache.cached()
async def report(city: str) -> dict[str, Any]:
    await asyncio.sleep(0.2)  # a slow service
    return {"city": city, "sunny": len(city) % 2 == 0}


@app.get("/reports/{city}")
async def read_report(city: str) -> dict[str, Any]:
    return await report(city)  # one run for all who ask, refreshed behind the answer


@app.post("/visits/{user}")
async def count_visit(user: str, request: Request) -> dict[str, Any]:
    done = await request.state.ltm.update(f"visits:{user}", lambda n: n + 1, default=0, ttl=3600)
    return {"counted": done.stored}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
