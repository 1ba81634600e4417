"""The Modal jobs on this machine, with the same flags: python -m harald <job> --flag value."""

import argparse
import inspect
import json
import logging
import sys
import typing
from collections.abc import Callable

from harald.errors import HaraldError
from harald.modal_runner import JOBS


def main(argv: list[str] | None = None) -> None:
    arguments = vars(parser().parse_args(argv))
    function = JOBS[arguments.pop("command")]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    try:
        result = function(**arguments)
    except HaraldError as error:
        if error.exit_code == 1:
            sys.exit(f"error: {error}")
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit("stopped by the user; what was written is complete, start the job again to go on")
    print(json.dumps({k: v for k, v in result.items() if k != "report"}, indent=2, ensure_ascii=False))
    if "report" in result:
        print(result["report"])


def parser() -> argparse.ArgumentParser:
    """One sub-command per job; its flags are the parameters of the Modal function."""
    top = argparse.ArgumentParser(
        prog="python -m harald", description="harald's jobs on this machine (HARALD_ROOT, default ./mnt)"
    )
    jobs = top.add_subparsers(dest="command", required=True, metavar="JOB")
    for name, function in JOBS.items():
        text = inspect.getdoc(function) or ""
        _add_flags(jobs.add_parser(name, help=text.splitlines()[0], description=text), function)
    return top


def _add_flags(command: argparse.ArgumentParser, function: Callable) -> None:
    types = typing.get_type_hints(function)
    for name, parameter in inspect.signature(function).parameters.items():
        flag, kind = "--" + name.replace("_", "-"), types[name]
        if typing.get_origin(kind) is typing.Literal:
            command.add_argument(flag, default=parameter.default, choices=typing.get_args(kind))
        elif kind is bool:
            command.add_argument(flag, default=parameter.default, action=argparse.BooleanOptionalAction)
        else:
            command.add_argument(flag, default=parameter.default, type=kind, help=f"default: {parameter.default!r}")
