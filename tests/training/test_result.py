from collegium.training.result import last_and_best


def test_the_best_epoch_is_chosen_on_validation_images_where_there_are_some() -> None:
    def row(epoch: int, test: float, validation: float | None) -> dict[str, float]:
        values = {"epoch": epoch, "test/peer0/top1_error": test, "test/mean_peer/top1_error": test}
        if validation is not None:
            values |= {"validation/peer0/top1_error": validation, "validation/mean_peer/top1_error": validation}
        return values

    chosen = last_and_best([row(1, 0.1, 0.5), row(2, 0.3, 0.2), row(3, 0.4, 0.3)])
    assert chosen["best_chosen_on"] == "validation"
    assert chosen["predictors"]["peer0"] == {
        "last": {"top1_error": 0.4},
        "best": {"top1_error": 0.3, "epoch": 2},
        "validation": {"top1_error": 0.3},
    }
    flattering = last_and_best([row(1, 0.1, None), row(2, 0.3, None)])
    assert flattering["best_chosen_on"] == "test"
    assert flattering["predictors"]["peer0"]["best"] == {"top1_error": 0.1, "epoch": 1}
    assert "validation" not in flattering["predictors"]["peer0"]
