# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Writing text to train on: questions for documents, replies to dialogues, answers to questions."""
