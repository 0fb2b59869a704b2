"""What is kept beside a run goes with it when it is deleted; candidates stay, they name it only."""

import apsw

from tandem.adapters.sqlite.tables import Tables, run_statement
from tandem.domain.run import Run


def forget_beside(tables: Tables, connection: apsw.Connection, run: Run) -> None:
    """Delete the facts, the sessions and the instances of a run that is about to be deleted."""
    for name in ("remove_learning_due", "delete_run_facts"):
        run_statement(connection, tables.sql[name], (run.run_no,))
    for name in ("delete_sessions", "delete_instances"):
        run_statement(connection, tables.sql[name], (run.tenant, run.run_id))
