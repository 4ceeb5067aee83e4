"""``windward validate``: what ``apply`` would say, without a mesh."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence

from windward.cli import files
from windward.cli.failures import UserError
from windward.cli.findings import Row, errors, show
from windward.cli.output import say
from windward.config.decode import decode_object
from windward.config.document import Document, parse_documents
from windward.config.finding import Finding


def validate(names: Sequence[str], namespace: str | None, output: str) -> None:
    """Print every finding; exit status 1 if one is an error."""
    rows: list[Row] = []
    count = 0
    for file, text in files.read(names):
        for document in parse_documents(text, file):
            count += 1
            rows += document_rows(document)
            if document.raw is not None:
                _, findings = decode_object(document.raw, default_namespace=namespace or "default")
                rows += [finding_row(finding, document, namespace) for finding in findings]
    if not count:
        raise UserError(f"no object in {', '.join(names)}")
    show(rows, output)
    if found := errors(rows):
        say(f"{found} error{'s' if found > 1 else ''} in {count} object{'s' if count > 1 else ''}")
        sys.exit(1)
    if output == "table":
        say(f"{count} object{'s' if count > 1 else ''}: valid")


def document_rows(document: Document) -> list[Row]:
    """Findings about the text itself: bad YAML, duplicate keys."""
    return [finding_row(finding, document, None) for finding in document.findings]


def finding_row(finding: Finding, document: Document, namespace: str | None) -> Row:
    raw: Mapping[str, object] = document.raw or {}
    metadata = raw.get("metadata")
    named: Mapping[str, object] = metadata if isinstance(metadata, dict) else {}
    return Row(
        file=document.file,
        line=line_of(document.lines, finding.path, document.line),
        kind=str(raw.get("kind", "")),
        namespace=str(named.get("namespace") or namespace or "default"),
        name=str(named.get("name", "")),
        path=finding.path,
        severity=finding.severity.value,
        code=finding.code,
        message=finding.message,
        fix=finding.fix,
    )


def line_of(lines: Mapping[str, int], path: str, otherwise: int) -> int:
    """The line of a field, or of the nearest field around it: what is missing has no line of its own."""
    for candidate in around(path):
        if candidate in lines:
            return lines[candidate]
    return otherwise


def around(path: str) -> Iterable[str]:
    """A path, then ever shorter ones: ``a.b[0].c``, ``a.b[0]``, ``a.b``, ``a``."""
    while path:
        yield path
        cut = max(path.rfind("."), path.rfind("["))
        path = path[:cut] if cut > 0 else ""
