"""Code of other projects, read from clones of their repositories and run as it is there.

Nothing is imported from a clone: the classes and functions that are asked for are compiled alone, with the names that
they use given by the caller. So a script that parses its command line or asks for a GPU when it is imported serves too.
"""

import ast
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple


class Repository(NamedTuple):
    """A project on github.com, and the commit that is read."""

    address: str  # owner/name
    commit: str
    authors_of: tuple[str, ...] = ()  # the methods whose authors published it

    @property
    def name(self) -> str:
        """Of its clone's folder."""
        return self.address.partition("/")[2]


REPOSITORIES = [
    Repository("Jangho-Kim/FFL-pytorch", "546d478103198c36f22af010d8162d3500976b3b", ("ffl",)),
    Repository("Lan1991Xu/ONE_NeurIPS2018", "54afde30fe039c8bd66668f0d17944b451b8b189", ("one",)),
    Repository("DefangChen/OKDDip-AAAI2020", "c6a05de892fc7d2b6767668548786688a388c2d6", ("okddip",)),
    Repository("winycg/MCL", "236da2f54075119a5bdbac272b0b5011b8ddd4a6", ("mcl",)),
    Repository("winycg/L-MCL", "2c0901efbee5ef35e90bcae751183a616bf806fa", ("l_mcl",)),
    Repository("SJLeo/FFSD", "d5cfda9b1fa45d2516f26f5350ae5733b5ccbc62", ("ffsd",)),
    Repository("hfutqian/SwitOKD", "a3f9623b9ae65823d39f4a087421a1655d21909a", ("switokd",)),
    Repository("tianlizhang/OKDPH", "a562089d10924bd0486d02bda137af5046a4e3cb", ("okdph",)),
    Repository("YingZhangDUT/Deep-Mutual-Learning", "34a20583debe4e0dab1d9856db69bed278c5c011", ("dml",)),
    Repository("parklize/rdml", "4c95be7297f4bcb91ad0e8b50aa3ecaa219a1d07", ("dml",)),
    Repository("XiaoleiDiao/Competitive-Distillation", "4aaf9b912b424631dc4271a81c9d65a90a3d0d4c", ("competitive",)),
    Repository("dropreg/R-Drop", "9dcc8302eb9b0f112c38230864bbee807bbe1aa7", ("two_views",)),
    Repository("k2-fsa/icefall", "36e0420c7e3e849a25b3d24dbf913c424f3d23c9", ("two_views",)),
    Repository("ustc-vim/dualnet", "720d603f727e8b89732b30d2f7186ebfbdca4805", ("dualnet",)),
    Repository("megvii-research/mdistiller", "a08d46f10d6102bd6e3f258ca5ac880b020ea259", ("dkd",)),
    Repository("sunshangquan/logit-standardization-KD", "f6e5aa5172bad618e801163c3385322eea673754", ("kd", "dkd")),
    Repository(
        "yuanli2333/Teacher-free-Knowledge-Distillation", "d000ab378a409535a5f5f645b473e05e27529a02", ("tf_kd_reg",)
    ),
    Repository("bhheo/AB_distillation", "a7701d3506e13da87bda75aba1cee6397408144f", ("ab",)),
    Repository("szagoruyko/attention-transfer", "893df5488f93691799f082a70e2521a9dc2ddf2d", ("at",)),
    Repository("HobbitLong/RepDistiller", "b84f547c5db6a35318d4671d7d5c4de74c822403"),
    Repository(
        "shaoeric/Peer-Collaborative-Learning-for-Online-Knowledge-Distillation",
        "6afb4730bc5a35a11f7a0097ef94d0d17d3b6772",
    ),
    Repository(
        "shaoeric/Online-Knowledge-Distillation-via-Collaborative-Learning", "1ba546150c009dedea0587948a5d351e0538a120"
    ),
    Repository("wangz3066/OnlineDistillGCN", "3e49c5872f387306e3ad58c7956346f31c8f0a8a"),
    Repository("yechanp/self_kd", "226854c8681f6daf19ea48d1914d4ab0093f135d"),
    Repository("pfnet-research/sc20-online-codistillation", "9f5a6a11f23407865abd77d90e754255dd106b6a"),
]


class Absent(Exception):
    """A clone is missing, or does not have the commit."""


class Clone:
    """A repository's files at the commit that is read, whatever is checked out."""

    def __init__(self, folder: Path, repository: Repository) -> None:
        self.folder = folder / repository.name
        self.repository = repository

    def text(self, path: str) -> str:
        """Raises Absent where there is no such file."""
        shown = subprocess.run(
            ["git", "-C", str(self.folder), "show", f"{self.repository.commit}:{path}"], capture_output=True, text=True
        )
        if shown.returncode:
            raise Absent(f"{self.repository.address} has no {path} at {self.repository.commit[:12]} in {self.folder}")
        return shown.stdout

    def load(
        self,
        path: str,
        *names: str,
        given: Mapping[str, Any] | None = None,
        replaced: Sequence[tuple[str, str]] = (),
    ) -> SimpleNamespace:
        """The classes and functions of these names, at the top of a file or within a class; without names, all at the
        top.

        Args:
            path: of the file in the repository.
            names: "function", "Class", or "Class.function" for a function of a class alone.
            given: the names that they use.
            replaced: texts, each with what takes its place before it is compiled, as the page says.

        Raises:
            Absent: there is no such file.
            ValueError: it does not define a name, or does not hold a text.
        """
        source = self.text(path)
        for old, new in replaced:
            if old not in source:
                raise ValueError(f"{path} of {self.repository.address} does not hold {old!r}")
            source = source.replace(old, new)
        found = _definitions(ast.parse(source))
        chosen = list(names) or [name for name in found if "." not in name]
        for name in chosen:
            if name not in found:
                raise ValueError(f"{path} of {self.repository.address} defines no {name}")
        namespace: dict[str, Any] = {"__name__": self.repository.name, **(given or {})}
        module = ast.Module([found[name] for name in chosen], type_ignores=[])
        exec(compile(module, f"{self.repository.address}/{path}", "exec"), namespace)
        return SimpleNamespace(**{name.rpartition(".")[2]: namespace[name.rpartition(".")[2]] for name in chosen})


def _definitions(tree: ast.Module) -> dict[str, ast.stmt]:
    found: dict[str, ast.stmt] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{inner.name}": inner for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return found
