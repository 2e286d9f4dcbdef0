"""Write docs/command-line.md from the options of the command line. Run it with `make reference` after changing an option.

A test fails when the page is out of date.
"""

import inspect
from enum import Enum
from pathlib import Path
from typing import Any

import typer

from speaker_invariant_ser.cli.app import app

PAGE = Path(__file__).resolve().parent.parent / "docs" / "command-line.md"
HEAD = """# Command-line reference

This page is generated from the options of `siser`; `siser --help` and `siser train --help` print the same, as `-h` does, and
`python -m speaker_invariant_ser` is `siser`. Options that several verbs share mean the same on each of them. Progress bars appear
on standard error, and only where it is a terminal.

`siser --install-completion` lets the shell (bash, zsh, fish or PowerShell) complete verbs, options, and the names of recipes and
corpora with the tabulator key, after it is started again. `siser --show-completion` prints what would be installed.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | finished, but some inputs failed; they are listed |
| 2 | the request was wrong; one `error:` line names what was expected |
| 130 | interrupted from the keyboard |
"""
KINDS = {
    str: "text",
    list[str]: "text, repeatable",
    int: "integer",
    float: "number",
    Path: "path",
    list[Path]: "path, repeatable",
    tuple[float, float]: "two numbers",
}
DIFFERS = {"--jobs": "number of CPU cores"}  # defaults that depend on the machine


def root() -> Any:
    """Return the command group of `siser`."""
    return typer.main.get_command(app)


def default_of(option: Any) -> str:
    """Return the default of an option or argument: a value, or words; an empty string where it has none."""
    if isinstance(option.show_default, str):
        return option.show_default if " " in option.show_default else f"`{option.show_default}`"
    if option.opts[0] in DIFFERS and option.default is not None:
        return DIFFERS[option.opts[0]]
    if option.required:
        return "required"
    if option.secondary_opts and option.default is not None:
        return f"`{(option.opts if option.default else option.secondary_opts)[0]}`"
    return "" if option.default is None or option.default is False or option.default == "" else f"`{option.default}`"


def kind_of(option: Any) -> str:
    """Return the type of an option's value and its limits, or the values it may have."""
    if option.is_flag:
        return ""
    annotation = option.type_descriptor.annotation
    choices = isinstance(annotation, type) and issubclass(annotation, Enum)
    kind = ", ".join(choice.value for choice in annotation) if choices else KINDS[annotation]
    low, high = option.min, option.max
    limits = f"{low:.10g} to {high:.10g}" if None not in (low, high) else f"at least {low:.10g}" if low is not None else ""
    return f"{kind}, {limits}" if limits else kind


def cell(text: object) -> str:
    """Return text that fits into a cell of a Markdown table."""
    return " ".join(str(text or "").split()).replace("|", "\\|")


def options_of(command: Any) -> list[Any]:
    """Return the options of a verb that are shown."""
    return [part for part in command.params if part.param_type_name == "option" and not part.hidden]


def arguments_of(command: Any) -> list[Any]:
    """Return the positional arguments of a verb."""
    return [part for part in command.params if part.param_type_name == "argument"]


def table_of_options(command: Any) -> str:
    """Return the table of a verb's options."""
    lines = ["| option | value | default | meaning |", "|---|---|---|---|"]
    for option in options_of(command):
        names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
        lines.append(f"| {names} | {cell(kind_of(option))} | {cell(default_of(option))} | {cell(option.help)} |")
    return "\n".join(lines) + "\n"


def usage(name: str, command: Any) -> str:
    """Return the line that shows how a verb is called."""
    names = [(part, f"{part.name.upper()}{'...' if part.nargs != 1 or part.multiple else ''}") for part in arguments_of(command)]
    arguments = [name if part.required else f"[{name}]" for part, name in names]
    required = [f"{part.opts[0]} {part.name.upper()}" for part in options_of(command) if part.required]
    return " ".join(["siser", name, *arguments, *required])


def default_sentence(argument: Any) -> str:
    """Return the sentence that states the default of an optional argument, or an empty string where it has none."""
    return f" Default: {default}." if (default := default_of(argument)) else ""


def section(name: str, command: Any) -> str:
    """Return a verb's section of the page."""
    lines = [f"## siser {name}\n", f"```text\n{usage(name, command)}\n```\n", inspect.cleandoc(command.help or "") + "\n"]
    if arguments := arguments_of(command):
        rows = [f"| `{a.name.upper()}` | {cell(a.help)}{'' if a.required else default_sentence(a)} |" for a in arguments]
        lines += ["| argument | meaning |", "|---|---|", *rows, ""]
    if options_of(command):
        lines.append(table_of_options(command))
    return "\n".join(lines)


def page() -> str:
    """Return the whole page as Markdown."""
    group = root()
    verbs = [section(name, command) for name, command in group.commands.items()]
    program = f"## siser\n\n{inspect.cleandoc(group.help or '')}\n\n{table_of_options(group)}" if options_of(group) else ""
    return "\n".join(filter(None, [HEAD, program, *verbs]))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
