"""Reads commands of the AWS CLI, one a line, and says which of them AWS's own description of its services does not know.

The names of commands and options follow from that description by the CLI's own rule (`botocore.xform_name`).
"""

import json
import shlex
import sys

import botocore.session
from botocore import xform_name
from botocore.validate import ParamValidator

GLOBAL = {"region", "profile"}


def value(shape, words):
    """A value as the CLI reads it: JSON, its shorthand for a structure or a list of them, or a word."""
    if words[0].startswith(("{", "[")):
        return json.loads(words[0])
    if shape.type_name == "structure":
        pairs = dict(pair.split("=", 1) for pair in words[0].split(","))
        return {name: value(shape.members[name], [text]) for name, text in pairs.items()}
    if shape.type_name == "list":
        return [value(shape.member, [word]) for word in words]
    assert len(words) == 1, f"one value is expected, not {words}"
    return {"integer": int, "boolean": bool}.get(shape.type_name, str)(words[0])


def check(line):
    words = shlex.split(line, comments=True)
    assert words.pop(0) == "aws", "not a command"
    options, plain = {}, []
    last = None
    for word in words:
        if word.startswith("--"):
            last = word[2:]
            options[last] = []
        elif last in GLOBAL and options[last]:
            plain.append(word)
        elif last is None:
            plain.append(word)
        else:
            options[last].append(word)
    service, command = plain
    model = botocore.session.get_session().get_service_model(service)
    operations = {xform_name(name, "-"): name for name in model.operation_names}
    shape = model.operation_model(operations[command]).input_shape
    members = {xform_name(name, "-"): name for name in shape.members} if shape else {}
    given = {}
    for option, words in options.items():
        if option == "query" or option in GLOBAL:
            continue
        if not words:
            name = members[option.removeprefix("no-")]
            assert shape.members[name].type_name == "boolean", f"--{option} needs a value"
            given[name] = not option.startswith("no-")
        else:
            given[members[option]] = value(shape.members[members[option]], words)
    if shape:
        report = ParamValidator().validate(given, shape)
        assert not report.has_errors(), report.generate_report()


wrong = 0
for line in sys.argv[1].splitlines():
    try:
        check(line)
    except (AssertionError, KeyError, ValueError) as error:
        wrong += 1
        print(f"{line}\n    {type(error).__name__}: {error}")
sys.exit(wrong > 0)
