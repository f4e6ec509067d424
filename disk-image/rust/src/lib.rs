// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the test programs in Rust do with their findings: a line `ok NAME` or `FAIL NAME: why` for each, a last line `N checks, M failures`, and the
//! number of failures as the exit status. The test programs in C do the same.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fmt::{Debug, Display};
use std::process::ExitCode;

/// What a check may fail with; it is printed.
pub type Failure = Box<dyn Error>;

/// The findings of a program.
#[derive(Debug, Default)]
pub struct Checks {
    done: u32,
    failed: u8,
}

impl Checks {
    /// None yet.
    pub fn new() -> Checks {
        Checks::default()
    }

    /// Does what is to be checked. It is a finding however it ends.
    pub fn check(&mut self, name: &str, what: impl FnOnce() -> Result<(), Failure>) {
        self.done += 1;
        match what() {
            Ok(()) => println!("ok {name}"),
            Err(error) => {
                self.failed = self.failed.saturating_add(1);
                println!("FAIL {name}: {error}");
            }
        }
    }

    /// The last line, and the exit status.
    pub fn end(self) -> ExitCode {
        println!("{} checks, {} failures", self.done, self.failed);
        ExitCode::from(self.failed.min(99))
    }
}

/// Fails unless the two are the same.
pub fn equal<T: PartialEq + Debug>(left: T, right: T) -> Result<(), Failure> {
    if left == right {
        Ok(())
    } else {
        Err(format!("{left:?} is not {right:?}").into())
    }
}

/// Fails unless it is so.
pub fn so(condition: bool, what: impl Display) -> Result<(), Failure> {
    if condition {
        Ok(())
    } else {
        Err(format!("not so: {what}").into())
    }
}

/// Fails unless the result is an error that the pattern matches, with a message in which all these words are.
#[macro_export]
macro_rules! fails_with {
    ($result:expr, $pattern:pat, $($word:expr),+) => {
        match $result {
            Err(error @ $pattern) => {
                let message = error.to_string();
                $( $crate::so(message.contains(&*$word), format!("'{message}' contains '{}'", $word))?; )+
                Ok::<(), $crate::Failure>(())
            }
            other => Err(format!("{other:?} is not {}", stringify!($pattern)).into()),
        }
    };
}

/// The argument with this number, from 0, as a number.
pub fn number(arguments: &[String], index: usize) -> Result<u32, Failure> {
    let text = arguments.get(index).ok_or("an argument is missing")?;
    Ok(text.parse()?)
}
