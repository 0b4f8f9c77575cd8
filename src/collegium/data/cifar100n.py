"""CIFAR-100N: the labels that people gave to CIFAR-100's training images.

Wei et al., "Learning with Noisy Labels Revisited: A Study Using Real-World Human Annotations", ICLR 2022,
https://arxiv.org/abs/2110.12088. CC BY-NC 4.0.
"""

import io
import pickle
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from collegium.errors import DataError

from .download import fetch, read_checked
from .safe_pickle import ArrayUnpickler

_URL = "https://github.com/UCSC-REAL/cifar-10-100n/raw/main/data/CIFAR-100_human.pt"
_MD5 = "a67b45c1d7992051865b5c755bd68bb1"
_CONTENT = "CIFAR-100_human/data.pkl"


def human_labels(root: Path, *, coarse: bool, download: bool = True) -> tuple[Tensor, Tensor]:
    """The labels of the 50000 training images, in the order of CIFAR-100's own file.

    Args:
        root: the folder with CIFAR-100_human.pt, the authors' file.
        coarse: of the 20 coarse classes rather than the 100 fine ones.
        download: download the file (1 MiB) where it is not there.

    Returns:
        (N,) int64, what people said; (N,) int64, the right labels.

    Raises:
        DataError: the file is not there and is not to be, or cannot be, downloaded, or it fails its checksum.
    """
    path = root / "CIFAR-100_human.pt"
    if not path.is_file():
        if not download:
            raise DataError(
                f"the labels of CIFAR-100N are not at {path}: allow the download, or put the authors' file there"
            )
        fetch(_URL, path, _MD5)
    raw = read_checked(path, _MD5, delete=path)
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as file:
            content = ArrayUnpickler(io.BytesIO(file.read(_CONTENT))).load()
        kind = "_coarse_label" if coarse else "_label"
        noisy, clean = (torch.as_tensor(content[which + kind], dtype=torch.int64) for which in ("noisy", "clean"))
    except (zipfile.BadZipFile, KeyError, pickle.UnpicklingError) as error:
        raise DataError(f"{path} cannot be read ({error}): delete it and repeat the command") from error
    return noisy, clean
