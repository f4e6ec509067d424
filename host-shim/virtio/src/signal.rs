// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How a device reaches its driver: the device status, the interrupt status, and the interrupt line.
//!
//! # Why no interrupt is lost
//!
//! A device first publishes a used buffer, then sets the bit in the interrupt status, then raises the line, and it raises the line
//! whether or not the bit was set already. A driver first reads and acknowledges the interrupt status, then looks at the ring. So
//! a buffer that is published before the acknowledgement is seen by that look; one that is published after it sets
//! the bit and raises the line again. Acknowledging some of several set bits raises the line once more, as it would stay asserted on a
//! machine with level-triggered interrupts.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use virtio_bindings::virtio_config::{VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_NEEDS_RESET};
use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_VRING};

/// Raises the interrupt of one device in its guest. Called from any thread, with locks of the device held: it must neither block nor
/// call into the transport.
pub type InterruptLine = Arc<dyn Fn() + Send + Sync>;

/// What a device and its transport share to reach the driver.
pub struct DriverSignal {
    interrupt_status: AtomicU32,
    device_status: AtomicU32,
    line: InterruptLine,
}

impl DriverSignal {
    /// A signal whose interrupts go to `line`.
    pub(crate) fn new(line: InterruptLine) -> DriverSignal {
        DriverSignal {
            interrupt_status: AtomicU32::new(0),
            device_status: AtomicU32::new(0),
            line,
        }
    }

    /// Tells the driver that there are used buffers which it does not know of yet.
    pub fn used_buffers(&self) {
        self.interrupt_status
            .fetch_or(VIRTIO_MMIO_INT_VRING, Ordering::SeqCst);
        (self.line)();
    }

    /// Tells the driver that the device's configuration space has changed.
    pub fn configuration_changed(&self) {
        if self.is_running() {
            self.interrupt_status
                .fetch_or(VIRTIO_MMIO_INT_CONFIG, Ordering::SeqCst);
            (self.line)();
        }
    }

    /// Tells the driver that the device has met something it cannot go on from, and waits for a reset.
    pub fn needs_reset(&self) {
        let before = self
            .device_status
            .fetch_or(VIRTIO_CONFIG_S_NEEDS_RESET, Ordering::SeqCst);
        if before & VIRTIO_CONFIG_S_NEEDS_RESET == 0 && before & VIRTIO_CONFIG_S_DRIVER_OK != 0 {
            self.interrupt_status
                .fetch_or(VIRTIO_MMIO_INT_CONFIG, Ordering::SeqCst);
            (self.line)();
        }
    }

    pub(crate) fn device_status(&self) -> u32 {
        self.device_status.load(Ordering::SeqCst)
    }

    /// Adds bits to the device status; returns what it was.
    pub(crate) fn add_device_status(&self, bits: u32) -> u32 {
        self.device_status.fetch_or(bits, Ordering::SeqCst)
    }

    /// Whether the driver may use the device's queues: it said so, and the device did not ask for a reset.
    pub(crate) fn is_running(&self) -> bool {
        let mask = VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_NEEDS_RESET;
        self.device_status() & mask == VIRTIO_CONFIG_S_DRIVER_OK
    }

    pub(crate) fn interrupt_status(&self) -> u32 {
        self.interrupt_status.load(Ordering::SeqCst)
    }

    /// The driver has seen these interrupts.
    pub(crate) fn acknowledge(&self, bits: u32) {
        let before = self.interrupt_status.fetch_and(!bits, Ordering::SeqCst);
        if before & bits != 0 && before & !bits != 0 {
            (self.line)();
        }
    }

    /// Back to the state of a device that was just made. The device must have stopped.
    pub(crate) fn clear(&self) {
        self.interrupt_status.store(0, Ordering::SeqCst);
        self.device_status.store(0, Ordering::SeqCst);
    }
}

impl fmt::Debug for DriverSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DriverSignal")
            .field("interrupt_status", &self.interrupt_status)
            .field("device_status", &self.device_status)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal() -> (DriverSignal, impl Fn() -> u32) {
        let raised = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&raised);
        let line = move || {
            raised.fetch_add(1, Ordering::SeqCst);
        };
        let signal = DriverSignal::new(Arc::new(line));
        (signal, move || count.load(Ordering::SeqCst))
    }

    #[test]
    fn every_used_buffer_raises_the_line() {
        let (signal, raised) = signal();
        signal.used_buffers();
        signal.used_buffers();
        assert_eq!((raised(), signal.interrupt_status()), (2, 1));
        signal.acknowledge(1);
        assert_eq!((raised(), signal.interrupt_status()), (2, 0));
    }

    #[test]
    fn the_line_stays_asserted_until_all_is_acknowledged() {
        let (signal, raised) = signal();
        signal.add_device_status(VIRTIO_CONFIG_S_DRIVER_OK);
        signal.used_buffers();
        signal.needs_reset();
        assert_eq!((raised(), signal.interrupt_status()), (2, 3));
        signal.acknowledge(1);
        assert_eq!((raised(), signal.interrupt_status()), (3, 2));
        signal.acknowledge(1);
        assert_eq!(raised(), 3, "nothing was acknowledged");
        signal.acknowledge(2);
        assert_eq!((raised(), signal.interrupt_status()), (3, 0));
    }

    #[test]
    fn a_reset_is_asked_for_once_and_only_of_a_driver_that_listens() {
        let (signal, raised) = signal();
        signal.needs_reset();
        assert_eq!((raised(), signal.device_status()), (0, 64));
        signal.clear();
        signal.add_device_status(VIRTIO_CONFIG_S_DRIVER_OK);
        assert!(signal.is_running());
        signal.needs_reset();
        signal.needs_reset();
        assert_eq!((raised(), signal.device_status()), (1, 68));
        assert!(!signal.is_running());
    }
}
