// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The capabilities that a cVM is entered with. On a CHERI machine they are registers; elsewhere they say what the monitor enforces.

use capstream_capability::{Capability, CapabilityError, Owner, Permissions};

/// The object type of the monitor's own pairs. Those below are reserved by the processor or by programs.
pub const MONITOR_OBJECT_TYPE: u64 = 4;
/// The object type of the first cVM.
const FIRST_OBJECT_TYPE: u64 = MONITOR_OBJECT_TYPE + 1;

/// One of the set.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The register.
    pub name: &'static str,
    /// What is in it.
    pub capability: Capability,
    /// What it is for.
    pub what: &'static str,
}

/// The monitor's code and data as a cVM is given them: sealed, and only good for invoking.
const MONITOR_CODE: Permissions = Permissions::GLOBAL
    .union(Permissions::EXECUTE)
    .union(Permissions::LOAD)
    .union(Permissions::LOAD_CAP)
    .union(Permissions::CINVOKE)
    .union(Permissions::SOFTWARE_0)
    .union(Permissions::SOFTWARE_2)
    .union(Permissions::SOFTWARE_3);
const MONITOR_DATA: Permissions = Permissions::CVM_DATA
    .union(Permissions::STORE_CAP)
    .union(Permissions::STORE_LOCAL_CAP)
    .union(Permissions::SOFTWARE);

/// What the code and the data of a cVM allow, [`Permissions::SOFTWARE`] left out in a clean room.
///
/// # Errors
///
/// [`CapabilityError`] when the bounds are none.
pub fn authority(begin: u64, len: u64) -> Result<Capability, CapabilityError> {
    Capability::root()
        .restrict(begin, len)?
        .and_permissions(Permissions::CVM_DATA | Permissions::CVM_CODE)
}

/// The object type of a cVM's pairs of code and data: no two cVMs that live have the same.
pub fn object_type(owner: Owner) -> u64 {
    FIRST_OBJECT_TYPE + u64::from(owner.index())
}

/// The set for the cVM with this authority. Its own pairs have its object type, the monitor's have [`MONITOR_OBJECT_TYPE`]: no half of
/// one can be invoked with half of the other.
///
/// # Errors
///
/// [`CapabilityError`] when the object type cannot be sealed with.
pub fn sealed_set(
    authority: &Capability,
    object_type: u64,
    clean_room: bool,
) -> Result<SealedSet, CapabilityError> {
    let root = Capability::root();
    let seal_with = |object_type| {
        root.restrict(object_type, 1)?
            .and_permissions(Permissions::SEAL)
    };
    let (seal, monitor_seal) = (seal_with(object_type)?, seal_with(MONITOR_OBJECT_TYPE)?);
    let allowed = if clean_room {
        Permissions::SOFTWARE.complement()
    } else {
        Permissions::all()
    };
    let code = authority.and_permissions(Permissions::CVM_CODE & allowed)?;
    let data = authority.and_permissions(Permissions::CVM_DATA & allowed)?;
    let monitor_code = root.and_permissions(MONITOR_CODE & allowed)?;
    let monitor_data = root.and_permissions(MONITOR_DATA & allowed)?;
    Ok(SealedSet {
        entry_code: code.seal(&seal)?,
        data: data.seal(&seal)?,
        open_data: data,
        hostcall_code: monitor_code.seal(&monitor_seal)?,
        monitor_data: monitor_data.seal(&monitor_seal)?,
        ocall_code: monitor_code.seal(&monitor_seal)?,
        return_code: code.seal(&seal)?,
    })
}

/// The set. A capability of the processor has an address, too: where its code is entered.
#[derive(Clone, Copy, Debug)]
pub struct SealedSet {
    /// The cVM's PCC at its entry.
    pub entry_code: Capability,
    /// The cVM's DDC.
    pub data: Capability,
    /// The same, not sealed.
    pub open_data: Capability,
    /// The monitor's PCC at the hostcall entry.
    pub hostcall_code: Capability,
    /// The monitor's DDC.
    pub monitor_data: Capability,
    /// The monitor's PCC where a call into a cVM returns to.
    pub ocall_code: Capability,
    /// The cVM's PCC where hostcalls return to.
    pub return_code: Capability,
}

impl SealedSet {
    /// All of it as the log shows it.
    pub fn entries(&self) -> [Entry; 7] {
        let entry = |name, capability, what| Entry {
            name,
            capability,
            what,
        };
        [
            entry("ca0", self.entry_code, "cVM's PCC at its entry"),
            entry("ca1", self.data, "cVM's DDC"),
            entry("ca2", self.open_data, "cVM's DDC for the return path"),
            entry(
                "ca3",
                self.hostcall_code,
                "monitor's PCC at the hostcall entry",
            ),
            entry("ca4", self.monitor_data, "monitor's DDC"),
            entry(
                "ca5",
                self.ocall_code,
                "monitor's PCC for the return of a call into a cVM",
            ),
            entry(
                "ca6",
                self.return_code,
                "cVM's PCC at its return from the monitor",
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_is_the_published_one() {
        let authority = authority(0x2000_0000, 0x1000_0000).unwrap();
        let set = sealed_set(&authority, 5, false).unwrap().entries();
        let seen: Vec<(bool, bool, u32)> = set
            .iter()
            .map(|entry| {
                let capability = entry.capability;
                (
                    capability.tag(),
                    capability.is_sealed(),
                    capability.permissions().bits(),
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                (true, true, 0x107),
                (true, true, 0x11d),
                (true, false, 0x11d),
                (true, true, 0x68117),
                (true, true, 0x7817d),
                (true, true, 0x68117),
                (true, true, 0x107),
            ]
        );
        for entry in &set[..3] {
            assert_eq!(entry.capability.base(), 0x2000_0000);
            assert_eq!(entry.capability.length(), 0x1000_0000);
        }
    }

    #[test]
    fn a_clean_room_has_no_software_permission() {
        let authority = authority(0x2000_0000, 0x1000_0000).unwrap();
        for entry in sealed_set(&authority, 5, true).unwrap().entries() {
            assert!(
                !entry
                    .capability
                    .permissions()
                    .intersects(Permissions::SOFTWARE)
            );
        }
    }
}
