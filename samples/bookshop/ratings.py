"""Stars, one number a reader."""

from __future__ import annotations

from aiohttp import web

from samples.bookshop.shop import Answer, Downstream, run

STARS = {"1": [5, 4], "2": [3, 4], "3": [5, 5]}


async def ratings(request: web.Request, _: Downstream) -> Answer:
    number = request.match_info["book"]
    return {"id": number, "stars": STARS.get(number, [])}


if __name__ == "__main__":
    run("/ratings/{book}", ratings)
