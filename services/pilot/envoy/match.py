"""Route matches and header operations. Source: istio pilot/pkg/networking/core/route/route.go, Envoy route_components.proto."""

from __future__ import annotations

import re
from collections.abc import Iterator

from envoy.config.core.v3 import base_pb2
from envoy.config.route.v3 import route_components_pb2 as route
from envoy.type.matcher.v3 import regex_pb2, string_pb2
from google.protobuf import wrappers_pb2

from windward.config.common import StringMatch
from windward.config.http_route import HeaderOperations, Headers, HTTPMatchRequest


def any_path() -> route.RouteMatch:
    return route.RouteMatch(prefix="/")


def route_match(match: HTTPMatchRequest | None) -> route.RouteMatch:
    """The proxy-independent part of a match: path, headers, query."""
    made = any_path() if match is None else _path(match)
    if match is None:
        return made
    if match.ignore_uri_case:
        made.case_sensitive.CopyFrom(wrappers_pb2.BoolValue(value=False))
    made.headers.extend(_pseudo_headers(match))
    for name, value in sorted(match.headers.items()):
        made.headers.append(header(name, value))
    for name, value in sorted(match.without_headers.items()):
        inverted = header(name, value)
        inverted.invert_match = True
        if not inverted.HasField("present_match"):
            # A header that is absent is not matched either: without this, an inverted value match would fail on it.
            inverted.treat_missing_header_as_empty = True
        made.headers.append(inverted)
    for name, value in sorted(match.query_params.items()):
        made.query_parameters.append(_query(name, value))
    return made


def _path(match: HTTPMatchRequest) -> route.RouteMatch:
    uri = match.uri
    if uri is None:
        return any_path()
    if uri.exact is not None:
        return route.RouteMatch(path=uri.exact)
    if uri.regex is not None:
        return route.RouteMatch(safe_regex=regex(uri.regex))
    prefix = uri.prefix or "/"
    return route.RouteMatch(prefix=prefix)


def _pseudo_headers(match: HTTPMatchRequest) -> Iterator[route.HeaderMatcher]:
    for name, value in (
        (":method", match.method),
        (":authority", match.authority),
        (":scheme", match.scheme),
    ):
        if value is not None:
            yield header(name, value)


def header(name: str, match: StringMatch) -> route.HeaderMatcher:
    """A header matcher; an empty match means that the header is there."""
    matcher = string_matcher(match)
    if matcher is None:
        return route.HeaderMatcher(name=name, present_match=True)
    return route.HeaderMatcher(name=name, string_match=matcher)


def string_matcher(match: StringMatch) -> string_pb2.StringMatcher | None:
    if match.exact is not None:
        return string_pb2.StringMatcher(exact=match.exact)
    if match.prefix:
        return string_pb2.StringMatcher(prefix=match.prefix)
    if match.regex is not None:
        return string_pb2.StringMatcher(safe_regex=regex(match.regex))
    return None


def regex(pattern: str) -> regex_pb2.RegexMatcher:
    return regex_pb2.RegexMatcher(regex=pattern)


def _query(name: str, match: StringMatch) -> route.QueryParameterMatcher:
    matcher = string_matcher(match)
    if matcher is None:
        return route.QueryParameterMatcher(name=name, present_match=True)
    return route.QueryParameterMatcher(name=name, string_match=matcher)


def header_options(operations: HeaderOperations | None) -> list[base_pb2.HeaderValueOption]:
    """``set`` overwrites, ``add`` appends; Host is set through the route's rewrite, not here."""
    if operations is None:
        return []
    overwrite = base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
    append = base_pb2.HeaderValueOption.APPEND_IF_EXISTS_OR_ADD
    return [
        base_pb2.HeaderValueOption(
            header=base_pb2.HeaderValue(key=key, value=value), append_action=action
        )
        for values, action in ((operations.set, overwrite), (operations.add, append))
        for key, value in sorted(values.items())
        if key.lower() not in {"host", ":authority"}
    ]


def removals(operations: HeaderOperations | None) -> list[str]:
    return list(operations.remove) if operations else []


def authority_override(headers: Headers | None) -> str:
    """``headers.request.set`` of host or :authority."""
    if headers is None or headers.request is None:
        return ""
    return next(
        (
            value
            for key, value in headers.request.set.items()
            if key.lower() in {"host", ":authority"}
        ),
        "",
    )


def literal(text: str) -> str:
    """Text as an RE2 literal."""
    return re.escape(text)
