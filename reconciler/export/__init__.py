"""The log in the forms of others: CloudEvents, and OpenTelemetry spans of transitions.

Each module turns events into another form and knows nothing of the others; nothing here reads the
log or writes a file. May be imported by cli.
"""
