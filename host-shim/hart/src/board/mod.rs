// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A board with one hart, as the `virt` board of QEMU: what a bare program needs.
//!
//! | address | what |
//! |---|---|
//! | 0x0000_1000 | reset ROM: jumps to the program with `a0` = hart number (0), `a1` = device tree |
//! | 0x0010_0000 | test finisher: ends the program or resets the board |
//! | 0x0200_0000 | CLINT: time, timer and software interrupts |
//! | 0x1000_0000 | 16550A: the console |
//! | 0x8000_0000 | RAM |
//!
//! Nothing else is there: an access elsewhere is the program's access fault. The program's segments are loaded at their physical
//! addresses. The hart begins in machine mode with root capabilities in PCC and DDC.
//!
//! # States of a board
//!
//! A board runs inside [`Board::run`], and stands still otherwise, except that time goes on. `run` returns with a [`Stop`]; whatever that was, the
//! board can be looked at and run on. After [`Stop::Finished`] it runs on behind the program's last instruction, which
//! is of little use.

mod clint;
mod finisher;
mod image;
mod rom;
mod uart;
mod wiring;

use std::fmt;
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;

use clint::{Clint, Clock};
use finisher::Finisher;
use uart::Uart;
use wiring::{Requests, Wiring};

use crate::{
    Capability, Config, Exit, Hart, Isa, Memory, MemoryError, PageFlags, Region, TimeSource, Traps,
};

pub use clint::{CLINT_BASE, CLINT_LENGTH, FREQUENCY};
pub use finisher::{FINISHER_BASE, FINISHER_LENGTH, Power};
pub use image::{Image, ImageError};
pub use rom::{ROM_BASE, ROM_LENGTH};
pub use uart::{Input, UART_BASE, UART_LENGTH};
pub use wiring::Interrupter;

/// The begin of the RAM.
pub const RAM_BASE: u64 = 0x8000_0000;
/// The RAM of a board when nothing else is asked for, in bytes.
pub const RAM_DEFAULT: u64 = 128 << 20;
/// The most RAM, in bytes.
pub const RAM_LARGEST: u64 = 1 << 40;

/// How many instructions the hart is asked to run at once.
const SLICE: u64 = LOST;
/// After so many attempts without one instruction that was executed, the program is lost.
const LOST: u64 = 1 << 16;
const CSR_MIE: u16 = 0x304;
const CSR_MIP: u16 = 0x344;
/// Machine timer interrupt, as in `mie`.
const TIMER_INTERRUPT: u64 = 1 << 7;

/// Why there is no board.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    /// The program does not fit.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The RAM cannot have that size.
    #[error(
        "{size:#x} bytes of RAM are not possible; give a multiple of 4 KiB from 4 KiB to {RAM_LARGEST:#x} bytes"
    )]
    RamSize {
        /// The size asked for.
        size: u64,
    },
    /// Memory cannot be set up.
    #[error("cannot set up the {what} of the board: {source}")]
    Memory {
        /// Of what.
        what: &'static str,
        /// The reason.
        source: MemoryError,
    },
    /// The timer's thread cannot be started.
    #[error("cannot start the thread of the timer: {source}")]
    Thread {
        /// The host's reason.
        source: std::io::Error,
    },
    /// The device tree cannot be written.
    #[error("cannot write the device tree: {source}")]
    DeviceTree {
        /// The reason.
        source: vm_fdt::Error,
    },
}

/// How a board is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The generation of CHERI-RISC-V.
    pub isa: Isa,
    /// Bytes of RAM.
    pub ram: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            isa: Isa::V8,
            ram: RAM_DEFAULT,
        }
    }
}

/// Why [`Board::run`] returned.
#[derive(Debug)]
pub enum Stop {
    /// As many instructions as were allowed have been executed.
    Limit,
    /// The program said how it ended: [`Power::Pass`] or [`Power::Fail`].
    Finished(Power),
    /// [`Interrupter::interrupt`] was called.
    Interrupted,
    /// The next instruction is at a breakpoint.
    Breakpoint {
        /// Its address.
        address: u64,
    },
    /// The program waits for an interrupt (`wfi`), and none that it enabled can come.
    Halted,
    /// Every instruction traps, the first one of the trap handler too.
    Lost,
    /// The console's output cannot be written.
    Output(std::io::Error),
}

/// A board and its program.
pub struct Board {
    image: Image,
    options: Options,
    memory: Arc<Memory>,
    ram: Arc<Region>,
    hart: Hart,
    wiring: Arc<Wiring>,
    clock: Arc<Clock>,
    clint: Arc<Clint>,
    uart: Arc<Uart>,
    breakpoints: Vec<u64>,
    /// Addresses at which the hart stops now.
    window: Range<u64>,
    /// Instructions executed before the last reset.
    retired_before_reset: u64,
    /// Attempts to execute an instruction since one was executed.
    fruitless: u64,
}

impl Board {
    /// A board with a program in its RAM, before its first instruction. What the program prints is written to `output`.
    ///
    /// # Errors
    ///
    /// If the program does not fit, or the host has no memory or thread for it.
    pub fn new(
        image: Image,
        options: Options,
        output: Box<dyn Write + Send>,
    ) -> Result<Board, BoardError> {
        let size = options.ram;
        if size == 0 || size > RAM_LARGEST || !size.is_multiple_of(4096) {
            return Err(BoardError::RamSize { size });
        }
        image.check(RAM_BASE + size)?;
        let failed = |what| move |source| BoardError::Memory { what, source };

        let ram_flags =
            PageFlags::READ | PageFlags::WRITE | PageFlags::EXECUTE | PageFlags::CAPABILITIES;
        let ram = Arc::new(Region::anonymous(RAM_BASE, size, ram_flags).map_err(failed("RAM"))?);
        let rom_flags = PageFlags::READ | PageFlags::WRITE;
        let rom = Region::anonymous(ROM_BASE, ROM_LENGTH, rom_flags).map_err(failed("ROM"))?;
        let tree = rom::tree_address(RAM_BASE + size);
        rom.write(
            ROM_BASE,
            &rom::reset_code(image.start(), tree, image.entry()),
        )
        .and_then(|()| rom.protect(ROM_BASE, ROM_LENGTH, PageFlags::READ | PageFlags::EXECUTE))
        .map_err(failed("ROM"))?;

        let memory = Arc::new(Memory::new());
        memory.add(Arc::clone(&ram)).map_err(failed("RAM"))?;
        memory.add(Arc::new(rom)).map_err(failed("ROM"))?;

        let clock = Arc::new(Clock::new());
        let hart = new_hart(&memory, &clock, options.isa);
        let wiring = Arc::new(Wiring::new(&hart));
        let clint = Clint::new(Arc::clone(&clock), Arc::clone(&wiring))
            .map_err(|source| BoardError::Thread { source })?;
        let clint = Arc::new(clint);
        let uart = Arc::new(Uart::new(Arc::clone(&wiring), output));
        let finisher = Finisher::new(Arc::clone(&wiring), Arc::clone(&uart));
        memory
            .add_device(CLINT_BASE, CLINT_LENGTH, Arc::clone(&clint) as _)
            .map_err(failed("CLINT"))?;
        memory
            .add_device(UART_BASE, UART_LENGTH, Arc::clone(&uart) as _)
            .map_err(failed("console"))?;
        memory
            .add_device(FINISHER_BASE, FINISHER_LENGTH, Arc::new(finisher))
            .map_err(failed("test finisher"))?;

        let board = Board {
            image,
            options,
            memory,
            ram,
            hart,
            wiring,
            clock,
            clint,
            uart,
            breakpoints: Vec::new(),
            window: 0..0,
            retired_before_reset: 0,
            fruitless: 0,
        };
        board.load()?;
        Ok(board)
    }

    /// The way in for the console's input.
    pub fn input(&self) -> Input {
        self.uart.input()
    }

    /// What makes [`Board::run`] return from another thread.
    pub fn interrupter(&self) -> Interrupter {
        Interrupter::new(Arc::clone(&self.wiring))
    }

    /// The hart.
    pub fn hart(&self) -> &Hart {
        &self.hart
    }

    /// The hart, to change its registers.
    pub fn hart_mut(&mut self) -> &mut Hart {
        &mut self.hart
    }

    /// The program.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Instructions executed since the board was made, resets included.
    pub fn instructions_retired(&self) -> u64 {
        self.retired_before_reset + self.hart.instructions_retired()
    }

    /// Reads RAM or ROM; how many bytes from the begin of `bytes` were there.
    pub fn read_memory(&self, address: u64, bytes: &mut [u8]) -> usize {
        self.access(address, bytes.len(), |region, address, range| {
            region.read(address, &mut bytes[range])
        })
    }

    /// Writes RAM; how many bytes could be written.
    pub fn write_memory(&mut self, address: u64, bytes: &[u8]) -> usize {
        let written = self.access(address, bytes.len(), |region, address, range| {
            region.write(address, &bytes[range])
        });
        self.hart.forget_code();
        written
    }

    fn access(
        &self,
        address: u64,
        length: usize,
        mut each: impl FnMut(&Region, u64, Range<usize>) -> Result<(), MemoryError>,
    ) -> usize {
        let mut done = 0;
        while done < length {
            let Some(at) = address.checked_add(done as u64) else {
                break;
            };
            let Some(region) = self.memory.find(at) else {
                break;
            };
            let rest = usize::try_from(region.end() - at).unwrap_or(usize::MAX);
            let range = done..done + rest.min(length - done);
            let end = range.end;
            if each(&region, at, range).is_err() {
                break;
            }
            done = end;
        }
        done
    }

    /// Stops before the instruction at an address from now on.
    pub fn add_breakpoint(&mut self, address: u64) {
        self.breakpoints.push(address);
    }

    /// Takes a breakpoint away; false when there is none.
    pub fn remove_breakpoint(&mut self, address: u64) -> bool {
        let found = self.breakpoints.iter().position(|&at| at == address);
        if let Some(index) = found {
            self.breakpoints.swap_remove(index);
        }
        found.is_some()
    }

    /// Runs until something stops it, at most `max_instructions`. A breakpoint at the first instruction does not stop it.
    pub fn run(&mut self, max_instructions: u64) -> Stop {
        let mut left = max_instructions;
        if left == 0 {
            return Stop::Limit;
        }
        let around = match (self.breakpoints.iter().min(), self.breakpoints.iter().max()) {
            (Some(&first), Some(&last)) => first..last.saturating_add(1),
            _ => 0..0,
        };
        if around.contains(&self.hart.pc()) {
            // Over the one that it stands at.
            self.watch(0..0);
            if let Some(stop) = self.run_slice(1, &mut left) {
                return stop;
            }
        }
        loop {
            let address = self.hart.pc();
            if self.breakpoints.contains(&address) {
                return Stop::Breakpoint { address };
            }
            if left == 0 {
                return Stop::Limit;
            }
            // From the first breakpoint to the last an instruction at a time; outside, the hart itself notices when it comes there.
            let (window, count) = if around.contains(&address) {
                (0..0, 1)
            } else {
                (around.clone(), SLICE.min(left))
            };
            self.watch(window);
            if let Some(stop) = self.run_slice(count, &mut left) {
                return stop;
            }
        }
    }

    /// Sets the addresses at which the hart stops. It forgets all that it has decoded when they change.
    fn watch(&mut self, window: Range<u64>) {
        if window != self.window {
            self.window = window.clone();
            self.hart.set_native_window(window);
        }
    }

    /// Runs some instructions, and deals with what the board itself can deal with.
    fn run_slice(&mut self, count: u64, left: &mut u64) -> Option<Stop> {
        let before = self.hart.instructions_retired();
        let exit = self.hart.run(count);
        let retired = self.hart.instructions_retired().wrapping_sub(before);
        *left = left.saturating_sub(if exit == Exit::Limit { count } else { retired });
        if retired > 0 {
            self.fruitless = 0;
        }
        match exit {
            Exit::Limit => {
                self.fruitless += count - retired.min(count);
                (retired == 0 && self.fruitless >= LOST).then_some(Stop::Lost)
            }
            Exit::Attention => self.serve_requests(),
            Exit::WaitForInterrupt => self.wait_for_interrupt(),
            Exit::Native { .. } => None,
            // Traps enter machine mode.
            Exit::Trap(_) => Some(Stop::Lost),
        }
    }

    fn serve_requests(&mut self) -> Option<Stop> {
        let Requests {
            power,
            interrupt,
            output,
        } = self.wiring.take_requests();
        if let Some(error) = output {
            return Some(Stop::Output(error));
        }
        match power {
            Some(Power::Reset) => self.reset(),
            Some(power) => return Some(Stop::Finished(power)),
            None => {}
        }
        interrupt.then_some(Stop::Interrupted)
    }

    fn wait_for_interrupt(&mut self) -> Option<Stop> {
        let hart = &self.hart;
        let csr = |number| hart.csr(number).unwrap_or(0);
        let ready = || csr(CSR_MIP) & csr(CSR_MIE) != 0;
        let can_come = csr(CSR_MIE) & TIMER_INTERRUPT != 0 && self.clint.is_armed();
        // The timer raises its line before it says that it is not armed any more.
        if ready() || (can_come && self.wiring.wait(None, ready)) {
            return None;
        }
        // Something was asked for, or nothing can come.
        if can_come || self.hart.attention().is_raised() {
            return self.serve_requests();
        }
        Some(Stop::Halted)
    }

    /// Begins again: the program is loaded again and the hart is as new. The rest of the RAM keeps its contents.
    fn reset(&mut self) {
        self.retired_before_reset += self.hart.instructions_retired();
        self.hart = new_hart(&self.memory, &self.clock, self.options.isa);
        self.window = 0..0;
        self.wiring.connect(&self.hart);
        self.clint.reset();
        self.uart.reset();
        // It could be loaded before, into the same RAM.
        let _ = self.load();
    }

    /// Puts the program and the device tree into the RAM.
    fn load(&self) -> Result<(), BoardError> {
        let failed = |source| BoardError::Memory {
            what: "RAM",
            source,
        };
        let tree = rom::device_tree(self.options.ram)?;
        let at = rom::tree_address(self.ram.end());
        // A program that covers it is more important; so is a RAM that is too small for it.
        let _ = self.ram.write(at, &tree);
        for segment in self.image.segments() {
            self.ram
                .write(segment.begin, &segment.bytes)
                .map_err(failed)?;
            let zeros = [0; 4096];
            let mut at = segment.begin + segment.bytes.len() as u64;
            let end = segment.begin + segment.length;
            while at < end {
                let count = (end - at).min(zeros.len() as u64);
                self.ram
                    .write(at, &zeros[..count as usize])
                    .map_err(failed)?;
                at += count;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Board")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// A hart that is about to execute the code of the reset ROM.
fn new_hart(memory: &Arc<Memory>, clock: &Arc<Clock>, isa: Isa) -> Hart {
    let mut hart = Hart::new(
        Arc::clone(memory),
        Config {
            isa,
            traps: Traps::Machine,
        },
    );
    hart.set_time_source(Arc::clone(clock) as Arc<dyn TimeSource>);
    let pcc: Capability = hart.pcc().with_address(ROM_BASE);
    hart.set_pcc(&pcc);
    hart
}
