from typing import Any

from haystack import component
from haystack.utils import ComponentDevice

from haystack_integrations.components.distill.parts.serialising import Serialisable, named_callables


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
        report_to: str | list[str] | None = None,
        callbacks: list[Any] | None = None,
    ) -> None:
        """
        Say what to train; nothing is loaded before `run`.

        :param model: The reader: folder, hub name or GGUF file.
        :param output: The folder to make; it must not exist.
        :param signal: What the reader will be asked for: `pdist`, `emdr2`, `loop`, `dkrr` or `adist`.
        :param passages: How many passages of each question are looked at.
        :param epochs: How often all questions are seen at most; it ends early when the held-out loss stops falling.
        :param batch_size: Prompts a step on one device; for Fusion-in-Decoder, questions with all their passages.
        :param gradient_accumulation: Steps whose gradients are added up.
        :param learning_rate: Peak rate, after a warm-up over 5 % of the steps, falling linearly to 0; None takes 5e-5,
            or 2e-4 for LoRA.
        :param lora_rank: Above 0 trains LoRA adapters of this rank (extra `lora`), merged at the end.
        :param device: Where it runs; None takes the default device.
        :param seed: The seed of order and dropout, and of the choice of questions that are held out.
        :param progress_bar: Whether to show progress on stderr.
        :param report_to: Where figures of the training go too: `wandb`, `mlflow`, `tensorboard` or whatever else
            transformers reports to.
        :param callbacks: transformers' `TrainerCallback`s; in YAML the import paths of their classes.
        :raises ValueError: If a number is out of range.
        """
        self.keep_parameters(locals(), positive=("passages", "epochs", "batch_size", "gradient_accumulation"))
        self.callbacks = named_callables(callbacks)
        if self.lora_rank < 0:
            msg = f"lora_rank must be at least 0, not {lora_rank}."
            raise ValueError(msg)

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
        from haystack_distill.teachers.answers import AnswerSettings
        from haystack_distill.teachers.fine_tuning import FineTuningSettings, fine_tune_reader
        from haystack_distill.training.watching import watched_by

        training = AnswerSettings(**self.parameters_of(AnswerSettings))
        with watched_by(self.output, self.report_to, self.callbacks):
            metrics = fine_tune_reader(
                training_set,
                self.model,
                self.output,
                FineTuningSettings(self.signal, self.passages, training),
                device=ComponentDevice.resolve_device(self.device).to_torch_str(),
                progress=self.progress_bar,
            )
        return {"model_path": self.output, "metrics": metrics}
