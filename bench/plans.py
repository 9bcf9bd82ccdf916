"""What PostgreSQL says of how it finds a page of a list."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select

from app.core.lists.listing import Listing, ListQuery
from app.core.reads import BY_INDEX, LOOKED_AT, Way, compiled, way_of


@dataclass(frozen=True)
class Plan:
    """What PostgreSQL would do, or did, for one page."""

    root: Mapping[str, Any]

    def nodes(self) -> Iterator[Mapping[str, Any]]:
        """Those that find the rows of the list: what is asked for each row shown stands in subplans."""
        waiting = [self.root]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += [child for child in node.get("Plans", ()) if child.get("Parent Relationship") != "SubPlan"]

    @property
    def indexes(self) -> set[str]:
        return {node["Index Name"] for node in self.nodes() if "Index Name" in node}

    @property
    def walks(self) -> list[str]:
        return [node["Relation Name"] for node in self.nodes() if node["Node Type"] == "Seq Scan"]

    @property
    def rows_in_vain(self) -> float:
        """Rows that were fetched and did not match."""
        kinds = ("Rows Removed by Filter", "Rows Removed by Index Recheck", "Rows Removed by Join Filter")
        return sum(float(node.get(kind, 0)) * float(node["Actual Loops"]) for node in self.nodes() for kind in kinds)

    @property
    def rows_sorted(self) -> float:
        children = [child for node in self.nodes() if "Sort" in node["Node Type"] for child in node["Plans"]]
        return sum(float(child.get("Actual Rows", 0)) for child in children)


async def plan_of_page(connection: Any, listing: Listing, query: ListQuery, values: Mapping[str, Any]) -> Plan:
    """Of the statement that shows the page in the end: a walk along the list that finds too little is not it."""
    way = await _way(connection, listing, query, values)
    if way.walk_rows:
        walked = {**values, "walk_rows": way.walk_rows}
        walk = await plan_of(connection, listing.walk_statement(query), walked, by_value=True)
        if walk.root["Actual Rows"] > query.limit:
            return walk
    statement = listing.look_statement(query) if way.looks else listing.statement(query)
    return await plan_of(connection, statement, values, by_value=listing.is_planned_by_value(query))


async def _way(connection: Any, listing: Listing, query: ListQuery, values: Mapping[str, Any]) -> Way:
    """As the fast read path has it."""
    if not listing.may_be_walked(query):
        return BY_INDEX
    sql, arguments = _bound(listing.estimate_statement(query), values)
    explained = json.loads(await connection.fetchval(f"EXPLAIN (FORMAT JSON) {sql}", *arguments))
    every, rows = (part["Plan Rows"] for part in explained[0]["Plan"]["Plans"])
    sql, arguments = _bound(listing.share_statement(query), values)
    share = await connection.fetchval(sql, *arguments)
    return Way(0, looks=True) if rows <= LOOKED_AT else way_of(query.limit + 1, share, rows, every)


def _bound(statement: Any, values: Mapping[str, Any]) -> tuple[str, list[Any]]:
    sql, names, own, _ = compiled(statement)
    return sql, [values[name] if name in values else own[name] for name in names]


async def plan_of(connection: Any, statement: Select[Any], values: Mapping[str, Any], *, by_value: bool) -> Plan:
    """Carried out as the fast read path does it: with the plan for these values, or with the one for any."""
    sql, arguments = _bound(statement, values)
    await connection.execute(f"SET plan_cache_mode = force_{'custom' if by_value else 'generic'}_plan")
    if by_value:
        explained = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", *arguments)
    else:
        explained = await _explain_prepared(connection, sql, arguments)
    return Plan(json.loads(explained)[0]["Plan"])


async def _explain_prepared(connection: Any, sql: str, arguments: list[Any]) -> Any:
    """EXPLAIN itself is planned with its values, so the statement is prepared by name."""
    await connection.execute(f"PREPARE asked AS {sql}")
    try:
        given = [await connection.fetchval("SELECT quote_nullable($1)", _text(each)) for each in arguments]
        return await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE asked ({', '.join(given)})")
    finally:
        await connection.execute("DEALLOCATE asked")


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
