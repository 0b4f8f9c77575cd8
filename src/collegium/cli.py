"""The command line. Options, defaults and help come from the typed signatures of :mod:`collegium.api`."""

import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from inspect import signature
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from collegium.errors import CollegiumError, DataError, TrainingError, UsageError, nearest, out_of_memory
from collegium.extras import how_to_install
from collegium.formatting import printable
from collegium.user_code import consent

if TYPE_CHECKING:
    from collegium.parsing import Parser
    from collegium.study.executors.ray import RayExecutor
    from collegium.training.recipe import Recipe

USAGE = """\
usage: collegium COMMAND [options]        collegium COMMAND --help tells all options

  train      train a cohort, or go on where the same command was interrupted
             collegium train --method ffl --peers 2xresnet20 --share-until stage2 --data cifar100 --run runs/ffl
             collegium train --config recipes/NAME.yaml --seed 1 --method.temperature 4
  compare    train methods x cohorts x seeds, several runs at a time, and put them in a table with tests and a page
             collegium compare --methods independent,dml,ffl --peers 2xresnet20 --data cifar100 --study studies/first
             collegium compare studies/first          table and page again, of what is finished
             collegium compare runs/*                 the same of runs that were trained one by one
  reproduce  train a paper's table, and set it beside the published values
             collegium reproduce ffl/ablation --scale 0.02        a trial; collegium list tables shows all
  rank       what works best on a data set with a network: all studies beneath a folder and all published values
             collegium rank studies/ --data cifar100 --peers resnet32
  evaluate   score every predictor of a trained run again, on its own test images or on other data of the same classes
             collegium evaluate runs/ffl [--data folder:new/] [--json] [--predictions answers.csv]
  report     write the page of a finished run
             collegium report runs/ffl
  export     write a trained network as one file for deployment, and check what the file answers
             collegium export runs/ffl --format onnx
  predict    tell the classes of image files, by a run or by an exported file
             collegium predict runs/ffl photographs/ --out labels.csv
  push       put a trained peer on the Hugging Face Hub, with a model card; predict and evaluate take hf://OWNER/NAME
             collegium push runs/ffl OWNER/NAME
  list       what there is: methods, networks, datasets, recipes or tables
             collegium list methods [--json]

Every command takes --debug, which shows the traceback of an error. collegium --print-completion SHELL prints the
completion of options for bash, zsh or tcsh.
Exit status: 0 done, 2 wrong use, 130 interrupted (the same command goes on), 1 anything else."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one command and exits with its status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        # The names that the arguments hold are the user's own; those of files that they name are not.
        with consent(arguments, trust="--trust" in arguments), warnings.catch_warnings():
            warnings.showwarning = _show_warning
            _dispatch(arguments)
    except CollegiumError as error:
        if debug:
            traceback.print_exc()
        if _said_by_another(error):
            sys.exit(error.exit_status)
        _fail(f"collegium: {error}", error.exit_status)
    except KeyboardInterrupt:
        _fail("collegium: interrupted", 130)
    except BrokenPipeError:
        # The reader of a pipe went away; nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if debug:
            traceback.print_exc()
        where = "" if error.filename is None else f"{str(error.filename)[:160]}: "
        _fail(f"collegium: {where}{error.strerror or error}; choose another path, or make it readable and writable", 1)
    except Exception as error:
        if debug:
            traceback.print_exc()
        reason = " ".join(str(error).split())
        if out_of_memory(error):
            _fail("collegium: there is not enough memory for this: take smaller networks, images or batches", 1)
        _fail(f"collegium: {type(error).__name__}: {reason} (--debug shows where)", 1)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(printable(f"collegium: warning: {message}"), file=sys.stderr)


def _fail(message: str, status: int) -> None:
    print(printable(message), file=sys.stderr)
    sys.exit(status)


def _said_by_another(error: CollegiumError) -> bool:
    """Whether the first of several processes says the same, as it does of all but data that one of them alone read."""
    from collegium.training.devices import first_process

    return not isinstance(error, DataError) and not first_process()


def _dispatch(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        if not arguments:
            sys.exit(2)
        return
    command, *rest = arguments
    if command == "--version":
        import collegium

        print(collegium.__version__)
    elif command == "--print-completion":
        _print_completion(*rest[:1])
    elif command in COMMANDS:
        from collegium.parsing import spelled

        make_parser, run = COMMANDS[command]
        rest = spelled(rest)
        run(make_parser(rest).read(rest))
    else:
        raise UsageError(f"there is no command {command!r}{nearest(command, list(COMMANDS))}")


def _print_completion(shell: str = "") -> None:
    from jsonargparse import ArgumentParser

    whole = ArgumentParser(prog="collegium")
    commands = whole.add_subcommands()
    for command, (make_parser, _) in COMMANDS.items():
        commands.add_subcommand(command, make_parser([]))
    if find_spec("shtab") is None:
        raise UsageError(f"completion needs the package shtab: {how_to_install('completion')}")
    try:
        print(whole.get_completion_script(f"shtab-{shell}"))
    except ValueError:
        raise UsageError(f"there is no completion for the shell {shell!r}; there is for bash, zsh and tcsh") from None


def _train_parser(arguments: Sequence[str]) -> "Parser":
    from collegium import api
    from collegium.parsing import Parser, first_look
    from collegium.training.recipe import Recipe

    named = first_look(arguments, "config", "method", "data")
    recipe = _start(named["config"], method=named["method"], data=named["data"])
    parser = Parser("train", api.train, skip={"peers", "data", "teacher", "callbacks"})
    parser.add_switch("--print-config", help="print the recipe, as --config reads it, and train nothing")
    parser.add_option(
        "--method", str, default=recipe.method_name, metavar="NAME", help="one of `collegium list methods`"
    )
    parser.add_entries(Recipe, "recipe", skip={"method", "data"})
    _add_method(parser, recipe.method_name)
    _add_data(parser, recipe.data_name)
    parser.set_recipe(recipe.to_dict(), named["config"] or "the recipe")
    return parser


def _start(config: str | None, **given: str | None) -> "Recipe":
    """The recipe of a config, or the usual one, with the method and data set that are named."""
    from collegium.api import start_from_config

    return start_from_config(config, {part: name for part, name in given.items() if name})


def _add_method(parser: "Parser", name: str) -> None:
    """The options of a method."""
    from collegium import methods
    from collegium.parsing import first_paragraph

    method = methods.get(name)
    parser.add_entries(method, f"method {name}: {first_paragraph(method)}", part="method", skip={"spec"})


def _add_data(parser: "Parser", name: str) -> None:
    """``--data`` and the options of the data set."""
    from collegium import data
    from collegium.parsing import first_paragraph

    loader, own = data.loader(name), data.own_options(name)
    parser.add_option("--data", str, default=name, metavar="NAME", help="one of `collegium list datasets`")
    parser.add_entries(data.load, "data", part="data", skip={"name", *own})
    parser.add_entries(loader, f"data {name}: {first_paragraph(loader)}", part="data", only=own)


def _folded(values: dict[str, Any], part: str, name: str) -> dict[str, Any]:
    """A method or data set as recipes have it: its name and options, which are taken out of the values."""
    return {"name": name, **values.pop(f"{part}_options", {})}


def _train(values: dict[str, Any]) -> None:
    import yaml

    from collegium import api
    from collegium.pages.run_page import write_report_if_possible
    from collegium.student import peer_folder, read_config
    from collegium.training.devices import first_process
    from collegium.training.recipe import Recipe

    del values["config"]  # whose entries are the defaults of the others
    print_config = values.pop("print_config")
    for part in ("method", "data"):
        values[part] = _folded(values, part, values[part])
    recipe = Recipe.from_dict({key: values.pop(key) for key in Recipe().to_dict()}, "the command")
    if print_config:
        print(yaml.safe_dump(recipe.to_dict(), sort_keys=False, allow_unicode=True), end="")
        return
    folder = api.run_folder(recipe, values.pop("run"))
    finished = not values["overwrite"] and folder.result() is not None
    result = api.train(run=folder.path, **values, **recipe.to_dict())
    if not first_process():
        return
    kept = folder.report_file.exists() and not values["baseline"]  # which the page tells of
    page = folder.report_file if kept else write_report_if_possible(folder.path)
    if values["quiet"]:
        return
    if finished:
        print(f"{folder.path} was complete already; --overwrite starts over.")
    _show(result)
    if result["reconstructed"]:
        print(printable(f"Reconstructed, for want of a published description: {result['reconstructed']}."))
    if page is not None:
        print(f"The page of this run: {page}")
    peer = peer_folder(folder.path)
    print(f'A trained peer: collegium.load_peer("{peer}")')
    print(f"As one file: collegium export {folder.path}")
    if "bands" not in read_config(peer):  # of a scene
        print(f"Classes of image files: collegium predict {folder.path} FOLDER")


def _show(what: object) -> None:
    from rich.console import Console

    Console().print(what)


def _compare_parser(arguments: Sequence[str]) -> "Parser":
    from collegium import api
    from collegium.parsing import Parser, first_look
    from collegium.training.recipe import Recipe

    if arguments and not arguments[0].startswith("-"):
        return Parser("compare", api.compare_runs)
    named = first_look(arguments, "config", "methods", "data")
    method = _single_method(named["methods"])
    recipe = _start(named["config"], method=method, data=named["data"])
    parser = Parser(
        "compare",
        api.compare,
        skip={"data", "executor"},
        written={"seeds": "0,1,2"},
        examples={"methods": "independent,ffl", "study": "studies/first"},
    )
    _add_executor(parser)
    parser.add_entries(Recipe, "recipe of all runs", skip={"method", "data", "peers", "teacher", "seed"})
    if method is not None:
        _add_method(parser, method)
    elif any(argument.startswith("--method.") for argument in arguments):
        raise UsageError("--method.OPTION is for a single method; write it after the name, as in 'dml,ffl:ekd=false'")
    _add_data(parser, recipe.data_name)
    plain = recipe.to_dict()
    for own in ("seed", "teacher", *(("method",) if method is None else ())):
        del plain[own]
    parser.set_recipe(plain, named["config"] or "the recipe")
    return parser


def _single_method(text: str | None) -> str | None:
    """The only method of a comparison, whose options may then be given as --method.OPTION."""
    from collegium.study.grid import parse_methods

    names = list(dict.fromkeys(variant.name for variant in parse_methods(text or "")))
    return names[0] if len(names) == 1 else None


def _compare(values: dict[str, Any]) -> None:
    from collegium import api
    from collegium.study.grid import parse_seeds

    if "runs" in values:
        table = api.compare_runs(**values)
        folder = table.findings.study.folder if values["out"] or not table.of_runs else None
    else:
        folder = Path(values["study"])
        method = _single_method(values["methods"])
        recipe = _start(values.pop("config"), method=method)
        values["method"] = recipe.method if method is None else _folded(values, "method", method)
        values["data"] = _folded(values, "data", values["data"])
        values["seeds"] = parse_seeds(values["seeds"])
        values["executor"] = _executor(values)
        table = api.compare(**values)
    _show(table)
    if folder is None:
        print("With --out FOLDER the table and a page with charts are written.")
        return
    print(f"The page of {'these runs' if table.of_runs else 'this study'}: {folder / 'report.html'}")
    print(f"The table as Markdown, LaTeX and CSV: {folder}/table.md, table.tex, summary.csv, runs.csv")
    lost = [o for o in table.findings.outcomes if o.state in ("failed", "broken")]
    if lost:
        raise TrainingError(f"{len(lost)} of {len(table.findings.outcomes)} runs did not finish; see {folder}/errors")


def _add_executor(parser: "Parser") -> None:
    from collegium.study.executors.ray import RayExecutor

    where = "where runs are computed: by processes of this machine, or on a Ray cluster"
    parser.add_option("--executor", Literal["local", "ray"], default="local", help=where)
    parser.add_entries(RayExecutor, "Ray cluster")


def _executor(values: dict[str, Any]) -> "RayExecutor | None":
    """Takes its options out of the parsed values; None is this machine."""
    from collegium.study.executors.ray import RayExecutor

    defaults = {name: parameter.default for name, parameter in signature(RayExecutor).parameters.items()}
    given = {name: values.pop(name) for name in defaults}
    if values.pop("executor") == "ray":
        return RayExecutor(**given)
    for name, default in defaults.items():
        if given[name] != default:
            raise UsageError(f"--{name.replace('_', '-')} is about a Ray cluster; add --executor ray")
    return None


def _reproduce_parser(arguments: Sequence[str]) -> "Parser":
    from collegium import api
    from collegium.parsing import Parser
    from collegium.training.recipe import Recipe

    computed = {"precision", "compile", "cuda_graphs"}
    parser = Parser("reproduce", api.reproduce, skip={"train", "executor", *computed}, written={"seeds": "0,1,2"})
    parser.add_switch("--show", help="train nothing; show what is there")
    parser.add_entries(Recipe, "recipe, whose other entries the table says", only=computed)
    _add_executor(parser)
    return parser


def _reproduce(values: dict[str, Any]) -> None:
    from collegium import api
    from collegium.study.grid import parse_seeds

    train = not values.pop("show")
    values["executor"] = _executor(values)
    found, folder = api.reproduce(**values | {"seeds": parse_seeds(values["seeds"]), "train": train})
    _show(found)
    if folder is not None:
        print(f"The page of this table: {folder / found.stem}.html; beside it the same as Markdown and CSV")
        if train:
            api.publish(folder)
            print(f"The page of its runs: {folder / 'report.html'}")
    elif not found.possible:
        print("Nothing in this table can be trained, for the reasons given.")
    if found.lost:
        raise TrainingError(f"{found.lost} of {len(found.outcomes)} runs did not finish; see {folder}/errors")


def _call_parser(command: str, _: Sequence[str]) -> "Parser":
    """The parser of a command that has the options of its call, but what is given from Python alone."""
    from collegium import api
    from collegium.parsing import Parser

    from_python = () if command == "rank" else ("network", "peers", "data", "teacher")
    return Parser(command, getattr(api, command), skip=from_python)


def _rank(values: dict[str, Any]) -> None:
    from collegium import api

    ranking, page = api.rank(**values)
    _show(ranking)
    print(f"The page, with all that was found: {page}")


def _evaluate_parser(arguments: Sequence[str]) -> "Parser":
    from collegium.parsing import first_look

    parser = _call_parser("evaluate", arguments)
    name = first_look(arguments, "data")["data"]
    if name is None:
        parser.add_option("--data", str, default=None, metavar="NAME", help="other data of the same classes")
    else:
        _add_data(parser, name)
    parser.add_switch("--json", help="print one JSON document with the scores of every predictor")
    return parser


def _evaluate(values: dict[str, Any]) -> None:
    from collegium import api

    json = values.pop("json")
    if values["data"] is not None:
        values["data"] = _folded(values, "data", values["data"])
    found = api.evaluate(**values)
    if json:
        print(found.json())
        return
    _show(found)
    if values["predictions"] is not None:
        print(f"What {values['predictor'] or found.about['deployed']} says of each: {printable(values['predictions'])}")


def _report(values: dict[str, Any]) -> None:
    from collegium import api

    print(api.report(**values))


def _export(values: dict[str, Any]) -> None:
    from collegium import api

    print(api.export(**values))


def _predict_parser(arguments: Sequence[str]) -> "Parser":
    parser = _call_parser("predict", arguments)
    parser.add_option("--top", int, default=1, help="show so many of the most probable classes of each image")
    parser.add_switch("--json", help="print an object a line, with the probabilities of all classes")
    return parser


def _predict(values: dict[str, Any]) -> None:
    from collegium import api

    top, json = values.pop("top"), values.pop("json")
    if top < 1:
        raise UsageError(f"--top is {top}: give 1 or more")
    found = api.predict(**values)
    if json:
        print(found.json_lines(), end="")
    elif values["out"] is None:
        print(found.text(top))
    else:
        print(f"{found.summary()}; labels and probabilities: {printable(values['out'])}")
    for note in found.notes:
        print(printable(f"collegium: note: {note}"), file=sys.stderr)


def _push(values: dict[str, Any]) -> None:
    from collegium import api

    print(printable(api.push(**values)))


def _list_parser(_: Sequence[str]) -> "Parser":
    from collegium.parsing import Parser

    return Parser("list", listing)


def listing(kind: str, *, json: bool = False) -> None:
    """Tells what there is: methods, networks, datasets, optimizers, recipes or tables.

    Args:
        kind: methods, networks, datasets, optimizers, recipes or tables.
        json: as JSON, for programs.
    """
    kinds = {
        "methods": _methods,
        "networks": _networks,
        "datasets": _datasets,
        "optimizers": _optimizers,
        "recipes": _shipped,
        "tables": _tables,
    }
    if kind not in kinds:
        raise UsageError(f"cannot list {kind!r}{nearest(kind, list(kinds))}")
    rows = kinds[kind]()
    if json:
        print(dumps(rows, indent=2))
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        print(f"{row['name']:<{width}}  {row['summary']}")


def _methods() -> list[dict[str, Any]]:
    from collegium import methods
    from collegium.options import keywords
    from collegium.parsing import first_paragraph

    rows = []
    for name in methods.names():
        kind = methods.get(name)
        summary = first_paragraph(kind) + (f" [reconstructed: {kind.reconstructed}]" if kind.reconstructed else "")
        options = {key: p.default for key, p in keywords(kind, skip="spec").items()}
        rows.append({"name": name, "summary": summary, "options": options})
    own = "your own: a class derived from collegium.method.Method, found from the current folder"
    return [*rows, {"name": "module:{package.Class}", "summary": own, "options": {}}]


def _networks() -> list[dict[str, Any]]:
    from collegium import networks

    return [{"name": form, "summary": text} for form, text in networks.forms().items()]


def _datasets() -> list[dict[str, Any]]:
    from collegium import data
    from collegium.parsing import first_paragraph

    return [{"name": n, "summary": first_paragraph(data.loader(n)), "options": data.options(n)} for n in data.names()]


def _optimizers() -> list[dict[str, Any]]:
    from collegium.training.optimizers import optimizer_names

    return [{"name": name, "summary": summary} for name, summary in optimizer_names().items()]


def _shipped() -> list[dict[str, Any]]:
    from collegium.training.recipe import recipes_folder

    files = sorted(recipes_folder().glob("*.yaml"))
    return [{"name": f.stem, "summary": _comment(f), "path": str(f)} for f in files]


def _tables() -> list[dict[str, Any]]:
    from collegium.results import papers as tables

    rows = []
    for name in tables.names():
        table = tables.get(name)
        runs = len(table.cells())
        note = f" [{runs} run{'' if runs == 1 else 's'} a seed]" if runs else " [published values alone]"
        row: dict[str, Any] = {"name": name, "summary": table.title + note, "runs": runs}
        row |= {"reference": table.reference, "certain": table.certain, "reconstructed": table.reconstructed}
        rows.append(row)
    return rows


def _comment(file: Path) -> str:
    """The comment that a recipe opens with."""
    lines = file.read_text().splitlines()
    opening = [line[1:].strip() for line in lines[: next(k for k, li in enumerate(lines) if not li.startswith("#"))]]
    return " ".join(opening)


COMMANDS: dict[str, tuple[Callable[[Sequence[str]], "Parser"], Callable[[dict[str, Any]], None]]] = {
    "train": (_train_parser, _train),
    "compare": (_compare_parser, _compare),
    "reproduce": (_reproduce_parser, _reproduce),
    "rank": (partial(_call_parser, "rank"), _rank),
    "evaluate": (_evaluate_parser, _evaluate),
    "report": (partial(_call_parser, "report"), _report),
    "export": (partial(_call_parser, "export"), _export),
    "predict": (_predict_parser, _predict),
    "push": (partial(_call_parser, "push"), _push),
    "list": (_list_parser, lambda values: listing(**values)),
}
"""Command -> its parser, made for the arguments, and what it does with the values that are read."""

if __name__ == "__main__":
    main()
