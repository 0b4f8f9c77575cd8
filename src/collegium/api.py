"""What the library does: train, compare, reproduce, rank, evaluate, report, export, predict, push, publish.

The commands of the command line call these functions, and their options are these parameters, described here.
"""

import copy
import dataclasses
import hashlib
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

from torch import nn
from torch.nn.parameter import UninitializedParameter

from collegium import data as datasets
from collegium.data import OwnData, as_data
from collegium.errors import UsageError
from collegium.evaluating import Evaluation as Evaluation
from collegium.evaluating import evaluate as evaluate
from collegium.exporting import export as export
from collegium.files import check_can_make, storing
from collegium.loading import quick_imports
from collegium.networks import name_of
from collegium.options import checked
from collegium.predicting import predict as predict
from collegium.pushing import push as push
from collegium.study.grid import Vary
from collegium.training.devices import Layout
from collegium.training.recipe import Recipe
from collegium.training.run_folder import RunFolder
from collegium.typing import RunEntries, RunResult, StudyEntries
from collegium.user_code import consents

if TYPE_CHECKING:
    from collegium.baseline import Baseline
    from collegium.pages.paper_table import Reproduction
    from collegium.pages.rank_table import Ranking
    from collegium.pages.run_table import RunTable
    from collegium.pages.study_table import StudyTable
    from collegium.results.papers import PaperTable
    from collegium.study.executors.local import Executor
    from collegium.training.callbacks import Callbacks


class TrainedRun(dict[str, Any]):
    """The content of a run's result.json. A notebook shows its table, a rich console prints it.

    Attributes:
        baseline: the deployed network trained alone, where that was asked for.
    """

    def __init__(self, result: Mapping[str, Any], baseline: "Baseline | None" = None) -> None:
        super().__init__(result)
        self.baseline = baseline

    def __rich__(self) -> "RunTable":
        from collegium.pages.run_table import result_table

        return result_table(self, self.baseline)

    def _repr_html_(self) -> str:
        return self.__rich__()._repr_html_()


@checked
@consents("method", "peers", "data")
def train(
    *,
    run: str | Path | None = None,
    config: str | Path | None = None,
    peers: str | Sequence[nn.Module] | None = None,
    data: str | Mapping[str, Any] | OwnData | None = None,
    teacher: str | Path | nn.Module | None = None,
    baseline: bool = False,
    baseline_from: str | Path | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    devices: int | None = None,
    num_nodes: int | None = None,
    layout: Layout = "data",
    fastest: bool = False,
    callbacks: "Callbacks | None" = None,
    loggers: str | None = None,
    trust: bool = False,
    **recipe: Unpack[RunEntries],
) -> RunResult:
    """Trains a cohort, or goes on where the same call was interrupted.

    Args:
        run: the run's folder; by default ``runs/METHOD-DATA-seedSEED``.
        config: a recipe to start from: a YAML file, or the name of one that comes with the library.
        peers: names ("2xresnet20", "resnet32,timm/resnet18"), or networks of your own: any torch modules that map
            images to logits. They are trained in place.
        data: a name, a name with options ({"name": "cifar100", "per_class": 50}), or your own data: an
            ImageData; ((train_images, train_labels), (test_images, test_labels)), see :func:`from_arrays`; or
            (train_dataset, test_dataset), torch's or of that kind, see :func:`collegium.data.from_datasets`.
        teacher: for methods that need one: a finished run, a peer's folder, or a trained network of your own.
        baseline: train the deployed network alone too, with the same recipe and seed, in the folder RUN-baseline, and
            say both accuracies and the difference, which one seed cannot tell from chance; :func:`compare` has several.
        baseline_from: a study whose run of that network alone, with the same recipe and seed, is taken where there is
            one; else it is trained as with ``baseline``.
        overwrite: start over where the folder holds a run.
        quiet: show nothing.
        devices: how many devices of each machine train together, one process each. Unless torchrun or SLURM started
            the script, its other processes are started here: guard what the script does with
            ``if __name__ == "__main__":``. See docs/many_devices.md.
        num_nodes: how many machines, on each of which torchrun or SLURM starts the script.
        layout: what each process has for itself: a share of every batch ("data"), or one or several of the peers
            ("peers", for methods that read logits alone).
        fastest: take the precision, fp32 or bf16, and the memory layout of which a few steps are fastest on this
            machine, on a GPU compiled steps and CUDA graphs too; a run that goes on keeps its own.
        callbacks: functions of your own that are called while it trains, see :class:`collegium.Callbacks`. With several
            ``devices`` the first process calls them; started here, that is another process than the caller's, to which
            they must be sent: functions of a module, whose changes to its variables the caller does not see.
        loggers: services that get recipe and metrics besides TensorBoard's files: "wandb", "mlflow", or "wandb,mlflow".
            One that fails is given up with a warning. See docs/training.md.
        trust: import code of your own that files name, module:package.function: a config, a run, a peer. What the call
            itself names is imported anyway. See SECURITY.md.
        **recipe: everything else a :class:`Recipe` says: ``method`` (a name, or a name with options:
            {"name": "ffl", "temperature": 4}), ``epochs``, ``share_until`` and so on.

    Returns:
        The content of the run's result.json, which a notebook shows as a table.

    Raises:
        UsageError: something does not exist or does not fit; nothing is written.
        DataError: the data cannot be read; nothing is written.
        TrainingError: training cannot go on.
    """
    with quick_imports():
        from collegium.training.callbacks import Callbacks
        from collegium.training.loggers import parse_loggers
        from collegium.training.run import train as run_training

    if not isinstance(callbacks, Callbacks | None):
        raise UsageError(
            f"callbacks are given as collegium.Callbacks(on_epoch_end=...), not {type(callbacks).__name__}"
        )
    values: dict[str, Any] = {**recipe}
    own: dict[str, Any] = {}
    if isinstance(data, str | Mapping):
        values["data"] = data
    elif data is not None:
        own["data"] = as_data(data)
        values["data"] = {"name": f"python:{own['data'].name}", "fingerprint": own["data"].fingerprint()}
    if isinstance(peers, str):
        values["peers"] = peers
    elif peers is not None:
        if not isinstance(peers, Sequence | Iterator | nn.ModuleList):
            raise UsageError(f"peers are names in a text, or a list of torch modules, not {type(peers).__name__}")
        own["peers"] = list(peers)
        values["peers"] = ",".join(_describe(peer) for peer in own["peers"])
    if isinstance(teacher, nn.Module):
        own["teacher"] = teacher
        values["teacher"] = _describe(teacher)
    elif teacher is not None:
        values["teacher"] = teacher
    resolved = start_from_config(config, values)
    folder = run_folder(resolved, run)
    trained: dict[str, Any] = dict(own, layout=layout, fastest=fastest, callbacks=callbacks)
    options: dict[str, Any] = dict(overwrite=overwrite, quiet=quiet, devices=devices, num_nodes=num_nodes)
    options["loggers"] = parse_loggers(loggers)
    if not baseline and baseline_from is None:
        result = run_training(resolved, folder.path, **trained, **options)
        return TrainedRun(result)  # type: ignore[return-value]  # of that shape
    _check_baseline(resolved, folder, devices, num_nodes, baseline_from, overwrite=overwrite, fastest=fastest)
    untrained = copy.deepcopy(own.get("peers"))
    result = run_training(resolved, folder.path, **trained, **options)
    chosen = folder.recipe() if fastest else resolved
    alone = _baseline(chosen, folder, result, own | {"peers": untrained}, options, baseline_from)
    return TrainedRun(result, alone)  # type: ignore[return-value]


def _check_baseline(
    recipe: Recipe,
    folder: RunFolder,
    devices: int | None,
    num_nodes: int | None,
    study: str | Path | None,
    *,
    overwrite: bool,
    fastest: bool,
) -> None:
    """Raises UsageError where a run can have no baseline, before anything is trained."""
    from collegium.baseline import check_folder_alone, folder_alone, known_baseline, recipe_alone
    from collegium.networks import parse_peers
    from collegium.study.grid import BASELINE
    from collegium.study.study import Study
    from collegium.training.devices import detect_devices
    from collegium.training.probe import CHOSEN

    if recipe.method_name == BASELINE:
        raise UsageError(f"method {BASELINE} is the baseline itself: leave --baseline out")
    found = detect_devices(devices, num_nodes)
    if found.started and found.processes > 1:
        raise UsageError("torchrun and SLURM start one run: train the baseline as another, with --method independent")
    check_can_make(folder_alone(folder.path))
    peers = parse_peers(recipe.peers)
    if study is not None:
        Study.open(study)
        if any(known_baseline(study, recipe_alone(recipe, name, k), k) for k, name in enumerate(peers)):
            return
    if not overwrite:
        check_folder_alone(folder.path, recipe, peers, CHOSEN if fastest else ())


def _baseline(
    recipe: Recipe,
    folder: RunFolder,
    result: Mapping[str, Any],
    own: Mapping[str, Any],
    options: Mapping[str, Any],
    study: str | Path | None,
) -> "Baseline":
    """The deployed network of a complete run alone: of a study, or trained beside the run."""
    from collegium.baseline import Baseline, folder_alone, known_baseline, recipe_alone
    from collegium.networks import parse_peers
    from collegium.student import deployed_peer, trained_names
    from collegium.training.run import train as run_training

    index = int(deployed_peer(result).removeprefix("peer"))
    peers = own["peers"]
    name = parse_peers(recipe.peers)[index] if peers is None else _describe(peers[index])
    frozen = trained_names(folder.peer(f"peer{index}")) if recipe.freeze is not None else ()
    alone = recipe_alone(recipe, name, index, frozen)
    known = None if study is None else known_baseline(study, alone, index)
    if known is not None:
        return known
    place = folder_alone(folder.path)
    if not options["quiet"] and RunFolder(place).result() is None:
        print("For comparison, the deployed network alone:", file=sys.stderr)
    given: dict[str, Any] = {"peers": None if peers is None else [peers[index]], "data": own.get("data")}
    trained = run_training(alone, place, **given, **options)
    return Baseline(trained["predictors"]["peer0"]["last"]["top1_error"], str(place))


def start_from_config(config: str | Path | None, given: Mapping[str, Any]) -> Recipe:
    """The recipe that a call asks for.

    Where a method or data set is given by its name alone, it has the options that the config says for it; another
    data set than the config's has those of them that it knows.

    Args:
        config: a recipe to start from: a YAML file, or the name of one that comes with the library.
        given: the entries that the call gives.
    """
    base = {} if config is None else Recipe.read(config).to_dict()
    values = {**base, **given}
    for part in ("method", "data"):
        name = given.get(part)
        if part not in base or not isinstance(name, str):
            continue
        if name == base[part]["name"]:
            values[part] = base[part]
        elif part == "data":
            known = datasets.options(name)
            values[part] = {key: value for key, value in base[part].items() if key in known} | {"name": name}
    return Recipe.from_dict(values, "the call")


def _describe(network: object) -> str:
    """A network from Python as a word that differs where its parameters' names or shapes do."""
    if not isinstance(network, nn.Module):
        raise UsageError(f"peers and teachers given from Python are torch modules, not {type(network).__name__}")
    if any(isinstance(p, UninitializedParameter) for p in network.parameters()):
        raise UsageError(
            f"{name_of(network)} has lazy layers, whose weights have no shape yet: call it once on a batch like the "
            "data's"
        )
    shapes = [(name, tuple(p.shape)) for name, p in network.named_parameters()]
    return f"python:{name_of(network)}#{hashlib.sha1(repr(shapes).encode()).hexdigest()[:8]}"


def run_folder(recipe: Recipe, run: str | Path | None = None) -> RunFolder:
    """Where a run goes: to its folder, or where none is given to one that is called after the recipe.

    Raises:
        UsageError: the folder cannot be made.
    """
    if run is None:
        named = recipe.method_name.removeprefix("module:"), recipe.data_name.removeprefix("python:")
        method, data = (re.sub(r"[^\w.-]+", "-", name) for name in named)
        run = Path("runs") / f"{method}-{data}-seed{recipe.seed}"
    check_can_make(run)
    return RunFolder(run)


@checked
@consents()
def report(
    run: str | Path,
    *,
    data: OwnData | None = None,
    peers: Sequence[nn.Module] | None = None,
    teacher: nn.Module | None = None,
    trust: bool = False,
) -> Path:
    """Writes the page of a finished run, RUN/report.html, and returns where it is.

    Args:
        run: the run's folder.
        data: the data, where the run was given data from Python.
        peers: the untrained networks, where the run was given networks from Python.
        teacher: the same for the teacher.
        trust: import code of your own that the run names, module:package.function. See SECURITY.md.

    Raises:
        UsageError: there is no run, or it is not finished.
    """
    from collegium.pages.run_page import write_report

    return write_report(run, data=None if data is None else as_data(data), peers=peers, teacher=teacher)


@checked
@consents("methods", "method", "peers", "data", "teacher")
def compare(
    *,
    methods: str,
    study: str | Path,
    peers: str | None = None,
    data: str | Mapping[str, Any] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    vary: Vary = "training",
    sweep: str | None = None,
    teacher: str | None = None,
    config: str | Path | None = None,
    workers: int | None = None,
    executor: "Executor | None" = None,
    hypothesis: str | None = None,
    contrasts: str | None = None,
    deployed: str | None = None,
    margin: float | None = None,
    plan_only: bool = False,
    quiet: bool = False,
    trust: bool = False,
    **recipe: Unpack[StudyEntries],
) -> "StudyTable":
    """Trains every method with every cohort and seed, or goes on where the same call was interrupted.

    Finished runs are left as they are; a study may be added to by calls with more methods, cohorts or seeds. The
    table and the page are written to the study's folder, see :mod:`collegium.study`.

    Args:
        methods: names, with options after colons: "independent,dml,ffl:ekd=false"; where a ";" is among them it
            separates in place of ",". An option is the method's own, or else an entry of the recipe:
            "independent:label_smoothing=0.1".
        study: the study's folder.
        peers: cohorts, separated by ";": "2xresnet20; resnet20,wrn_16_2". By default that of the recipe.
        data: a name, or a name with options ({"name": "cifar100", "per_class": 50}).
        seeds: of the runs; on the command line like 0,1,2 or 0-7.
        vary: what a run's seed draws: initial weights, order and augmentation ("training"), or the split of the data
            too ("split"): which images are held out and taken, and which labels are made wrong. Every method gets the
            same.
        sweep: entries of the recipe with several values each, "learning_rate=0.1,0.05; weight_decay=0.0005,0.005":
            every method has rows with each combination, which are compared with ``independent`` of the same.
        teacher: for methods that learn from one: a network's name, which is trained alone as a run of the study with
            each seed, or the path of a finished run or of a peer's folder.
        config: a recipe that all runs start from: a YAML file, or the name of one that comes with the library.
        workers: so many runs at once; by default as many as cores and memory allow.
        executor: where the runs are computed; by default on this machine. See
            :class:`collegium.study.executors.ray.RayExecutor`.
        hypothesis: what the study is to find out. It and the next three make the study's plan, which is written before
            the first run and does not change: later calls may leave them out, and what they add is marked.
        contrasts: pairs of rows that decide: "ffl vs independent, dml vs independent", or with a colon where that is
            clear, see :func:`collegium.study.plan.parse_contrasts`; by default every row against ``independent``.
        deployed: the predictor that contrasts compare: "mean_peer", the default, "ensemble", "peer0" and so on.
        margin: in points, the largest difference that may be called no difference; by default 1.
        plan_only: write the plan and train nothing.
        quiet: show nothing.
        trust: import code of your own that files name, module:package.function: a config, the study. What the call
            itself names is imported anyway. See SECURITY.md.
        **recipe: everything else a :class:`Recipe` says, for all runs: ``epochs``, ``batch_size`` and so on.
            ``share_until`` holds for every method but ``independent``, if the method's own options do not say it:
            "independent:share_until=stage2" is one more row that those on this trunk are compared with.

    Returns:
        The table; ``print(table)`` shows it as Markdown.

    Raises:
        UsageError: something does not exist or does not fit, or the folder holds something else; nothing is written.
        DataError: the data cannot be read; nothing is written.
        TrainingError: all was interrupted. A run that fails does not stop the others; the table says it.
    """
    from collegium.study.grid import make_grid
    from collegium.study.live import LiveView
    from collegium.study.plan import PlanOptions
    from collegium.study.study import Study
    from collegium.study.trial import Trial

    check_can_make(study)
    executor = _executor(workers, executor)
    trial = Trial()
    values: dict[str, Any] = {**recipe} | ({} if data is None else {"data": data})
    given = start_from_config(config, values)
    grid = make_grid(
        given,
        methods,
        given.peers if peers is None else peers,
        list(seeds),
        teacher=teacher,
        vary=vary,
        sweep=sweep,
        trial=trial,
    )
    whole = Study(
        study,
        grid.cells,
        reference=grid.reference,
        left_out=grid.left_out,
        trunk_reference=grid.trunk_reference,
    )
    whole.set_plan(PlanOptions(hypothesis, contrasts, deployed, margin))
    if plan_only:
        if whole.plan is None:
            raise UsageError("there is no plan to write: say with --hypothesis or --contrasts what is to be found out")
        whole.save()
        return publish(study)
    whole.run(executor, checked=True, view=None if quiet else LiveView)
    return publish(study)


def _executor(workers: int | None, executor: "Executor | None") -> "Executor":
    """Where runs are computed: by default on this machine."""
    from collegium.study.executors.local import LocalExecutor

    if workers is not None and workers < 1:
        raise UsageError(f"workers must be 1 or more, got {workers}")
    if workers is not None and executor is not None:
        raise UsageError("workers is a number of processes on this machine; leave it out with another executor")
    return executor or LocalExecutor(workers)


@checked
@consents()
def publish(study: str | Path) -> "StudyTable":
    """Writes the table and the page of a study, which may be incomplete, to its folder, and returns the table.

    Raises:
        UsageError: there is no study.
    """
    from collegium.pages.study_page import write_page
    from collegium.pages.study_table import StudyTable
    from collegium.results.comparison import findings
    from collegium.study.study import Study

    opened = Study.open(study)
    table = StudyTable(findings(opened))
    table.write(opened.folder)
    write_page(table)
    return table


@checked
@consents()
def compare_runs(runs: str | Path | Sequence[str | Path], *, out: str | Path | None = None) -> "StudyTable":
    """Puts finished runs in a table with tests, as those of a study; a study's folder alone is told again.

    Runs that differ in their seeds alone are a row. A row is called by its method with options, and by the entries of
    the recipe in which rows differ. It is compared with ``independent`` networks of the same peers, or with the same
    network alone, on the same data and for as many epochs, seed by seed. Nothing is trained, and nothing imported.

    Args:
        runs: folders of finished runs, or folders that hold them at any depth; or a study.
        out: a folder for table and page: table.md, table.tex, summary.csv, runs.csv and report.html; by default none is
            written. A study's are always written, to its own folder.

    Returns:
        The table; ``print(table)`` shows it as Markdown.

    Raises:
        UsageError: a folder does not exist, or none holds a finished run.
    """
    from collegium.pages.study_page import write_page
    from collegium.pages.study_table import StudyTable
    from collegium.results.comparison import findings
    from collegium.results.runs import read_runs

    paths = [runs] if isinstance(runs, str | Path) else list(runs)
    if not paths or not all(map(os.fspath, paths)):
        raise UsageError("the name of a folder is empty; give finished runs, or folders that hold them")
    if len(paths) == 1 and (Path(paths[0]).expanduser() / "study.yaml").is_file():
        if out is not None:
            raise UsageError(f"{paths[0]} is a study, whose table is written to its own folder: leave --out out")
        return publish(paths[0])
    if out is not None:
        check_can_make(out)
        if any((Path(out).expanduser() / name).exists() for name in ("recipe.yaml", "study.yaml")):
            raise UsageError(f"{out} is a run or a study; choose another folder with --out")
    table = StudyTable(findings(read_runs(paths, Path(out or ".").expanduser())))
    if out is not None:
        folder = table.findings.study.folder
        with storing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        table.write(folder)
        write_page(table)
    return table


@checked
@consents()
def reproduce(
    name: str,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    scale: float = 1.0,
    study: str | Path | None = None,
    only: str = "",
    train: bool = True,
    precision: Literal["fp32", "bf16", "fp16"] = "fp32",
    compile: bool = False,
    cuda_graphs: bool = False,
    workers: int | None = None,
    executor: "Executor | None" = None,
    quiet: bool = False,
    trust: bool = False,
) -> tuple["Reproduction", Path | None]:
    """Trains a paper's table, or goes on where the same call was interrupted, and sets it beside the published values.

    Args:
        name: of the table, as ``collegium list tables`` shows it.
        seeds: every row is trained with each; on the command line like 0,1,2 or 0-7.
        scale: below 1 a trial: this share of the epochs and of each class's training images.
        study: the study's folder; by default studies/PAPER/TABLE, which tables of the same runs share.
        only: train only the rows whose names hold all these words.
        train: False sets what the folder holds beside the published values and trains nothing.
        precision, compile, cuda_graphs: as a :class:`Recipe` says. The papers' precision is fp32; the table says
            another.
        workers: so many runs at once; by default as many as cores and memory allow.
        executor: where to train; by default this machine's processes.
        quiet: show nothing meanwhile.
        trust: import code of your own that the study's folder names besides. See SECURITY.md.

    Returns:
        The table, and the study's folder, where its files are; None where nothing of the table can be trained.

    Raises:
        UsageError: there is no such table, the scale does not fit, or no row has such a name; nothing is written.
        DataError: the data cannot be read; nothing is written.
        Interrupted: training was stopped and has saved its state.
    """
    from collegium.pages.paper_page import write_files
    from collegium.pages.paper_table import Reproduction
    from collegium.results import papers
    from collegium.study.live import LiveView
    from collegium.study.study import Study

    executor = _executor(workers, executor)
    table = papers.get(name)
    computed: dict[str, Any] = {"precision": precision, "compile": compile, "cuda_graphs": cuda_graphs}
    cells = [
        dataclasses.replace(cell, recipe=dataclasses.replace(cell.recipe, **computed))
        for cell in table.cells(seeds, scale)
    ]
    if not cells:
        return Reproduction(table, scale, []), None
    wanted = [cell for cell in cells if all(word in cell.label for word in only.split())]
    if not wanted:
        labels = list(dict.fromkeys(c.label for c in cells))
        raise UsageError(
            f"no row of {name} is called {only!r}; there are {len(labels)}, such as {'; '.join(labels[:3])}"
        )
    taught = {cell.teacher for cell in wanted}
    wanted = [cell for cell in cells if cell in wanted or cell.label in taught]
    folder = Path(study) if study is not None else _paper_study(table, scale)
    if not train and not (folder / "study.yaml").is_file():
        return Reproduction(table, scale, []), None
    if train:
        check_can_make(folder if study is None else study)
    grid = Study(folder, wanted) if train else Study.open(folder)
    view = None if quiet else LiveView
    outcomes = grid.run(executor, view=view) if train else grid.outcomes()
    found = Reproduction(table, scale, outcomes)
    write_files(found, grid.folder)
    return found, grid.folder


def _paper_study(table: "PaperTable", scale: float) -> Path:
    """Where the runs of a table go; those of a trial to a folder that says so."""
    return Path("studies") / (table.study if scale == 1 else f"{table.study}-trial-{scale:g}")


@checked
@consents()
def rank(
    folder: str | Path, *, out: str | Path | None = None, data: str | None = None, peers: str | None = None
) -> tuple["Ranking", Path]:
    """Ranks every finished run beneath a folder among the published values, and writes the page.

    Args:
        folder: of studies, of runs, or of both.
        out: the page; by default FOLDER/rank.html.
        data: the data set that printing the ranking shows; by default all.
        peers: the network that it shows; by default all.

    Returns:
        The ranking and where its page is.

    Raises:
        UsageError: there is no such folder, or nothing of that data set or network.
    """
    from collegium.files import write_whole
    from collegium.pages.rank_page import page
    from collegium.pages.rank_table import Ranking
    from collegium.results.ranking import of_papers, of_runs

    if not os.fspath(folder):
        raise UsageError("the folder's name is empty")
    ours, left_out = of_runs(folder)
    ranking = Ranking([*ours, *of_papers()], left_out, data=data, network=peers)
    place = Path(out) if out is not None else Path(folder).expanduser() / "rank.html"
    if not place.name or place.is_dir():
        raise UsageError(f"the page is a file, and {str(out)!r} names none")
    if not place.parent.is_dir():
        raise UsageError(f"the page cannot be written to {place}: there is no folder {place.parent}")
    write_whole(place, page(ranking))
    return ranking, place
