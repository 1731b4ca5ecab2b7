"""What a series' history says: levels, where they change, which changes are regressions, and what people said about these."""

from sonew_perf.history.changes import Analysis, Change, Level, analyse, done_points, ratio_points
from sonew_perf.history.regressions import Regression, find_regressions
from sonew_perf.history.tickets import Ticket, read_tickets, set_ticket, ticket_id

__all__ = [
    "Analysis",
    "Change",
    "Level",
    "Regression",
    "Ticket",
    "analyse",
    "done_points",
    "find_regressions",
    "ratio_points",
    "read_tickets",
    "set_ticket",
    "ticket_id",
]
