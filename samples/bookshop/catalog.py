"""What the shop sells."""

from __future__ import annotations

from aiohttp import web

from samples.bookshop.shop import Answer, Downstream, run

BOOKS = {
    "1": {"title": "A Winter's Sail", "author": "I. Moreau", "pages": 312},
    "2": {"title": "Lee Shore", "author": "P. Okafor", "pages": 268},
    "3": {"title": "The Weather Glass", "author": "R. Lindqvist", "pages": 401},
}


async def book(request: web.Request, _: Downstream) -> Answer:
    number = request.match_info["book"]
    return {"id": number, **BOOKS.get(number, {"title": "unknown"})}


if __name__ == "__main__":
    run("/books/{book}", book)
