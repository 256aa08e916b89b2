"""What an SQL statement reads and writes, from its text.

It never misses a table that the text names, and says when the text cannot tell. What views,
triggers, functions, foreign keys and partitions touch besides is not in the text.

Pure: no database, no ORM. It reads SQLite's, PostgreSQL's and MySQL's dialects alike, in one pass
over the tokens, since it stands in the way of every statement.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import groupby

from grip_edge_middleware.types import Operation

# Longer texts are mostly inserts of many rows: seldom the same, soon read, and a burden to keep.
LONGEST_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class Write:
    """A table, and what the statement may do to its rows."""

    table: str
    operations: frozenset[Operation]


@dataclass(frozen=True, slots=True)
class Lookup:
    """A table of which only the rows are used that have one of these values in a column.

    `params` says where the values stand among the statement's parameters: positions from 0 for
    `?`, `%s` and `$1`, names for `%(name)s` and `:name`. What equals a value is for the database
    to say: its collation may take "A" for "a".
    """

    table: str
    column: str
    params: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Statement:
    """What a text does to tables.

    Names are without schema and in lower case: databases disagree on which names are the same,
    and two tables that differ in nothing else are better taken for one than missed.
    """

    reads: frozenset[str]
    """The tables that are selected from, joined, or otherwise drawn from."""
    writes: tuple[Write, ...]
    """The tables whose rows are changed. Definitions (CREATE, ALTER, DROP) change no rows."""
    lookups: tuple[Lookup, ...]
    """Of the table that an UPDATE or DELETE writes they tell the rows as they were before."""
    is_understood: bool
    """False if it may read or write what it does not name, as CALL does, or is not known."""


def read_statement(sql: str) -> Statement:
    """Return what a text does. Statements between semicolons count all. Never raises."""
    return _read_kept(sql) if len(sql) <= LONGEST_KEPT else _read(sql)


def _read(sql: str) -> Statement:
    tokens = _tokenize(sql)
    scans = [_Scan(statement) for statement in _split(tokens)]
    for scan in scans:
        scan.run()
    is_understood = all(s.is_understood for s in scans) and not _is_doubtful(sql, tokens)
    return Statement(
        frozenset().union(*(scan.reads for scan in scans)),
        tuple(_merged(scans)),
        tuple(_lookups(scans[0], sql)) if is_understood and len(scans) == 1 else (),
        is_understood,
    )


_read_kept = lru_cache(maxsize=4096)(_read)


def _split(tokens: list[str]) -> list[list[str]]:
    if ";" not in tokens:
        return [tokens] if tokens else []
    parts = groupby(tokens, key=";".__eq__)
    return [list(statement) for is_end, statement in parts if not is_end]


def _merged(scans: list[_Scan]) -> Iterator[Write]:
    merged: dict[str, frozenset[Operation]] = {}
    for scan in scans:
        for table, operations in scan.all_writes():
            merged[table] = merged.get(table, frozenset()) | operations
    return (Write(table, operations) for table, operations in merged.items())


# --- tokens ---------------------------------------------------------------------------------------

# Every repetition is possessive (`*+`) and ends at what it cannot contain, so that no character is
# looked at more than a few times, whatever the text is.
_WORD = r"[A-Za-z_\x80-\U0010ffff][\w$\x80-\U0010ffff]*+"
# A doubled quote is two parts of one name.
_QUOTED = r'(?:"[^"]*+")++|(?:`[^`]*+`)++'
# What stands right after a word or a bracket is a subscript, `ARRAY[a]`.
_BRACKETED = r"""(?<![\w\]\)"'`])\[[A-Za-z_\x80-\U0010ffff][-\w \#\$@.\x80-\U0010ffff]*+\]"""
_NAME = rf"""(?:{_WORD}|{_QUOTED}|{_BRACKETED})
    (?:\s*+\.[\s.]*+(?:[\w$\x80-\U0010ffff]++|{_QUOTED}|\[[^\[\]]++\]|\*))*+"""
_TYPE = r"""\s*+::\s*+[\w.]++(?:\ WITH(?:OUT)?\ TIME\ ZONE|\ PRECISION|\ VARYING)?
    (?:\(\s*+\d++\s*+(?:,\s*+\d++\s*+)?\))?(?:\[\])?"""
_PARAM = rf"(?:\?\d*+|%s|%\([^()]*+\)s|\$\d++|:[A-Za-z_]\w*+)(?:{_TYPE})?"

# A row is one token, since there may be thousands.
_VALUE = rf"(?:{_PARAM}|NULL|DEFAULT)"
_ROW = rf"\(\s*+{_VALUE}(?:\s*+,\s*+{_VALUE})*+\s*+\)"

# MySQL runs what stands in /*! */, and ends a comment that is begun twice at its first end, where
# PostgreSQL does not: both are no comments here. Nor is -- in `1--1`, which MySQL takes for minus.
_SPACE = r"""(?:\s++
    | (?:(?<!\S)--|--(?=\s|\Z)) [^\r\n]*+
    | /\*(?!M?!) [^*/]*+ (?:(?:\*(?!/)|/(?!\*))[^*/]*+)*+ \*/
    )*+"""

_LEADING_SPACE = re.compile(_SPACE, re.ASCII | re.VERBOSE)


@cache
def _token() -> re.Pattern[str]:
    # Not at import, a twentieth of which this would be: an app without a database needs none.
    return re.compile(
        rf"""(
          {_ROW}
        | [eE]'[^'\\]*+(?:(?:\\.|'')[^'\\]*+)*+'
        | [uU]&(?=["'])
        | {_NAME}
        | (?:'[^']*+')++
        | \.?\d[\w.]*+
        | {_PARAM}
        | \$((?:[A-Za-z_\x80-\U0010ffff][\w\x80-\U0010ffff]*+)?)\$.*?(?:\$\2\$|\Z)
        | %% | :: | [<>=!~^|&@+*]++
        | /\* | -- | \#[->=\#]?+ | .
        ){_SPACE}""",
        re.ASCII | re.DOTALL | re.VERBOSE,
    )


def _tokenize(sql: str) -> list[str]:
    beginning = _LEADING_SPACE.match(sql)
    return [token for token, _ in _token().findall(sql, beginning.end() if beginning else 0)]


# Quotes without an end, comments that are none, and what no statement is made of.
_ODD = frozenset(("'", '"', "`", "\\", "{", "}", "$", "/*", "--", "#", "U&", "\0"))
# An odd number of backslashes before a quote: MySQL reads on, others do not.
_DOUBTFUL_BACKSLASH = re.compile(r"(?<!\\)(?:\\\\)*+\\['\"]")


def _is_doubtful(sql: str, tokens: list[str]) -> bool:
    """Whether databases may disagree on where a string ends, or it does not end."""
    if "\\" not in sql and "$" not in sql:
        return False
    for at, token in enumerate(tokens):
        if token[0] in "'\"" and _DOUBTFUL_BACKSLASH.search(token):
            if not _is_of_django(tokens, at):
                return True
        elif token[0] == "$" and not _PARAM_OR_DOLLARS.match(token):
            return True
    return False


def _is_of_django(tokens: list[str], at: int) -> bool:
    r"""Whether it is `ESCAPE '\'` or `REPLACE(x, '\', '\\')`, which MySQL takes for nothing."""
    if tokens[at] != r"'\'":
        return False
    return tokens[at - 1].upper() == "ESCAPE" or tokens[at + 1 : at + 4] == [",", r"'\\'", ")"]


_PARAM_OR_DOLLARS = re.compile(r"\$\d|(\$[^$]*+\$).*\1\Z", re.DOTALL)


def _is_name(token: str) -> bool:
    """Whether a token can name a table or a column, if it is no keyword."""
    first = token[0]
    if first == "[":
        return len(token) > 1
    return (first.isalpha() or first in '_"`' or first > "\x7f") and token[-1] not in "'&"


_PART = re.compile(r"""("[^"]*+")++|(`[^`]*+`)++|\[[^\]]*+\]|'[^']*+'|[^\s.]++""")


def _parts(name: str) -> list[str]:
    """Return the parts of a dotted name, without quotes and in lower case."""
    if name.isidentifier():
        return [name.lower()]
    parts = [_bare(match[0]) for match in _PART.finditer(name)]
    return parts[:-1] if parts[-1] == "*" and len(parts) > 1 else parts


def _bare(part: str) -> str:
    quote = part[0]
    if quote in "\"`'":
        part = part[1:-1].replace(quote * 2, quote)
    elif quote == "[":
        part = part[1:-1]
    return part.lower()


# --- the scan -------------------------------------------------------------------------------------


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ALL: frozenset[Operation] = frozenset(("insert", "update", "delete"))
_INSERT: frozenset[Operation] = frozenset(("insert",))
_UPDATE: frozenset[Operation] = frozenset(("update",))
_DELETE: frozenset[Operation] = frozenset(("delete",))
_READ: frozenset[Operation] = frozenset()

# Reserved everywhere: no table has this name without quotes.
_NO_TABLE = _words(
    "SELECT FROM WHERE ON SET AND OR NOT JOIN ORDER GROUP HAVING UNION LIMIT AS USING VALUES "
    "INTO IN IS"
)
_NO_ALIAS = _NO_TABLE | _words(
    "LEFT RIGHT FULL INNER CROSS OUTER NATURAL STRAIGHT_JOIN OFFSET FETCH INTERSECT EXCEPT MINUS "
    "WINDOW FOR RETURNING WITH TABLESAMPLE WHEN DEFAULT SELECT DO CONNECT START QUALIFY"
)
_BEFORE_READ = frozenset(("ONLY", "LATERAL", "TABLE"))
_BEFORE_WRITE = _words(
    "ONLY TABLE INTO OR IGNORE REPLACE ROLLBACK ABORT FAIL LOW_PRIORITY HIGH_PRIORITY DELAYED QUICK"
)
# Functions that stand where a table may and draw on their arguments alone. Others are taken for
# tables: SQLite's full-text tables can be called, `FROM post('words')`.
_DRAWS_ON_ARGUMENTS = re.compile(
    r"(?:generate_(?:series|subscripts)|unnest|jsonb?_\w+|xmltable|pragma_\w+|regexp_\w+"
    r"|string_to_table)\Z"
)

# With these a statement or a subquery begins.
_QUERIES = frozenset(("SELECT", "WITH", "VALUES"))
# With these if a name follows.
_NAMING_QUERIES = frozenset(("INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE", "TABLE"))
# They neither read rows nor change them.
_DOES_NOTHING = _words(
    "ABORT ALTER ATTACH CHECKPOINT CLOSE CLUSTER COMMENT COMMIT CREATE DEALLOCATE DETACH DISCARD "
    "DROP END GRANT KILL LISTEN LOCK NOTIFY OPTIMIZE PRAGMA PREPARE REASSIGN REINDEX RELEASE "
    "RENAME RESET REVOKE ROLLBACK SAVEPOINT SET SHOW START UNLISTEN UNLOCK USE VACUUM XA"
)
# Anything else that follows BEGIN is a block of statements.
_AFTER_BEGIN = _words(
    "TRANSACTION TRAN WORK DEFERRED IMMEDIATE EXCLUSIVE CONCURRENT ISOLATION READ NOT DEFERRABLE"
) | {""}


@dataclass(slots=True)
class _Frame:
    """What is known of a statement, or of what stands between two parentheses in it."""

    clause: str
    """What the scan is in the midst of.

    "verb": the beginning of a query; "with": its CTEs; "insert": after the table that it inserts
    into; "tables": a list of tables; "query": any other part of it; "arguments": no query at all.
    """
    bracket: str = ""
    access: frozenset[Operation] = _READ
    """What is done to the tables of the list; nothing means that they are read."""
    wants_table: bool = False
    target: str = ""
    """The table that was written last."""
    cte: str = ""
    """The CTE that is being defined."""
    is_in_body: bool = False
    is_recursive: bool = False
    ctes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Source:
    """What stands in a list of tables. `table` is empty for a function or a CTE."""

    table: str
    alias: str


class _Scan:
    """One pass over the tokens of one statement."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.words = [token.upper() for token in tokens]
        self.at = 0
        self.frame = _Frame("verb")
        self.outer: list[_Frame] = []
        self.visible_ctes: Counter[str] = Counter()
        self.reads: set[str] = set()
        self.writes: dict[str, frozenset[Operation]] = {}
        self.sources: list[_Source] = []
        self.is_understood = True
        # For the lookups:
        self.selects = 0
        self.is_plain = True
        """Whether there is nothing but tables, each under the names of its own columns."""
        self.where: int | None = None

    def run(self) -> None:
        """Scan all tokens."""
        self._begin()
        while self.at < len(self.words):
            word = self.words[self.at]
            if self.frame.wants_table:
                self._take_table(word)
            elif word in _ACTS or self.frame.clause == "with":
                self._take(word)
            self.at += 1
        if self.outer or self.frame.wants_table:
            self.is_understood = False

    def all_writes(self) -> Iterator[tuple[str, frozenset[Operation]]]:
        """Yield what is written, also by its alias: `UPDATE p SET ... FROM post p`."""
        tables: dict[str, set[str]] = {}
        for source in self.sources:
            tables.setdefault(source.alias, set()).add(source.table)
        for name, operations in self.writes.items():
            yield name, operations
            for table in tables.get(name, set()) - {"", name}:
                yield table, operations

    # The beginning of a statement.

    def _begin(self) -> None:
        """Go to the first token that is for `_take`, or for `_take_table`."""
        word = self._word(0)
        if self._begins_query(0):
            self.frame.clause = "verb"
        elif self._begins_in_brackets():
            self.frame.clause = "arguments"
        # MariaDB runs a statement in SET STATEMENT.
        elif word in _DOES_NOTHING and self._word(1) != "STATEMENT":
            self.at = len(self.tokens)
        else:
            _BEGINNINGS.get(word, _Scan._doubt)(self)

    def _begins_in_brackets(self) -> bool:
        ahead = next((at for at, word in enumerate(self.tokens) if word != "("), 0)
        return ahead > 0 and self._begins_query(ahead)

    def _begins_query(self, ahead: int) -> bool:
        word = self._word(ahead)
        # Some are functions too, `REPLACE(a, 'x', 'y')`.
        return word in _QUERIES or (word in _NAMING_QUERIES and self._is_name(ahead + 1))

    def _begin_transaction(self) -> None:
        self.at = 1
        if self._word(0) in _AFTER_BEGIN:
            self.at = len(self.tokens)
        else:
            self._doubt()

    def _explain(self) -> None:
        # EXPLAIN ANALYZE runs the statement, and so does MariaDB's ANALYZE.
        query = self._next_query()
        if "ANALYZE" in self.words[:query]:
            self.frame.clause = "verb"
            self.at = query
        else:
            self.at = len(self.tokens)

    def _next_query(self) -> int:
        ahead = range(1, len(self.tokens))
        return next((at for at in ahead if self._begins_query(at)), len(self.tokens))

    def _truncate(self) -> None:
        self.at = 1
        self._list_tables(_DELETE)
        if "CASCADE" in self.words:
            self._doubt()

    def _copy(self) -> None:
        self.at = 1
        self.frame.clause = "arguments"
        direction = next((word for word in self.words if word in ("FROM", "TO")), None)
        if self._is_name(0) and direction:
            self._note(self.tokens[1], _INSERT if direction == "FROM" else _READ, "")
        elif self._word(0) != "(":
            self._doubt()

    def _doubt(self) -> None:
        self.is_understood = False

    # Tables.

    def _list_tables(self, access: frozenset[Operation]) -> None:
        self.frame.clause = "tables"
        self.frame.access = access
        self.frame.wants_table = True

    def _take_table(self, word: str) -> None:
        frame = self.frame
        before = _BEFORE_WRITE if frame.access else _BEFORE_READ
        if word == "(":
            self._open()
        elif word in before and self._is_followed_by_table():
            return
        elif self._can_be_table(0):
            self._name_table()
        else:
            self._doubt()
            frame.wants_table = False
            self._take(word)
        frame.wants_table = False

    def _can_be_table(self, ahead: int) -> bool:
        # SQLite lets a table stand in single quotes.
        is_name = self._is_name(ahead) or self._token(ahead)[:1] == "'"
        return is_name and self._word(ahead) not in _NO_TABLE

    def _is_followed_by_table(self) -> bool:
        if self._token(1) == "(":
            return self.frame.clause != "insert"
        return self._can_be_table(1) or self._word(1) == "INTO"

    def _name_table(self) -> None:
        token, frame = self.tokens[self.at], self.frame
        is_called = self._token(1)[:1] == "(" and frame.clause != "insert"
        alias = self._alias()
        if self._token(1) == "." or (is_called and frame.access):
            self._doubt()
        if is_called and not frame.access and _DRAWS_ON_ARGUMENTS.match(_parts(token)[-1]):
            self.sources.append(_Source("", alias))
        else:
            self._note(token, frame.access, alias)

    def _alias(self) -> str:
        """Return the alias that follows, "" if there is none."""
        ahead = 2 if self._word(1) == "AS" else 1
        token = self._token(ahead)
        is_alias = ahead == 2 or (self._is_name(1) and self._word(1) not in _NO_ALIAS)
        if self._token(ahead + is_alias)[:1] == "(" and self.frame.clause != "insert":
            # The table is called, its columns are renamed, or it has a clause of its own.
            self.is_plain = False
        return _parts(token)[-1] if is_alias and token else ""

    def _note(self, token: str, access: frozenset[Operation], alias: str) -> None:
        parts = _parts(token)
        table = parts[-1]
        is_cte = len(parts) == 1 and self.visible_ctes[table] > 0
        self.sources.append(_Source("" if is_cte else table, alias or table))
        if not access:
            if not is_cte:
                self.reads.add(table)
            return
        self._add_write(table, access)
        self.frame.target = table
        if "update" in access and self._word(-1) in (",", "JOIN", "STRAIGHT_JOIN"):
            self.reads.add(table)
        if is_cte and "insert" not in access:
            # Some databases write through it to what it selects from.
            self._doubt()

    def _add_write(self, table: str, operations: frozenset[Operation]) -> None:
        self.writes[table] = self.writes.get(table, frozenset()) | operations

    # Everything else.

    def _take(self, word: str) -> None:
        is_named = self.frame.clause == "with" and self._names_cte(word)
        act = _ACTS.get(word)
        if act is not None and not is_named and not self._is_label():
            act(self)

    def _is_label(self) -> bool:
        """Whether the word follows AS, where it is a name even if it is a keyword."""
        return self._word(-1) == "AS" and self._is_name(0) and self._word(0) not in _QUERIES

    def _names_cte(self, word: str) -> bool:
        if self._word(-1) not in ("WITH", "RECURSIVE", ",") or not self._is_name(0):
            return False
        if word == "RECURSIVE" and self._is_name(1) and self._word(1) != "AS":
            self.frame.is_recursive = True
        else:
            self.frame.cte = _parts(self.tokens[self.at])[-1]
        return True

    def _open(self) -> None:
        frame = self.frame
        inner = _Frame("arguments", self.tokens[self.at])
        if frame.clause == "with" and self._word(-1) in ("AS", "MATERIALIZED"):
            frame.is_in_body = True
            if frame.is_recursive:
                self._show_cte(frame)
        if self._begins_query(1):
            inner.clause = "verb"
            if frame.wants_table and frame.access:
                # Some databases write through it to what it selects from.
                self._doubt()
        elif frame.wants_table:
            inner.clause, inner.access, inner.wants_table = "tables", frame.access, True
        self.outer.append(frame)
        self.frame = inner

    def _close(self) -> None:
        if not self.outer or _BRACKETS[self.frame.bracket] != self.tokens[self.at]:
            self._doubt()
            return
        self.visible_ctes.subtract(self.frame.ctes)
        self.frame = self.outer.pop()
        if self.frame.is_in_body:
            self._show_cte(self.frame)
            self.frame.is_in_body = False

    def _show_cte(self, frame: _Frame) -> None:
        frame.ctes.append(frame.cte)
        self.visible_ctes[frame.cte] += 1

    def _comma(self) -> None:
        if self.frame.clause == "tables":
            self.frame.wants_table = True

    def _with(self) -> None:
        if self.frame.clause in ("verb", "insert") and self._is_name(1):
            self.frame.clause = "with"
            self.is_plain = False

    def _select(self) -> None:
        self.selects += 1
        self.frame.clause = "query"
        self.frame.access = _READ

    def _values(self) -> None:
        if self.frame.clause in ("verb", "with", "insert"):
            self.frame.clause = "query"
        else:
            self._end_list()
        self.is_plain = False

    def _insert(self) -> None:
        if self._is_verb():
            is_replacing = self._word(0) == "REPLACE" or self._word(2) == "REPLACE"
            self._list_tables(_ALL if is_replacing else _INSERT)
            self.frame.clause = "insert"

    def _into(self) -> None:
        # Some databases insert into several tables, or have more to say before INTO.
        if self.frame.clause == "insert":
            self._doubt()

    def _update(self) -> None:
        if self._is_verb():
            self._list_tables(_UPDATE | _DELETE if self._word(2) == "REPLACE" else _UPDATE)
            return
        self._end_list()
        if self.frame.target:
            # ON CONFLICT DO UPDATE, ON DUPLICATE KEY UPDATE
            self._add_write(self.frame.target, _UPDATE)

    def _delete(self) -> None:
        if self._is_verb():
            while self._word(1) in ("LOW_PRIORITY", "QUICK", "IGNORE"):
                self.at += 1
            self.at += self._word(1) == "FROM"
            self._list_tables(_DELETE)

    def _merge(self) -> None:
        if self._is_verb():
            self._list_tables(_ALL)

    def _table(self) -> None:
        if self.frame.clause != "arguments" and self._is_name(1):
            self._list_tables(_READ)
            self.is_plain = False

    def _is_verb(self) -> bool:
        return self.frame.clause in ("verb", "with") and self._is_name(1)

    def _from(self) -> None:
        # IS DISTINCT FROM, EXTRACT(YEAR FROM a)
        is_comparison = self._word(-1) == "DISTINCT" and self._word(-2) in ("IS", "NOT")
        if self.frame.clause != "arguments" and not is_comparison:
            self._list_tables(_READ)

    def _join(self) -> None:
        if self.frame.clause != "tables":
            self.frame.access = _READ
        self.frame.wants_table = True

    def _straight_join(self) -> None:
        # It is a hint of MySQL's SELECT as well.
        if self.frame.clause == "tables":
            self._join()

    def _using(self) -> None:
        # DELETE FROM a USING b, MERGE INTO a USING b; not JOIN b USING (c).
        if self.frame.clause == "tables" and "delete" in self.frame.access:
            self._list_tables(_READ)

    def _end_list(self) -> None:
        # Before a comma it is an alias.
        if self.frame.clause == "tables" and self._token(1) != ",":
            self.frame.clause = "query"

    def _begin_where(self) -> None:
        self._end_list()
        if not self.outer:
            self.where = self.at + 1

    def _window(self) -> None:
        if self._word(2) == "AS":
            self._end_list()

    def _for(self) -> None:
        if self._word(1) in ("UPDATE", "SHARE", "NO", "KEY"):
            self._end_list()

    # Looking around.

    def _token(self, ahead: int) -> str:
        at = self.at + ahead
        return self.tokens[at] if 0 <= at < len(self.tokens) else ""

    def _word(self, ahead: int) -> str:
        at = self.at + ahead
        return self.words[at] if 0 <= at < len(self.words) else ""

    def _is_name(self, ahead: int) -> bool:
        token = self._token(ahead)
        return bool(token) and _is_name(token)


_BRACKETS = {"(": ")", "[": "]", "": ""}

_BEGINNINGS: Mapping[str, Callable[[_Scan], None]] = {
    "ANALYZE": _Scan._explain,
    "BEGIN": _Scan._begin_transaction,
    "COPY": _Scan._copy,
    "DESC": _Scan._explain,
    "DESCRIBE": _Scan._explain,
    "EXPLAIN": _Scan._explain,
    "TRUNCATE": _Scan._truncate,
}

_ACTS: Mapping[str, Callable[[_Scan], None]] = {
    "(": _Scan._open,
    "[": _Scan._open,
    ")": _Scan._close,
    "]": _Scan._close,
    ",": _Scan._comma,
    "WITH": _Scan._with,
    "SELECT": _Scan._select,
    "VALUES": _Scan._values,
    "TABLE": _Scan._table,
    "INSERT": _Scan._insert,
    "REPLACE": _Scan._insert,
    "INTO": _Scan._into,
    "UPDATE": _Scan._update,
    "DELETE": _Scan._delete,
    "MERGE": _Scan._merge,
    "FROM": _Scan._from,
    "JOIN": _Scan._join,
    "STRAIGHT_JOIN": _Scan._straight_join,
    "USING": _Scan._using,
    "WHERE": _Scan._begin_where,
    "WINDOW": _Scan._window,
    "FOR": _Scan._for,
    **dict.fromkeys(("SET", "GROUP", "HAVING", "ORDER", "LIMIT", "RETURNING"), _Scan._end_list),
    **dict.fromkeys(_ODD, _Scan._doubt),
}


# --- lookups --------------------------------------------------------------------------------------

# They end a WHERE and what stands in it.
_ENDS_WHERE = _words(
    "GROUP HAVING ORDER LIMIT OFFSET FETCH WINDOW FOR RETURNING UNION INTERSECT EXCEPT MINUS "
    "QUALIFY INTO OPTION"
)
# The last is MySQL's.
_ALTERNATIVES = frozenset(("OR", "XOR", "||"))
# Values and functions that stand without parentheses.
_NO_COLUMN = _words(
    "true false null default current_date current_time current_timestamp current_user "
    "current_role session_user user localtime localtimestamp"
)
_IS_PARAM = re.compile(_PARAM, re.ASCII | re.VERBOSE)
_IS_ROW_OF_PARAMS = re.compile(
    rf"\(\s*+{_PARAM}(?:\s*+,\s*+{_PARAM})*+\s*+\)", re.ASCII | re.VERBOSE
)
_PARAM_IN_TOKEN = re.compile(r"[?$](\d++)|(\?|%s)|%\(([^()]*+)\)s|(?<!:):([A-Za-z_]\w*+)", re.ASCII)


def _lookups(scan: _Scan, sql: str) -> Iterator[Lookup]:
    if scan.where is None or not _tells_rows(scan):
        return
    tokens = scan.tokens
    columns = _Columns(scan)
    params: dict[int, tuple[int | str, ...]] | None = None
    for at in _conjuncts(tokens, scan.words, scan.where):
        column, param = (at, at + 2) if _is_name(tokens[at]) else (at + 2, at)
        found = columns.find(_parts(tokens[column]))
        if found is not None:
            params = _params(tokens, sql) if params is None else params
            if param in params:
                yield Lookup(*found, params[param])


def _tells_rows(scan: _Scan) -> bool:
    """Whether each row of the outcome has one row of each table, and all of them are in sight."""
    if not scan.is_plain:
        return False
    verb = scan.words[0]
    if verb in ("UPDATE", "DELETE"):
        # UPDATE OR REPLACE deletes what is in the way.
        is_one = len(scan.sources) == 1 and len(scan.writes.get(scan.sources[0].table, ())) == 1
        return scan.selects == 0 and is_one
    return verb == "SELECT" and scan.selects == 1


class _Columns:
    """To which table a column belongs."""

    def __init__(self, scan: _Scan) -> None:
        self.sources = scan.sources
        uses = Counter(source.table for source in scan.sources)
        names = Counter(source.alias for source in scan.sources)
        # Of two uses of a table only one is narrowed by the term.
        self.tables = {
            source.alias: source.table
            for source in scan.sources
            if source.table and uses[source.table] == 1 and names[source.alias] == 1
        }
        self.assigned = _assigned(scan) if scan.writes else frozenset()

    def find(self, parts: list[str]) -> tuple[str, str] | None:
        """Return table and column."""
        if len(parts) > 1:
            table = self.tables.get(parts[-2])
        elif parts[0] in _NO_COLUMN or len(self.sources) != 1:
            table = None
        else:
            table = self.tables.get(self.sources[0].alias)
        return None if table is None or parts[-1] in self.assigned else (table, parts[-1])


def _assigned(scan: _Scan) -> frozenset[str]:
    """Return the columns that an UPDATE sets: a row may come to have another value there."""
    columns: set[str] = set()
    depth, is_left = 0, False
    for token, word in zip(scan.tokens[: scan.where], scan.words, strict=False):
        depth += (word in ("(", "[")) - (word in (")", "]"))
        if not depth and word in ("SET", ",", "="):
            is_left = word != "="
        elif is_left and _is_name(token):
            columns.add(_parts(token)[-1])
    return frozenset(columns)


@dataclass(slots=True)
class _Group:
    """Terms in parentheses. `start` is how many terms were found before them."""

    start: int
    has_alternative: bool = False


def _conjuncts(tokens: list[str], words: list[str], at: int) -> list[int]:
    """Return where the equalities stand that hold for each row, whatever else does.

    They are joined by AND at the top of the WHERE, or in parentheses that stand there.
    """
    found: list[int] = []
    groups = [_Group(0)]
    inside: list[str] = []  # what is open of a term that is no equality
    begins_term = True
    betweens = 0  # of which the AND is still to come
    while at < len(tokens):
        word = words[at]
        at += 1
        if inside:
            _follow(inside, word)
        elif begins_term and _is_equality(tokens, words, at - 1):
            found.append(at - 1)
            begins_term = False
            at += 2
        elif begins_term and word == "(":
            groups.append(_Group(len(found)))
        else:
            begins_term = word == "AND" and not betweens
            betweens += (word == "BETWEEN") - (word == "AND" and betweens > 0)
            if word in ("(", "[", "CASE"):
                inside.append(word)
            elif word in _ALTERNATIVES:
                groups[-1].has_alternative = True
            elif word == ")" and len(groups) > 1:
                group = groups.pop()
                if group.has_alternative or not _ends_term(words, at):
                    del found[group.start :]
            elif word in _ENDS_WHERE and len(groups) == 1:
                break
    # If the end was no end but a column of that name, an alternative may follow.
    is_certain = len(groups) == 1 and not groups[0].has_alternative
    return found if is_certain and _ALTERNATIVES.isdisjoint(words[at:]) else []


def _follow(inside: list[str], word: str) -> None:
    if word in ("(", "[", "CASE"):
        inside.append(word)
    elif word == "END" and inside[-1] == "CASE":
        inside.pop()
    elif word in (")", "]"):
        while inside.pop() == "CASE" and inside:
            pass


def _ends_term(words: list[str], at: int) -> bool:
    word = words[at] if at < len(words) else ")"
    return word in (")", "AND") or word in _ENDS_WHERE


def _is_equality(tokens: list[str], words: list[str], at: int) -> bool:
    if at + 3 > len(tokens) or not _ends_term(words, at + 3):
        return False
    left, sign, right = tokens[at : at + 3]
    if sign.upper() == "IN":
        return _is_name(left) and bool(_IS_ROW_OF_PARAMS.fullmatch(right))
    is_one_param = bool(_IS_PARAM.fullmatch(right if _is_name(left) else left))
    return sign in ("=", "==") and is_one_param and (_is_name(left) or _is_name(right))


def _params(tokens: list[str], sql: str) -> dict[int, tuple[int | str, ...]]:
    """Return what the tokens that are parameters stand for; none if that is not certain."""
    found: dict[int, tuple[str, tuple[int | str, ...]]] = {}
    counts: Counter[str] = Counter()
    for at, token in enumerate(tokens):
        is_row = token[0] == "(" and len(token) > 1
        if is_row or (token[0] in "?%$:" and _IS_PARAM.fullmatch(token)):
            values = []
            for number, sign, format_name, name in _PARAM_IN_TOKEN.findall(token):
                style = sign or ("%()s" if format_name else "$1" if number else ":")
                values.append(format_name or name or (int(number) - 1 if number else counts[style]))
                counts[style] += 1
            found[at] = (style, tuple(values))
    # Among the parameters of PostgreSQL's drivers, ? is an operator.
    styles = set(counts) - {"?"} or {"?"}
    # Drivers that take %s take it in strings and comments too.
    is_sure = len(styles) == 1 and ("%s" not in styles or _formats(sql) == counts["%s"])
    return {at: values for at, (style, values) in found.items() if is_sure and style in styles}


_FORMAT = re.compile(r"%%|%([sbt])")


def _formats(sql: str) -> int:
    return sum(1 for code in _FORMAT.findall(sql) if code)
