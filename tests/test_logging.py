"""Logs of the engine go where those of Haystack's integrations go."""

import json
import logging
import os
import subprocess
import sys

import pytest

from haystack_distill.serving.opening import open_encoder

JSON_LOGS = """
import sys
from haystack.logging import configure_logging
from haystack_distill import KaleQueryEncoder
import logging

configure_logging(use_json=True)
logging.getLogger("haystack_integrations").setLevel(logging.INFO)
KaleQueryEncoder(sys.argv[1]).warm_up()
"""


class Kept(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


def test_which_backend_serves_is_told_to_the_handlers_and_at_the_level_of_integrations(student):
    logger, handler = logging.getLogger("haystack_integrations"), Kept()
    logger.addHandler(handler)
    before = logger.level
    try:
        logger.setLevel(logging.INFO)
        open_encoder(student)
        logger.setLevel(logging.WARNING)
        open_encoder(student)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
    (line,) = handler.lines
    assert line.startswith(f"{student} is served by onnx-fp32, the fastest here")


def test_it_is_in_the_json_logs_of_an_app_once(student):
    pytest.importorskip("structlog")
    # The command line, where it ran in this process, has set what it logs by.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HAYSTACK_LOGGING")}
    command = [sys.executable, "-c", JSON_LOGS, str(student)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    lines = [json.loads(line) for line in ran.stderr.splitlines() if line.startswith("{")]
    assert [line["level"] for line in lines if "is served by" in line["event"]] == ["info"]
