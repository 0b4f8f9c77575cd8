"""Pickles that are looked at before they are read."""

import io
import pickle
import zipfile
from argparse import Namespace
from collections import OrderedDict

import pytest
import torch
from torch import nn

from collegium.pickles import Refused, check_pickle


def pickled(content: object) -> bytes:
    """The pickle of what torch saves."""
    file = io.BytesIO()
    torch.save(content, file)
    with zipfile.ZipFile(file) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("data.pkl")]
        return archive.read(name)


def test_what_training_scripts_save_is_let_through() -> None:
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(200)))
    groups = [{"params": [p]} for p in model.parameters()]  # which share a tuple of betas
    optimizer = torch.optim.Adam(groups)
    sum(p.sum() for p in model.parameters()).backward()  # type: ignore[union-attr]
    optimizer.step()
    content = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "args": Namespace(lr=0.1, size=(3, 32, 32)),
        "history": [(k, 0.5, {"loss": 1.0}) for k in range(1000)],
        "sizes": OrderedDict(a=torch.Size([1, 2])),
        "none": (None, True, -1, 2**70, "text", ()),
    }
    check_pickle(io.BytesIO(pickled(content)))


def doubling(depth: int) -> bytes:
    """A dictionary whose only key is a tuple of two references to a tuple of two references to ..."""
    return b"\x80\x02}N\x85q\0" + b"h\0\x86q\0" * depth + b"Ns."


def test_a_key_of_endless_references_is_refused() -> None:
    assert len(pickle.loads(doubling(10))) == 1
    check_pickle(io.BytesIO(doubling(10)))
    with pytest.raises(Refused, match="stands for more than 10,000,000 values"):
        check_pickle(io.BytesIO(doubling(60)))


@pytest.mark.parametrize(
    "called", [b"__builtin__\nbytearray", b"builtins\nbytearray", b"torch\nFloatTensor", b"torch.cuda\nByteTensor"]
)
def test_a_call_for_memory_is_refused(called: bytes) -> None:
    with pytest.raises(Refused, match="it calls "):
        check_pickle(io.BytesIO(b"\x80\x02c" + called + b"\nK\x01\x85R."))


def test_a_long_one_is_refused_soon() -> None:
    with pytest.raises(Refused, match="more than 1,000 operations"):
        check_pickle(io.BytesIO(b"\x80\x02}" + b"q\0" * 10**7 + b"."), 1000)


@pytest.mark.parametrize("content", [b"", b"\x80\x02", b"h\0.", b"\x86.", b"t.", b"no pickle"])
def test_what_is_none_is_an_error(content: bytes) -> None:
    with pytest.raises((ValueError, IndexError, KeyError)):
        check_pickle(io.BytesIO(content))
