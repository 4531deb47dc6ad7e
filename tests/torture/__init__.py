"""Torture on a real device-mapper: kills and power cuts under load, then every byte is looked at.

`contents` and `story` say what must be true and are pure; `direct`, `writer`, `surplus` and
`writelog` touch the host; `storm` (kills) runs in the VM, `powercut` on the host with `cutguest`
in the VM. See docs/how-to/run-the-tests.md.
"""
