"""An extension of griffe, for the API reference: fields of pydantic, and lists of arguments in docstrings."""

from __future__ import annotations

import ast
import re
from typing import Any

import griffe

ARGUMENT = re.compile(r"^([a-z]\w*(?:, \w+)*): (?=\S)", re.MULTILINE)


class ApiReference(griffe.Extension):
    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """A field has its description and its default, not the call that declares them."""
        value = attr.value
        if not isinstance(value, griffe.ExprCall) or str(value.function) != "Field":
            return
        given = {one.name: one.value for one in value.arguments if isinstance(one, griffe.ExprKeyword)}
        description = given.get("description")
        text = "Ollama's option of this name." if description is None else ast.literal_eval(str(description))
        attr.docstring = griffe.Docstring(text, parent=attr)
        attr.value = given.get("default", given.get("default_factory"))

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Lines `name: what it is` become a list."""
        if obj.docstring is not None:
            text = ARGUMENT.sub(r"\n- `\1`: ", obj.docstring.value)
            obj.docstring.value = re.sub(r"(?m)(^- .*)\n(?=\n- )", r"\1", text)
