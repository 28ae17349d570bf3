"""Which SQL a user may run: one SELECT, over tables and harmless functions.

DuckDB itself is told to reach no file, network or setting. That leaves what these rules are for:
statements other than SELECT, changes inside a WITH, and table functions that read DuckDB's own
spilled data or switch on its logs, which its settings do not refuse in every version.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..entry import check_text
from ..errors import InvalidEntryError, QueryError

if TYPE_CHECKING:
    import duckdb

MAX_SQL_BYTES = 256 * 1024
MAX_ROWS = 1_000_000
TABLE_FUNCTIONS = frozenset({"generate_series", "json_each", "json_tree", "range", "unnest"})
_NODES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})


def check_arguments(sql: object, params: object, limit: object) -> None:
    """Refuse what cannot be a query, before any I/O."""
    check_text("sql", sql, MAX_SQL_BYTES)
    if params is not None and not isinstance(params, (list, tuple, dict)):
        kind = type(params).__name__
        raise InvalidEntryError(f"params must be a list, a tuple or a dict by name, not {kind}")
    if type(limit) is not int or not 1 <= limit <= MAX_ROWS:
        raise InvalidEntryError(f"limit must be an int from 1 to {MAX_ROWS}")


def check_sql(cursor: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Refuse *sql* unless its syntax tree, which DuckDB's own parser gives, is a plain SELECT.

    Raises:
        QueryError: It is not, with what is wrong.
    """
    found = cursor.execute("SELECT json_serialize_sql($1::VARCHAR)", [sql]).fetchone()
    try:
        tree = json.loads(found[0] if found else "")
    except RecursionError:
        raise QueryError("the SQL is nested too deep") from None
    if tree["error"]:
        if tree.get("error_type") == "not implemented":
            raise QueryError("only SELECT can be run here: entries are changed by the backend")
        raise QueryError(f"the SQL has an error: {tree['error_message']}")
    if len(tree["statements"]) != 1:
        raise QueryError(f"the SQL has {len(tree['statements'])} statements, it must have one")
    nodes: list[Any] = [tree]
    while nodes:
        node = nodes.pop()
        if isinstance(node, dict):
            _check_node(node)
            nodes += node.values()
        elif isinstance(node, list):
            nodes += node


def _check_node(node: dict[str, Any]) -> None:
    kind = node.get("type")
    if not isinstance(kind, str):
        return
    if kind.endswith("_NODE") and kind not in _NODES:
        raise QueryError("only SELECT can be run here, also inside WITH")
    if kind == "TABLE_FUNCTION":
        name = node["function"].get("function_name")
        if not isinstance(name, str) or name.lower() not in TABLE_FUNCTIONS:
            allowed = ", ".join(sorted(TABLE_FUNCTIONS))
            raise QueryError(f"the table function {name} cannot be used here; there are {allowed}")
    if kind == "BASE_TABLE" and not {"/", "\\", ":", "."}.isdisjoint(node["table_name"]):
        raise QueryError("files cannot be read here: a table's name has none of / \\ : .")
