"""Writing text to train on: questions for documents, replies to dialogues, answers to questions."""
