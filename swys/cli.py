"""The command line ``swys``: options are made from the signatures of the commands."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points

from jsonargparse import ArgumentParser

from swys_utils.config import SwysError

from .commands import evaluate, explain, export
from .train import Distill, Train

COMMANDS = {
    "train": Train,
    "distill": Distill,
    "evaluate": evaluate,
    "explain": explain,
    "export": export,
}


def commands() -> dict:
    """All commands: ours, and groups that other packages register as entry points ``swys.commands``.

    ``swys_studies`` registers ``swys study``; so this package need not import it.
    """
    found = dict(COMMANDS)
    for entry in entry_points(group="swys.commands"):
        found[entry.name] = entry.load()
    return found


def add_commands(parser: ArgumentParser, commands: Mapping) -> None:
    """A subcommand for each function or dataclass, options from its signature; a mapping is a group."""
    group = parser.add_subcommands(dest="command")
    for name, command in commands.items():
        nested = isinstance(command, Mapping)
        title = (
            f"one of {', '.join(command)}" if nested else inspect.getdoc(command).splitlines()[0]
        )
        sub = ArgumentParser(description=title)
        group.add_subcommand(name, sub, help=title)
        if nested:
            add_commands(sub, command)
        elif inspect.isclass(command):
            sub.add_class_arguments(command, as_group=False)
        else:
            sub.add_function_arguments(command, as_group=False)
        for option in sub._actions:
            if isinstance(option.default, bool):
                option.nargs, option.const = "?", True  # --resume alone means --resume true


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it worked, 2 with one line on stderr for a foreseeable mistake."""
    command, name = commands(), "swys"
    parser = ArgumentParser(
        prog="swys", description="See what you shrink: train, explain and shrink ViTs."
    )
    add_commands(parser, command)
    options = parser.parse_args(arguments).as_dict()
    while isinstance(command, Mapping):
        chosen = options["command"]
        command, options, name = command[chosen], options[chosen], f"{name} {chosen}"
    try:
        result = command(**options)
        if inspect.isclass(command):
            result.run()
    except SwysError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\n{name}: stopped; go on with --resume where there is one", file=sys.stderr)
        return 130
    return 0
