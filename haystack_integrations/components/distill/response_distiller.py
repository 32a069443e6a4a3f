from pathlib import Path
from typing import Any

from haystack import component
from haystack.utils import ComponentDevice

from haystack_integrations.components.distill.parts.serialising import Serialisable, named_callables


@component
class ResponseDistiller(Serialisable):
    """
    Makes a retriever of replies: one encoder for dialogues and responses, trained on what people and a generator said.

    After G2R (arXiv 2108.12582). Recipes: `dialogues` trains on human replies alone, `data` on generated ones too
    (data-level G2R), `model` adds the generator's scores (model-level G2R, as published), `strong` trains on human
    replies and on the generator's scores of mined responses of other contexts (a set that `ResponseSetBuilder` built
    with a `miner`). The result is a plain sentence-transformers folder with `metrics.json`; embed the responses with
    it, and serve them with `DistilledRetriever` behind a `DialogueQuery`.

    ### Usage example

    ```python
    from haystack_distill import ResponseDistiller

    distiller = ResponseDistiller(
        model="sentence-transformers/all-MiniLM-L6-v2", output="models/replies", recipe="model", negatives=64
    )
    result = distiller.run(training_set="responses")
    print(result["metrics"]["dev_hits@1_before"], result["metrics"]["dev_hits@1"])
    ```
    """

    def __init__(
        self,
        *,
        model: str,
        output: str,
        recipe: str = "model",
        alpha: float = 0.1,
        temperature: float | None = 1.0,
        negatives: int = 512,
        max_candidates: int = 10,
        history: int = 20,
        epochs: int = 3,
        batch_size: int = 48,
        learning_rate: float = 5e-5,
        seed: int = 0,
        device: ComponentDevice | None = None,
        progress_bar: bool = True,
        report_to: str | list[str] | None = None,
        callbacks: list[Any] | None = None,
    ) -> None:
        """
        Say what is wanted; nothing is loaded before `run`.

        :param model: The encoder to start from: folder or hub name.
        :param output: The folder to make; it must not exist.
        :param recipe: `dialogues`, `data`, `model` or `strong`; the last two need a teacher's scores.
        :param alpha: Weight of the teacher's scores in `model`.
        :param temperature: Divides the teacher's scores in `model`; None sets it by entropy, as `strong` always does.
        :param negatives: Random responses a step, in `data` and `model`; the published 512 is for a GPU.
        :param max_candidates: The most responses of a context, drawn at random, in `data` and `model`; the authors' 10.
        :param history: The most turns of a context; `DialogueQuery` reads it from the model's folder.
        :param epochs: Passes over the contexts; the best on dev is kept.
        :param batch_size: Contexts a step.
        :param learning_rate: Peak rate, after a warm-up over 5 % of the steps, falling linearly to 0.
        :param seed: The seed of order and sampling.
        :param device: Where training runs; None takes the default device.
        :param progress_bar: Whether to show progress on stderr.
        :param report_to: Where figures of the training go too: `wandb`, `mlflow`, `tensorboard` or whatever else
            transformers reports to.
        :param callbacks: transformers' `TrainerCallback`s; in YAML the import paths of their classes.
        """
        self.keep_parameters(locals())
        self.callbacks = named_callables(callbacks)

    @component.output_types(model_path=str, metrics=dict[str, Any], report_path=str)
    def run(self, training_set: str, dev: str | None = None) -> dict[str, Any]:
        """
        Train and write the retriever.

        A killed run goes on from its last checkpoint when it is run again with the same settings.

        :param training_set: What `ResponseSetBuilder` made, labelled by `TeacherLabeller` where the recipe needs it.
        :param dev: Dialogues (`.jsonl`) to select on. None holds a tenth of the training set's dialogues out.
        :returns: `model_path`: the new folder; `metrics`: the content of its metrics.json; `report_path`: its report.
        :raises FileExistsError: If the output folder exists.
        :raises FileNotFoundError: If a path is missing.
        :raises ValueError: If there is too little to train on, scores are missing, or a setting does not fit.
        """
        # Training libraries take seconds to import: a pipeline that only reads this module does not need them.
        from haystack_distill.files.layout import REPORT
        from haystack_distill.responses.job import distill_responses
        from haystack_distill.responses.training import G2RSettings
        from haystack_distill.training.watching import watched_by

        with watched_by(self.output, self.report_to, self.callbacks):
            metrics = distill_responses(
                training_set,
                self.model,
                self.output,
                G2RSettings(**self.parameters_of(G2RSettings)),
                dev=dev,
                device=ComponentDevice.resolve_device(self.device).to_torch_str(),
                progress=self.progress_bar,
            )
        return {"model_path": self.output, "metrics": metrics, "report_path": str(Path(self.output) / REPORT)}
