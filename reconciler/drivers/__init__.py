"""How a disk is built: `dm_snapshot` is the real driver, `clone` needs no device-mapper."""
