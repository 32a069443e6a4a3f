"""
chat.yaml behind the OpenAI-compatible route of hayhooks: any client of OpenAI's chat API can talk to it.

    hayhooks pipeline deploy-files pipelines/chat_server -n chat

The YAML is `pipelines/chat.yaml` in the folder where hayhooks runs, or what the environment's `CHAT_PIPELINE` names.
"""

import os
from typing import Any

from hayhooks import BasePipelineWrapper
from haystack.dataclasses import ChatMessage

from haystack_distill import load_pipeline


class PipelineWrapper(BasePipelineWrapper):
    """What hayhooks calls."""

    def setup(self) -> None:
        """Load the pipeline."""
        self.chat = load_pipeline(os.environ.get("CHAT_PIPELINE", "pipelines/chat.yaml"))
        self.pipeline = self.chat.pipeline

    def run_chat_completion(self, model: str, messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
        """Reply to a dialogue; the other parameters are of OpenAI's protocol and not used."""
        del model, body
        dialogue = [ChatMessage.from_openai_dict_format(message) for message in messages]
        return str(self.chat.run(messages=dialogue)["replies"][0].text)
