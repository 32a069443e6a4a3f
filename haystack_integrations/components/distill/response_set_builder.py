from typing import Any

from haystack import component
from haystack.utils import ComponentDevice

from haystack_integrations.components.distill.parts.serialising import Serialisable


@component
class ResponseSetBuilder(Serialisable):
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

    def __init__(
        self,
        *,
        output: str,
        history: int = 20,
        miner: str | None = None,
        mined: int = 4,
        device: ComponentDevice | None = None,
    ) -> None:
        """
        Say where to; nothing is read before `run`.

        :param output: The folder to make; one that is there already is kept if it is made of the same.
        :param history: The most turns of a context.
        :param miner: An encoder, folder or hub name: each context also gets responses of other contexts that it finds
            near, for the teacher to score and the recipe `strong` to learn from. An encoder that was trained on
            the dialogues is best. None adds no such responses.
        :param mined: How many of them each context gets.
        :param device: Where that encoder runs; None takes the default device.
        :raises ValueError: If history or mined is below 1.
        """
        self.keep_parameters(locals(), positive=("history", "mined"))

    @component.output_types(training_set=str, contexts=int)
    def run(self, responses: str) -> dict[str, Any]:
        """
        Build the training set.

        :param responses: A `.jsonl` file: what `GenerativeAugmenter` wrote, or dialogues (`_id`, `turns`).
        :returns: `training_set`: the folder. `contexts`: how many contexts it has.
        :raises FileNotFoundError: If the file is missing.
        :raises FileExistsError: If the output exists and is made of something else.
        :raises ValueError: If a line is no dialogue and no context with responses.
        """
        from haystack_distill.responses.building import write_responses

        training_set = write_responses(
            responses,
            self.output,
            self.history,
            miner=self.miner,
            mined=self.mined,
            device=ComponentDevice.resolve_device(self.device).to_torch_str(),
        )
        return {"training_set": self.output, "contexts": len(training_set)}
