"""The shop's front page: asks the catalog for the book and the reviews service for its reviews."""

from __future__ import annotations

import asyncio

from aiohttp import web

from samples.bookshop.shop import Answer, Downstream, run

CATALOG = "http://catalog:9080"
REVIEWS = "http://reviews:9080"


async def front_page(request: web.Request, downstream: Downstream) -> Answer:
    book = request.match_info.get("book", "") or "1"
    (catalog_status, catalog), (reviews_status, reviews) = await asyncio.gather(
        downstream.get(request, f"{CATALOG}/books/{book}"),
        downstream.get(request, f"{REVIEWS}/reviews/{book}"),
    )
    return {
        "book": catalog,
        "catalog_status": catalog_status,
        "reviews": reviews,
        "reviews_status": reviews_status,
    }


if __name__ == "__main__":
    run("/{book:[0-9]*}", front_page)
