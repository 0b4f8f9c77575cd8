"""Who teaches whom in a method, measured by its gradients and not told by anybody.

A method is given random outputs of a small cohort. *What a node says* is what the losses see of it: a peer's logits and
maps, the frozen teacher's, the logits of a copy, the labels, the logits and maps of one of the method's own predictors,
what a module of the method's own puts out. The loss is cut there: what every predictor and module says is a tensor of
its own, so that it can be held while another changes. Then, X and Y being two different nodes:

- X *teaches* Y: the gradient that Y's own players send to what Y says changes when X says something else and all other
  nodes say what they said. X is part of Y's target, or decides how much Y learns. Where nothing is detached the target
  learns too, and the edge runs both ways.
- X *trains* Y: Y is read by X, and the gradient of Y's own players comes back through X to what Y says.
- X *is read by* Y: what Y says changes with what X says.
- X *is followed by* Y: Y is a copy of X, by the method's own :class:`collegium.method.Shadow`.

A module that reads a single peer is a part of that peer, a module that is heard through a predictor alone is a part of
that predictor; a predictor that is one peer or a copy is another name of it. Edges are collected over several random
outputs and over the beginning and the end of training, because a method may teach at times.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from collegium import methods, networks
from collegium.cohort import Cohort, CohortSpec, PeerOutputs, TeacherOutputs
from collegium.layers import GlobalPoolClassifier
from collegium.method import Method, Progress, trainable

Kind = Literal["teaches", "trains", "is read by", "is followed by"]
CLASSES = 5
STAGES = ((4, 8, 8), (4, 8, 8), (8, 4, 4), (16, 2, 2))  # (D, H, W) of the stem and the stages of every network
TARGET, OTHER_TARGET = torch.tensor([0, 1, 2, 3, 4, 1]), torch.tensor([3, 3, 0, 1, 2, 4])
DRAWS = 3


class Edge(NamedTuple):
    """``source`` teaches, trains, is read by or is followed by ``target``."""

    source: str
    kind: Kind
    target: str


@dataclass
class Node:
    """One that says something; ``parts`` are modules and names that belong to it."""

    name: str
    kind: Literal["labels", "peer", "teacher", "copy", "predictor", "module"]
    parts: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Teaching:
    """The nodes of a method by name, its edges in the order of the nodes, and the names of its own predictors."""

    nodes: Mapping[str, Node]
    edges: tuple[Edge, ...]
    predictors: tuple[str, ...]

    def pairs(self, kind: Kind) -> set[tuple[str, str]]:
        """The edges of one kind as pairs of names."""
        return {(edge.source, edge.target) for edge in self.edges if edge.kind == kind}


def small_spec(peers: int, *, trunk: bool = True, teacher: bool = False) -> CohortSpec:
    """The shapes of a cohort of small, like networks."""
    return CohortSpec(
        names=("resnet8",) * peers,
        num_classes=CLASSES,
        feature_shapes=(STAGES,) * peers,
        trunk_shape=STAGES[2] if trunk else None,
        teacher_shapes=STAGES if teacher else None,
        teacher_classifier=GlobalPoolClassifier(STAGES[-1][0], CLASSES) if teacher else None,
    )


def small_cohort(peers: int) -> Cohort:
    """Some of the smallest networks, for their parameters."""
    return Cohort([networks.build("resnet8", num_classes=CLASSES) for _ in range(peers)], share_until="stage2")


@cache
def teaching(name: str) -> Teaching:
    """Who teaches whom with the method's defaults.

    Among two peers, or as many as the method needs; among three where these do not all teach each other alike, which
    two cannot show.
    """
    cls = methods.get(name)
    if cls.min_peers <= 2:
        found = measure(cls, small_spec(3, teacher=cls.needs_teacher))
        among = [edge for edge in found.pairs("teaches") if all(found.nodes[n].kind == "peer" for n in edge)]
        if len(among) in (0, 6):
            return measure(cls, small_spec(2, teacher=cls.needs_teacher))
    return measure(cls, small_spec(max(3, cls.min_peers), teacher=cls.needs_teacher))


def measure(make: Callable[[CohortSpec], Method], spec: CohortSpec) -> Teaching:
    """Who teaches whom in the method that is made for such a cohort."""
    torch.manual_seed(0)
    experiment = _Experiment(make(spec), small_cohort(spec.num_peers), spec)
    edges: set[Edge] = set()
    for draw in range(DRAWS):
        for epoch in (0, spec.num_peers - 1):
            experiment.draw(draw, epoch)
            edges |= set(experiment.edges())
    order = {node: k for k, node in enumerate(experiment.nodes)}
    in_order = sorted(edges, key=lambda edge: (order[edge.source], order[edge.target], edge.kind))
    return Teaching(experiment.nodes, tuple(in_order), tuple(experiment.own_predictors))


class _Measured(NamedTuple):
    gradients: dict[str, list[Tensor]]  # node -> of its own players' losses, with regard to what it says
    said: dict[str, list[Tensor]]  # predictor or module -> what it would say, were it not held
    back: dict[tuple[str, str], float]  # (reader, read) -> how large a gradient comes back, where nothing is shaken
    losses: dict[str, Tensor]  # player -> the sum of its terms


class _Experiment:
    """A method that is heard and interrupted; :meth:`draw` gives it random outputs and a moment of training."""

    def __init__(self, method: Method, cohort: Cohort, spec: CohortSpec) -> None:
        self.spec = spec
        self.method = method
        self.buffers = [(b, b.clone()) for b in self.method.buffers()]  # running statistics, the same for every run
        players = self.method.players(cohort)
        self.owners = {
            id(p): [name for name, groups in players.items() if any(p is q for g in groups for q in g["params"])]
            for p in (*trainable(cohort), *trainable(self.method))
        }
        networks_players = self._players(trainable(cohort))
        self.shapes: dict[str, list[tuple[int, ...]]] = {}  # node -> shapes of what it says, without the batch
        self.nodes = {"labels": Node("labels", "labels")}
        for k, shapes in enumerate(spec.feature_shapes):
            self._speaker(f"peer{k}", "peer", [(CLASSES,), *shapes])
        self.players = dict.fromkeys(self.shapes, networks_players)  # node -> whose losses it descends
        if spec.teacher_shapes is not None:
            self._speaker("teacher", "teacher", [(CLASSES,), *spec.teacher_shapes])
        if (shadow := self.method.shadow) is not None:
            for name in ["copy"] if shadow.hybrid else [f"copy{k}" for k in range(spec.num_peers)]:
                self._speaker(name, "copy", [(CLASSES,)])
        self.predictors: list[str] = []
        self.modules: dict[str, list[nn.Module]] = {}  # node -> modules whose outputs are cut
        self.draw(0, 0)
        self._find_predictors(networks_players)
        self.draw(0, 0)
        self._find_modules()

    def _speaker(self, name: str, kind: Literal["peer", "teacher", "copy"], shapes: list[tuple[int, ...]]) -> None:
        self.nodes[name] = Node(name, kind)
        self.shapes[name] = shapes

    def _players(self, parameters: list[nn.Parameter]) -> list[str]:
        return sorted({player for p in parameters for player in self.owners[id(p)]})

    def draw(self, draw: int, epoch: int) -> None:
        """New random outputs, said in an epoch of as many as there are peers."""
        random, epochs = torch.Generator().manual_seed(draw), self.spec.num_peers

        def say(shape: tuple[int, ...]) -> Tensor:
            return 2 * torch.randn(len(TARGET), *shape, generator=random)

        self.progress = Progress(*(torch.tensor(float(x)) for x in (epoch, epochs, epoch / epochs)))
        self.inputs = {node: [say(shape) for shape in shapes] for node, shapes in self.shapes.items()}
        self.trunk = None if self.spec.trunk_shape is None else say(self.spec.trunk_shape)
        natural = self._predictors(self._outputs(self.inputs)) if self.predictors else {}
        self.held = {name: [t.detach() for t in natural[name]] for name in self.predictors}  # what predictors say
        self.first: dict[str, list[Tensor]] = {name: [] for name in self.modules}  # what modules say

    def _find_predictors(self, players: list[str]) -> None:
        """Predictors of which the losses make use become nodes; those that are a peer or a copy are names of it."""
        out = self._outputs(self.inputs)
        predicted = {name: values[0] for name, values in self._predictors(out).items()}
        for name, logits in predicted.items():
            for node, said in self.inputs.items():
                if torch.equal(said[0], logits):
                    self.nodes[node].parts.append(name)
        self.own_predictors = [name for name in predicted if name != "ensemble"]
        cuts = _Cuts((name, [logits], logits) for name, logits in predicted.items())
        with cuts:
            self.method(out, TARGET, self.progress)
        aliases = {part for node in self.nodes.values() for part in node.parts}
        self.predictors = [name for name in predicted if name in cuts.met and name not in aliases]
        for name in self.predictors:
            self.nodes[name] = Node(name, "predictor")
            self.players[name] = players

    def _find_modules(self) -> None:
        """Every module becomes a node, or a part of the one peer that it reads or of the predictor that speaks it."""
        unheard = self.run().losses
        natural = self._predictors(self._outputs(self.inputs))
        groups: dict[str, list[nn.Module]] = {}
        for path, module in _units(self.method):
            groups.setdefault(".".join(path.split(".")[:2]), []).append(module)
        for name, modules in groups.items():
            parameters = [p for module in modules for p in trainable(module)]
            players = self._players(parameters)
            with self._shaken(parameters):
                losses, heard = self.run().losses, self._predictors(self._outputs(self.inputs))
            through = [n for n in self.held if _differ(natural[n], heard[n])]
            if through and not any(_differ([losses[p]], [unheard[p]]) for p in losses):
                for predictor in through:
                    self._part(predictor, name)
                    self.players[predictor] = players
                continue
            self.modules[name] = modules
            self.first[name] = []
            self.nodes[name] = Node(name, "module")
            self.players[name] = players
            before = self.run().said[name]
            read = [n for n in (*self.inputs, *self.held) if _differ(before, self.run(shake=n).said[name])]
            if len(read) == 1 and self.nodes[read[0]].kind == "peer":
                del self.modules[name], self.nodes[name], self.players[name]
                self._part(read[0], name)

    def _part(self, node: str, module: str) -> None:
        name = module.partition(".")[0]
        if name not in self.nodes[node].parts:
            self.nodes[node].parts.append(name)

    @contextmanager
    def _shaken(self, parameters: list[nn.Parameter]) -> Iterator[None]:
        kept = [p.detach().clone() for p in parameters]
        with torch.no_grad():
            for p in parameters:
                p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(7)))
        yield
        with torch.no_grad():
            for p, value in zip(parameters, kept, strict=True):
                p.copy_(value)

    def _outputs(self, said: Mapping[str, list[Tensor]]) -> PeerOutputs:
        peers = [said[n] for n, node in self.nodes.items() if node.kind == "peer"]
        copies = [said[n][0] for n, node in self.nodes.items() if node.kind == "copy"]
        told = said.get("teacher")
        return PeerOutputs(
            logits=torch.stack([p[0] for p in peers]),
            features=tuple(tuple(p[1:]) for p in peers),
            trunk=self.trunk,
            teacher=None if told is None else TeacherOutputs(told[0], tuple(told[1:])),
            shadow=torch.stack(copies) if copies else None,
        )

    def _predictors(self, out: PeerOutputs) -> dict[str, list[Tensor]]:
        """What the method's predictors say: logits, and a map where there is one of the same name."""
        maps = self.method.maps(out)
        predicted = {"ensemble": out.logits.mean(0), **self.method.predict(out)}
        return {name: [z, *([maps[name]] if name in maps else [])] for name, z in predicted.items()}

    def _cuts(self, out: PeerOutputs, natural: Mapping[str, list[Tensor]], says: Mapping[str, list[Tensor]]) -> "_Cuts":
        """Cuts at every predictor; logits may also be computed from a map that was cut."""
        maps = [(name, [natural[name][1]], says[name][1]) for name in says if len(says[name]) > 1]
        after = natural
        if maps:
            with _Cuts(maps):
                after = self._predictors(out)
        logits = [(name, [natural[name][0], after[name][0]], says[name][0]) for name in says]
        return _Cuts([*maps, *logits])

    def run(self, shake: str | None = None) -> _Measured:
        """Every gradient, while node ``shake`` says something else than usual and all others what they always say."""
        noise = torch.Generator().manual_seed(1000)  # unlike any draw

        def leaves(node: str, values: list[Tensor]) -> list[Tensor]:
            shaken = [v + torch.randn(v.shape, generator=noise) if node == shake else v.clone() for v in values]
            return [v.detach().requires_grad_(self.nodes[node].kind not in ("teacher", "copy")) for v in shaken]

        says = {node: leaves(node, values) for node, values in {**self.inputs, **self.held}.items()}
        out = self._outputs(says)
        for buffer, value in self.buffers:
            buffer.copy_(value)
        natural = self._predictors(out) if self.held else {}
        cuts = self._cuts(out, natural, {name: says[name] for name in self.held})
        spoken: dict[str, list[Tensor]] = {name: [] for name in self.modules}
        for name in self.modules:
            says[name] = []

        def hook(name: str) -> Callable[[nn.Module, Any, Any], Any]:
            def cut(module: nn.Module, arguments: Any, output: Any) -> Any:
                tensors, structure = tree_flatten(output)
                spoken[name] += tensors
                new = leaves(name, [self._kept(name, len(says[name]) + k, t) for k, t in enumerate(tensors)])
                says[name] += new
                return tree_unflatten(new, structure)

            return cut

        hooks = [module.register_forward_hook(hook(name)) for name, ms in self.modules.items() for module in ms]
        try:
            with cuts:
                terms = self.method(out, OTHER_TARGET if shake == "labels" else TARGET, self.progress)
        finally:
            for handle in hooks:
                handle.remove()
        losses = {player: torch.stack(list(named.values())).sum() for player, named in terms.items()}
        heard = {name: list(zip(spoken[name], says[name], strict=True)) for name in self.modules}
        heard |= {name: cuts.met.get(name, []) for name in self.held}
        learners = [node for node in says if node in self.players]

        def slope(players: list[str], said: list[Tensor]) -> list[Tensor]:
            return _grad([torch.stack([losses[player] for player in players]).sum()], said, None)

        back = {}
        for reader, cut in heard.items() if shake is None else ():
            for node in learners:
                if node != reader:
                    natural_output, instead = [a for a, _ in cut], [b for _, b in cut]
                    slopes = slope(self.players[node], instead)
                    for k in reversed(range(len(cut))):  # logits may have been computed from a map that was cut
                        came = _grad([natural_output[k]], instead[:k], [slopes[k]])
                        slopes[:k] = [a + b for a, b in zip(slopes[:k], came, strict=True)]
                    came = _grad(natural_output, says[node], slopes)
                    back[reader, node] = sum(float(g.abs().sum()) for g in came)
        return _Measured(
            gradients={node: slope(self.players[node], says[node]) for node in learners},
            said={name: [a for a, _ in cut] for name, cut in heard.items()},
            back=back,
            losses={player: loss.detach() for player, loss in losses.items()},
        )

    def _kept(self, name: str, call: int, output: Tensor) -> Tensor:
        """What a module's output was the first time, so that it is held when others change."""
        if call == len(self.first[name]):
            self.first[name].append(output.detach().clone())
        return self.first[name][call]

    def edges(self) -> Iterator[Edge]:
        usual = self.run()
        for source in self.nodes:
            unusual = self.run(shake=source)
            for node, gradients in usual.gradients.items():
                if node != source and _differ(gradients, unusual.gradients[node]):
                    yield Edge(source, "teaches", node)
            for node, said in usual.said.items():
                if node != source and _differ(said, unusual.said[node]):
                    yield Edge(source, "is read by", node)
        for (reader, node), size in usual.back.items():
            if size > 0:
                yield Edge(reader, "trains", node)
        peers = [n for n, node in self.nodes.items() if node.kind == "peer"]
        copies = [n for n, node in self.nodes.items() if node.kind == "copy"]
        hybrid = self.method.shadow is not None and self.method.shadow.hybrid
        for copied, peer in zip(copies * len(peers) if hybrid else copies, peers, strict=bool(copies)):
            yield Edge(peer, "is followed by", copied)


class _Cuts(TorchFunctionMode):
    """Puts a tensor of its own in the place of what a predictor says, wherever it is computed.

    Args:
        cuts: predictor, the values by which what it says is known, and what it is to say.
    """

    def __init__(self, cuts: Iterable[tuple[str, list[Tensor], Tensor]]) -> None:
        super().__init__()
        self.cuts = list(cuts)
        self.met: dict[str, list[tuple[Tensor, Tensor]]] = {}  # predictor -> what was cut, and what it says instead

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not isinstance(result, Tensor):
            return result
        given = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        for name, known, says in self.cuts:
            # Of what was cut already, a view or a detached one must stay what it is.
            if _among(result, known) and not any(_among(x, [*known, says]) for x in given):
                self.met.setdefault(name, []).append((result, says))
                return says
        return result


def _among(x: Tensor, values: list[Tensor]) -> bool:
    return any(x is v or (x.shape == v.shape and x.dtype == v.dtype and torch.equal(x, v)) for v in values)


def _units(method: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """A method's own modules that learn, each with its path; containers that are never called give what they hold."""

    def walk(path: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        if isinstance(module, nn.ModuleList | nn.ModuleDict):
            for key, child in module.named_children():
                yield from walk(f"{path}.{key}", child)
        elif trainable(module):
            yield path, module

    for name, child in method.named_children():
        yield from walk(name, child)


def _grad(outputs: list[Tensor], inputs: list[Tensor], slopes: list[Tensor] | None) -> list[Tensor]:
    """Gradients with regard to inputs, 0 where there are none."""
    zeros = [torch.zeros_like(x) for x in inputs]
    alive = [k for k, t in enumerate(outputs) if t.requires_grad]
    if not alive or not inputs:
        return zeros
    told = None if slopes is None else [slopes[k] for k in alive]
    found = torch.autograd.grad([outputs[k] for k in alive], inputs, told, retain_graph=True, allow_unused=True)
    return [zero if g is None else g for g, zero in zip(found, zeros, strict=True)]


def _differ(one: list[Tensor], other: list[Tensor]) -> bool:
    """Whether tensors differ by more than rounding does."""
    pairs = zip(one, other, strict=True)
    return any(bool((a - b).norm() > 1e-6 * torch.maximum(a.norm(), b.norm())) for a, b in pairs)
