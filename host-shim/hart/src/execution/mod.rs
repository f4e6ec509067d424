// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What each instruction does.
//!
//! Every function here has the type [`Run`](crate::instruction::Run): it does its instruction and goes on with the rest.

pub(crate) mod access;
pub(crate) mod atomic;
pub(crate) mod capability;
pub(crate) mod float;
pub(crate) mod integer;
pub(crate) mod jump;
pub(crate) mod system;
