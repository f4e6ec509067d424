// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Linux' error numbers, as the kernel in a cVM knows them. They are the guest's, whatever the host's are.

pub(crate) const EPERM: i32 = 1;
pub(crate) const ENOENT: i32 = 2;
pub(crate) const EBADF: i32 = 9;
pub(crate) const EACCES: i32 = 13;
pub(crate) const EFAULT: i32 = 14;
pub(crate) const EBUSY: i32 = 16;
pub(crate) const EINVAL: i32 = 22;
pub(crate) const EMFILE: i32 = 24;
pub(crate) const EADDRINUSE: i32 = 98;
