"""YAML text -> documents with the line of every field.

in   text of one file: YAML or JSON, one or several documents, ``kind: List`` unpacked
out  Document(raw, file, line, lines: field path -> line, findings)

PyYAML's C loader, by way of its node tree: duplicate keys are errors, aliases may not blow up, only JSON's types exist.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from windward.config.finding import Finding
from windward.config.hosts import is_ip

LARGEST_BYTES: Final = 16 * 1024 * 1024
MOST_NODES: Final = 500_000
DEEPEST: Final = 60
_OPEN_ADDRESS: Final = re.compile(r"(?<=[\[, ])[0-9a-fA-F:]*::(?=\s*[,\]])")
_TAG: Final = "tag:yaml.org,2002:"
_SCALAR_TAGS: Final = frozenset(
    f"{_TAG}{name}" for name in ("str", "int", "float", "bool", "null", "timestamp", "value")
)


@dataclass(frozen=True, slots=True)
class Document:
    raw: dict[str, Any] | None
    """None when the text is no object; then there is a finding."""
    file: str
    line: int
    lines: dict[str, int] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


class _Loader(yaml.CSafeLoader):
    """CSafeLoader as it is: named so that its constructor can be used on nodes."""


def parse_documents(text: str, file: str) -> list[Document]:
    """Every object of a file. Never raises: what cannot be read is a document with a finding."""
    if len(text) > LARGEST_BYTES:
        return [_broken(file, 1, f"the file is larger than {LARGEST_BYTES // 1024 // 1024} MiB")]
    text = text.lstrip("\ufeff")
    documents: list[Document] = []
    try:
        for node in yaml.compose_all(text, _Loader):
            documents += _from_node(node, file)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        quoted = _quote_addresses(text, mark.line) if mark else text
        if quoted != text:
            return parse_documents(quoted, file)
        problem = getattr(error, "problem", None) or str(error)
        documents.append(_broken(file, mark.line + 1 if mark else 1, f"not YAML: {problem}"))
    except RecursionError:
        documents.append(_broken(file, 1, "nested too deeply"))
    except UnicodeError as error:
        documents.append(
            _broken(
                file,
                1,
                f"not text: {error.reason if isinstance(error, UnicodeEncodeError) else error}",
            )
        )
    return documents


def _quote_addresses(text: str, number: int) -> str:
    """The text, IPv6 addresses that end in ``::`` quoted in one line: ``[fd00::, 10.0.0.1]``.

    In a flow list libyaml takes the last colon for a mapping's; Kubernetes' parser, and so Istio's users, do not.
    """
    lines = text.splitlines(keepends=True)
    if number < len(lines):
        lines[number] = _OPEN_ADDRESS.sub(
            lambda found: f'"{found[0]}"' if is_ip(found[0]) else found[0], lines[number]
        )
    return "".join(lines)


def _broken(file: str, line: int, message: str, code: str = "invalid-yaml") -> Document:
    return Document(None, file, line, {}, (Finding("", code, message),))


def _from_node(node: yaml.Node | None, file: str) -> Iterator[Document]:
    if node is None or (isinstance(node, yaml.ScalarNode) and node.value in {"", "null", "~"}):
        return
    line = node.start_mark.line + 1
    if not isinstance(node, yaml.MappingNode):
        yield _broken(file, line, "a document must be an object: apiVersion, kind, metadata, spec")
        return
    reader = _Reader()
    raw = reader.read(node, "", 0)
    if reader.findings:
        yield Document(None, file, line, reader.lines, tuple(reader.findings))
        return
    if raw.get("kind") == "List" and isinstance(raw.get("items"), list):
        yield from _items(node, file)
        return
    yield Document(raw, file, line, reader.lines)


def _items(node: yaml.MappingNode, file: str) -> Iterator[Document]:
    for key, value in node.value:
        if key.value == "items" and isinstance(value, yaml.SequenceNode):
            for item in value.value:
                yield from _from_node(item, file)


def _is_json(node: yaml.Node) -> bool:
    """Whether a node is what its tag says, and one of JSON's types."""
    if isinstance(node, yaml.MappingNode):
        return bool(node.tag == f"{_TAG}map")
    if isinstance(node, yaml.SequenceNode):
        return bool(node.tag == f"{_TAG}seq")
    return node.tag in _SCALAR_TAGS


class _Reader:
    """Turns nodes into JSON values and notes the line of each."""

    def __init__(self) -> None:
        self.lines: dict[str, int] = {}
        self.findings: list[Finding] = []
        self._count = 0
        self._constructor = _Loader("")

    def read(self, node: yaml.Node, path: str, depth: int) -> Any:
        self._count += 1
        if self._count > MOST_NODES or depth > DEEPEST:
            if not self.findings:
                self.findings.append(
                    Finding(path, "too-large", "too many or too deeply nested values (aliases?)")
                )
            return None
        self.lines.setdefault(path, node.start_mark.line + 1)
        if not _is_json(node):
            self.findings.append(
                Finding(path, "invalid-yaml", f"the tag {node.tag} is not allowed")
            )
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return [
                self.read(item, f"{path}[{index}]", depth + 1)
                for index, item in enumerate(node.value)
            ]
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, path: str, depth: int) -> dict[Any, Any]:
        made: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or not _is_json(key_node):
                line = key_node.start_mark.line + 1
                self.findings.append(
                    Finding(path, "invalid-yaml", f"a key in line {line} is not text or a number")
                )
                continue
            key = self._scalar(key_node)
            below = f"{path}.{key}" if path else str(key)
            if key in made:
                line = key_node.start_mark.line + 1
                self.findings.append(
                    Finding(below, "duplicate", f"the key stands twice, again in line {line}")
                )
            self.lines[below] = key_node.start_mark.line + 1
            made[key] = self.read(value_node, below, depth + 1)
        return made

    def _scalar(self, node: yaml.Node) -> Any:
        """JSON has no dates: what YAML takes for one is text."""
        if node.tag == "tag:yaml.org,2002:timestamp":
            return node.value
        try:
            return self._constructor.construct_object(node)
        except (
            yaml.YAMLError,
            ValueError,
            LookupError,
        ):  # PyYAML's own for ``!!bool foo`` and ``!!int ""``
            return node.value
