"""What a recipe's parser says of a mistake, in a line that names the setting, the value and what it must be."""

from __future__ import annotations

import re

from pipelines.spec import InputError

_KINDS = {
    "<class 'int'>": "a whole number",
    "<class 'float'>": "a number",
    "<class 'bool'>": "true or false",
    "<class 'str'>": "text",
    "<class 'list'>": "a list such as [128, 160]",
    "<class 'tuple'>": "a pair such as [0.5, 1]",
    "<class 'dict'>": "settings such as {name: value}",
}


def first_cause(error: BaseException) -> str:
    """The message of the refusal at the bottom of a parser's nested errors, on one line."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, InputError):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    text = " ".join(str(error).split())
    setting = ".".join(re.findall(r'Parser key "([^"]+)"', text))
    # Inside an optional group the parser lists every alternative it tried; the refused key says it all.
    if unknown := re.search(r"Option '([^']+)' is not accepted", text):
        return f"unknown key {'.'.join(filter(None, [setting, unknown[1]]))}; see --help"
    kinds = [_named(kind) for kind in re.findall(r"Expected an? (<class '\w+'>|typing\.Literal\[[^\]]*\])", text)]
    value = re.search(r"(?:Got|Given) value: (.*?)(?: - Expected a | Given value|$)", text)
    wanted = " or ".join(dict.fromkeys(filter(None, kinds)))
    if setting and value and wanted:
        return f"{setting}={value[1]} must be {wanted}; see --help"
    return f"{text}; see --help"


def _named(kind: str) -> str | None:
    """What people call a type; None for that of null, which nobody means by a wrong value."""
    if choices := re.fullmatch(r"typing\.Literal\[(.*)\]", kind):
        return f"one of {choices[1]}".replace("'", "")
    return None if "NoneType" in kind else _KINDS.get(kind, kind)
