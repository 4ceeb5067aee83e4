"""Which kind a word of the command line means: ``virtualservices``, ``VirtualService``, ``vs`` are one."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Final

from windward.cli.failures import UserError
from windward.config.registry import KINDS, Kind

SHORT_NAMES: Final = {
    "vs": "virtualservice",
    "dr": "destinationrule",
    "gw": "gateway",
    "se": "serviceentry",
    "we": "workloadentry",
    "wg": "workloadgroup",
    "pa": "peerauthentication",
}


def resolve(word: str) -> Kind:
    """Raises UserError naming near kinds."""
    wanted = SHORT_NAMES.get(word.lower(), word.lower())
    by_name = {
        name: kind for kind in KINDS.values() for name in (kind.kind.lower(), kind.plural.lower())
    }
    if wanted in by_name:
        return by_name[wanted]
    near = get_close_matches(wanted, by_name, n=1)
    hint = (
        f"did you mean {near[0]}?"
        if near
        else f"kinds are: {', '.join(sorted(k.kind for k in KINDS.values()))}"
    )
    raise UserError(f"there is no kind {word!r}; {hint}")
