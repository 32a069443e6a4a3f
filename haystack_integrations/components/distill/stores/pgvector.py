# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""pgvector: pages by primary key, which need no open transaction and go on after a lost connection."""

from collections.abc import Iterator
from typing import Any

from haystack_integrations.components.distill.stores.row import PAGE, Retried, Row


def read(store: Any, retried: Retried) -> Iterator[list[Row]]:
    """
    Read a PgvectorDocumentStore in pages.

    :param store: The document store.
    :param retried: Calls a function, again if it fails; the store connects anew.
    :returns: The pages.
    """
    from psycopg.sql import SQL, Identifier

    query = SQL("SELECT id, content, meta, embedding FROM {} WHERE id > %s ORDER BY id LIMIT %s").format(
        Identifier(store.schema_name, store.table_name)
    )

    last = ""

    def page() -> Any:
        store._ensure_db_setup()
        return store._connection.execute(query, (last, PAGE)).fetchall()

    while found := retried(page):
        # Vectors are objects of pgvector, or arrays, as its version likes.
        yield [
            Row(key, content, meta or {}, vector.to_list() if hasattr(vector, "to_list") else vector)
            for key, content, meta, vector in found
        ]
        last = found[-1][0]
