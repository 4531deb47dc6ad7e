"""A device of somebody else is given a UUID of ours, once, and under its users."""

from __future__ import annotations

import errno

import pytest

from statemachine.errors import ForeignDevice, IdentityMismatch, TransientError
from tests.contract.disk import Lab, new_uuid, patiently


class TestGiveUuid:
    def test_a_device_without_one_gets_it_once(self, lab: Lab) -> None:
        name, uuid = f"{lab.world.prefix}bare", new_uuid()
        number = lab.kernel.dm_create(name, "")
        assert lab.kernel.dm_give_uuid(name, number, uuid) is True
        seen = lab.kernel.dm(name)
        assert seen is not None
        assert (seen.uuid, seen.device) == (uuid, number)
        assert lab.kernel.dm_give_uuid(name, number, uuid) is False
        with pytest.raises(IdentityMismatch):
            lab.kernel.dm_give_uuid(name, number, new_uuid())
        assert patiently(lambda: lab.kernel.dm_remove(name, uuid)) is True

    def test_another_devices_is_not_given_twice(self, lab: Lab) -> None:
        disk, name = lab.disk(), f"{lab.world.prefix}bare"
        disk.create()
        number = lab.kernel.dm_create(name, "")
        with pytest.raises(TransientError) as raised:
            lab.kernel.dm_give_uuid(name, number, disk.uuid)
        assert raised.value.errno == errno.EBUSY

    def test_another_number_is_another_device(self, lab: Lab) -> None:
        disk, name = lab.disk(), f"{lab.world.prefix}bare"
        number = disk.create()
        lab.kernel.dm_create(name, "")
        with pytest.raises(ForeignDevice):
            lab.kernel.dm_give_uuid(name, number, new_uuid())

    def test_what_is_gone_gets_none(self, lab: Lab) -> None:
        number = lab.disk().create()
        with pytest.raises(TransientError) as raised:
            lab.kernel.dm_give_uuid(f"{lab.world.prefix}missing", number, new_uuid())
        assert raised.value.errno == errno.ENXIO
