"""Attributes: typed facts about one request, and where they come from."""
