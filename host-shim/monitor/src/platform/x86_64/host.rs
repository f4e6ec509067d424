// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the host offers: processor features, its clock, and where its own code is.

use core::arch::x86_64::{__cpuid_count, _xgetbv};
use std::ops::Range;

use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::{LittleEndian, elf};

use super::NAME;
use crate::platform::PlatformError;

/// Byte after the addresses that a process can have.
pub const ADDRESS_END: u64 = 0x7fff_ffff_f000;
/// Components of the vector state that a program can use: x87, SSE, AVX, AVX-512.
const XSAVE_COMPONENTS: u64 = 0xe7;
const HWCAP2_FSGSBASE: u64 = 1 << 1;

/// The type of `clock_gettime`.
pub type ClockGettime = unsafe extern "C" fn(libc::clockid_t, *mut libc::timespec) -> libc::c_int;

/// What the host offers.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// From where on all code is the host's: the monitor, its libraries and the vDSO are there, no cVM ever is.
    pub code_begin: u64,
    /// Which components of the vector state there are.
    pub xsave_mask: u64,
    /// Bytes that they take.
    pub xsave_size: u64,
    /// How many processors there are.
    pub processors: u32,
    /// Reads a clock, without thread-local variables.
    pub clock_gettime: ClockGettime,
    /// Whether the time stamp counter runs at one rate, always, and is the same on all processors.
    pub tsc_counts_time: bool,
}

impl Host {
    /// Looks at the host.
    ///
    /// # Errors
    ///
    /// [`PlatformError::Unsupported`].
    pub fn detect() -> Result<Host, PlatformError> {
        // SAFETY: reads an entry of the auxiliary vector.
        let hwcap2 = unsafe { libc::getauxval(libc::AT_HWCAP2) };
        if hwcap2 & HWCAP2_FSGSBASE == 0 {
            return Err(PlatformError::Unsupported {
                platform: NAME,
                what: "FSGSBASE instructions for processes",
                remedy: "use a processor from 2014 or later and Linux 5.9 or later, without `nofsgsbase`",
            });
        }
        if !std::arch::is_x86_feature_detected!("xsave") {
            return Err(PlatformError::Unsupported {
                platform: NAME,
                what: "XSAVE instructions",
                remedy: "use a processor from 2012 or later",
            });
        }
        // SAFETY: the processor has XSAVE, and Linux enables it.
        let xsave_mask = unsafe { xcr0() } & XSAVE_COMPONENTS;
        Ok(Host {
            code_begin: code_begin(),
            xsave_mask,
            xsave_size: xsave_size(xsave_mask),
            processors: processors(),
            clock_gettime: vdso_clock().unwrap_or(libc::clock_gettime),
            tsc_counts_time: tsc_counts_time(),
        })
    }

    /// Nanoseconds of the monotonic clock.
    #[inline]
    pub fn now_ns(&self) -> u64 {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: `time` is writable, and the clock exists.
        unsafe { (self.clock_gettime)(libc::CLOCK_MONOTONIC, &mut time) };
        (time.tv_sec as u64)
            .wrapping_mul(1_000_000_000)
            .wrapping_add(time.tv_nsec as u64)
    }
}

/// Whether the host itself tells the time by the time stamp counter: it has looked closer than we can.
fn tsc_counts_time() -> bool {
    const CLOCKS: [&str; 3] = ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page"];
    // Leaf, and bit of EDX, that tell of an invariant counter: it has one rate and does not stop.
    const POWER_MANAGEMENT: u32 = 0x8000_0007;
    const INVARIANT: u32 = 1 << 8;
    let last = __cpuid_count(0x8000_0000, 0).eax;
    if last < POWER_MANAGEMENT || __cpuid_count(POWER_MANAGEMENT, 0).edx & INVARIANT == 0 {
        return false;
    }
    let clock = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    std::fs::read_to_string(clock).is_ok_and(|clock| CLOCKS.contains(&clock.trim()))
}

/// How many processors the process may use.
fn processors() -> u32 {
    // SAFETY: an all-zero set is a valid one, and the kernel writes as much as it is told to.
    let count = unsafe {
        let mut set: libc::cpu_set_t = core::mem::zeroed();
        match libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) {
            0 => libc::CPU_COUNT(&set),
            _ => 1,
        }
    };
    u32::try_from(count).unwrap_or(1).max(1)
}

/// # Safety
///
/// The processor has XSAVE, and it is enabled.
#[target_feature(enable = "xsave")]
unsafe fn xcr0() -> u64 {
    // SAFETY: the caller's promise.
    unsafe { _xgetbv(0) }
}

/// Bytes of the standard format for these components.
fn xsave_size(mask: u64) -> u64 {
    const LEGACY_AND_HEADER: u64 = 512 + 64;
    (2..63u32)
        .filter(|component| mask & 1 << component != 0)
        .map(|component| {
            let leaf = __cpuid_count(0xd, component);
            u64::from(leaf.eax) + u64::from(leaf.ebx)
        })
        .fold(LEGACY_AND_HEADER, u64::max)
}

/// The lowest code of the process. Everything that is mapped without a wish for its address lies above or just below the monitor, and
/// cVMs are placed far below.
fn code_begin() -> u64 {
    unsafe extern "C" fn visit(
        info: *mut libc::dl_phdr_info,
        _size: usize,
        lowest: *mut libc::c_void,
    ) -> libc::c_int {
        // SAFETY: `dl_iterate_phdr` passes a valid description of an object that is loaded, and `lowest` on.
        let (info, lowest) = unsafe { (&*info, &mut *lowest.cast::<u64>()) };
        // SAFETY: the program headers of a loaded object are mapped.
        let headers =
            unsafe { core::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
        for header in headers {
            if header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_X != 0 {
                *lowest = (*lowest).min(info.dlpi_addr.wrapping_add(header.p_vaddr));
            }
        }
        0
    }
    // SAFETY: reads an entry of the auxiliary vector.
    let vdso = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) };
    let mut lowest = if vdso == 0 { ADDRESS_END } else { vdso };
    // SAFETY: `visit` gets `lowest` back, which outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut lowest).cast()) };
    lowest & !0xfff
}

/// The vDSO's `clock_gettime`.
fn vdso_clock() -> Option<ClockGettime> {
    // SAFETY: reads an entry of the auxiliary vector.
    let base = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) };
    if base == 0 {
        return None;
    }
    // SAFETY: the vDSO begins with a page that holds its file header and its program headers.
    let first = unsafe { core::slice::from_raw_parts(base as *const u8, 4096) };
    let header = elf::FileHeader64::<LittleEndian>::parse(first).ok()?;
    let segments = header.program_headers(LittleEndian, first).ok()?;
    let loaded: Range<u64> = segments
        .iter()
        .filter(|segment| segment.p_type(LittleEndian) == elf::PT_LOAD)
        .map(|segment| {
            let begin = segment.p_vaddr(LittleEndian);
            begin..begin.saturating_add(segment.p_memsz(LittleEndian))
        })
        .next()?;
    // SAFETY: the kernel has mapped the whole segment.
    let image = unsafe {
        core::slice::from_raw_parts(base as *const u8, usize::try_from(loaded.end).ok()?)
    };
    let dynamic = segments
        .iter()
        .find_map(|segment| segment.dynamic(LittleEndian, image).ok().flatten())?;
    let value = |tag: u32| {
        dynamic
            .iter()
            .find(|entry| entry.tag32(LittleEndian) == Some(tag))
            .map(|entry| entry.d_val(LittleEndian))
            .and_then(|value| usize::try_from(value).ok())
    };
    let symbols = image.get(value(elf::DT_SYMTAB)?..)?;
    let names = image.get(value(elf::DT_STRTAB)?..)?;
    // The string table follows the symbols; a name that is not found before it is not there.
    let count = names.as_ptr() as usize - symbols.as_ptr() as usize;
    const SYMBOL: usize = size_of::<elf::Sym64<LittleEndian>>();
    for bytes in symbols.get(..count)?.chunks_exact(SYMBOL) {
        let (symbol, _) = object::pod::from_bytes::<elf::Sym64<LittleEndian>>(bytes).ok()?;
        let name = names.get(usize::try_from(symbol.st_name.get(LittleEndian)).ok()?..)?;
        if name.starts_with(b"__vdso_clock_gettime\0") {
            let address = base.checked_add(symbol.st_value.get(LittleEndian))?;
            // SAFETY: the vDSO's symbol of this name is a function of this type.
            return Some(unsafe { core::mem::transmute::<u64, ClockGettime>(address) });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_of_the_vdso_agrees_with_the_c_library() {
        let host = Host::detect().unwrap();
        let before = clock(libc::clock_gettime);
        let between = host.now_ns();
        let after = clock(libc::clock_gettime);
        assert!(
            before <= between && between <= after,
            "{before} {between} {after}"
        );
    }

    fn clock(function: ClockGettime) -> u64 {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: as in `now_ns`.
        unsafe { function(libc::CLOCK_MONOTONIC, &mut time) };
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    }

    #[test]
    fn all_code_of_the_process_is_above_its_begin() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let begin = code_begin();
        let lowest = maps
            .lines()
            .filter(|line| {
                line.split(' ')
                    .nth(1)
                    .is_some_and(|flags| flags.contains('x'))
            })
            .filter_map(|line| u64::from_str_radix(line.split('-').next()?, 16).ok())
            .min()
            .unwrap();
        assert_eq!(begin, lowest);
    }

    #[test]
    fn vector_state_has_at_least_the_legacy_area() {
        let host = Host::detect().unwrap();
        assert!(host.xsave_mask & 3 == 3);
        assert!(host.xsave_size >= 576);
    }
}
