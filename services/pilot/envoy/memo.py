"""What was built for one scope and serves the next: kept below the host it is about, with what it was built from.

Scopes differ by little: most of what one namespace sees of a host is, byte for byte, what the others see.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any, TypeVar, cast

from services.pilot.ahead import Ahead
from windward.slices import Work

T = TypeVar("T")


class _Variant:
    """A value, the inputs that it was built from, and the mesh's version that asked for it last."""

    __slots__ = ("inputs", "used", "value")

    def __init__(self, inputs: tuple[object, ...], value: Any, used: int) -> None:
        self.inputs = inputs
        self.value = value
        self.used = used


class Memo:
    """(host, key) -> the values built from different inputs. Inputs are compared by identity, then equality.

    It saves work only: what it gives back is what ``build`` would have made.
    """

    def __init__(self) -> None:
        self._kept: dict[str, dict[Hashable, list[_Variant]]] = {}
        self._of_now: dict[Hashable, tuple[object, Any]] = {}
        self._version = 0
        self.ahead = Ahead()
        self.built = 0

    @property
    def version(self) -> int:
        """The mesh's version that is being built."""
        return self._version

    @version.setter
    def version(self, version: int) -> None:
        self._version = version
        self._of_now.clear()

    def once(self, key: Hashable, of: object, build: Callable[[], T]) -> T:
        """What the first scope made, for those that do the very same after it at this version. ``of`` is what the key names by
        ``id``: it is kept alive, so that the id stays its own.
        """
        found = self._of_now.get(key)
        if found is None:
            found = self._of_now[key] = (of, build())
        return cast("T", found[1])

    def get(
        self, host: str, key: Hashable, inputs: tuple[object, ...], build: Callable[[], T]
    ) -> T:
        of_host = self._kept.get(host)
        if of_host is None:
            of_host = self._kept[host] = {}
        variants = of_host.get(key)
        if variants is None:
            variants = of_host[key] = []
        for variant in variants:
            if _equal(variant.inputs, inputs):
                variant.used = self.version
                return cast("T", variant.value)
        made = build()
        self.built += 1
        for variant in variants:
            if variant.value == made:
                # Other inputs, the same outcome: one object for all who have it, and nothing to send.
                made = cast("T", variant.value)
                break
        variants.append(_Variant(inputs, made, self.version))
        return made

    def latest(self, host: str, key: Hashable) -> Any:
        """The value used last below a key, from which the next one may take parts; None when there is none."""
        variants = self._kept.get(host, {}).get(key)
        return max(variants, key=lambda variant: variant.used).value if variants else None

    def sweep(self, hosts: Iterable[str]) -> Work[None]:
        """After every scope took over a change of these hosts: forget what the newer values stand in for. A step a host."""
        for host in hosts:
            yield
            of_host = self._kept.get(host, {})
            for key, variants in of_host.items():
                if not variants:
                    continue  # what should have been built there could not be
                newest = max(variant.used for variant in variants)
                if newest == self.version and len(variants) > 1:
                    of_host[key] = [item for item in variants if item.used == newest]

    def keep_used(self, host: str) -> None:
        """Forget all below a host that was not asked for at this version."""
        of_host = self._kept.get(host, {})
        for key, variants in list(of_host.items()):
            left = [item for item in variants if item.used == self.version]
            if left:
                of_host[key] = left
            else:
                del of_host[key]

    def forget(self, hosts: Iterable[str]) -> None:
        """These hosts are gone."""
        for host in hosts:
            self._kept.pop(host, None)


def _equal(before: tuple[object, ...], now: tuple[object, ...]) -> bool:
    return len(before) == len(now) and all(
        old is new or old == new for old, new in zip(before, now, strict=True)
    )
