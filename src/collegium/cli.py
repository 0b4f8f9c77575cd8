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
from typing import Any, Literal

from collegium.errors import CollegiumError, DataError, TrainingError, UsageError, nearest
from collegium.loading import quick_imports

USAGE = """\
usage: collegium COMMAND [options]        collegium COMMAND --help tells all options

  train      train a cohort, or go on where the same command was interrupted
             collegium train --method ffl --peers 2xresnet20 --share-until stage2 --data cifar100 --run runs/ffl
             collegium train --config recipes/NAME.yaml --seed 1 --method.temperature 4
  compare    train methods x cohorts x seeds, several runs at a time, and put them in a table with tests and a page
             collegium compare --methods independent,dml,ffl --peers 2xresnet20 --data cifar100 --study studies/first
             collegium compare studies/first          table and page again, of what is finished
  reproduce  train a paper's table, and set it beside the published values
             collegium reproduce ffl/ablation --scale 0.02        a trial; collegium list tables shows all
  rank       what works best on a data set with a network: all studies beneath a folder and all published values
             collegium rank studies/ --data cifar100 --peers resnet32
  evaluate   score every predictor of a trained run again
             collegium evaluate runs/ffl
  report     write the page of a finished run
             collegium report runs/ffl
  export     write a trained network as one file for deployment, and check what the file answers
             collegium export runs/ffl --format onnx
  list       what there is: methods, networks, datasets, recipes or tables
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
        if _said_by_another(error):
            sys.exit(error.exit_status)
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


def _said_by_another(error: CollegiumError) -> bool:
    """Whether the first of several processes says the same, as it does of all but data that one of them alone read."""
    from collegium.training.devices import first_process

    return not isinstance(error, DataError) and not first_process()


def _dispatch(arguments: list[str]) -> None:
    commands: dict[str, Callable[[list[str]], None]] = {
        "train": _train,
        "compare": _compare,
        "reproduce": _reproduce,
        "rank": _rank,
        "evaluate": _evaluate,
        "report": _report,
        "export": _export,
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

    from collegium import methods
    from collegium.api import default_run, report
    from collegium.pages.run_table import result_table
    from collegium.student import peer_folder
    from collegium.training.devices import Layout
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
    parser.add_argument(
        "--fastest",
        action="store_true",
        help="take the precision (fp32 or bf16) and memory layout of which a few steps are fastest on this machine, "
        "on a GPU compiled steps and CUDA graphs too",
    )
    parser.add_argument("--devices", type=int, help="how many devices of each machine train together; by default one")
    parser.add_argument("--num_nodes", type=int, help="how many machines; torchrun or SLURM starts each")
    parser.add_argument(
        "--layout",
        type=Layout,
        default="data",
        help="what each device has for itself: a share of every batch, or (with methods that read logits alone) peers",
    )
    parser.add_class_arguments(Recipe, None, skip={"method", "data"})
    parser.add_argument("--method.name", default=method, help="which method; its options follow", metavar="NAME")
    parser.add_class_arguments(methods.get(method), "method", skip={"spec"})
    _add_data_options(parser, dataset)

    values = _parse(parser, _as_arguments(base, method, dataset) + arguments)
    how = ("overwrite", "quiet", "devices", "num_nodes", "layout", "fastest")
    options = {key: values.pop(key) for key in ("config", "run", *how)}
    recipe = Recipe.from_dict(values, "the command")
    with quick_imports():
        from collegium.training.run import train
    from collegium.training.devices import first_process
    from collegium.training.run_folder import RunFolder

    folder = RunFolder(options["run"] or default_run(recipe))
    run = folder.path
    finished = folder.result() is not None and not options["overwrite"]
    result = train(recipe, run, **{key: options[key] for key in how})
    if not first_process():
        return
    if finished:
        print(f"{run} was complete already; --overwrite starts over.")
    page = folder.report_file
    if not page.exists():
        report(run)
    Console().print(result_table(result))
    if result["reconstructed"]:
        print(f"Reconstructed, for want of a published description: {result['reconstructed']}.")
    print(f"The page of this run: {page}")
    print(f'A trained peer: collegium.load_peer("{peer_folder(run)}"); as one file: collegium export {run}')


def _add_data_options(parser: Any, dataset: str) -> None:
    from collegium import data

    parser.add_argument("--data.name", default=dataset, help="which data set; its options follow", metavar="NAME")
    own = data.own_options(dataset)
    parser.add_function_arguments(data.load, "data", skip={"name", *own})
    positional = set(signature(data.loader(dataset)).parameters) - set(own)
    parser.add_function_arguments(data.loader(dataset), "data", as_group=False, skip=positional)


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


def _compare(arguments: list[str]) -> None:
    from rich.console import Console

    from collegium.api import publish

    if arguments and not arguments[0].startswith("-"):
        parser = _parser("compare", "Make the table and the page of a study again, from the runs that are finished.")
        parser.add_argument("study", help="the study's folder")
        folder = Path(_parse(parser, arguments)["study"])
        table = publish(folder)
    else:
        options = _comparison(arguments)
        folder = Path(options["study"])
        from collegium.api import compare

        table = compare(**options)
    Console().print(table)
    print(f"The page of this study: {folder / 'report.html'}")
    print(f"The table as Markdown, LaTeX and CSV: {folder}/table.md, table.tex, summary.csv, runs.csv")
    lost = [o for o in table.findings.outcomes if o.state in ("failed", "broken")]
    if lost:
        raise TrainingError(f"{len(lost)} of {len(table.findings.outcomes)} runs did not finish; see {folder}/errors")


def _comparison(arguments: list[str]) -> dict[str, Any]:
    """The keywords of :func:`collegium.api.compare` that a command line says."""
    from collegium import methods
    from collegium.study.grid import Vary, parse_methods, parse_seeds
    from collegium.training.recipe import Recipe

    arguments = _normal(arguments)
    config = _last_value(arguments, "--config")
    base = Recipe() if config is None else Recipe.read(config)
    dataset = _last_value(arguments, "--data.name") or base.data_name
    names = list(dict.fromkeys(variant.name for variant in parse_methods(_last_value(arguments, "--methods") or "")))
    if len(names) != 1 and any(argument.startswith("--method.") for argument in arguments):
        raise UsageError("--method.OPTION is for a single method; write it after the name, as in 'dml,ffl:ekd=false'")

    parser = _parser("compare", "Train every method with every cohort and seed, and compare them.")
    parser.add_argument("--config", help="a recipe that all runs start from: a YAML file, or a shipped one's name")
    parser.add_argument("--study", help="the study's folder")
    parser.add_argument("--methods", help="comma-separated, options after colons: 'independent,dml,ffl:ekd=false'")
    parser.add_argument(
        "--peers", default=base.peers, help="cohorts, separated by semicolons: '2xresnet20; resnet20,wrn_16_2'"
    )
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated")
    parser.add_argument("--vary", type=Vary, default="training", help="what a seed draws: the split of the data too?")
    parser.add_argument("--teacher", help="of methods that learn from one: a network to train alone, or a finished run")
    parser.add_argument("--workers", type=int | None, default=None, help="runs at once; by default as many as fit")
    _add_executor_options(parser)
    parser.add_argument(
        "--hypothesis", help="what the study is to find out; written into its plan before the first run"
    )
    parser.add_argument("--contrasts", help="pairs that decide: 'ffl vs independent, dml vs independent' or 'ffl:dml'")
    parser.add_argument("--deployed", help="the predictor that contrasts compare: mean_peer (default), ensemble, peer0")
    parser.add_argument(
        "--margin", type=float | None, help="points, the largest difference that may be called none (1)"
    )
    parser.add_argument("--plan_only", action="store_true", help="write the plan to study.yaml and train nothing")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.add_class_arguments(Recipe, None, skip={"method", "data", "peers", "seed", "teacher"})
    if len(names) == 1:
        parser.add_class_arguments(methods.get(names[0]), "method", skip={"spec"})
    _add_data_options(parser, dataset)

    usual = _as_arguments(base, names[0] if len(names) == 1 else "", dataset)
    apart = ("--peers=", "--seed=", "--teacher=")
    values = _parse(parser, [option for option in usual if not option.startswith(apart)] + arguments)
    values.pop("config")
    for option, example in (("methods", "independent,ffl"), ("study", "studies/first")):
        if not values[option]:
            raise UsageError(f"collegium compare needs --{option}, for example --{option} {example}")
    values["seeds"] = parse_seeds(values["seeds"])
    values["executor"] = _executor(values)
    if len(names) == 1:
        values["method"] = {"name": names[0]} | values.get("method", {})
    elif base.method_name in names:
        values["method"] = base.method
    return values


def _add_executor_options(parser: Any) -> None:
    from collegium.study.executors.ray import RayExecutor

    parser.add_argument("--executor", type=Literal["local", "ray"], default="local", help="where runs are computed")
    parser.add_class_arguments(RayExecutor, None)


def _executor(values: dict[str, Any]) -> Any:
    """Takes its options out of the parsed values; None is this machine."""
    from collegium.study.executors.ray import RayExecutor

    ray = {name: values.pop(name) for name in signature(RayExecutor).parameters}
    if values.pop("executor") == "ray":
        return RayExecutor(**ray)
    for name, parameter in signature(RayExecutor).parameters.items():
        if ray[name] != parameter.default:
            raise UsageError(f"--{_dashed(name)} is about a Ray cluster; add --executor ray")
    return None


def _reproduce(arguments: list[str]) -> None:
    from rich.console import Console

    from collegium.api import publish, reproduce
    from collegium.study.grid import parse_seeds

    parser = _parser("reproduce", "Train a paper's table, or go on with it, and set it beside the published values.")
    parser.add_argument("name", help="the table; `collegium list tables` shows all")
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated")
    parser.add_argument("--scale", type=float, default=1.0, help="a trial: this share of epochs and training images")
    parser.add_argument("--study", help="the study's folder; by default studies/PAPER/TABLE")
    parser.add_argument("--only", default="", help="only the rows whose names hold these words")
    parser.add_argument("--show", action="store_true", help="train nothing; show what is there")
    parser.add_argument("--precision", type=Literal["fp32", "bf16", "fp16"], default="fp32", help="the papers' is fp32")
    parser.add_argument("--compile", type=bool, default=False, help="compile the training step")
    parser.add_argument("--cuda_graphs", type=bool, default=False, help="replay what is compiled as CUDA graphs")
    parser.add_argument("--workers", type=int | None, default=None, help="runs at once; by default as many as fit")
    _add_executor_options(parser)
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    values = _parse(parser, _normal(arguments))
    train = not values.pop("show")
    values["executor"] = _executor(values)
    found, folder = reproduce(**values | {"seeds": parse_seeds(values["seeds"]), "train": train})
    Console().print(found)
    if folder is not None:
        print(f"The page of this table: {folder / found.stem}.html; beside it the same as Markdown and CSV")
        if train:
            publish(folder)
            print(f"The page of its runs: {folder / 'report.html'}")
    elif not found.possible:
        print("Nothing in this table can be trained, for the reasons given.")
    if found.lost:
        raise TrainingError(f"{found.lost} of {len(found.outcomes)} runs did not finish; see {folder}/errors")


def _rank(arguments: list[str]) -> None:
    from rich.console import Console

    from collegium.api import rank

    parser = _parser("rank", "What works best: all studies and runs beneath a folder, and all published values.")
    parser.add_argument("folder", help="of studies, of runs, or of both")
    parser.add_argument("--out", help="the page; by default FOLDER/rank.html")
    parser.add_argument("--data", help="show one data set alone in the terminal")
    parser.add_argument("--peers", help="show one network alone in the terminal")
    ranking, page = rank(**_parse(parser, arguments))
    Console().print(ranking)
    print(f"The page, with all that was found: {page}")


def _run_folder(command: str, description: str, arguments: list[str]) -> Path:
    parser = _parser(command, description)
    parser.add_argument("run", help="the run's folder")
    return Path(_parse(parser, arguments)["run"])


def _evaluate(arguments: list[str]) -> None:
    run = _run_folder("evaluate", "Score every predictor of a trained run on its test images.", arguments)
    from rich.console import Console

    from collegium.pages.run_table import predictor_table
    from collegium.training.cost import costs
    from collegium.training.run import restore

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


def _export(arguments: list[str]) -> None:
    about = "Write a trained network as one file that runs without Collegium, and check what the file answers."
    formats = "torch.export's program (.pt2), or ONNX, which needs collegium[onnx]"
    parser = _parser("export", about)
    parser.add_argument("run", help="a finished run's folder, or a peer's")
    parser.add_argument(
        "--predictor",
        help="a peer, ensemble, or the method's own, as fused; by default the peer that the method trains for use",
    )
    parser.add_argument("--format", type=Literal["torch", "onnx"], default="torch", help=formats)
    parser.add_argument("--out", help="the file; by default RUN/exports/PREDICTOR.pt2 or .onnx")
    parser.add_argument("--normalised", action="store_true", help="it takes normalised images, not those in [0, 1]")
    parser.add_argument("--batch_size", type=int | None, default=None, help="the only one it takes; by default any")
    values = _parse(parser, _normal(arguments))
    from collegium.exporting import export

    print(export(**values))


def _list(arguments: list[str]) -> None:
    kinds = {"methods": _methods, "networks": _networks, "datasets": _datasets, "recipes": _shipped, "tables": _tables}
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
    own = "your own: a class derived from collegium.method.Method, found from the current folder"
    return [*rows, {"name": "module:{package.Class}", "summary": own, "options": {}}]


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


if __name__ == "__main__":
    main()
