// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The capabilities of one cVM, as the processor holds them.

use capstream_abi::Layout;
use capstream_abi::riscv64::{PORTAL_RETURN_OFFSET, RETURN_POINT_OFFSET};
use capstream_capability as model;
use capstream_hart::{Capability, Isa};

use crate::platform::{Addressing, PlatformError};
use crate::sealed_set::SealedSet;

/// One cVM as others enter it.
#[derive(Clone, Copy)]
pub struct Compartment {
    /// Its PCC, not sealed.
    pub code: Capability,
    /// Its DDC, not sealed.
    pub data: Capability,
    /// Its DDC, sealed.
    pub sealed_data: Capability,
    /// Its PCC at its entry, sealed.
    pub entry_code: Capability,
    /// Its PCC where hostcalls return to, sealed.
    pub return_code: Capability,
    /// What its PCC and DDC are sealed with.
    object_type: u32,
    /// How its code calls its addresses.
    pub addressing: Addressing,
    /// Where its portals return to; the monitor's address.
    pub portal_return: u64,
}

/// The processor's capability with the same bounds, permissions and seal, for `address`.
///
/// # Errors
///
/// [`PlatformError::RangeUnusable`] when the processor cannot hold the bounds exactly.
pub fn to_processor(
    capability: &model::Capability,
    address: u64,
) -> Result<Capability, PlatformError> {
    let root = if capability
        .permissions()
        .contains(model::Permissions::EXECUTE)
    {
        Capability::root_code()
    } else {
        Capability::root_data()
    };
    let (bounded, exact) = match u64::try_from(capability.top() - u128::from(capability.base())) {
        Ok(length) => root.set_bounds(capability.base(), length),
        Err(_) => (root, true),
    };
    if !exact {
        return Err(PlatformError::RangeUnusable {
            begin: capability.base(),
            end: u64::try_from(capability.top()).unwrap_or(u64::MAX),
            why: "no capability has exactly these bounds; use multiples of 0x200000",
        });
    }
    let open = bounded
        .and_permissions(capability.permissions().bits())
        .with_address(address);
    Ok(if capability.is_sealed() {
        open.seal(capability.object_type().bits())
    } else {
        open
    })
}

/// The model of a processor's capability, for a report.
pub fn to_model(capability: &Capability) -> model::Capability {
    let root = model::Capability::root();
    let open = u64::try_from(capability.length())
        .ok()
        .and_then(|length| root.restrict(capability.base(), length).ok())
        .unwrap_or(root);
    let permissions = model::Permissions::from_bits_truncate(capability.permissions());
    let open = open.and_permissions(permissions).unwrap_or(open);
    let sealed = u64::try_from(capability.otype())
        .ok()
        .and_then(|otype| root.restrict(otype, 1).ok())
        .and_then(|authority| open.seal(&authority).ok())
        .unwrap_or(open);
    if capability.tag() {
        sealed
    } else {
        sealed.without_tag()
    }
}

impl Compartment {
    /// The cVM that is entered with `set`, whose image is entered at `entry`.
    ///
    /// # Errors
    ///
    /// [`PlatformError::RangeUnusable`].
    pub fn new(
        set: &SealedSet,
        isa: Isa,
        addressing: Addressing,
        layout: &Layout,
        entry: u64,
    ) -> Result<Compartment, PlatformError> {
        let data = to_processor(&set.open_data, set.open_data.base())?;
        let begins_elsewhere = isa == Isa::V8 && data.base() != layout.base;
        if begins_elsewhere || !data.contains(entry, layout.ram_begin.saturating_sub(entry)) {
            return Err(PlatformError::RangeUnusable {
                begin: data.base(),
                end: u64::try_from(data.top()).unwrap_or(u64::MAX),
                why: "its kernel runs by its own capabilities, and in the older generation of the ISA its addresses count from where they begin; leave out `begin` of its isolation",
            });
        }
        let entry_code = to_processor(&set.entry_code, entry)?;
        Ok(Compartment {
            code: entry_code.unseal(),
            data,
            sealed_data: to_processor(&set.data, set.data.base())?,
            entry_code,
            return_code: to_processor(&set.return_code, entry + RETURN_POINT_OFFSET)?,
            object_type: set.data.object_type().bits(),
            addressing,
            portal_return: entry + PORTAL_RETURN_OFFSET,
        })
    }

    /// Its PCC at the monitor's address `pc`, not sealed.
    pub fn code_at(&self, pc: u64) -> Capability {
        self.code.with_address(pc)
    }

    /// Its PCC at the monitor's address `function`, sealed.
    pub fn sealed_code_at(&self, function: u64) -> Capability {
        self.code_at(function).seal(self.object_type)
    }
}
