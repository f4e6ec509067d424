// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the kernel of a cVM finds when it starts: the boot page and the command line page.

use std::time::{SystemTime, UNIX_EPOCH};

use capstream_abi::boot::{BOOT_MAGIC, COMMAND_LINE, MMIO_BASE, MMIO_STRIDE, VIRTIO_MAX};
use capstream_abi::{BootInfo, Layout, VirtioDevice, irq};

use crate::platform::{AddressSpace, Addressing, Fault, VectorState};

/// How many arguments and variables process 1 has room for.
const MAX_WORDS: usize = 2000;

/// Why the pages could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The command line does not fit.
    #[error(
        "the arguments, the environment and the kernel command line of cVM `{name}` have {len} bytes, and {COMMAND_LINE} fit; shorten `args` or `env`"
    )]
    TooLong {
        /// The cVM.
        name: String,
        /// How many bytes.
        len: usize,
    },
    /// There are too many.
    #[error(
        "cVM `{name}` has {count} arguments and variables, and {MAX_WORDS} can be passed; remove some"
    )]
    TooMany {
        /// The cVM.
        name: String,
        /// How many.
        count: usize,
    },
    /// An argument cannot be passed.
    #[error(
        "argument or variable {index} of cVM `{name}` contains a NUL byte, which would end it; remove it"
    )]
    Nul {
        /// The cVM.
        name: String,
        /// Which argument.
        index: usize,
    },
    /// The host gives no random bytes.
    #[error("getrandom failed: {source}")]
    Random {
        /// Why.
        source: std::io::Error,
    },
    /// The pages cannot be written.
    #[error(
        "the boot pages of cVM `{name}` at {address:#x} cannot be written; this is a bug of the monitor"
    )]
    Write {
        /// The cVM.
        name: String,
        /// Where.
        address: u64,
    },
}

/// What the pages say.
#[derive(Debug)]
pub struct Boot<'a> {
    /// The cVM's name.
    pub name: &'a str,
    /// Its program and arguments.
    pub args: &'a [String],
    /// Variables of the program's environment.
    pub env: &'a [String],
    /// What else process 1 is told, each `NAME=VALUE`.
    pub options: &'a [String],
    /// Whether it has a disk.
    pub disk: bool,
    /// More for the kernel's command line.
    pub kernel_args: &'a str,
    /// How many virtio devices it has.
    pub virtio_count: usize,
    /// The vector registers that its programs can use.
    pub vector: VectorState,
}

impl Boot<'_> {
    /// Writes both pages.
    ///
    /// # Errors
    ///
    /// [`BootError`].
    pub fn write(&self, space: &dyn AddressSpace, layout: &Layout) -> Result<(), BootError> {
        let unwritable = |address| BootError::Write {
            name: self.name.to_owned(),
            address,
        };
        let command_line = self.command_line_page()?;
        space
            .write(layout.command_line, &command_line)
            .map_err(|Fault| unwritable(layout.command_line))?;
        let info = self.info(layout, space.addressing())?;
        space
            .write(layout.boot, &to_bytes(&info))
            .map_err(|Fault| unwritable(layout.boot))
    }

    fn info(&self, layout: &Layout, addressing: Addressing) -> Result<BootInfo, BootError> {
        let told = |address| addressing.to_code(address);
        let mut virtio = [VirtioDevice::default(); VIRTIO_MAX];
        for (index, device) in (0..).zip(&mut virtio).take(self.virtio_count) {
            *device = VirtioDevice {
                mmio: MMIO_BASE + index * MMIO_STRIDE,
                irq: u64::from(irq::VIRTIO_FIRST) + index,
            };
        }
        let mut seed = [0; 32];
        fill_random(&mut seed).map_err(|source| BootError::Random { source })?;
        Ok(BootInfo {
            magic: BOOT_MAGIC,
            image_begin: told(layout.base),
            image_end: told(layout.boot),
            ram_begin: told(layout.ram_begin),
            ram_end: told(layout.ram_end),
            range_begin: told(layout.base),
            range_end: told(layout.end),
            vcpu: told(layout.vcpu),
            command_line: told(layout.command_line),
            wall_clock_ns: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .ok()
                .and_then(|time| u64::try_from(time.as_nanos()).ok())
                .unwrap_or(0),
            xsave_size: self.vector.size,
            xsave_mask: self.vector.mask,
            virtio_count: self.virtio_count.min(VIRTIO_MAX) as u64,
            virtio,
            seed,
        })
    }

    /// The kernel's command line, ended by a NUL; then three lists, of the arguments, the environment and the options: how many, 32 bits,
    /// little-endian, and then each ended by a NUL.
    fn command_line_page(&self) -> Result<Vec<u8>, BootError> {
        let disk = if self.disk { "/dev/vda" } else { "none" };
        let mut page = format!(
            "capstream.name={} capstream.disk={disk}",
            without_blanks(self.name)
        )
        .into_bytes();
        if !self.kernel_args.is_empty() {
            page.push(b' ');
            page.extend(self.kernel_args.bytes().map(|byte| byte.max(1)));
        }
        page.push(0);
        let count = self.args.len() + self.env.len();
        if count > MAX_WORDS {
            return Err(BootError::TooMany {
                name: self.name.to_owned(),
                count,
            });
        }
        for list in [self.args, self.env, self.options] {
            page.extend((list.len() as u32).to_le_bytes());
            for (index, word) in list.iter().enumerate() {
                if word.contains('\0') {
                    return Err(BootError::Nul {
                        name: self.name.to_owned(),
                        index,
                    });
                }
                page.extend(word.as_bytes());
                page.push(0);
            }
        }
        if page.len() as u64 > COMMAND_LINE {
            return Err(BootError::TooLong {
                name: self.name.to_owned(),
                len: page.len(),
            });
        }
        Ok(page)
    }
}

/// A name as one word of the kernel's command line.
fn without_blanks(name: &str) -> String {
    name.chars()
        .map(|letter| {
            if letter.is_ascii_graphic() && letter != '"' {
                letter
            } else {
                '_'
            }
        })
        .collect()
}

/// Random bytes from the host.
///
/// # Errors
///
/// As `getrandom`; it does not fail once the host has collected enough at its start.
pub fn fill_random(bytes: &mut [u8]) -> std::io::Result<()> {
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        // SAFETY: `rest` is writable.
        let len = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(len) {
            Ok(len) => done += len,
            Err(_) => {
                let error = std::io::Error::last_os_error();
                if error.kind() != std::io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

fn to_bytes(info: &BootInfo) -> Vec<u8> {
    // SAFETY: `BootInfo` consists of 64-bit words and bytes without padding, so all of its bytes are initialised.
    unsafe {
        core::slice::from_raw_parts(
            core::ptr::from_ref(info).cast::<u8>(),
            size_of::<BootInfo>(),
        )
    }
    .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot<'a>(args: &'a [String]) -> Boot<'a> {
        Boot {
            name: "my cVM",
            args,
            env: &[],
            options: &[],
            disk: false,
            kernel_args: "",
            virtio_count: 0,
            vector: VectorState { size: 0, mask: 0 },
        }
    }

    #[test]
    fn command_line_page_has_the_documented_format() {
        let args = ["/bin/a".to_owned(), "".to_owned(), "x y".to_owned()];
        let boot = Boot {
            env: &["A=b c".to_owned()],
            options: &["user=me".to_owned()],
            ..boot(&args)
        };
        let page = boot.command_line_page().unwrap();
        assert_eq!(
            page,
            b"capstream.name=my_cVM capstream.disk=none\0\x03\0\0\0/bin/a\0\0x y\0\x01\0\0\0A=b c\0\x01\0\0\0user=me\0"
        );
    }

    #[test]
    fn disk_and_kernel_arguments_are_in_the_command_line() {
        let boot = Boot {
            disk: true,
            kernel_args: "quiet",
            ..boot(&[])
        };
        let page = boot.command_line_page().unwrap();
        assert_eq!(
            page,
            b"capstream.name=my_cVM capstream.disk=/dev/vda quiet\0\0\0\0\0\0\0\0\0\0\0\0\0"
        );
    }

    #[test]
    fn arguments_that_do_not_fit_are_refused() {
        let fixed = boot(&[]).command_line_page().unwrap().len();
        let fits = ["x".repeat(COMMAND_LINE as usize - fixed - 1)];
        assert_eq!(
            boot(&fits).command_line_page().unwrap().len(),
            COMMAND_LINE as usize
        );
        let too_long = ["x".repeat(COMMAND_LINE as usize - fixed)];
        assert!(matches!(
            boot(&too_long).command_line_page(),
            Err(BootError::TooLong { len, .. }) if len as u64 == COMMAND_LINE + 1
        ));
        let too_many = vec![String::new(); MAX_WORDS + 1];
        assert!(matches!(
            boot(&too_many).command_line_page(),
            Err(BootError::TooMany { count, .. }) if count == MAX_WORDS + 1
        ));
        let nul = ["a".to_owned(), "b\0c".to_owned()];
        assert!(matches!(
            boot(&nul).command_line_page(),
            Err(BootError::Nul { index: 1, .. })
        ));
    }

    #[test]
    fn boot_info_has_no_padding() {
        let words = 13 + 2 * VIRTIO_MAX;
        assert_eq!(size_of::<BootInfo>(), words * 8 + 32);
    }
}
