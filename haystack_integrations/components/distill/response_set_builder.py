# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

from typing import Any

from haystack import component, default_from_dict, default_to_dict


@component
class ResponseSetBuilder:
    """
    Turns dialogues, with or without generated responses, into a training set for a teacher and `ResponseDistiller`.

    ### Usage example

    ```python
    from haystack_distill import ResponseSetBuilder, TeacherLabeller, TeacherLikelihoodScorer

    training_set = ResponseSetBuilder(output="responses").run(responses="responses.jsonl")["training_set"]
    scorer = TeacherLikelihoodScorer(model="HuggingFaceTB/SmolLM2-135M-Instruct", signal="mi")
    TeacherLabeller(scorer=scorer).run(training_set=training_set)
    ```
    """

    def __init__(self, *, output: str, history: int = 20) -> None:
        """
        Say where to; nothing is read before `run`.

        :param output: The folder to make; one that is there already is kept if it is of the same file.
        :param history: The most turns of a context.
        :raises ValueError: If history is below 1.
        """
        if int(history) < 1:
            msg = f"history must be at least 1 turn, not {history}."
            raise ValueError(msg)
        self.output = output
        self.history = int(history)

    @component.output_types(training_set=str, contexts=int)
    def run(self, responses: str) -> dict[str, Any]:
        """
        Build the training set.

        :param responses: A `.jsonl` file: what `GenerativeAugmenter` wrote, or dialogues (`_id`, `turns`).
        :returns: `training_set`: the folder. `contexts`: how many contexts it has.
        :raises FileNotFoundError: If the file is missing.
        :raises FileExistsError: If the output exists and is of another file.
        :raises ValueError: If a line is no dialogue and no context with responses.
        """
        from haystack_distill.responses import write_responses

        return {"training_set": self.output, "contexts": len(write_responses(responses, self.output, self.history))}

    def to_dict(self) -> dict[str, Any]:
        """
        Serialise this component.

        :returns: Its type and init parameters.
        """
        return default_to_dict(self, output=self.output, history=self.history)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "ResponseSetBuilder":
        """
        Restore this component.

        :param data: What `to_dict` returned.
        :returns: The component.
        """
        return default_from_dict(cls, data)
