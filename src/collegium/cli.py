"""The command line. Options, defaults and help come from the typed signatures of what they configure."""

import argparse
import contextlib
import io
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

from collegium.errors import CollegiumError, UsageError, nearest

USAGE = """\
usage: collegium COMMAND [options]        collegium COMMAND --help tells all options

  train      train a cohort, or go on where the same command was interrupted
             collegium train --method ffl --peers 2xresnet20 --share-until stage2 --data cifar100 --run runs/ffl
             collegium train --config recipes/NAME.yaml --seed 1 --method.temperature 4
  evaluate   score every predictor of a trained run again
             collegium evaluate runs/ffl
  report     write the page of a finished run
             collegium report runs/ffl
  list       what there is: methods, networks, datasets or recipes
             collegium list methods [--json]

Every command takes --debug, which shows the traceback of an error.
Exit status: 0 done, 2 wrong use, 1 anything else."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one command and exits with its status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        _dispatch(arguments)
    except CollegiumError as error:
        if debug:
            traceback.print_exc()
        _fail(f"collegium: {error}", error.exit_status)
    except KeyboardInterrupt:
        _fail("collegium: interrupted", 1)
    except BrokenPipeError:
        # The reader of a pipe went away; nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if debug:
            traceback.print_exc()
        reason = " ".join(str(error).split())
        _fail(f"collegium: {type(error).__name__}: {reason} (--debug shows where)", 1)


def _fail(message: str, status: int) -> None:
    print(message, file=sys.stderr)
    sys.exit(status)


def _dispatch(arguments: list[str]) -> None:
    commands: dict[str, Callable[[list[str]], None]] = {
        "train": _train,
        "evaluate": _evaluate,
        "report": _report,
        "list": _list,
    }
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        if not arguments:
            sys.exit(2)
        return
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(version("collegium"))
        return
    if arguments[0] not in commands:
        raise UsageError(f"there is no command {arguments[0]!r}{nearest(arguments[0], list(commands))}")
    commands[arguments[0]](arguments[1:])


def _parser(command: str, description: str) -> Any:
    from jsonargparse import ArgumentParser

    class Parser(ArgumentParser):
        def format_help(self, formatter: argparse.HelpFormatter | None = None) -> str:
            """Options are shown with dashes; underscores are understood too."""
            words = super().format_help(formatter).split(" ")
            shown = [word.replace("_", "-") if word.lstrip("\n[").startswith("--") else word for word in words]
            hidden = (
                "  --method CONFIG       Path to a configuration file.\n",
                "  --data CONFIG         Path to a configuration file.\n",
            )
            text = " ".join(shown).replace("--method.name", "--method").replace("--data.name", "--data")
            for line in hidden:
                text = text.replace(line, "")
            return text

    usage = f"collegium {command} [options]" if command == "train" else None
    return Parser(prog=f"collegium {command}", usage=usage, description=description, exit_on_error=False)


def _parse(parser: Any, arguments: list[str]) -> dict[str, Any]:
    """The parsed values; whatever is wrong becomes one sentence."""
    known = [option for action in parser._actions for option in action.option_strings]
    for argument in arguments:
        option = argument.partition("=")[0]
        if option.startswith("--") and option not in known:
            raise UsageError(f"{parser.prog} has no option {_dashed(option)}{nearest(option, known)}")
    noise = io.StringIO()
    try:
        with contextlib.redirect_stderr(noise):
            return dict(parser.parse_args(arguments).as_dict())
    except SystemExit as error:
        if error.code in (0, None):
            raise
        raise UsageError(_one_sentence(noise.getvalue())) from None
    except Exception as error:  # jsonargparse raises several kinds
        raise UsageError(_one_sentence(str(error))) from None


def _one_sentence(message: str) -> str:
    message = " ".join(message.split()) or "the options cannot be understood"
    message = message.replace("expected one argument", "expects a value")
    wrong = re.fullmatch(r'Parser key "(.+?)": Expected an? (.+?)\. Got value: (.*)', message)
    if wrong is None:
        return message
    option, kind, value = wrong.groups()
    kind = kind.removeprefix("<class '").removesuffix("'>").removeprefix("typing.Literal")
    example = ", written like [0.5,0.75]" if kind.startswith("tuple") else ""
    return f"--{_dashed(option)} expects {kind}{example}, got {value}"


def _dashed(option: str) -> str:
    return option.replace("_", "-")


def _normal(arguments: Sequence[str]) -> list[str]:
    """Underscores for dashes in option names, and --method NAME and --data NAME in full."""
    result = []
    for argument in arguments:
        if argument.startswith("--"):
            option, equals, value = argument.partition("=")
            option = "--" + option[2:].replace("-", "_")
            option = {"--method": "--method.name", "--data": "--data.name"}.get(option, option)
            argument = option + equals + value
        result.append(argument)
    return result


def _last_value(arguments: Sequence[str], option: str) -> str | None:
    """What an option is set to, the last time that it is."""
    value = None
    for k, argument in enumerate(arguments):
        name, equals, rest = argument.partition("=")
        if name == option:
            value = rest if equals else (arguments[k + 1] if k + 1 < len(arguments) else None)
    return value


def _train(arguments: list[str]) -> None:
    from rich.console import Console

    from collegium import data, methods
    from collegium.api import default_run, report
    from collegium.table import result_table
    from collegium.training.recipe import Recipe

    arguments = _normal(arguments)
    config = _last_value(arguments, "--config")
    base = Recipe() if config is None else Recipe.read(config)
    method = _last_value(arguments, "--method.name") or base.method_name
    dataset = _last_value(arguments, "--data.name") or base.data_name

    parser = _parser("train", "Train a cohort, or go on where the same command was interrupted.")
    parser.add_argument(
        "--config", help="a recipe: a YAML file, or the name of one that `collegium list recipes` shows"
    )
    parser.add_argument("--run", help="the run's folder; by default runs/METHOD-DATA-seedSEED")
    parser.add_argument("--overwrite", action="store_true", help="start over where the folder holds a run")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.add_class_arguments(Recipe, None, skip={"method", "data"})
    parser.add_argument("--method.name", default=method, help="which method; its options follow", metavar="NAME")
    parser.add_class_arguments(methods.get(method), "method", skip={"spec"})
    parser.add_argument("--data.name", default=dataset, help="which data set; its options follow", metavar="NAME")
    own = data.own_options(dataset)
    parser.add_function_arguments(data.load, "data", skip={"name", *own})
    positional = set(signature(data.loader(dataset)).parameters) - set(own)
    parser.add_function_arguments(data.loader(dataset), "data", as_group=False, skip=positional)

    values = _parse(parser, _as_arguments(base, method, dataset) + arguments)
    options = {key: values.pop(key) for key in ("config", "run", "overwrite", "quiet")}
    recipe = Recipe.from_dict(values, "the command")
    from collegium.training.loop import train
    from collegium.training.run_folder import RunFolder

    folder = RunFolder(options["run"] or default_run(recipe))
    run = folder.path
    finished = folder.result() is not None and not options["overwrite"]
    result = train(recipe, run, overwrite=options["overwrite"], quiet=options["quiet"])
    if finished:
        print(f"{run} was complete already; --overwrite starts over.")
    page = folder.report_file
    if not page.exists():
        report(run)
    Console().print(result_table(result))
    if result["reconstructed"]:
        print(f"Reconstructed, for want of a published description: {result['reconstructed']}.")
    print(f"The page of this run: {page}")
    print(f'A trained peer: collegium.load_peer("{run}/peers/peer0")')


def _as_arguments(recipe: Any, method: str, dataset: str) -> list[str]:
    """A recipe as options, to be followed by those of the command line.

    Where the command line names another method or data set, the options that it lacks are left out.
    """
    from collegium import data

    plain = recipe.to_dict()
    groups = {"method": plain.pop("method"), "data": plain.pop("data")}
    for group, chosen, shared in (("method", method, ()), ("data", dataset, data.options(dataset))):
        same = groups[group].pop("name") == chosen
        plain |= {f"{group}.{key}": value for key, value in groups[group].items() if same or key in shared}
    return [f"--{key}={_as_text(value)}" for key, value in plain.items()]


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _run_folder(command: str, description: str, arguments: list[str]) -> Path:
    parser = _parser(command, description)
    parser.add_argument("run", help="the run's folder")
    return Path(_parse(parser, arguments)["run"])


def _evaluate(arguments: list[str]) -> None:
    run = _run_folder("evaluate", "Score every predictor of a trained run on its test images.", arguments)
    from rich.console import Console

    from collegium.table import predictor_table
    from collegium.training.cost import costs
    from collegium.training.loop import restore

    trained = restore(run)
    data = trained.experiment.data
    scores = trained.evaluate(trained.scored["test"])
    title = f"{run} after {trained.epoch} of {trained.recipe.epochs} epochs, {len(data.test)} test images"
    counts = data.test.targets.bincount(minlength=data.num_classes).tolist()
    Console().print(predictor_table(title, scores, costs(trained.learner, data.image_shape), counts))


def _report(arguments: list[str]) -> None:
    run = _run_folder("report", "Write the page of a finished run.", arguments)
    from collegium.api import report

    print(report(run))


def _list(arguments: list[str]) -> None:
    kinds = {"methods": _methods, "networks": _networks, "datasets": _datasets, "recipes": _shipped}
    parser = _parser("list", "What there is: " + ", ".join(kinds) + ".")
    parser.add_argument("kind", help="one of " + ", ".join(kinds))
    parser.add_argument("--json", action="store_true", help="for programs")
    values = _parse(parser, arguments)
    if values["kind"] not in kinds:
        raise UsageError(f"cannot list {values['kind']!r}{nearest(values['kind'], list(kinds))}")
    rows = kinds[values["kind"]]()
    if values["json"]:
        print(json.dumps(rows, indent=2))
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        print(f"{row['name']:<{width}}  {row['summary']}")


def _summary(documented: object) -> str:
    import inspect

    return " ".join((inspect.getdoc(documented) or "").split("\n\n")[0].split())


def _methods() -> list[dict[str, Any]]:
    from collegium import methods
    from collegium.options import keywords

    rows = []
    for name in methods.names():
        kind = methods.get(name)
        summary = _summary(kind) + (f" [reconstructed: {kind.reconstructed}]" if kind.reconstructed else "")
        options = {key: p.default for key, p in keywords(kind, skip="spec").items()}
        rows.append({"name": name, "summary": summary, "options": options})
    return rows


def _networks() -> list[dict[str, Any]]:
    from collegium import networks

    return [{"name": form, "summary": text} for form, text in networks.forms().items()]


def _datasets() -> list[dict[str, Any]]:
    from collegium import data

    return [{"name": n, "summary": _summary(data.loader(n)), "options": data.options(n)} for n in data.names()]


def _shipped() -> list[dict[str, Any]]:
    from collegium.training.recipe import recipes_folder

    files = sorted(recipes_folder().glob("*.yaml"))
    return [{"name": f.stem, "summary": _comment(f), "path": str(f)} for f in files]


def _comment(file: Path) -> str:
    """The comment that a recipe opens with."""
    lines = file.read_text().splitlines()
    opening = [line[1:].strip() for line in lines[: next(k for k, li in enumerate(lines) if not li.startswith("#"))]]
    return " ".join(opening)


if __name__ == "__main__":
    main()
