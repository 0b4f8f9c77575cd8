"""Messages of other libraries."""

import logging

import pytest

from collegium.logs import no_logging


@pytest.mark.parametrize("before", [logging.NOTSET, logging.DEBUG, logging.CRITICAL])
def test_what_was_dropped_before_is_dropped_afterwards(before: int, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("somebody")
    logging.disable(before)
    try:
        with pytest.raises(KeyError), no_logging(logging.WARNING):
            logger.warning("dropped")
            logger.error("kept")
            raise KeyError
        assert logging.root.manager.disable == before
        assert [record.message for record in caplog.records] == ["kept"] * (before < logging.ERROR)
    finally:
        logging.disable(logging.NOTSET)
