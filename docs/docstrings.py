"""A Griffe extension: turns this project's docstrings into Markdown with links.

The docstrings use one backtick for names of Python (`` `Trove.get` ``), and two for other code, as in
reStructuredText. A name that the reference documents becomes a link to its entry.
"""

from __future__ import annotations

import re
from copy import copy

import griffe

PACKAGE = "trove_async"

MODULES = (
    "drivers",
    "layers",
    "middlewares",
    "jobs",
    "config",
    "driver",
    "middleware",
    "options",
    "testing",
)
"""The modules whose public names the reference documents, besides those of the package itself."""

_NAME = re.compile(r"(?<![`\w\[])`(?P<name>[A-Za-z_][\w.]*)`(?!`)")
_LITERAL_BLOCK = re.compile(r"::(?=\s*(?:\n|$))")
_EXAMPLE = re.compile(r"^( *)Example:$", re.MULTILINE)
_OTHER_ERRORS = re.compile(r"^( +)((?:Otherwise a|A)s `[^\n:]+)$", re.MULTILINE)
_ENDPOINTS = {"object_response": "ObjectResponse", "store_upload": "UploadResponse"}
_WEB_FRAMEWORKS = {"starlette": "Request", "aiohttp": "web.Request"}


class LinkedDocstrings(griffe.Extension):
    """Rewrites every docstring when the package has been loaded."""

    def on_package(self, *, pkg: griffe.Module, **_options: object) -> None:
        """Rewrite the docstrings of the package."""
        if pkg.path == PACKAGE:
            _document_endpoints(pkg)
            _document_settings(pkg["config"])
            _rewrite(pkg, PublicNames(pkg))


class PublicNames:
    """The public names, and the paths under which the reference documents them."""

    def __init__(self, package: griffe.Module) -> None:
        self._package = package
        self._paths: dict[str, str] = {}
        for module in ("", *MODULES):
            for name in _exports(package[module] if module else package):
                path = ".".join(filter(None, (PACKAGE, module, name)))
                self._paths.setdefault(name, path)
                self._paths[f"{module}.{name}"] = self._paths[path] = self._paths[name]

    def is_name(self, path: str) -> bool:
        """Return whether a path is that of a public name, not of a member of a class."""
        return path in self._paths

    def path_of(self, name: str, member: griffe.Object) -> str | None:
        """Return the path of a name in the docstring of a member, or None if it has no entry."""
        if isinstance(member, griffe.Function) and name in member.parameters:
            return None
        if name in self._paths:
            return self._paths[name]
        head, _, attribute = name.rpartition(".")
        if not head:
            owner = member if member.is_class else member.parent
            head = owner.name if owner is not None and owner.is_class else ""
        path = self._paths.get(head)
        if path is None or attribute.startswith("_"):
            return None
        documented = self._package[path.removeprefix(f"{PACKAGE}.")]
        found = documented.members.get(attribute)
        if found is not None and found.has_docstring:
            return f"{path}.{attribute}"
        return path if "." in name else None


def _exports(module: griffe.Object | griffe.Alias) -> list[str]:
    if module.exports is not None:
        return [str(name) for name in module.exports]
    return [
        name
        for name, member in module.members.items()
        if not name.startswith("_") and not member.is_alias
    ]


def _rewrite(member: griffe.Object, names: PublicNames) -> None:
    if member.docstring is not None:
        member.docstring.value = _as_markdown(member.docstring.value, member, names)
    for child in member.members.values():
        if isinstance(child, griffe.Object):
            _rewrite(child, names)


def _as_markdown(text: str, member: griffe.Object, names: PublicNames) -> str:
    def linked(match: re.Match[str]) -> str:
        path = names.path_of(match["name"], member)
        if path is None:
            return match[0]
        if names.is_name(path):
            return f"[{match[0]}][{path}]"
        # The pages of the reference show some classes without their members.
        return f'<autoref optional identifier="{path}">{match[0]}</autoref>'

    text = _EXAMPLE.sub(r"\1Examples:", text)  # the name of the section for Griffe
    # A line "Otherwise as `get`." among the exceptions needs the name of one.
    text = _OTHER_ERRORS.sub(r"\1TroveError: \2", text)
    return _NAME.sub(linked, _LITERAL_BLOCK.sub(":", text))


def _document_settings(config: griffe.Module) -> None:
    """List the documented settings of each table of a configuration in the docstring of its class."""
    for module in config.modules.values():
        for table in module.classes.values():
            settings = [
                f"    {name.removesuffix('_')}: {setting.docstring.value}"
                for name, setting in table.attributes.items()
                if setting.docstring is not None
            ]
            # Griffe may call the extension again for a package that it has in memory.
            if (
                table.docstring is not None
                and settings
                and "Attributes:" not in table.docstring.value
            ):
                table.docstring.value += "\n\nAttributes:\n" + "\n".join(settings)


def _document_endpoints(package: griffe.Module) -> None:
    """Replace the functions that the web frameworks take from `Endpoints` by its methods."""
    endpoints = package["integrations._endpoints.Endpoints"]
    for framework, request_type in _WEB_FRAMEWORKS.items():
        module = package[f"integrations.{framework}"]
        for name, response_type in _ENDPOINTS.items():
            method = endpoints[name]
            parameters = [copy(parameter) for parameter in method.parameters][
                1:
            ]  # without self
            for parameter in parameters:
                if parameter.name == "request":
                    parameter.annotation = request_type
            function = griffe.Function(
                name,
                parameters=griffe.Parameters(*parameters),
                returns=response_type,
                docstring=griffe.Docstring(method.docstring.value, parser="google"),
            )
            function.labels |= {"async"}
            module.set_member(name, function)
