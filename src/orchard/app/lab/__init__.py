"""The server of `orchard serve` and `orchard lab`: a documented HTTP API over the same calculations as the command line.

    browser -> guard (host, origin, token, sizes, headers) -> server (routes) -> pool -> worker processes -> jobs

Answers are calculated by worker processes that can be killed at a limit; files of unknown origin are read by one more process
with limits of memory and time, which hands back the graph as text.
"""
