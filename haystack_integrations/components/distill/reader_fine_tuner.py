from typing import Any

from haystack import component
from haystack.utils import ComponentDevice

from haystack_integrations.components.distill.parts.serialising import Serialisable


@component
class ReaderFineTuner(Serialisable):
    """
    Teaches a reader the answers of a training set, so that it labels better in the next round.

    Causal language models and encoder-decoders (as Fusion-in-Decoder readers) are trained by transformers' `Trainer` on
    the prompts that `TeacherLikelihoodScorer` and `TeacherAttentionScorer` score with; only the answer's tokens count
    in the loss. A killed run goes on where it was.

    ### Usage example

    ```python
    from haystack_distill import ReaderFineTuner, TeacherLikelihoodScorer

    tuner = ReaderFineTuner(model="HuggingFaceTB/SmolLM2-135M-Instruct", output="models/reader-1")
    result = tuner.run(training_set="training_set")  # its queries have answers
    scorer = TeacherLikelihoodScorer(model=result["model_path"], signal="pdist")
    ```
    """

    def __init__(
        self,
        *,
        model: str,
        output: str,
        signal: str = "pdist",
        passages: int = 8,
        epochs: int = 3,
        batch_size: int = 8,
        gradient_accumulation: int = 1,
        learning_rate: float | None = None,
        lora_rank: int = 0,
        device: ComponentDevice | None = None,
        seed: int = 0,
        progress_bar: bool = True,
    ) -> None:
        """
        Say what to train; nothing is loaded before `run`.

        :param model: The reader: folder, hub name or GGUF file.
        :param output: The folder to make; it must not exist.
        :param signal: What the reader will be asked for: `pdist`, `emdr2`, `loop`, `dkrr` or `adist`.
        :param passages: How many passages of each question are looked at.
        :param epochs: How often all questions are seen at most.
        :param batch_size: Prompts a step; for Fusion-in-Decoder, questions with all their passages.
        :param gradient_accumulation: Steps whose gradients are added up.
        :param learning_rate: Peak rate; None takes 5e-5, or 2e-4 for LoRA.
        :param lora_rank: Above 0 trains LoRA adapters of this rank (extra `lora`), merged at the end.
        :param device: Where it runs; None takes the default device.
        :param seed: The seed of order and dropout, and of the choice of questions that are held out.
        :param progress_bar: Whether to show progress on stderr.
        :raises ValueError: If a number is out of range.
        """
        if min(int(passages), int(epochs), int(batch_size), int(gradient_accumulation)) < 1 or int(lora_rank) < 0:
            msg = (
                f"passages={passages}, epochs={epochs}, batch_size={batch_size} and "
                f"gradient_accumulation={gradient_accumulation} must be at least 1, lora_rank={lora_rank} at least 0."
            )
            raise ValueError(msg)
        self.model = model
        self.output = output
        self.signal = signal
        self.passages = int(passages)
        self.epochs = int(epochs)
        self.batch_size = int(batch_size)
        self.gradient_accumulation = int(gradient_accumulation)
        self.learning_rate = None if learning_rate is None else float(learning_rate)  # YAML 1.1 reads 1e-5 as a string
        self.lora_rank = int(lora_rank)
        self.device = device
        self.seed = int(seed)
        self.progress_bar = progress_bar

    @component.output_types(model_path=str, metrics=dict[str, Any])
    def run(self, training_set: str) -> dict[str, Any]:
        """
        Train the reader.

        :param training_set: The folder of a training set whose queries have answers.
        :returns: `model_path`: the new folder. `metrics`: see `haystack_distill.teachers.fine_tuning.fine_tune_reader`.
        :raises FileNotFoundError: If the training set is missing.
        :raises FileExistsError: If the output folder exists.
        :raises ImportError: If LoRA is asked for and peft is not installed.
        :raises ValueError: If no question can be used, the model can't be trained, or an unfinished run in the same
            place had other settings.
        """
        from haystack_distill.teachers.fine_tuning import fine_tune_reader

        metrics = fine_tune_reader(
            training_set,
            self.model,
            self.output,
            self._settings(),
            device=ComponentDevice.resolve_device(self.device).to_torch_str(),
            progress=self.progress_bar,
        )
        return {"model_path": self.output, "metrics": metrics}

    def _settings(self) -> Any:
        from haystack_distill.teachers.answers import AnswerSettings
        from haystack_distill.teachers.fine_tuning import FineTuningSettings

        training = AnswerSettings(
            epochs=self.epochs,
            batch_size=self.batch_size,
            gradient_accumulation=self.gradient_accumulation,
            learning_rate=self.learning_rate,
            lora_rank=self.lora_rank,
            seed=self.seed,
        )
        return FineTuningSettings(self.signal, self.passages, training)
