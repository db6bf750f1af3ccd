"""Whether one pattern matches every name that another one matches. Only a positive result is certain."""

from __future__ import annotations

from trove_async._globs import CharacterClass, Glob, Meta, Token


def includes(wider: Glob, narrower: Glob) -> bool:
    """Return whether `wider` certainly matches every name that `narrower` matches."""
    if wider == narrower or wider.covers(narrower.prefix):
        return True
    if narrower.literal:
        return wider.matches(narrower.prefix)
    match wider.tokens:
        case (Meta.ANYTHING, str(suffix)):
            return narrower.suffix.endswith(suffix)
        case (Meta.SEGMENTS, Meta.STAR, str(suffix)) if "/" not in suffix:
            return narrower.suffix.endswith(
                suffix
            )  # `**/*.log` matches every name with this suffix
        case (Meta.STAR,) | (Meta.STAR, str()) | (str(), Meta.STAR) | (str(), Meta.STAR, str()):
            return (
                narrower.prefix.startswith(wider.prefix)
                and narrower.suffix.endswith(wider.suffix)
                and not _may_have_slash(narrower, len(wider.prefix), len(wider.suffix))
            )
    return False


def _may_have_slash(glob: Glob, after: int, before: int) -> bool:
    """Return whether a match may have a slash after its first characters and before its last ones."""
    tokens: list[Token] = list(glob.tokens)
    if isinstance(first := tokens[0], str):
        tokens[0] = first[after:]
    if isinstance(last := tokens[-1], str):
        tokens[-1] = last[: len(last) - before]
    return any(_token_may_have_slash(token) for token in tokens)


def _token_may_have_slash(token: Token) -> bool:
    if isinstance(token, str):
        return "/" in token
    if isinstance(token, CharacterClass):
        return token.contains("/")
    return token in {Meta.SEGMENTS, Meta.ANYTHING}


def reaches_deeper(glob: Glob, shallow: Glob) -> bool:
    """Return whether a pattern is meant for the keys in folders below those of a pattern with one star.

    Examples of the two patterns are ``logs/**`` and ``logs/*``, or ``*/*.log`` and ``*.log``.
    """
    if glob == shallow:
        return False
    if shallow.prefix:
        return glob.prefix.startswith(shallow.prefix) and _may_have_slash(
            glob, len(shallow.prefix), 0
        )
    return glob.suffix.endswith(shallow.suffix) and _may_have_slash(glob, 0, len(shallow.suffix))
