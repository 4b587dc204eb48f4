"""The API's document has an example of everything, and each is what its schema says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jsonschema_rs

from holdfast.faces.api import examples

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kit.api import Api

Plain = dict[str, Any]


def places(document: Plain) -> Iterator[tuple[str, Plain]]:
    """What has to have an example, and where: parameters, JSON bodies, JSON answers that are good.

    Text and files have none.
    """
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            at = f"{method} {path}"
            for parameter in operation.get("parameters", ()):
                yield f"{at}: {parameter['name']}", parameter
            answers = {
                status: answer
                for status, answer in operation["responses"].items()
                if status.startswith("2")
            }
            for what, there in {"body": operation.get("requestBody", {}), **answers}.items():
                for kind, media in there.get("content", {}).items():
                    if "json" in kind:
                        yield f"{at}: {what}", media


def test_every_body_answer_and_parameter_has_an_example_that_is_valid(api: Api) -> None:
    document = api.app.openapi()
    components = {"components": document["components"]}
    found, wrong = 0, []
    for at, there in places(document):
        found += 1
        if "example" not in there:
            wrong.append(f"{at}: none")
            continue
        validator = jsonschema_rs.validator_for(
            {**there["schema"], **components}, validate_formats=True
        )
        wrong += [f"{at}: {error.message}" for error in validator.iter_errors(there["example"])]
    assert wrong == []
    assert found > 300


def test_a_name_that_no_field_has_is_in_no_table_of_examples(api: Api) -> None:
    document = api.app.openapi()
    names = {
        name
        for schema in document["components"]["schemas"].values()
        for name in schema.get("properties", ())
    }
    names |= {
        parameter["name"]
        for operations in document["paths"].values()
        for operation in operations.values()
        for parameter in operation.get("parameters", ())
    }
    assert {*examples.BY_NAME, *examples.NUMBERS, *examples.NOT_SO} <= names


def test_a_field_of_which_nobody_has_said_an_example_has_none() -> None:
    odd: Plain = {"type": "object", "properties": {"unheard": {"type": "string"}}}
    there: Plain = {"schema": {"$ref": "#/components/schemas/Odd"}}
    document = {
        "components": {"schemas": {"Odd": odd}},
        "paths": {"/": {"get": {"responses": {"200": {"content": {"application/json": there}}}}}},
    }
    examples.add_all(document)
    assert "example" not in there
    moment = {"type": "string", "format": "date-time"}
    odd["properties"] = {"policy": {"type": "string"}, "ended_at": moment}
    examples.add_all(document)
    assert there["example"] == {"policy": "servers", "ended_at": "2026-01-31T19:30:00Z"}
