// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The permissions of a capability.

use std::fmt;

bitflags::bitflags! {
    /// What a capability allows. The bits are where `cgetperm` of CHERI-RISC-V returns them: hardware permissions
    /// from bit 0, software-defined ones from bit 15.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Permissions: u32 {
        /// It may be stored where only global capabilities may be.
        const GLOBAL = 1 << 0;
        /// Instructions may be fetched.
        const EXECUTE = 1 << 1;
        /// Data may be loaded.
        const LOAD = 1 << 2;
        /// Data may be stored.
        const STORE = 1 << 3;
        /// Capabilities may be loaded with their tags.
        const LOAD_CAP = 1 << 4;
        /// Capabilities may be stored with their tags.
        const STORE_CAP = 1 << 5;
        /// Capabilities without [`Permissions::GLOBAL`] may be stored.
        const STORE_LOCAL_CAP = 1 << 6;
        /// Its base may be used as the object type to seal with.
        const SEAL = 1 << 7;
        /// A sealed pair with it may be invoked.
        const CINVOKE = 1 << 8;
        /// Its base may be used as the object type to unseal.
        const UNSEAL = 1 << 9;
        /// Special registers may be accessed.
        const ACCESS_SYSTEM_REGISTERS = 1 << 10;
        /// The compartment's identifier may be set.
        const SET_CID = 1 << 11;
        /// First software-defined permission.
        const SOFTWARE_0 = 1 << 15;
        /// Second software-defined permission.
        const SOFTWARE_1 = 1 << 16;
        /// Third software-defined permission.
        const SOFTWARE_2 = 1 << 17;
        /// Fourth software-defined permission.
        const SOFTWARE_3 = 1 << 18;
    }
}

impl Permissions {
    /// All four software-defined permissions; a cVM in a clean room has none of them.
    pub const SOFTWARE: Permissions = Permissions::SOFTWARE_0
        .union(Permissions::SOFTWARE_1)
        .union(Permissions::SOFTWARE_2)
        .union(Permissions::SOFTWARE_3);
    /// Loads and stores of data.
    pub const LOAD_STORE: Permissions = Permissions::LOAD.union(Permissions::STORE);
    /// What a cVM's code capability allows: fetch, load, be half of an invoked pair.
    pub const CVM_CODE: Permissions = Permissions::GLOBAL
        .union(Permissions::EXECUTE)
        .union(Permissions::LOAD)
        .union(Permissions::CINVOKE);
    /// What a cVM's data capability allows: load and store data, load capabilities, be half of an invoked pair.
    pub const CVM_DATA: Permissions = Permissions::GLOBAL
        .union(Permissions::LOAD_STORE)
        .union(Permissions::LOAD_CAP)
        .union(Permissions::CINVOKE);
}

impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.bits())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::Permissions;

    #[test]
    fn bits_are_those_of_the_published_set() {
        assert_eq!(Permissions::CVM_CODE.bits(), 0x107);
        assert_eq!(Permissions::CVM_DATA.bits(), 0x11d);
        assert_eq!(Permissions::SOFTWARE.bits(), 0x78000);
        assert_eq!(Permissions::all().bits(), 0x78fff);
    }
}
