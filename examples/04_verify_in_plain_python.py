"""Verify a log without byre: the hash chain, and a head that was noted elsewhere.

    python examples/04_verify_in_plain_python.py byre.db [SEQ:HASH]

The format is in docs/reference/log-format.md; this is short enough to be written in any language.
Of a log whose oldest events were archived it checks the rest, from the hash that the log names.
"""

import hashlib
import json
import sqlite3
import sys

COLUMNS = (
    "seq, disk, generation, version, type, at, actor, reason, correlation_id, boot_id, data, "
    "prev_hash, hash"
)


def main(path: str, noted: str = "") -> str:
    """Return what is wrong with a log, or "" when every event is what was written."""
    log = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    begins = [(0, "0" * 64)]
    if log.execute("SELECT 1 FROM sqlite_master WHERE name = 'archives'").fetchone():
        begins += log.execute("SELECT last_seq, last_hash FROM archives ORDER BY last_seq")
    (seq, head), heads = begins[-1], {"", f"{begins[-1][0]}:{begins[-1][1]}"}
    query = f"SELECT {COLUMNS} FROM events WHERE seq > {seq:d} ORDER BY seq"  # noqa: S608
    for *covered, found in log.execute(query):
        text = json.dumps(covered, separators=(",", ":"), ensure_ascii=False, default=repr)
        if covered[0] != seq + 1:
            return f"event {seq + 1} is missing, or another one is in its place"
        if hashlib.sha256(text.encode()).hexdigest() != found:
            return f"event {covered[0]} was edited"
        if covered[-1] != head:
            return f"event {covered[0]} does not follow event {seq}"
        seq, head = covered[0], found
        heads |= {f"{seq}:{head}"} & {noted}
    if noted not in heads:
        return f"{noted} is not in it: it was cut off, or computed anew"
    archived = f"; the first {begins[-1][0]} are in archives" if begins[1:] else ""
    print(f"{seq - begins[-1][0]} events are what was written; head {seq}:{head}{archived}")
    return ""


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) or 0)
