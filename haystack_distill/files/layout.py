# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""The names of files in the folders that are made here, and the versions that made them."""

from importlib import metadata

PROVENANCE = "haystack_distill.json"


def versions() -> dict[str, str]:
    """The versions of the packages that figures depend on."""
    names = ("haystack-distill", "haystack-ai", "sentence-transformers", "transformers", "torch", "numpy")
    return {name: metadata.version(name) for name in names}
