"""Several retrievers in, one ranking out: a teacher says how much each of them counts."""
