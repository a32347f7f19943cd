"""What foreign sessions hold in a simulated database: rows of states, tables, the journal's head."""


class Locks:
    """Held until they are freed. A table is named as in the schema; `barred` ones cannot even be read."""

    def __init__(self) -> None:
        self.rows: set[tuple[str, str]] = set()
        self.shut: set[str] = set()
        self.barred: set[str] = set()
        self.head = False

    def lock(self, table: str, *, reads: bool = False) -> None:
        """A session lets nobody write it, or (`reads`) have anything to do with it."""
        self.shut.add(table)
        if reads:
            self.barred.add(table)

    def met(self, tables: set[str], rows: set[tuple[str, str]]) -> str:
        """What is held of these, "" for nothing."""
        return ", ".join([*sorted(tables & self.shut), *(f"{kind}:{name}" for kind, name in sorted(rows & self.rows))])

    def free(self) -> None:
        """All sessions have ended."""
        for held in (self.rows, self.shut, self.barred):
            held.clear()
        self.head = False
