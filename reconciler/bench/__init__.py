"""`byre bench`: how fast byre is, against the programs that others start and the bare ioctls.

A *row* is one line of the table; its targets are in `targets`. A *measurement* gives one row or
several, and works in a `Yard`: a throw-away folder with a device prefix of its own, of which
nothing is left afterwards. `rows` has the list of both, `runner` goes through it. Times are
reported and never fail anything; `counts` has what may fail: calls, commits and bytes, which are
the same on every machine. May be imported by cli and tests; the package's modules by the package.
"""
