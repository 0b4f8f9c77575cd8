"""The user's own change of training images."""

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from collegium.errors import CollegiumError, UsageError
from collegium.user_code import PREFIX, find

Transform: TypeAlias = Callable[[Tensor], Tensor]
"""One training image (C, H, W) uint8 on the CPU -> the same, changed.

It is called after the data set's own crops and flips and before normalisation. Whatever it draws, it draws from the
global generators of torch, NumPy or Python, which are seeded before each call; and it keeps nothing between calls. Then
a run that was interrupted goes on bit for bit, with any number of workers and devices.
"""


def named_transform(name: str) -> Transform:
    """The function called ``module:package.function``, found from the current folder.

    Raises:
        UsageError: the name is written otherwise, or there is no such function.
    """
    if not name.startswith(PREFIX):
        raise UsageError(f"the data option transform is {name[:80]!r}: write {PREFIX}package.function")
    transform: Transform = find(name.removeprefix(PREFIX))
    return transform


def transform_name(transform: Transform) -> str:
    """module:package.function, or that of the class where it is an object."""
    named: Any = transform if hasattr(transform, "__qualname__") else type(transform)
    return f"{PREFIX}{named.__module__}.{named.__qualname__}"


def transformed(transform: Transform, image: Tensor) -> Tensor:
    """What a transform makes of an image (C, H, W) uint8.

    Raises:
        UsageError: it fails, or gives something else than such an image of the same shape.
    """
    try:
        made = transform(image)
    except CollegiumError:
        raise
    except Exception as error:  # whatever a stranger's function raises
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"the transform {transform_name(transform)} raised {type(error).__name__}: {reason}"
        ) from error
    if not isinstance(made, Tensor) or made.dtype != torch.uint8 or made.shape != image.shape:
        given = f"{made.dtype} of shape {tuple(made.shape)}" if isinstance(made, Tensor) else f"a {type(made).__name__}"
        raise UsageError(
            f"the transform {transform_name(transform)} made {given} of an image uint8 of shape {tuple(image.shape)}: "
            "it must give the same type and shape"
        )
    return made
