"""Networks in ONNX files that anybody may have made: one that reads other files, or may not end, is refused."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from collegium.errors import DataError, UsageError
from collegium.extras import how_to_install
from collegium.files import read_bounded

Answer = Callable[[Tensor], Tensor]
LARGEST_FILE = 2**31 - 1  # bytes: protobuf reads no more
_REPEATING = ("Loop", "Scan", "SequenceMap")  # operators that `export` never writes
_SILENT = 4  # of ONNX Runtime's levels; what it says otherwise is on stderr, and in its exceptions


def read_onnx(file: Path) -> tuple[Answer, str]:
    """What a network in ONNX answers, and the description in its metadata, "" where there is none.

    Raises:
        UsageError: the packages that ONNX needs are not installed.
        DataError: it is damaged, keeps data in other files, or has operators or functions that may repeat without end.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise UsageError(f"ONNX needs the packages of an extra: {how_to_install('onnx')}") from error
    content = read_bounded(file, LARGEST_FILE)
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf raises kinds of its own
        raise DataError(
            f"{file} cannot be read: it is damaged, or no file of ONNX: export the network again"
        ) from error
    _check(file, model)
    try:
        session = onnx_session(content)
        answer = session_answer(session)
    except Exception as error:  # onnxruntime raises kinds of its own
        raise DataError(f"{file} cannot be read: {' '.join(str(error).split())[:120]}") from error
    return answer, session.get_modelmeta().custom_metadata_map.get("collegium", "")


def onnx_session(content: bytes) -> Any:
    """An InferenceSession of onnxruntime, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _SILENT
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def session_answer(session: Any) -> Answer:
    """What an InferenceSession of onnxruntime answers to its only input, as a function."""
    name = session.get_inputs()[0].name
    return lambda images: torch.from_numpy(session.run(None, {name: images.numpy()})[0])


def _check(file: Path, model: Any) -> None:
    from onnx import FunctionProto, NodeProto, TensorProto

    for part in _parts(model):
        if isinstance(part, TensorProto) and (part.external_data or part.data_location == TensorProto.EXTERNAL):
            raise DataError(f"{file} keeps weights in other files, which are not read: export the network as one file")
        if isinstance(part, FunctionProto) or (isinstance(part, NodeProto) and part.op_type in _REPEATING):
            what = "functions" if isinstance(part, FunctionProto) else part.op_type
            raise DataError(f"{file} has {what}, by which it may never end: give a file of `collegium export`")


def _parts(message: Any) -> Iterator[Any]:
    """All messages within one, at any depth: protobuf reads none that are more than 100 deep."""
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else [value]:
                yield part
                yield from _parts(part)
