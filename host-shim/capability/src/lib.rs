// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a cVM may touch, and what cVMs publish for each other.
//!
//! - [`Capability`]: a range of memory with permissions; every pointer that a guest hands over is turned into one
//!   that is derived from the guest's own authority before anything is touched.
//! - [`Registry`]: keys, the endpoints and publications behind them, and each cVM's table of handles.
//!
//! Two protocols without locks have a file of their own and are checked by loom: [`Revocation`] (nobody is inside once a revocation
//! returned) and [`ArmedSet`] (a wake-up is never lost).
#![deny(unsafe_code)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        reason = "a test fails by panicking"
    )
)]

mod address;
mod armed;
mod capability;
mod endpoint;
mod errno;
mod handles;
mod key;
mod kind;
mod object_type;
mod owner;
mod permissions;
mod publication;
mod registry;
mod revocation;
mod sync;

pub use address::Address;
pub use armed::{Armed, ArmedSet};
pub use capability::{Capability, CapabilityError, CapabilityOf, Named};
pub use endpoint::Endpoint;
pub use handles::{Handles, Table};
pub use key::{Key, KeyError};
pub use kind::{Class, Kind, PortalKey};
pub use object_type::ObjectType;
pub use owner::{MAX_CVMS, Owner};
pub use permissions::Permissions;
pub use publication::{Mode, Portal, Publication};
pub use registry::{Advertised, Connected, Limits, ObjectInfo, Registry, RegistryError, Revoked};
pub use revocation::{InFlight, LastOut, Revocation};
