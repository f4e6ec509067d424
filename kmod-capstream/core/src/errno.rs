// SPDX-License-Identifier: GPL-2.0-only
//! Errors, as Linux numbers: both sides of this crate, programs and the monitor, speak them.

use core::fmt;

/// What every fallible operation here returns.
pub type Result<T> = core::result::Result<T, Errno>;

/// A Linux error number, positive.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(i32);

macro_rules! errnos {
    ($( $(#[$doc:meta])* $name:ident = $number:literal; )*) => {
        impl Errno {
            $( $(#[$doc])* pub const $name: Errno = Errno($number); )*

            const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $( $number => Some(concat!("E", stringify!($name))), )*
                    _ => None,
                }
            }
        }
    };
}

errnos! {
    /// Nobody publishes the key, or nothing is published.
    NOENT = 2;
    /// A signal ended the wait.
    INTR = 4;
    /// The file offset is outside what a range can have.
    OVERFLOW = 75;
    /// The handle is not known to the monitor.
    BADF = 9;
    /// It would have to wait.
    AGAIN = 11;
    /// The kernel has no memory left.
    NOMEM = 12;
    /// Memory of the wrong owner, or none at all.
    FAULT = 14;
    /// The range is read-only, or this cVM may not use the key.
    ACCES = 13;
    /// The memory is queued already.
    BUSY = 16;
    /// An argument has no meaning here.
    INVAL = 22;
    /// The device has no such request.
    NOTTY = 25;
    /// The write begins at or behind the end of the range.
    NOSPC = 28;
    /// The receiver is gone.
    PIPE = 32;
    /// The message is longer than the buffer.
    MSGSIZE = 90;
    /// Another endpoint has the key.
    ADDRINUSE = 98;
    /// The queue of buffers is full.
    NOBUFS = 105;
    /// The endpoint is not connected.
    NOTCONN = 107;
    /// The key did not appear in time.
    TIMEDOUT = 110;
    /// The published range was taken back.
    STALE = 116;
    /// What may be sent in a second is used up.
    DQUOT = 122;
    /// The endpoint was reset while somebody waited.
    CANCELED = 125;
    /// The monitor does not know the hostcall.
    NOSYS = 38;
    /// The monitor answered something that the interface does not allow.
    PROTO = 71;
}

impl Errno {
    /// The positive number.
    pub const fn number(self) -> i32 {
        self.0
    }

    /// What a system call, a portal or a hostcall returns for it.
    pub const fn negated(self) -> i64 {
        -(self.0 as i64)
    }
}

/// Splits what a hostcall or portal returned into a result and an error.
pub const fn from_return(value: i64) -> Result<u64> {
    if value >= 0 {
        Ok(value as u64)
    } else if value >= -4095 {
        Err(Errno(-(value as i32)))
    } else {
        Err(Errno::PROTO)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl core::error::Error for Errno {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_are_split_at_the_errno_range() {
        assert_eq!(from_return(0), Ok(0));
        assert_eq!(from_return(i64::MAX), Ok(i64::MAX as u64));
        assert_eq!(from_return(-11), Err(Errno::AGAIN));
        assert_eq!(from_return(-4096), Err(Errno::PROTO));
        assert_eq!(from_return(i64::MIN), Err(Errno::PROTO));
        assert_eq!(Errno::AGAIN.negated(), -11);
    }

    #[test]
    fn names_are_printed() {
        assert_eq!(Errno::MSGSIZE.to_string(), "EMSGSIZE");
        assert_eq!(from_return(-1).unwrap_err().to_string(), "errno 1");
    }
}
