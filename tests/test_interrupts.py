"""An interrupt waits for the end of what it would break, and is not lost."""

from __future__ import annotations

import os
import signal
import time

import pytest
from omegaconf import OmegaConf

from dress.interrupts import Interrupted, interruptible


def test_a_configuration_is_composed_first() -> None:
    """Raised inside it, the interrupt was replaced by an error about the configuration."""

    def interrupt() -> str:
        os.kill(os.getpid(), signal.SIGINT)
        return "whole"

    OmegaConf.register_new_resolver("interrupt", interrupt)
    composed = []
    try:
        with pytest.raises(Interrupted, match="stopped"), interruptible("stopped"):
            composed.append(OmegaConf.create({"value": "${interrupt:}"}).value)
            time.sleep(10)
    finally:
        OmegaConf.clear_resolver("interrupt")
    assert composed == ["whole"]
