"""Online knowledge distillation: networks that train together from scratch and teach each other.

import collegium

collegium.train(method="ffl", peers="2xresnet20", share_until="stage2", data="cifar100", run="runs/ffl")
student = collegium.load_peer("runs/ffl")
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collegium.api import compare as compare
    from collegium.api import compare_runs as compare_runs
    from collegium.api import evaluate as evaluate
    from collegium.api import export as export
    from collegium.api import predict as predict
    from collegium.api import publish as publish
    from collegium.api import push as push
    from collegium.api import rank as rank
    from collegium.api import report as report
    from collegium.api import reproduce as reproduce
    from collegium.api import train as train
    from collegium.cohort import Cohort as Cohort
    from collegium.cohort import CohortSpec as CohortSpec
    from collegium.cohort import PeerOutputs as PeerOutputs
    from collegium.data import from_arrays as from_arrays
    from collegium.distiller import Distiller as Distiller
    from collegium.method import Method as Method
    from collegium.method import Progress as Progress
    from collegium.networks import Network as Network
    from collegium.student import load_peer as load_peer
    from collegium.training.callbacks import Callbacks as Callbacks
    from collegium.training.callbacks import TrainingView as TrainingView

    __version__: str

# Loaded on first use, so that importing the package costs little.
_PLACES = {
    "train": "api",
    "compare": "api",
    "compare_runs": "api",
    "evaluate": "api",
    "export": "api",
    "predict": "api",
    "publish": "api",
    "push": "api",
    "rank": "api",
    "report": "api",
    "reproduce": "api",
    "Cohort": "cohort",
    "CohortSpec": "cohort",
    "PeerOutputs": "cohort",
    "from_arrays": "data",
    "Distiller": "distiller",
    "Method": "method",
    "Progress": "method",
    "Network": "networks",
    "load_peer": "student",
    "Callbacks": "training.callbacks",
    "TrainingView": "training.callbacks",
}
__all__ = sorted(_PLACES)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("collegium")
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
