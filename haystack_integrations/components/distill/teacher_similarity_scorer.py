from haystack import component
from haystack.utils import ComponentDevice

from haystack_distill.teachers.scores import Teacher
from haystack_integrations.components.distill.parts.teacher_ranking import TeacherScorer


@component
class TeacherSimilarityScorer(TeacherScorer):
    """
    Scores documents by how near they are to what a generator wrote for the query: a ranker, and a labeller.

    The score is the mean cosine to all answers; where a document is an answer itself, to the others. It needs no
    likelihood, so the generator may be behind any interface, and each text is embedded once. For replies this is the
    expected similarity of SimSR (arXiv 2305.16852); what it tells beside likelihoods is measured in docs/g2r.md.

    ### Usage example

    ```python
    from haystack import Document
    from haystack_distill import TeacherSimilarityScorer

    scorer = TeacherSimilarityScorer(model="sentence-transformers/all-MiniLM-L6-v2")
    documents = [Document(content="Only live, I love concerts."), Document(content="It rains.")]
    written = ["I love jazz!", "I go to concerts often."]
    result = scorer.run(query="Do you like jazz?", documents=documents, answers=written)
    ```
    """

    def __init__(
        self, *, model: str, top_k: int | None = None, batch_size: int = 32, device: ComponentDevice | None = None
    ) -> None:
        """
        Say what compares; nothing is loaded before `warm_up` or the first run.

        :param model: An encoder: folder or hub name.
        :param top_k: How many documents to return; None for all.
        :param batch_size: How many texts are embedded at once.
        :param device: Where the encoder runs; None takes the default device.
        """
        self.keep_parameters(locals(), positive=("batch_size",))

    def _load(self) -> Teacher:
        from sentence_transformers import SentenceTransformer

        from haystack_distill.teachers.similarity import SimilarityTeacher

        device = ComponentDevice.resolve_device(self.device).to_torch_str()
        return SimilarityTeacher(
            SentenceTransformer(self.model, device=device), name=self.model, batch_size=self.batch_size
        )
