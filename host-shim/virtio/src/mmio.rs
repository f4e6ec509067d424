// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The register window of a virtio device: virtio-mmio, version 2.
//!
//! # Lock order
//!
//! 1. [`MmioTransport`]'s registers
//! 2. whatever the device locks
//!
//! Queue notifications and the interrupt status take no lock here: they come while a device holds its own.
//!
//! # States
//!
//! The device status register moves from 0 to `ACKNOWLEDGE`, `DRIVER`, `FEATURES_OK`, `DRIVER_OK` by the driver adding bits. The device has
//! a session from the write that adds `DRIVER_OK` until 0 is written. Features can be chosen before `FEATURES_OK`, which stays clear when
//! they are not acceptable; queues can be set up before `DRIVER_OK`. Other writes are ignored.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET,
    VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_mmio::*;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;

use crate::device::{Device, Session};
use crate::memory::GuestMemory;
use crate::queue::{QueueSetup, Virtqueue};
use crate::signal::{DriverSignal, InterruptLine};
use crate::warning::WarningLimit;

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VERSION: u32 = 2;
const VENDOR: u32 = u32::from_le_bytes(*b"caps");
/// What a shared memory length or base register reads when there is no such region.
const NO_REGION: u32 = u32::MAX;

const CONFIG: u64 = VIRTIO_MMIO_CONFIG as u64;

/// What the driver has written so far.
struct Registers {
    device_features_sel: u32,
    driver_features_sel: u32,
    driver_features: u64,
    queue_sel: u32,
    queues: Vec<QueueSetup>,
}

impl Registers {
    fn new(sizes: &[u16]) -> Registers {
        Registers {
            device_features_sel: 0,
            driver_features_sel: 0,
            driver_features: 0,
            queue_sel: 0,
            queues: sizes.iter().map(|&size| QueueSetup::new(size)).collect(),
        }
    }

    fn queue(&mut self) -> Option<&mut QueueSetup> {
        self.queues.get_mut(usize::try_from(self.queue_sel).ok()?)
    }
}

/// A device behind its registers. Accesses come from any thread of the guest's. Dropping it ends the device.
pub struct MmioTransport {
    registers: Mutex<Registers>,
    signal: Arc<DriverSignal>,
    memory: GuestMemory,
    device: Box<dyn Device>,
    warnings: WarningLimit,
}

impl MmioTransport {
    /// Puts `device` behind registers. It will use `memory`, and calls `interrupt` to interrupt the guest: from any thread, with locks
    /// held, so that `interrupt` must neither block nor come back to this transport.
    pub fn new(
        device: Box<dyn Device>,
        memory: GuestMemory,
        interrupt: InterruptLine,
    ) -> MmioTransport {
        MmioTransport {
            registers: Mutex::new(Registers::new(device.queue_sizes())),
            signal: Arc::new(DriverSignal::new(interrupt)),
            memory,
            device,
            warnings: WarningLimit::default(),
        }
    }

    /// Reads `size` bytes (1, 2, 4 or 8) at `offset` bytes into the window. Reads as 0 where nothing is, or when a register is not
    /// read as a whole.
    pub fn read(&self, offset: u64, size: u64) -> u64 {
        if offset >= CONFIG {
            return self.read_config(offset - CONFIG, size);
        }
        let (4, Ok(offset)) = (size, u32::try_from(offset)) else {
            return 0;
        };
        u64::from(match offset {
            VIRTIO_MMIO_INTERRUPT_STATUS => self.signal.interrupt_status(),
            VIRTIO_MMIO_STATUS => self.signal.device_status(),
            VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            VIRTIO_MMIO_VERSION => VERSION,
            VIRTIO_MMIO_DEVICE_ID => self.device.device_id(),
            VIRTIO_MMIO_VENDOR_ID => VENDOR,
            VIRTIO_MMIO_DEVICE_FEATURES => {
                half(self.device.features(), self.lock().device_features_sel)
            }
            VIRTIO_MMIO_QUEUE_NUM_MAX => self.lock().queue().map_or(0, |q| q.max_size.into()),
            VIRTIO_MMIO_QUEUE_READY => self.lock().queue().map_or(0, |q| q.ready.into()),
            VIRTIO_MMIO_SHM_LEN_LOW
            | VIRTIO_MMIO_SHM_LEN_HIGH
            | VIRTIO_MMIO_SHM_BASE_LOW
            | VIRTIO_MMIO_SHM_BASE_HIGH => NO_REGION,
            // What changes of a configuration is read by one access, so that nobody needs a generation to tell torn values.
            _ => 0,
        })
    }

    /// Writes the low `size` bytes (1, 2, 4 or 8) of `value` at `offset` bytes into the window. Does nothing where nothing can be
    /// written, or when a register is not written as a whole.
    ///
    /// A notification may carry out requests before this returns, as far as they need not wait for the disk; writing 0 to the
    /// status waits for the request that the device is at.
    pub fn write(&self, offset: u64, size: u64, value: u64) {
        // The upper half of a 4 byte access means nothing.
        let value = value as u32;
        let (4, Ok(offset)) = (size, u32::try_from(offset)) else {
            return;
        };
        match offset {
            VIRTIO_MMIO_QUEUE_NOTIFY => {
                if let (true, Ok(queue)) = (self.signal.is_running(), u16::try_from(value)) {
                    self.device.notify(queue);
                }
            }
            VIRTIO_MMIO_INTERRUPT_ACK => self.signal.acknowledge(value),
            VIRTIO_MMIO_STATUS => self.write_status(value),
            VIRTIO_MMIO_DEVICE_FEATURES_SEL => self.lock().device_features_sel = value,
            VIRTIO_MMIO_DRIVER_FEATURES_SEL => self.lock().driver_features_sel = value,
            VIRTIO_MMIO_DRIVER_FEATURES => self.write_features(value),
            VIRTIO_MMIO_QUEUE_SEL => self.lock().queue_sel = value,
            VIRTIO_MMIO_QUEUE_READY => self.write_ready(value),
            VIRTIO_MMIO_QUEUE_NUM => self.set_up_queue(|q| q.size = value),
            VIRTIO_MMIO_QUEUE_DESC_LOW => self.set_up_queue(|q| set_low(&mut q.descriptors, value)),
            VIRTIO_MMIO_QUEUE_DESC_HIGH => {
                self.set_up_queue(|q| set_high(&mut q.descriptors, value))
            }
            VIRTIO_MMIO_QUEUE_AVAIL_LOW => self.set_up_queue(|q| set_low(&mut q.available, value)),
            VIRTIO_MMIO_QUEUE_AVAIL_HIGH => {
                self.set_up_queue(|q| set_high(&mut q.available, value))
            }
            VIRTIO_MMIO_QUEUE_USED_LOW => self.set_up_queue(|q| set_low(&mut q.used, value)),
            VIRTIO_MMIO_QUEUE_USED_HIGH => self.set_up_queue(|q| set_high(&mut q.used, value)),
            _ => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Registers> {
        // Every update of the registers is complete in itself, so they are usable after a panic.
        self.registers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn read_config(&self, offset: u64, size: u64) -> u64 {
        let mut bytes = [0; 8];
        let (1 | 2 | 4 | 8, Ok(offset), Ok(size)) =
            (size, usize::try_from(offset), usize::try_from(size))
        else {
            return 0;
        };
        let config = self.device.config().iter().skip(offset).take(size);
        for (to, from) in bytes.iter_mut().zip(config) {
            *to = *from;
        }
        u64::from_le_bytes(bytes)
    }

    fn write_features(&self, value: u32) {
        let mut registers = self.lock();
        if self.signal.device_status() & VIRTIO_CONFIG_S_FEATURES_OK != 0 {
            return;
        }
        match registers.driver_features_sel {
            0 => set_low(&mut registers.driver_features, value),
            1 => set_high(&mut registers.driver_features, value),
            _ => {}
        }
    }

    fn set_up_queue(&self, set: impl FnOnce(&mut QueueSetup)) {
        let mut registers = self.lock();
        if self.signal.device_status() & VIRTIO_CONFIG_S_DRIVER_OK != 0 {
            return;
        }
        if let Some(queue) = registers.queue().filter(|q| !q.ready) {
            set(queue);
        }
    }

    fn write_ready(&self, value: u32) {
        let mut registers = self.lock();
        let started = self.signal.device_status() & VIRTIO_CONFIG_S_DRIVER_OK != 0;
        let Some(queue) = registers.queue() else {
            return;
        };
        if value == 0 && queue.ready {
            queue.ready = false;
            if started {
                // Only a reset brings a queue back, so nothing is gained by keeping the other queues going.
                self.device.stop();
                self.signal.needs_reset();
            }
        } else if value == 1 && !started {
            queue.ready = true;
        }
    }

    fn write_status(&self, value: u32) {
        let mut registers = self.lock();
        if value == 0 {
            self.device.stop();
            self.signal.clear();
            *registers = Registers::new(self.device.queue_sizes());
            return;
        }

        let mut add = value & !VIRTIO_CONFIG_S_NEEDS_RESET & !self.signal.device_status();
        if add & VIRTIO_CONFIG_S_FEATURES_OK != 0 && !self.acceptable(registers.driver_features) {
            add &= !VIRTIO_CONFIG_S_FEATURES_OK;
        }
        let starts = add & VIRTIO_CONFIG_S_DRIVER_OK != 0;
        let status = self.signal.add_device_status(add) | add;
        if !starts {
            return;
        }
        if status & VIRTIO_CONFIG_S_FEATURES_OK == 0 {
            tracing::warn!(
                "a virtio driver started its device without agreed features; it has to reset it"
            );
            self.signal.needs_reset();
            return;
        }
        match self.session(&registers) {
            Ok(session) => self.device.start(session),
            Err(error) => self.refuse(&error.to_string()),
        }
    }

    /// The driver cannot have what it wants, for this reason.
    fn refuse(&self, reason: &str) {
        if let Some(suppressed) = self.warnings.admit() {
            tracing::warn!(
                device = self.device.device_id(),
                suppressed,
                "a virtio driver has to reset its device: {reason}"
            );
        }
        self.signal.needs_reset();
    }

    fn acceptable(&self, features: u64) -> bool {
        features & !self.device.features() == 0 && features >> VIRTIO_F_VERSION_1 & 1 == 1
    }

    fn session(&self, registers: &Registers) -> Result<Session, crate::queue::QueueError> {
        let features = registers.driver_features;
        let event_idx = features >> VIRTIO_RING_F_EVENT_IDX & 1 == 1;
        let queues = registers.queues.iter().map(|setup| {
            setup
                .ready
                .then(|| Virtqueue::new(setup, event_idx, self.memory.clone()))
                .transpose()
        });
        Ok(Session {
            features,
            memory: self.memory.clone(),
            queues: queues.collect::<Result<_, _>>()?,
            signal: Arc::clone(&self.signal),
        })
    }
}

impl Drop for MmioTransport {
    fn drop(&mut self) {
        self.device.stop();
    }
}

impl fmt::Debug for MmioTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MmioTransport")
            .field("device_id", &self.device.device_id())
            .field("signal", &self.signal)
            .finish_non_exhaustive()
    }
}

/// The low half of `value` for 0, the high half for 1, else 0.
fn half(value: u64, select: u32) -> u32 {
    match select {
        0 => value as u32,
        1 => (value >> 32) as u32,
        _ => 0,
    }
}

fn set_low(register: &mut u64, value: u32) {
    *register = *register & !u64::from(u32::MAX) | u64::from(value);
}

fn set_high(register: &mut u64, value: u32) {
    *register = *register & u64::from(u32::MAX) | u64::from(value) << 32;
}
