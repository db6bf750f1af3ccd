"""Scopes: which objects a middleware applies to."""
