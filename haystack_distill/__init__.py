# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Import names without the long path; components are defined where Haystack's YAML loader may import them from."""

from importlib import import_module
from typing import Any

_HOME = "haystack_integrations.components.distill"
_WHERE = {
    "CurrentRetriever": f"{_HOME}.current_retriever",
    "DialogueQuery": f"{_HOME}.dialogue_query",
    "DistillationLoop": f"{_HOME}.distillation_loop",
    "DistilledRetriever": f"{_HOME}.distilled_retriever",
    "GenerativeAugmenter": f"{_HOME}.generative_augmenter",
    "IndexSwitcher": f"{_HOME}.index_switcher",
    "KaleAligner": f"{_HOME}.kale_aligner",
    "KaleQueryEncoder": f"{_HOME}.kale_query_encoder",
    "ReaderFineTuner": f"{_HOME}.reader_fine_tuner",
    "ReplySelector": f"{_HOME}.reply_selector",
    "ResponseDistiller": f"{_HOME}.response_distiller",
    "ResponseSetBuilder": f"{_HOME}.response_set_builder",
    "RetrievalEvaluator": f"{_HOME}.retrieval_evaluator",
    "RetrieverDistiller": f"{_HOME}.retriever_distiller",
    "TeacherAttentionScorer": f"{_HOME}.teacher_attention_scorer",
    "TeacherLabeller": f"{_HOME}.teacher_labeller",
    "TeacherLikelihoodScorer": f"{_HOME}.teacher_likelihood_scorer",
    "TrainingSetBuilder": f"{_HOME}.training_set_builder",
    "load_pipeline": f"{_HOME}.pipelines",
}

__all__ = [
    "CurrentRetriever",
    "DialogueQuery",
    "DistillationLoop",
    "DistilledRetriever",
    "GenerativeAugmenter",
    "IndexSwitcher",
    "KaleAligner",
    "KaleQueryEncoder",
    "ReaderFineTuner",
    "ReplySelector",
    "ResponseDistiller",
    "ResponseSetBuilder",
    "RetrievalEvaluator",
    "RetrieverDistiller",
    "TeacherAttentionScorer",
    "TeacherLabeller",
    "TeacherLikelihoodScorer",
    "TrainingSetBuilder",
    "load_pipeline",
]


def __getattr__(name: str) -> Any:
    """Import a component when it is asked for, so that the engine alone needs no Haystack."""
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    msg = f"haystack_distill has no {name}: it offers {', '.join(__all__)}."
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted(__all__)
