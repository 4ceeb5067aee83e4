"""pilot/api-validation and pilot/istio-validation-crds: YAML documents; ``_err`` in one means that it must be refused."""

from __future__ import annotations

import re
from pathlib import Path

from tests.conformance.cases import NOT_IMPLEMENTED, Result, index
from tests.conformance.verdict import judge
from windward.config.document import parse_documents
from windward.config.registry import KINDS


def run(folder: Path, suite: str) -> Result:
    result = Result()
    files: dict[str, list[str]] = {}
    for case, entry in index(folder, suite):
        file = entry["input"]
        if file not in files:
            chunks = re.split(
                r"^---\s*$", (folder / "pilot" / file).read_text(), flags=re.MULTILINE
            )
            files[file] = [
                chunk for chunk in chunks if re.search(r"^\s*[^#\s]", chunk, re.MULTILINE)
            ]
        result.count(case, check(files[file][entry["doc"]]))
    return result


def check(text: str) -> str:
    refused = re.search(r"^_err:", text, re.MULTILINE) is not None
    documents = parse_documents(text, "")
    raw = documents[0].raw if documents else None
    if raw is None:
        said = documents[0].findings[0].message if documents else "nothing there"
        return "" if refused else f"should be accepted: {said}"
    raw.pop("_err", None)
    group = str(raw.get("apiVersion", "")).partition("/")[0]
    if (group, str(raw.get("kind"))) not in KINDS:
        return NOT_IMPLEMENTED
    return judge(raw, valid=not refused, warning=None)
