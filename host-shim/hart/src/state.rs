// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What an instruction can read and change: registers, special registers, and the way to memory.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::attention::Attention;
use crate::control::Control;
use crate::instruction::{Flow, Op, SINK};
use crate::memory::{self, Fault, Map, Memory, Presence, Target, Window, Word};
use crate::trap::{self, Raised, Violation, cause};
use crate::{Capability, Config, Isa, Permissions, Privilege};

/// A load-reserved that a store-conditional may follow.
#[derive(Clone, Copy)]
pub(crate) struct Reservation {
    /// Absolute.
    pub(crate) address: u64,
    /// Bytes.
    pub(crate) size: u64,
    /// What was loaded.
    pub(crate) bits: u128,
    pub(crate) tag: bool,
}

/// A trap was raised; [`State::raised`] has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trapped;

/// Everything of a hart but its decoded blocks.
///
/// # Invariants
///
/// - `x[0]` is 0. Writes to x0 go to `x[SINK]`. Nothing beyond that is used: the arrays are as long as a register number can be large, so
///   that no index needs a check.
/// - `live[n]` says that register n is more than an integer; then `capabilities[n]` has it, with the address that `x[n]` has.
pub(crate) struct State {
    pub(crate) x: [u64; 256],
    live: [bool; 256],
    capabilities: [Capability; 64],
    pub(crate) f: [u64; 32],
    pub(crate) window: Window,

    /// Absolute address of the block that is executed.
    pub(crate) block: u64,
    /// Where a jump goes, absolute.
    pub(crate) target: u64,
    /// How many instructions of its block were executed before and with a jump.
    pub(crate) executed: u64,
    /// What integer PCs lie below absolute ones: PCC's base in the older generation.
    pub(crate) pc_bias: u64,
    /// PCC's base.
    code_begin: u64,
    /// How far from it the last place is where an instruction of 2 bytes fits.
    code_span: u64,
    /// How many bytes from it on may be fetched; 2^64 - 1 if all may.
    code_length: u64,
    pub(crate) older: bool,

    /// Address of the next instruction, absolute, while no block is executed.
    pub(crate) pc: u64,
    /// Its address means nothing.
    pcc: Capability,
    /// Whether instructions may be fetched with it.
    fetchable: bool,
    ddc: Capability,
    /// What integer addresses lie below absolute ones: DDC's address in the older generation.
    ddc_bias: u64,
    /// Special capability registers, except for PCC and DDC.
    pub(crate) special: [Capability; 32],
    pub(crate) config: Config,
    pub(crate) privilege: Privilege,
    pub(crate) control: Control,
    /// Instructions executed before the block that is executed now.
    pub(crate) retired: u64,
    pub(crate) raised: Raised,
    pub(crate) reservation: Option<Reservation>,

    pub(crate) memory: Arc<Memory>,
    map: Arc<Map>,
    presence: Presence,
    /// The generation of memory that `map`, `window` and decoded blocks are of.
    pub(crate) generation: u64,
    pub(crate) attention: Arc<Attention>,
}

impl State {
    pub(crate) fn new(memory: Arc<Memory>, config: Config) -> State {
        let root = Capability::root();
        let mut special = [Capability::null(); 32];
        // Code capabilities of trap vectors and return addresses; the others begin as null.
        for n in [12, 15, 28, 31] {
            special[n] = root;
        }
        let attention = Arc::<Attention>::default();
        let mut state = State {
            x: [0; 256],
            live: [false; 256],
            capabilities: [Capability::null(); 64],
            f: [0; 32],
            window: Window::none(),
            block: 0,
            target: 0,
            executed: 0,
            pc_bias: 0,
            code_begin: 0,
            code_span: 0,
            code_length: 0,
            older: config.isa == Isa::V8,
            pc: 0,
            pcc: root,
            fetchable: false,
            ddc: root,
            ddc_bias: 0,
            special,
            config,
            privilege: Privilege::Machine,
            control: Control::new(config),
            retired: 0,
            raised: Raised::default(),
            reservation: None,
            map: memory.map(),
            presence: memory.join(Arc::clone(&attention)),
            generation: 0,
            memory,
            attention,
        };
        state.set_pcc(&root);
        state.set_ddc(&root);
        state
    }

    // Registers.

    /// Writes an integer register, which makes it an integer.
    #[inline(always)]
    pub(crate) fn set_x(&mut self, n: u8, value: u64) {
        self.x[usize::from(n)] = value;
        self.live[usize::from(n)] = false;
    }

    #[inline(always)]
    pub(crate) fn get_x(&self, n: u8) -> u64 {
        self.x[usize::from(n)]
    }

    #[inline]
    pub(crate) fn capability(&self, n: u8) -> Capability {
        if self.live[usize::from(n)] {
            self.capabilities[usize::from(n % 64)]
        } else {
            Capability::from_address(self.x[usize::from(n)])
        }
    }

    #[inline]
    pub(crate) fn set_capability(&mut self, n: u8, capability: Capability) {
        self.x[usize::from(n)] = capability.address();
        self.live[usize::from(n)] = true;
        self.capabilities[usize::from(n % 64)] = capability;
    }

    /// A capability register, or DDC for c0, and what a violation calls it.
    pub(crate) fn capability_or_ddc(&self, n: u8) -> (Capability, u8) {
        if n == 0 {
            (self.ddc, trap::DDC)
        } else {
            (self.capability(n), n)
        }
    }

    // PCC and DDC.

    /// PCC with an absolute address.
    pub(crate) fn pcc_at(&self, address: u64) -> Capability {
        self.pcc.at(address)
    }

    /// Sets PCC, and the address of the next instruction to its address.
    pub(crate) fn set_pcc(&mut self, pcc: &Capability) {
        self.pcc = *pcc;
        self.pc = pcc.address();
        self.fetchable = pcc.tag() && !pcc.is_sealed() && pcc.permits(Permissions::EXECUTE.bits());
        self.pc_bias = if self.older { pcc.base() } else { 0 };
        self.code_begin = pcc.base();
        self.code_span = u64::try_from(pcc.length().saturating_sub(2)).unwrap_or(u64::MAX);
        self.code_length = if self.fetchable {
            u64::try_from(pcc.length()).unwrap_or(u64::MAX)
        } else {
            0
        };
    }

    pub(crate) fn capability_mode(&self) -> bool {
        self.pcc.flag()
    }

    pub(crate) fn may_access_system_registers(&self) -> bool {
        self.pcc
            .permits(Permissions::ACCESS_SYSTEM_REGISTERS.bits())
    }

    /// How many bytes PCC allows to be fetched at an absolute address.
    #[inline(always)]
    pub(crate) fn fetchable_bytes(&self, address: u64) -> u64 {
        self.code_length
            .saturating_sub(address.wrapping_sub(self.code_begin))
    }

    /// Why nothing can be fetched with PCC.
    pub(crate) fn fetch_violation(&self) -> Violation {
        if !self.pcc.tag() {
            Violation::Tag
        } else if self.pcc.is_sealed() {
            Violation::Seal
        } else if !self.pcc.permits(Permissions::EXECUTE.bits()) {
            Violation::Execute
        } else {
            Violation::Length
        }
    }

    pub(crate) fn ddc(&self) -> Capability {
        self.ddc
    }

    pub(crate) fn set_ddc(&mut self, ddc: &Capability) {
        self.ddc = *ddc;
        self.ddc_bias = if self.older { ddc.address() } else { 0 };
        let region = self.window.region().cloned();
        self.window = match region {
            Some(region) => Window::new(region, &self.ddc, self.ddc_bias),
            None => Window::none(),
        };
    }

    // Control flow. `op` is the instruction that is executed.

    /// The absolute address of the instruction.
    #[inline(always)]
    pub(crate) fn here(&self, op: &Op) -> u64 {
        self.block.wrapping_add(u64::from(op.offset))
    }

    /// The absolute address of the instruction after it.
    #[inline(always)]
    pub(crate) fn after(&self, op: &Op) -> u64 {
        self.block.wrapping_add(op.end())
    }

    /// Jumps within PCC to an absolute address.
    #[inline(always)]
    pub(crate) fn jump(&mut self, op: &Op, target: u64) -> Flow {
        if !self.is_code(target) {
            return self.leave_code(op, target);
        }
        self.target = target;
        self.executed = u64::from(op.index) + 1;
        Flow::Jump
    }

    /// Whether an instruction of 2 bytes fits into PCC's bounds at an absolute address.
    #[inline(always)]
    pub(crate) fn is_code(&self, target: u64) -> bool {
        target.wrapping_sub(self.code_begin) <= self.code_span
    }

    #[cold]
    pub(crate) fn leave_code(&mut self, op: &Op, target: u64) -> Flow {
        self.violation_at(op, Violation::Length, trap::PCC, target)
    }

    /// Ends the block after this instruction, as `flow` says.
    pub(crate) fn end(&mut self, op: &Op, flow: Flow) -> Flow {
        self.target = self.after(op);
        self.executed = u64::from(op.index) + 1;
        flow
    }

    #[cold]
    pub(crate) fn raise(&mut self, op: &Op, cause: u64, tval: u64, address: u64) -> Flow {
        self.raised = Raised {
            cause,
            tval,
            address,
            offset: u64::from(op.offset),
            index: u64::from(op.index),
        };
        Flow::Trap
    }

    #[cold]
    pub(crate) fn violation_at(
        &mut self,
        op: &Op,
        violation: Violation,
        register: u8,
        address: u64,
    ) -> Flow {
        self.raise(op, cause::CHERI, violation.tval(register), address)
    }

    #[cold]
    pub(crate) fn violation(&mut self, op: &Op, violation: Violation, register: u8) -> Flow {
        self.violation_at(op, violation, register, 0)
    }

    #[cold]
    pub(crate) fn illegal(&mut self, op: &Op) -> Flow {
        self.raise(op, cause::ILLEGAL_INSTRUCTION, u64::from(op.extra), 0)
    }

    // Memory.

    /// The hart begins to run, or looks again at what memory looks like.
    pub(crate) fn enter_memory(&mut self) {
        let generation = self.memory.enter(&self.presence);
        if generation != self.generation {
            self.generation = generation;
            self.map = self.memory.map();
            self.window = Window::none();
        }
    }

    /// The hart stops running.
    pub(crate) fn leave_memory(&self) {
        self.presence.leave();
    }

    /// The absolute address of an integer address, and the authority that it needs.
    pub(crate) fn through_ddc(&self, address: u64) -> (u64, Capability, u8) {
        (address.wrapping_add(self.ddc_bias), self.ddc, trap::DDC)
    }

    /// Checks an authority as the ISA orders it; `register` is what a violation calls it.
    #[inline]
    pub(crate) fn authorize(
        &mut self,
        op: &Op,
        authority: &Capability,
        register: u8,
        address: u64,
        size: u64,
        needs: Permissions,
    ) -> Result<(), Trapped> {
        if authority.tag()
            && !authority.is_sealed()
            && authority.permits(needs.bits())
            && authority.contains(address, size)
        {
            return Ok(());
        }
        self.refuse(op, authority, register, address, size, needs)
    }

    #[cold]
    fn refuse(
        &mut self,
        op: &Op,
        authority: &Capability,
        register: u8,
        address: u64,
        size: u64,
        needs: Permissions,
    ) -> Result<(), Trapped> {
        let lacks = |permission: Permissions| {
            needs.contains(permission) && !authority.permits(permission.bits())
        };
        let outside = !authority.contains(address, size);
        // The older generation looks at the bounds of an atomic operation's load before it comes to the store.
        let load_first = self.older && needs.contains(Permissions::LOAD) && outside;
        let violation = if !authority.tag() {
            Violation::Tag
        } else if authority.is_sealed() {
            Violation::Seal
        } else if lacks(Permissions::LOAD) {
            Violation::Load
        } else if load_first {
            Violation::Length
        } else if lacks(Permissions::LOAD_CAP) {
            Violation::LoadCapability
        } else if lacks(Permissions::STORE) {
            Violation::Store
        } else if lacks(Permissions::STORE_CAP) {
            Violation::StoreCapability
        } else if lacks(Permissions::STORE_LOCAL_CAP) {
            Violation::StoreLocalCapability
        } else {
            Violation::Length
        };
        let _ = self.violation_at(op, violation, register, address);
        Err(Trapped)
    }

    #[cold]
    fn fault(&mut self, op: &Op, fault: Fault, address: u64, store: bool) -> Trapped {
        let cause = match (fault, store) {
            (Fault::Access, false) => cause::LOAD_ACCESS,
            (Fault::Access, true) => cause::STORE_ACCESS,
            (Fault::Page, false) => cause::LOAD_PAGE,
            (Fault::Page, true) => cause::STORE_PAGE,
            (Fault::Capability | Fault::Promote, false) => cause::LOAD_CAPABILITY_PAGE,
            (Fault::Capability | Fault::Promote, true) => cause::STORE_CAPABILITY_PAGE,
        };
        let _ = self.raise(op, cause, address, address);
        Trapped
    }

    #[cold]
    fn misaligned(&mut self, op: &Op, address: u64, store: bool) -> Trapped {
        let cause = if store {
            cause::STORE_MISALIGNED
        } else {
            cause::LOAD_MISALIGNED
        };
        let _ = self.raise(op, cause, address, address);
        Trapped
    }

    /// Fails unless an absolute address is a multiple of `size`.
    pub(crate) fn align(
        &mut self,
        op: &Op,
        address: u64,
        size: u64,
        store: bool,
    ) -> Result<(), Trapped> {
        if address.is_multiple_of(size) {
            Ok(())
        } else {
            Err(self.misaligned(op, address, store))
        }
    }

    /// Remembers the region of an access, for the next one.
    fn remember(&mut self, region: &Arc<memory::Region>) {
        let same = self
            .window
            .region()
            .is_some_and(|now| Arc::ptr_eq(now, region));
        if !same {
            self.window = Window::new(Arc::clone(region), &self.ddc, self.ddc_bias);
        }
    }

    /// Runs something on the region of an absolute address. Devices are not regions.
    pub(crate) fn with_region<R>(
        &mut self,
        op: &Op,
        address: u64,
        store: bool,
        run: impl Fn(&memory::Region) -> Result<R, Fault>,
    ) -> Result<R, Trapped> {
        loop {
            let result = match self.window.region_of(address) {
                Some(region) => run(region),
                None => {
                    let map = Arc::clone(&self.map);
                    match memory::lookup(&map, address).map(|slot| &slot.target) {
                        Some(Target::Region(region)) => {
                            self.remember(region);
                            run(region)
                        }
                        _ => Err(Fault::Access),
                    }
                }
            };
            match result {
                Ok(value) => return Ok(value),
                Err(Fault::Promote) => self.promote(address),
                Err(fault) => return Err(self.fault(op, fault, address, store)),
            }
        }
    }

    /// Settles a page. The hart counts as not running meanwhile, so that it does not wait for itself.
    #[cold]
    fn promote(&mut self, address: u64) {
        if let Some(region) = self.region(address).cloned() {
            self.presence.leave();
            region.promote(address);
            self.enter_memory();
        }
    }

    /// The region of an absolute address.
    pub(crate) fn region(&self, address: u64) -> Option<&Arc<memory::Region>> {
        match &memory::lookup(&self.map, address)?.target {
            Target::Region(region) => Some(region),
            Target::Device(_) => None,
        }
    }

    /// Loads from an absolute address whose authority was checked.
    #[inline(never)]
    pub(crate) fn load_at<W: Word>(&mut self, op: &Op, address: u64) -> Result<W, Trapped> {
        if let Some(region) = self.window.region_of(address)
            && let Ok(value) = region.load::<W>(address)
        {
            return Ok(value);
        }
        let map = Arc::clone(&self.map);
        let Some(slot) = memory::lookup(&map, address) else {
            return Err(self.fault(op, Fault::Access, address, false));
        };
        let offset = address - slot.begin;
        let result = match &slot.target {
            Target::Region(region) => {
                self.remember(region);
                match region.load::<W>(address) {
                    Err(Fault::Access) => self.load_bytes::<W>(&map, address),
                    result => result,
                }
            }
            Target::Device(device) => {
                if !offset.is_multiple_of(W::SIZE) {
                    return Err(self.misaligned(op, address, false));
                }
                if slot.length - offset < W::SIZE {
                    Err(Fault::Access)
                } else {
                    self.presence.leave();
                    let value = device.read(offset, W::SIZE as u8);
                    self.enter_memory();
                    Ok(W::from_u64(value))
                }
            }
        };
        result.map_err(|fault| self.fault(op, fault, address, false))
    }

    /// A load that leaves one region for the next.
    fn load_bytes<W: Word>(&self, map: &Map, address: u64) -> Result<W, Fault> {
        let mut value = 0;
        for n in 0..W::SIZE {
            let at = address.wrapping_add(n);
            match memory::lookup(map, at).map(|slot| &slot.target) {
                Some(Target::Region(region)) => {
                    value |= u64::from(region.load::<u8>(at)?) << (8 * n);
                }
                _ => return Err(Fault::Access),
            }
        }
        Ok(W::from_u64(value))
    }

    /// Stores to an absolute address whose authority was checked.
    #[inline(never)]
    pub(crate) fn store_at<W: Word>(
        &mut self,
        op: &Op,
        address: u64,
        value: W,
    ) -> Result<(), Trapped> {
        if let Some(region) = self.window.region_of(address)
            && region.store::<W>(address, value).is_ok()
        {
            return Ok(());
        }
        let map = Arc::clone(&self.map);
        let Some(slot) = memory::lookup(&map, address) else {
            return Err(self.fault(op, Fault::Access, address, true));
        };
        let offset = address - slot.begin;
        let result = match &slot.target {
            Target::Region(region) => {
                self.remember(region);
                match region.store::<W>(address, value) {
                    Err(Fault::Access) => self.store_bytes::<W>(&map, address, value),
                    result => result,
                }
            }
            Target::Device(device) => {
                if !offset.is_multiple_of(W::SIZE) {
                    return Err(self.misaligned(op, address, true));
                }
                if slot.length - offset < W::SIZE {
                    Err(Fault::Access)
                } else {
                    self.presence.leave();
                    device.write(offset, W::SIZE as u8, value.to_u64());
                    self.enter_memory();
                    Ok(())
                }
            }
        };
        result.map_err(|fault| self.fault(op, fault, address, true))
    }

    /// A store that leaves one region for the next.
    fn store_bytes<W: Word>(&self, map: &Map, address: u64, value: W) -> Result<(), Fault> {
        // Pages do not change within a block, so that what is allowed for every byte now stays so.
        let mut regions: [Option<&Arc<memory::Region>>; 8] = [None; 8];
        for n in 0..W::SIZE {
            let at = address.wrapping_add(n);
            match memory::lookup(map, at).map(|slot| &slot.target) {
                Some(Target::Region(region)) => {
                    region.check_store(at)?;
                    regions[n as usize] = Some(region);
                }
                _ => return Err(Fault::Access),
            }
        }
        for n in 0..W::SIZE {
            if let Some(region) = regions[n as usize] {
                region.store::<u8>(address.wrapping_add(n), (value.to_u64() >> (8 * n)) as u8)?;
            }
        }
        Ok(())
    }

    /// Loads from an integer address that the window does not cover.
    #[cold]
    #[inline(never)]
    pub(crate) fn load_integer<W: Word>(&mut self, op: &Op, address: u64) -> Result<W, Trapped> {
        let (address, ddc, register) = self.through_ddc(address);
        self.authorize(op, &ddc, register, address, W::SIZE, Permissions::LOAD)?;
        self.load_at(op, address)
    }

    /// Stores to an integer address that the window does not cover.
    #[cold]
    #[inline(never)]
    pub(crate) fn store_integer<W: Word>(
        &mut self,
        op: &Op,
        address: u64,
        value: W,
    ) -> Result<(), Trapped> {
        let (address, ddc, register) = self.through_ddc(address);
        self.authorize(op, &ddc, register, address, W::SIZE, Permissions::STORE)?;
        self.store_at(op, address, value)
    }

    /// Loads `offset` bytes from the address of a capability register.
    #[inline]
    pub(crate) fn load_through<W: Word>(
        &mut self,
        op: &Op,
        register: u8,
        offset: u64,
    ) -> Result<W, Trapped> {
        let authority = self.capability(register);
        let address = authority.address().wrapping_add(offset);
        self.authorize(
            op,
            &authority,
            register,
            address,
            W::SIZE,
            Permissions::LOAD,
        )?;
        match self.window.load_checked::<W>(address) {
            Some(value) => Ok(value),
            None => self.load_at(op, address),
        }
    }

    /// Stores `offset` bytes from the address of a capability register.
    #[inline]
    pub(crate) fn store_through<W: Word>(
        &mut self,
        op: &Op,
        register: u8,
        offset: u64,
        value: W,
    ) -> Result<(), Trapped> {
        let authority = self.capability(register);
        let address = authority.address().wrapping_add(offset);
        self.authorize(
            op,
            &authority,
            register,
            address,
            W::SIZE,
            Permissions::STORE,
        )?;
        if self.window.store_checked::<W>(address, value) {
            return Ok(());
        }
        self.store_at(op, address, value)
    }

    /// Instructions executed before this one.
    pub(crate) fn retired_before(&self, op: &Op) -> u64 {
        self.retired.wrapping_add(u64::from(op.index))
    }

    /// Interrupt lines as `mip` shows them.
    pub(crate) fn pending_lines(&self) -> u64 {
        self.attention.lines.load(Ordering::SeqCst)
    }
}

/// A register number of the interface, if there is such a register.
pub(crate) fn register(n: usize) -> Option<u8> {
    (n < usize::from(SINK)).then_some(n as u8)
}
