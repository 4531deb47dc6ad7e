"""The eyes: each module turns one kind of kernel notice into hints where to look.

A hint is never a fact. It may be late, doubled, about something foreign or about something that
is gone again; losing one costs time until the next resync, never correctness.

- `hint`: what is handed over, and the port.
- `thread`: the one thread behind each watcher.
- `inotify`, `folders`: folders and files.
- `uevents`: block devices, as the kernel tells of them.
- `dmevents`: device-mapper's own event counter.
- `releases`: the holders of disks in use.
- `follow`: waiting for the log in another process.

May be imported by daemon, reconcile and cli.
"""
