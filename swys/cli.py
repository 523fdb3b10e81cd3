"""The command line ``swys``: options are made from the signatures of the commands."""

from __future__ import annotations

import inspect
import sys
import traceback
from argparse import Action
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points

from jsonargparse import ArgumentParser

from swys_utils.config import SwysError, reason_of
from swys_utils.gradcam import METHODS

from .commands import evaluate, explain, export
from .compare_command import Compare
from .doctor import doctor
from .train import Distill, Train, methods_with_teacher

DESCRIPTION = "See what you shrink: train, explain and shrink ViTs."
# A command is a function, or a dataclass with a method `run`; a mapping is a group of commands.
COMMANDS: dict[str, Callable | Mapping] = {
    "train": Train,
    "distill": Distill,
    "evaluate": evaluate,
    "explain": explain,
    "export": export,
    "doctor": doctor,
    "compare": Compare,
}
POSITIONAL = ("doctor", "compare")  # commands whose arguments without a default need no name


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: words after ``swys``; default: those of the process.

    Returns:
        0 when it worked, or what the command returns; 2 with one line on stderr for a foreseeable
        mistake, 130 after Ctrl-C.
    """
    commands = all_commands()
    parser = CommandParser(prog="swys", description=DESCRIPTION)
    add_commands(parser, commands)
    options = parser.parse_args(arguments).as_dict()
    command: Callable | Mapping = commands
    name = "swys"
    while isinstance(command, Mapping):
        chosen = options["command"]
        command = command[chosen]
        options = options[chosen]
        name = f"{name} {chosen}"
    try:
        result = command(**options)
        if inspect.isclass(command):
            result = result.run()
    except SwysError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\n{name}: stopped; go on with --resume where there is one", file=sys.stderr)
        return 130
    except Exception:
        if command is not Compare:
            raise
        traceback.print_exc()
        return 2  # not Python's 1, which says that something is lost
    return result if isinstance(result, int) else 0


def all_commands() -> dict[str, Callable | Mapping]:
    """Our commands, and groups that other packages register as entry points ``swys.commands``.

    ``swys_studies`` registers ``swys study``; so this package need not import it, and works where
    nothing is registered.

    Returns:
        Name -> command or group.
    """
    commands = dict(COMMANDS)
    for entry in entry_points(group="swys.commands"):
        if entry.name in commands:
            problem = f"'{entry.value}' cannot replace the command '{entry.name}'"
            print(f"swys: {problem}, which is there", file=sys.stderr)
            continue
        try:
            commands[entry.name] = entry.load()
        except Exception as error:  # whatever another package does at import
            problem = f"does not load ({reason_of(error)})"
            print(f"swys: the command '{entry.name}' {problem}", file=sys.stderr)
    return commands


def add_commands(parser: ArgumentParser, commands: Mapping[str, Callable | Mapping]) -> None:
    """Add a subcommand for each command, with options from its signature.

    Args:
        parser: of ``swys`` or of a group.
        commands: name -> command or group.
    """
    group = parser.add_subcommands(dest="command")
    for name, command in commands.items():
        summary = summary_of(command)
        subparser = CommandParser(description=summary, methods=method_ids(command))
        group.add_subcommand(name, subparser, help=summary)
        if isinstance(command, Mapping):
            add_commands(subparser, command)
            continue
        add = subparser.add_function_arguments
        if inspect.isclass(command):
            add = subparser.add_class_arguments
        add(command, as_group=False, as_positional=name in POSITIONAL)


def summary_of(command: Callable | Mapping) -> str:
    """What the help says of a command: the first line of its docstring.

    Args:
        command: a command or a group.

    Returns:
        One line.
    """
    if isinstance(command, Mapping):
        return f"one of {', '.join(command)}"
    docstring = inspect.getdoc(command) or ""
    return docstring.partition("\n")[0]


def method_ids(command: Callable | Mapping) -> list[str]:
    """What the option ``--method`` of a command takes, looked up when the help is made.

    Args:
        command: a command or a group.

    Returns:
        Ids of the registry that the command reads; none for a command without such an option.
    """
    if command is explain:
        return list(METHODS)
    if command is Distill:
        return methods_with_teacher()
    return []


class CommandParser(ArgumentParser):
    """A parser whose flags need no value, and whose ``--method`` lists what is registered.

    Args:
        *args: as for ArgumentParser.
        methods: ids for the help of the option ``--method``.
        **kwargs: as for ArgumentParser.
    """

    def __init__(self, *args, methods: Sequence[str] = (), **kwargs):
        self.methods = methods
        super().__init__(*args, **kwargs)

    def add_argument(self, *args, **kwargs) -> Action:
        """Add one option; jsonargparse calls this for each parameter of a command.

        Args:
            *args: as for ArgumentParser.
            **kwargs: as for ArgumentParser.

        Returns:
            The option.
        """
        # --max-drop is --max_drop: both ways to write an option are usual
        hyphened = [name.replace("_", "-") for name in args if name.startswith("--")]
        also = [name for name in hyphened if name not in args]
        option = super().add_argument(*args, *also, **kwargs)
        if isinstance(option.default, bool):
            # An option made from a signature wants a value. With these two it may be left out:
            # --resume alone means --resume true.
            option.nargs = "?"
            option.const = True
        if option.dest == "method" and self.methods:
            option.help = f"{option.help} One of {', '.join(self.methods)}."
        return option
