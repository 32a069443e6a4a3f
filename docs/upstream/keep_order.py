"""
`TextEmbeddingRetriever` on a store whose scores are distances: the farthest document comes first.

    pip install chroma-haystack
    python docs/upstream/keep_order.py
"""

from haystack import Document, component
from haystack.components.retrievers import TextEmbeddingRetriever
from haystack_integrations.components.retrievers.chroma import ChromaEmbeddingRetriever
from haystack_integrations.document_stores.chroma import ChromaDocumentStore


@component
class Embedder:
    """Every query is at the origin."""

    @component.output_types(embedding=list[float])
    def run(self, text: str):
        """Embed a text."""
        return {"embedding": [0.0, 0.0]}


def main() -> None:
    """Print the order of the retriever and of the component around it."""
    store = ChromaDocumentStore(distance_function="l2")
    places = {"near": [0.1, 0.0], "farther": [1.0, 0.0], "farthest": [5.0, 0.0]}
    store.write_documents([Document(id=name, content=name, embedding=place) for name, place in places.items()])
    retriever = ChromaEmbeddingRetriever(document_store=store, top_k=3)
    direct = retriever.run(query_embedding=[0.0, 0.0])["documents"]
    wrapped = TextEmbeddingRetriever(retriever=retriever, text_embedder=Embedder()).run(query="anything")["documents"]
    print("the retriever:         ", [(document.id, round(document.score, 2)) for document in direct])
    print("TextEmbeddingRetriever:", [(document.id, round(document.score, 2)) for document in wrapped])


if __name__ == "__main__":
    main()
