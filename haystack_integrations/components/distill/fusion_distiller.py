from pathlib import Path
from typing import Any

from haystack import component
from haystack.core.serialization import component_to_dict

from haystack_integrations.components.distill.parts.fusion_candidates import FusionCandidates
from haystack_integrations.components.distill.parts.inner import close
from haystack_integrations.components.distill.parts.searching import check_named, searches
from haystack_integrations.components.distill.parts.serialising import Serialisable, without_names


@component
class FusionDistiller(Serialisable):
    """
    Fits how several retrievers are joined to what a teacher thinks of their first documents.

    The teacher is a reader, or judgments where there are some. Some 50 queries are enough for judgments, 100 to 250 for
    a reader. `DistilledJoiner` and `DistilledHybridRetriever` join by the result. Labels stay in the result's folder,
    and a killed run goes on where it was.

    ### Usage example

    ```python
    from haystack.components.retrievers.in_memory import InMemoryBM25Retriever, InMemoryEmbeddingRetriever
    from haystack_distill import DistilledRetriever, FusionDistiller, KaleQueryEncoder, TeacherLikelihoodScorer

    distiller = FusionDistiller(
        retrievers={
            "keyword": InMemoryBM25Retriever(document_store),
            "dense": DistilledRetriever(
                retriever=InMemoryEmbeddingRetriever(document_store),
                query_encoder=KaleQueryEncoder(model="models/minilm-2-layers"),
            ),
        },
        scorer=TeacherLikelihoodScorer(model="HuggingFaceTB/SmolLM2-135M-Instruct", signal="question"),
        output="models/hybrid",
    )
    result = distiller.run(queries="questions.jsonl")
    print(result["metrics"]["weights"])
    ```
    """

    def __init__(
        self,
        *,
        retrievers: dict[str, Any],
        output: str,
        scorer: Any = None,
        questions: int = 250,
        candidates: int = 4,
        top_k: int = 100,
        split: str = "train",
        seed: int = 0,
        progress_bar: bool = True,
    ) -> None:
        """
        Say what is joined and who teaches; nothing is loaded before `run`.

        :param retrievers: Name -> text retriever, at least two: keyword retrievers as they are, an embedding retriever
            in a `DistilledRetriever` with its query encoder. All search the same documents.
        :param output: The folder to make; it must not exist.
        :param scorer: What labels: a `TeacherLikelihoodScorer`, a `TeacherAttentionScorer`, or another ranker of
            Haystack that scores better documents higher. None takes the judgments of the queries.
        :param questions: How many queries are labelled at most; a sample where there are more.
        :param candidates: How many documents of each retriever are labelled for a query.
        :param top_k: How many documents each retriever is asked for, here and when it serves.
        :param split: The split of a BEIR folder or data set whose queries are taken.
        :param seed: The seed of samples.
        :param progress_bar: Whether to show progress on stderr.
        :raises ValueError: If there are fewer than two retrievers, one takes no query text, or a number is below 1.
        """
        check_named(retrievers)
        self.keep_parameters(locals(), positive=("questions", "candidates", "top_k"))

    @component.output_types(model_path=str, metrics=dict[str, Any], report_path=str)
    def run(self, queries: str, judged: str | None = None) -> dict[str, Any]:
        """
        Search, label, fit, measure, and write the fusion.

        :param queries: A BEIR folder, a `.jsonl` or `.parquet` file, or the name of a data set: what people ask, or
            what `GenerativeAugmenter` wrote.
        :param judged: A BEIR folder whose test split the proof is about; what it asks is not learnt. None measures on
            the labelled queries, each left out in turn: no judgment is needed.
        :returns: `model_path`: the new folder; `metrics`: the content of its metrics.json; `report_path`: its report.
        :raises FileExistsError: If the output folder exists.
        :raises FileNotFoundError: If a path is missing.
        :raises BlockingIOError: If another process works on the same output.
        :raises ValueError: If fewer than 10 queries are labelled, the retrievers can't be joined, see
            `haystack_distill.fusion.fitting.fit`, or an unfinished run had other settings.
        """
        from haystack_distill.data.questions import read_questions
        from haystack_distill.evaluation.proof import finished, prove
        from haystack_distill.files.layout import REPORT
        from haystack_distill.files.runs import claim, fingerprint, running
        from haystack_distill.fusion.fitting import fit
        from haystack_distill.fusion.proof import held_out, judged_by_people, result_of

        test = read_questions(judged, "test") if judged else []
        asked, output = self._asked(queries, test), Path(self.output)
        run = {"queries": fingerprint(repr(asked)), "test": fingerprint(repr(test)), "settings": self._settings()}
        with running(output) as workspace:
            claim(workspace, run, workspace.glob("*/"))
            done = finished(output, run)
            if done is None:
                labels = self._labelled(asked, workspace / "training_set", queries)
                rows = list(labels.labelled())
                fitted = fit(rows, list(self.retrievers), self.top_k, judged=self.scorer is None, seed=self.seed)
                proof = held_out(fitted)
                if judged:
                    found = self._found(test, workspace / "test", judged, judgments=True)
                    proof = judged_by_people(list(found), judged)
                made = {"teacher": labels.manifest["teacher"], "run": run, "made_of": fingerprint(run)}
                by_name = searches(self.retrievers, self.top_k)
                done = prove(output, lambda: result_of(fitted, proof, by_name, made, labels.folder, self.seed))
        return {"model_path": self.output, "metrics": done, "report_path": str(output / REPORT)}

    def _asked(self, queries: str, test: list[Any]) -> list[Any]:
        """The questions to label: a sample of those that test does not ask."""
        from haystack_distill.data.beir import splits_in
        from haystack_distill.data.questions import read_questions
        from haystack_distill.evaluation.held_out import Asked
        from haystack_distill.files.sampling import sample
        from haystack_distill.fusion.fitting import FEWEST

        kept = [question.text for question in test]
        kept += [question.text for question in read_questions(queries, "test")] if "test" in splits_in(queries) else []
        seen = Asked(kept)
        left = [question for question in read_questions(queries, self.split) if question.text not in seen]
        if self.scorer is None:
            left = [question for question in left if any(grade > 0 for grade in question.judged.values())]
        if len(left) < FEWEST:
            judged = " have judgments and" if self.scorer is None else ""
            msg = (
                f"{len(left)} questions of {queries}{judged} are not asked in test: give at least {FEWEST}, better 50."
            )
            raise ValueError(msg)
        return sample(left, self.questions, self.seed)

    def _labelled(self, asked: list[Any], folder: Path, source: str) -> Any:
        """The training set with the teacher's scores."""
        from haystack_distill.data.training_set import TrainingSet
        from haystack_integrations.components.distill.teacher_labeller import TeacherLabeller

        labels = self._found(asked, folder, source, judgments=self.scorer is None)
        if self.scorer is None:
            return labels
        TeacherLabeller(scorer=self.scorer, progress_bar=self.progress_bar).run(training_set=str(folder))
        return TrainingSet.open(folder)

    def _found(self, asked: list[Any], folder: Path, source: str, *, judgments: bool) -> Any:
        """What the retrievers find, as a training set."""
        from haystack_distill.data.building import build
        from haystack_distill.data.training_set import RECIPROCAL_RANK

        search = FusionCandidates(self.retrievers, self.candidates, self.top_k, judgments=judgments)
        return build(
            asked,
            lambda: search.candidates,
            folder,
            source=source,
            retriever=", ".join(self.retrievers),
            similarity=RECIPROCAL_RANK,
            settings=self._settings(),
            shard_rows=100,
            teacher={"model": "judgments"} if judgments else None,
            progress=self.progress_bar,
        )

    def _settings(self) -> dict[str, Any]:
        """What the result depends on besides its queries."""
        parts = {**self.retrievers} | ({"scorer": self.scorer} if self.scorer is not None else {})
        said: dict[str, Any] = {name: without_names(component_to_dict(part, name)) for name, part in parts.items()}
        return said | {"candidates": self.candidates, "top_k": self.top_k, "seed": self.seed}

    def close(self) -> None:
        """Close retrievers and scorer."""
        close(*self.retrievers.values(), self.scorer)
