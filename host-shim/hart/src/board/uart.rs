// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A 16550A: the console.
//!
//! What is transmitted is written out at once, so the transmitter is always empty. Input comes from whoever has it, on a thread of
//! its own: [`Input::push`] blocks while the receiver is full, and [`Input::wait_until_wanted`] until the program looks for input at
//! all, so that nothing is taken from a terminal that the program does not read.
//!
//! The interrupt output is not connected: the board has no interrupt controller for devices.
//!
//! Lock order: `Uart::registers`, then `Shared::state`.

use std::collections::VecDeque;
use std::fmt;
use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::wiring::Wiring;
use crate::Device;

/// Where the registers are.
pub const UART_BASE: u64 = 0x1000_0000;
/// Bytes of the registers' window.
pub const UART_LENGTH: u64 = 8;

/// Bytes that the receiver holds with its FIFO on.
const FIFO: usize = 16;
/// The divisor after a reset: 9600 baud.
const DIVISOR: [u8; 2] = [0x0c, 0];

/// Line control: the divisor is accessed instead of data and interrupt enable.
const LCR_DIVISOR: u8 = 0x80;
/// Interrupt enable: received data.
const IER_RECEIVED: u8 = 0x01;
/// Interrupt enable: transmitter empty.
const IER_EMPTY: u8 = 0x02;
/// Interrupt enable: line status.
const IER_LINE: u8 = 0x04;
/// FIFO control: FIFOs on.
const FCR_ENABLE: u8 = 0x01;
/// FIFO control: forget what was received.
const FCR_CLEAR_RECEIVER: u8 = 0x02;
/// FIFO control: forget what is to be sent.
const FCR_CLEAR_TRANSMITTER: u8 = 0x04;
/// Interrupt identification: nothing pending.
const IIR_NONE: u8 = 0x01;
/// Interrupt identification: transmitter empty.
const IIR_EMPTY: u8 = 0x02;
/// Interrupt identification: received data.
const IIR_RECEIVED: u8 = 0x04;
/// Interrupt identification: line status.
const IIR_LINE: u8 = 0x06;
/// Interrupt identification: FIFOs on.
const IIR_FIFO: u8 = 0xc0;
/// Line status: data ready.
const LSR_READY: u8 = 0x01;
/// Line status: data was lost.
const LSR_OVERRUN: u8 = 0x02;
/// Line status: transmitter and its holding register are empty.
const LSR_EMPTY: u8 = 0x60;
/// Modem control: what is sent is received.
const MCR_LOOP: u8 = 0x10;
/// Modem control after a reset: the second output.
const MCR_RESET: u8 = 0x08;
/// Modem status: carrier, data set ready, clear to send.
const MSR_CONNECTED: u8 = 0xb0;

/// The registers.
pub(super) struct Uart {
    wiring: Arc<Wiring>,
    registers: Mutex<Registers>,
    input: Input,
}

struct Registers {
    output: Box<dyn Write + Send>,
    /// Set when the program has ended or its output cannot be written any more: what is sent then is dropped.
    closed: bool,
    divisor: [u8; 2],
    interrupt_enable: u8,
    fifo_control: u8,
    line_control: u8,
    modem_control: u8,
    scratch: u8,
    overrun: bool,
    /// The transmitter-empty interrupt is pending until its identification was read.
    empty_pending: bool,
}

/// The way in for the console's input, from any thread.
#[derive(Clone)]
pub struct Input {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<Receiver>,
    changed: Condvar,
}

struct Receiver {
    bytes: VecDeque<u8>,
    /// How many bytes it may hold.
    capacity: usize,
    /// The program has looked for input.
    wanted: bool,
    /// The board is gone.
    ended: bool,
}

impl Input {
    fn new() -> Input {
        Input {
            shared: Arc::new(Shared {
                state: Mutex::new(Receiver {
                    bytes: VecDeque::new(),
                    capacity: 1,
                    wanted: false,
                    ended: false,
                }),
                changed: Condvar::new(),
            }),
        }
    }

    /// Waits until the program looks for input. False when the board is gone.
    pub fn wait_until_wanted(&self) -> bool {
        !self.wait_while(|state| !state.wanted && !state.ended).ended
    }

    /// Gives the program a byte, as soon as there is room for it. False when the board is gone.
    pub fn push(&self, byte: u8) -> bool {
        let mut state =
            self.wait_while(|state| state.bytes.len() >= state.capacity && !state.ended);
        state.bytes.push_back(byte);
        !state.ended
    }

    fn wait_while(&self, condition: impl Fn(&Receiver) -> bool) -> MutexGuard<'_, Receiver> {
        let state = self.lock();
        self.shared
            .changed
            .wait_while(state, |state| condition(state))
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Receiver> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Receiver) -> T) -> T {
        let result = change(&mut self.lock());
        self.shared.changed.notify_all();
        result
    }

    /// Whether there is a byte. The program wants to know, so it wants input.
    fn is_ready(&self) -> bool {
        let mut state = self.lock();
        if !state.wanted {
            state.wanted = true;
            self.shared.changed.notify_all();
        }
        !state.bytes.is_empty()
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input").finish_non_exhaustive()
    }
}

impl Uart {
    pub(super) fn new(wiring: Arc<Wiring>, output: Box<dyn Write + Send>) -> Uart {
        Uart {
            wiring,
            registers: Mutex::new(Registers {
                output,
                closed: false,
                divisor: DIVISOR,
                interrupt_enable: 0,
                fifo_control: 0,
                line_control: 0,
                modem_control: MCR_RESET,
                scratch: 0,
                overrun: false,
                empty_pending: false,
            }),
            input: Input::new(),
        }
    }

    pub(super) fn input(&self) -> Input {
        self.input.clone()
    }

    /// Puts the registers into their reset state.
    pub(super) fn reset(&self) {
        let mut registers = self.lock();
        registers.closed = false;
        registers.divisor = DIVISOR;
        registers.interrupt_enable = 0;
        registers.fifo_control = 0;
        registers.line_control = 0;
        registers.modem_control = MCR_RESET;
        registers.scratch = 0;
        registers.overrun = false;
        registers.empty_pending = false;
        self.input.change(|input| {
            input.bytes.clear();
            input.capacity = 1;
        });
    }

    /// Drops what is sent from now on.
    pub(super) fn close(&self) {
        self.lock().closed = true;
    }

    fn lock(&self) -> MutexGuard<'_, Registers> {
        self.registers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn transmit(&self, registers: &mut Registers, byte: u8) {
        registers.empty_pending = true;
        if registers.modem_control & MCR_LOOP != 0 {
            registers.overrun |= self.input.change(|input| {
                let full = input.bytes.len() >= input.capacity;
                if !full {
                    input.bytes.push_back(byte);
                }
                full
            });
            return;
        }
        if registers.closed {
            return;
        }
        // A byte at a time: what a program has printed is there, whatever becomes of it.
        let written = registers
            .output
            .write_all(&[byte])
            .and_then(|()| registers.output.flush());
        if let Err(error) = written {
            registers.closed = true;
            self.wiring.request(|requests| {
                requests.output.get_or_insert(error);
            });
        }
    }

    fn identify(&self, registers: &mut Registers) -> u8 {
        let enabled = registers.interrupt_enable;
        let pending = if enabled & IER_LINE != 0 && registers.overrun {
            IIR_LINE
        } else if enabled & IER_RECEIVED != 0 && self.input.is_ready() {
            IIR_RECEIVED
        } else if enabled & IER_EMPTY != 0 && registers.empty_pending {
            registers.empty_pending = false;
            IIR_EMPTY
        } else {
            IIR_NONE
        };
        if registers.fifo_control & FCR_ENABLE != 0 {
            pending | IIR_FIFO
        } else {
            pending
        }
    }

    fn control_fifos(&self, registers: &mut Registers, mut value: u8) {
        if (value ^ registers.fifo_control) & FCR_ENABLE != 0 {
            value |= FCR_CLEAR_RECEIVER | FCR_CLEAR_TRANSMITTER;
        }
        if value & FCR_CLEAR_TRANSMITTER != 0 {
            registers.empty_pending = true;
        }
        self.input.change(|input| {
            if value & FCR_CLEAR_RECEIVER != 0 {
                input.bytes.clear();
            }
            input.capacity = if value & FCR_ENABLE != 0 { FIFO } else { 1 };
        });
        registers.fifo_control = value & 0xc9;
    }
}

impl Drop for Uart {
    fn drop(&mut self) {
        self.input.change(|input| input.ended = true);
    }
}

impl Device for Uart {
    fn read(&self, offset: u64, _size: u8) -> u64 {
        let mut registers = self.lock();
        let registers = &mut *registers;
        let divisor = registers.line_control & LCR_DIVISOR != 0;
        let value = match offset {
            0 if divisor => registers.divisor[0],
            0 => {
                let byte = self.input.change(|input| {
                    input.wanted = true;
                    input.bytes.pop_front()
                });
                byte.unwrap_or(0)
            }
            1 if divisor => registers.divisor[1],
            1 => registers.interrupt_enable,
            2 => self.identify(registers),
            3 => registers.line_control,
            4 => registers.modem_control,
            5 => {
                let mut status = LSR_EMPTY;
                if self.input.is_ready() {
                    status |= LSR_READY;
                }
                if std::mem::take(&mut registers.overrun) {
                    status |= LSR_OVERRUN;
                }
                status
            }
            6 if registers.modem_control & MCR_LOOP != 0 => {
                // The outputs are connected to the inputs.
                let control = registers.modem_control;
                (control & 0x0c) << 4 | (control & 0x02) << 3 | (control & 0x01) << 5
            }
            6 => MSR_CONNECTED,
            7 => registers.scratch,
            _ => 0,
        };
        value.into()
    }

    fn write(&self, offset: u64, _size: u8, value: u64) {
        let mut registers = self.lock();
        let registers = &mut *registers;
        let value = value as u8;
        let divisor = registers.line_control & LCR_DIVISOR != 0;
        match offset {
            0 if divisor => registers.divisor[0] = value,
            0 => self.transmit(registers, value),
            1 if divisor => registers.divisor[1] = value,
            1 => {
                let value = value & 0x0f;
                if (value ^ registers.interrupt_enable) & IER_EMPTY != 0 {
                    registers.empty_pending = value & IER_EMPTY != 0;
                }
                registers.interrupt_enable = value;
            }
            2 => self.control_fifos(registers, value),
            3 => registers.line_control = value,
            4 => registers.modem_control = value & 0x1f,
            7 => registers.scratch = value,
            _ => {}
        }
    }
}
