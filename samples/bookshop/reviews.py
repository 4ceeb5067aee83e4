"""What readers say: v1 without stars, v2 with black stars, v3 with red ones. Stars come from the ratings service."""

from __future__ import annotations

import os

from aiohttp import web

from samples.bookshop.shop import Answer, Downstream, run

RATINGS = "http://ratings:9080"
COLOURS = {"v1": "", "v2": "black", "v3": "red"}


async def reviews(request: web.Request, downstream: Downstream) -> Answer:
    colour = COLOURS.get(os.environ.get("BOOKSHOP_VERSION", "v1"), "")
    texts = ["Kept me up through two night watches.", "The chapter on knots alone is worth it."]
    answer: Answer = {"texts": texts, "stars": None, "colour": colour}
    if colour:
        book = request.match_info["book"]
        status, ratings = await downstream.get(request, f"{RATINGS}/ratings/{book}")
        answer |= {"stars": ratings["stars"] if ratings else None, "ratings_status": status}
    return answer


if __name__ == "__main__":
    run("/reviews/{book}", reviews)
