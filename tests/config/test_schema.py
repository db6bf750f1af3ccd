"""The JSON schema of configurations."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import jsonschema
import pytest

from trove_async import config as config_package
from trove_async.config import json_schema


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = json.loads(json.dumps(json_schema()))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def example_in_the_docstring() -> dict[str, Any]:
    text = (config_package.__doc__ or "").split("::\n", 1)[1].split("\n- A backend", 1)[0]
    return tomllib.loads(text)


def test_schema_accepts_the_example(validator: jsonschema.Draft202012Validator) -> None:
    validator.validate(example_in_the_docstring())


@pytest.mark.parametrize(
    "part",
    [
        {"retry": {"attempts": "${ATTEMPTS}"}},
        {"retry": {"breaker": False}},
        {"timeout": {"idle": "30s"}},
        {"default": {"type": "package.module:Driver", "anything": 1}},
        {"default": {"type": "memory", "layers": ["read_only"]}},
    ],
)
def test_schema_accepts(validator: jsonschema.Draft202012Validator, part: dict[str, Any]) -> None:
    validator.validate({"default": "mem://", **part})


@pytest.mark.parametrize(
    "part",
    [
        {"pol": {}},
        {"retry": {"attempts": "many"}},
        {"default": {"type": "s3", "regoin": "x"}},
        {"default": {"type": "memory", "layers": ["mirrored"]}},
        {"routes": [["a"]]},
        {"locate": "everywhere"},
    ],
)
def test_schema_refuses(validator: jsonschema.Draft202012Validator, part: dict[str, Any]) -> None:
    assert not validator.is_valid({"default": "mem://", **part})


def test_every_key_is_described() -> None:
    schema = json_schema()
    missing = [
        f"{name}.{key}"
        for name, table in [("Store", schema), *schema["$defs"].items()]
        for key, value in table.get("properties", {}).items()
        if key != "type" and "description" not in value
    ]
    assert missing == []
