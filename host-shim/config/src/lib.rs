// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The monitor's YAML file: which cVMs to run and which buffers to publish before them.
//!
//! ```
//! let text = r#"
//! cVMs:
//!   - name: receiver
//!     disk: receiver.img
//!     args: /ld.so /app/cap_stream 3
//!     wait: 1
//!     isolation: { base: 0x20000000, size: 0x10000000 }
//!   - name: sender
//!     disk: sender.img
//!     args: [/ld.so, /app/cap_stream, "4"]
//!     isolation: { base: 0x30000000, size: 0x10000000 }
//! capfiles:
//!   - name: test1
//!     size: 0x20
//!     data: "Hello world\n"
//! "#;
//! let deployment = capstream_config::Deployment::from_str(text, "yaml.cfg")?;
//! assert_eq!(deployment.cvms[1].args, ["/ld.so", "/app/cap_stream", "4"]);
//! # Ok::<(), capstream_config::ConfigError>(())
//! ```
//!
//! Every key is described by [`KEYS`]. What the file may not contain is an error that names the file, the line, the key
//! and what is expected.
#![deny(unsafe_code)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        reason = "a test fails by panicking"
    )
)]

mod check;
mod deployment;
mod document;
mod error;
mod grants;
mod keys;
mod limits;
mod net;
mod reader;
mod schema;

pub use check::{Finding, Severity};
pub use deployment::{
    CapfileConfig, CvmConfig, DEFAULT_OVERLAY_SIZE, Deployment, Isolation, MAX_RESTART_DELAY,
    Overlay, RestartPolicy, Wait,
};
pub use error::{ConfigError, Place};
pub use grants::{Access, Grant, Grants, Pattern, Right};
pub use keys::{Form, KEYS, KeyDescription, Section, reference};
pub use limits::{DEFAULT_LOG_RATE, Limits};
pub use net::{Address, Link, NetConfig, Protocol, PublishedPort};
pub use reader::{is_assignment, is_hostname, is_user, parse_bytes};
pub use schema::schema;
