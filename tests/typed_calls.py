"""Calls as a type checker sees them; mypy reads this file, and an ignored error that it does not find is one."""

from typing import TYPE_CHECKING, assert_type

import collegium

if TYPE_CHECKING:
    result = collegium.train(method="dml", peers="2xresnet20", learning_rate=0.1, milestones=[0.5], seed=1)
    assert_type(result["training_images"], int)
    assert_type(result["predictors"]["peer0"]["last"], dict[str, float])
    result["accuracy"]  # type: ignore[misc]
    collegium.train(learning_rat=0.1)  # type: ignore[call-arg]
    collegium.train(optimizer=3)  # type: ignore[arg-type]
    collegium.train(epochs="3")  # type: ignore[arg-type]

    collegium.compare(methods="dml", study="studies/first", epochs=3, data={"name": "digits"}, seeds=range(4))
    collegium.compare(methods="dml", study="studies/first", epoch=3)  # type: ignore[call-arg]
    collegium.compare(methods="dml", study="studies/first", seed=3)  # type: ignore[call-arg]

    assert_type(collegium.evaluate("runs/first")["peer0"]["top1_error"], float)
    assert_type(collegium.__version__, str)
