"""What nobody asks for and somebody must do: large changes whose writer died, and history over its limit.

Every Pilot does it; that several do it at once harms nothing.
"""

from __future__ import annotations

import asyncio
from typing import Final

from windward.config.changing import tidy
from windward.config.history import prune_history
from windward.store.errors import StoreError
from windward.store.protocol import Store
from windward.telemetry.logging import get_logger

log = get_logger()
TIDY_EVERY_S: Final = 2.0
PRUNE_EVERY_S: Final = 600.0


async def keep_house(store: Store, history_limit: int) -> None:
    """Until cancelled. A store that is away is tried again at the next round."""
    loop = asyncio.get_running_loop()
    prune_at = loop.time()
    while True:
        try:
            if removed := await tidy(store):
                log.info("config.swept", chunks=removed)
            if loop.time() >= prune_at:
                prune_at = loop.time() + PRUNE_EVERY_S
                if removed := await prune_history(store, history_limit):
                    log.info("history.pruned", records=removed)
        except StoreError as error:
            log.warning("housekeeping.waits", reason=str(error))
        await asyncio.sleep(TIDY_EVERY_S)
